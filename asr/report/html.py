"""HTML as values: whatever is not already `Html` is escaped when it becomes part of some."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable

VOID = frozenset({"meta", "img"})
# Half characters cannot be written as UTF-8, and control characters are not allowed in HTML.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

Child = str | Iterable["Child"] | None
Attribute = str | float | bool | None


class Html(str):
    """Markup; a plain ``str`` is text."""


def text(value: str) -> Html:
    """Text, escaped for the inside of an element or of a quoted attribute."""
    return Html(html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value)))


def el(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """An element. Attributes: ``class_`` is class, ``data_tip`` is data-tip; None leaves out."""
    shown = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_value(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{shown}>" if name in VOID else f"<{name}{shown}>{join(children)}</{name}>")


def join(children: Child) -> Html:
    """Children one after another."""
    if children is None:
        return Html()
    if isinstance(children, str):
        return children if isinstance(children, Html) else text(children)
    return Html("".join(map(join, children)))


def data_uri(kind: str, content: bytes) -> str:
    """The content as an address, such as that of an image."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _value(value: str | float) -> str:
    # A tenth of a pixel is more than a screen shows.
    return f"{value:.4g}" if isinstance(value, float) else text(str(value))
