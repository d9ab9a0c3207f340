"""What a page asks of its conversation beside the audio: JSON, over either transport."""

from __future__ import annotations

import json
from typing import Any

from app.errors import InvalidRequest
from app.talk.budget import as_csv, table
from app.talk.conversation import Conversation, Tell


def obey(text: str, conversation: Conversation, tell: Tell) -> None:
    """`hang_up` ends the conversation; `export` tells every turn's budget, as `csv` or as `json`.

    Anything else is answered by an `error`, and the conversation goes on.
    """
    try:
        _obey(text, conversation, tell)
    except InvalidRequest as error:
        tell({"type": "error", **error.to_wire()})


def _obey(text: str, conversation: Conversation, tell: Tell) -> None:
    try:
        command: Any = json.loads(text)
        name = command["type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidRequest("a message is JSON with a `type`: hang_up or export") from None
    if name == "hang_up":
        conversation.hang_up()
    elif name == "export":
        tell({"type": "export", **_export(conversation, command.get("format", "json"))})
    else:
        raise InvalidRequest(f"there is no message of type {name!r}; there are hang_up and export", param="type")


def _export(conversation: Conversation, format: str) -> dict[str, Any]:
    if format == "csv":
        return {"format": "csv", "text": as_csv(conversation.budgets)}
    turns = [it.row() for it in conversation.budgets]
    return {"format": "json", "text": json.dumps({"turns": turns, "table": table(conversation.budgets)}, indent=2)}
