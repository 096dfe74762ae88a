"""Right calls of optimisers."""

CALLS = {}

LEFT_OUT: dict[str, str] = {}
