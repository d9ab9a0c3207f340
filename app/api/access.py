"""Who may ask for what: the API key of a request, and the scope that a route requires."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from app.api.services import Services, TheServices
from app.errors import AuthenticationFailed, PermissionDenied
from app.platform.api_keys import ApiKey
from app.platform.lanes import CALLER
from app.speech.choices import Scope


async def admit(services: Services, token: str | None, scope: Scope) -> ApiKey | None:
    """The key of `token`, or None where keys are not asked for.

    Raises AuthenticationFailed or PermissionDenied unless it is a key with `scope`.
    """
    if not services.settings.auth:
        return None
    if not token:
        raise AuthenticationFailed(
            "there is no API key; send `Authorization: Bearer <key>` (`carillon keys create` makes one)"
        )
    key = await services.catalog.keys.authenticate(token)
    CALLER.set(key.id)
    if not key.allows(scope):
        raise PermissionDenied(
            f"this key lacks the scope {scope.value!r}; it has: {', '.join(sorted(key.scopes)) or 'none'}"
        )
    return key


def bearer_token(connection: HTTPConnection) -> str | None:
    """The key of an `Authorization: Bearer …` header, if there is one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def requires(
    scope: Scope, token_of: Callable[[HTTPConnection], str | None] = bearer_token
) -> Callable[..., Coroutine[Any, Any, ApiKey | None]]:
    """A dependency that lets only keys with `scope` pass, and says which it was; None where keys are not asked for.

    `token_of` finds the key in a request where a dialect has another place for it.
    """

    async def admitted(connection: HTTPConnection, services: TheServices) -> ApiKey | None:
        return await admit(services, token_of(connection), scope)

    return admitted


async def may_list(connection: HTTPConnection, services: TheServices) -> None:
    """A dependency of listings that existing clients fetch without a key; `openai.open_listings` decides."""
    if not services.settings.openai.open_listings:
        await admit(services, bearer_token(connection), Scope.SPEAK)


Admin = Annotated[ApiKey | None, Depends(requires(Scope.ADMIN))]
Cloner = Annotated[ApiKey | None, Depends(requires(Scope.CLONE))]
Narrator = Annotated[ApiKey | None, Depends(requires(Scope.NARRATE))]
