"""Right calls of text."""

CALLS = {}

LEFT_OUT: dict[str, str] = {}
