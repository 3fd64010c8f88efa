"""Any text, as reports can hold it: XML without characters that XML does not allow."""

from __future__ import annotations

import re
from xml.sax import saxutils

# Everything outside of https://www.w3.org/TR/xml/#charsets, lone surrogates too.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def escape(text: str) -> str:
    """Escape text between tags. The replacement character U+FFFD stands for what XML forbids."""
    return saxutils.escape(_NOT_XML.sub("\ufffd", text))


def quote(text: str) -> str:
    """Escape the value of an attribute and put it into quotes."""
    return saxutils.quoteattr(_NOT_XML.sub("\ufffd", text))


def shorten(text: str, characters: int) -> str:
    """The text, or its beginning with an ellipsis where it is longer."""
    return text if len(text) <= characters else text[: characters - 1] + "…"
