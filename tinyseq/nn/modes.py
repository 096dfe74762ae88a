"""How layers, training steps and text generators run: the one vocabulary of modes."""

from __future__ import annotations

from typing import Annotated

from tinyseq.arguments import one_of

MODES = ("auto", "unroll", "compiled")
Mode = Annotated[str, one_of(*MODES)]


def mode_of(mode: str | None) -> str:
    """The mode by its name, ``"auto"`` for `None`. Raises `ValueError` for an unknown one.

    ``"unroll"`` runs what is written, step by step; ``"compiled"`` runs what was compiled or
    recorded from it, and raises `CompileError` where there is no such thing; ``"auto"`` compiles
    where that can be done and pays, and says once, with the reason, where it cannot.
    """
    if mode is not None and mode not in MODES:
        raise ValueError(f"mode={mode!r} is unknown. Use 'auto', 'unroll' or 'compiled'.")
    return mode or "auto"
