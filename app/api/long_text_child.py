"""Takes the long text out of a JSON body; run by `app.api.long_texts` in a sandbox, never imported into a server.

    {"source": …, "field": …, "target": …} -> {"rest": {…}, "found": true}

A parser holds the interpreter for as long as it works: 20 ms for a megabyte of text. In a process of its own it holds
no loop. The text is written to `target` as UTF-8; `rest` is the value without it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.platform.sandbox_child import Fault, main


def lift(request: dict[str, Any]) -> dict[str, Any]:
    """Write the text; returns what else the body has. Raises Fault."""
    try:
        value = json.loads(Path(request["source"]).read_bytes())
    except (ValueError, RecursionError):
        raise Fault("body: this is no JSON") from None
    if not isinstance(value, dict):
        raise Fault("body: it must be an object, with its fields in braces")
    field = request["field"]
    text = value.get(field)
    if not isinstance(text, str):
        return {"rest": value, "found": False}
    del value[field]
    try:
        Path(request["target"]).write_bytes(text.encode())
    except UnicodeEncodeError:
        raise Fault(f"{field}: it holds half of a surrogate pair, which is no character; leave it out") from None
    return {"rest": value, "found": True}


if __name__ == "__main__":
    main(lift, out_of_memory="body: it needs more memory to be read than any text does; send it as a file")
