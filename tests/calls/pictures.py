"""Right calls of pictures."""

CALLS = {}

LEFT_OUT: dict[str, str] = {}
