"""The emotion tags that the stand-in knows."""

from __future__ import annotations

TAGS = ("<laugh>", "<chuckle>", "<sigh>", "<cough>", "<sniffle>", "<groan>", "<yawn>", "<gasp>")
