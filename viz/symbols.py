"""Symbols of a text so that each can be seen: white space and control characters get a sign."""

from __future__ import annotations

_SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\x7f": "␡", "\u00a0": "⍽"}


def visible(symbol: str) -> str:
    """White space and control characters as signs; what is no character as its code."""
    return "".join(map(_visible, symbol))


def _visible(c: str) -> str:
    if c in _SIGNS:
        return _SIGNS[c]
    if c < " ":
        return chr(0x2400 + ord(c))  # Unicode has a picture for each control character
    return c if c.isprintable() else f"‹{ord(c):04X}›"
