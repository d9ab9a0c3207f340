"""Authentication and authorisation: the API key of a request, and the scope that a route requires."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from app.api.services import Services, TheServices, TokenOf, bearer_token
from app.errors import AuthenticationFailed, PermissionDenied
from app.platform.api_keys import ApiKey
from app.platform.lanes import CALLER
from app.speech.choices import Scope


async def admit(services: Services, token: str | None, scope: Scope) -> ApiKey | None:
    """The key of `token`, or None where authentication is off; `services` are bound to its holder from now on.

    Raises AuthenticationFailed or PermissionDenied unless it is a key with `scope`.
    """
    if not services.settings.auth:
        return None
    if not token:
        raise AuthenticationFailed(
            "there is no API key; send `Authorization: Bearer <key>` (`carillon keys create` makes one)"
        )
    key = await services.keys.authenticate(token)
    CALLER.set(key.id)
    if not key.allows(scope):
        raise PermissionDenied(
            f"this key lacks the scope {scope.value!r}; it has: {', '.join(sorted(key.scopes)) or 'none'}"
        )
    return key


def requires(scope: Scope, token_of: TokenOf = bearer_token) -> Callable[..., Coroutine[Any, Any, ApiKey | None]]:
    """A dependency that lets only keys with `scope` pass, and says which it was; None where authentication is off.

    `token_of` finds the key in a request where a dialect has another place for it.
    """

    async def admitted(connection: HTTPConnection, services: TheServices) -> ApiKey | None:
        return await _counted(services, token_of(connection), scope)

    return admitted


def is_operator(key: ApiKey | None) -> bool:
    """Whether a request is the operator's: its key has `admin`, or authentication is off."""
    return key is None or key.allows(Scope.ADMIN)


async def may_list(connection: HTTPConnection, services: TheServices) -> None:
    """A dependency of listings that existing clients fetch without a key; `openai.open_listings` decides."""
    if not services.settings.openai.open_listings:
        await _counted(services, bearer_token(connection), Scope.SPEAK)


async def _counted(services: Services, token: str | None, scope: Scope) -> ApiKey | None:
    """As `admit`, of a request that counts against its key's limits. Raises RateLimited."""
    key = await admit(services, token, scope)
    await services.metering.of(key).request()
    return key


__all__ = ["Admin", "Cloner", "Manager", "Narrator", "admit", "bearer_token", "is_operator", "may_list", "requires"]

Admin = Annotated[ApiKey | None, Depends(requires(Scope.ADMIN))]
Cloner = Annotated[ApiKey | None, Depends(requires(Scope.CLONE))]
Manager = Annotated[ApiKey | None, Depends(requires(Scope.MANAGE))]
Narrator = Annotated[ApiKey | None, Depends(requires(Scope.NARRATE))]
