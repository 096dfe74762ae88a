"""Restoring a state: everything in it is looked at before anything is written.

Modules and optimisers keep what they hold in arrays under names. Another state may take its place
when it has the same names and shapes, and numbers that the dtypes here can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tinyseq import errors
from tinyseq.tensor import Tensor, plain_array


def read(
    mine: Mapping[str, np.ndarray],
    given: Mapping[str, Any],
    owner: str,
    remedy: str,
    rules: Callable[[str, np.ndarray], str | None] = lambda name, array: None,
) -> dict[str, np.ndarray]:
    """Copies of the entries that are given, in the dtypes of mine.

    ``rules`` say what is wrong with the values of an entry, by its name. Raises `ValueError` that
    lists whatever keeps the state from fitting its owner: missing, unknown and misshapen entries,
    numbers that the dtype here cannot hold, and what the rules say.
    """
    wrong: list[str] = []
    arrays: dict[str, np.ndarray] = {}
    for name, value in given.items():
        try:
            arrays[name] = value._data if isinstance(value, Tensor) else plain_array(value)
        except (TypeError, ValueError) as error:  # masked, or lists of unequal lengths
            wrong.append(f"{name}: {error}")
    expected = {name: a for name, a in mine.items() if name in arrays or name not in given}
    wrong += errors.misfits(expected, arrays)
    out: dict[str, np.ndarray] = {}
    for name, like in expected.items():
        if name in arrays and arrays[name].shape == like.shape:
            out[name], reason = _cast(arrays[name], like.dtype)
            if reason := f"{name} {reason}" if reason else rules(name, out[name]):
                wrong.append(reason.rstrip("."))
    if wrong:
        raise ValueError(f"this state does not fit {owner}: {'; '.join(wrong)}. {remedy}")
    return out


def _cast(array: np.ndarray, dtype: np.dtype[Any]) -> tuple[np.ndarray, str | None]:
    """A copy in another dtype; and what it would lose, beyond the rounding of floats."""
    if array.dtype.kind not in "fiub":
        return array, f"holds {array.dtype}, not numbers"
    with np.errstate(over="ignore", invalid="ignore"):
        new = array.astype(dtype)
    lost = np.isfinite(array) & ~np.isfinite(new) if dtype.kind == "f" else new != array
    if lost.any():
        return new, f"holds {array[lost][0]}, which {dtype} cannot"
    return new, None


def write(pairs: Iterable[tuple[Tensor, np.ndarray]]) -> None:
    """Put each array in the place of its tensor's contents."""
    for t, array in pairs:
        if t._data.flags.writeable:
            t._data[...] = array
            t.changed()
        else:  # a constant that an op made without a copy
            t.replace(array)
