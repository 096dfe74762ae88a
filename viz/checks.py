"""What the functions of viz are given: errors that name the argument, its sizes and the remedy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinyseq.errors import DtypeError, ShapeError, describe
from tinyseq.tensor import Tensor


def as_input(x: Any) -> Tensor | np.ndarray:
    """x as numbers. Raises `DtypeError` for text, `ValueError` for rows of different lengths."""
    if isinstance(x, Tensor):
        return x
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"x is no array: {error}. Pad sequences of different lengths (text.padded)."
        ) from error
    if array.dtype.kind not in "biuf":
        raise DtypeError(
            f"x holds no numbers, its dtype is {array.dtype}. Turn symbols into numbers first: "
            "x=vocabulary.encode(text)[:, None]."
        )
    return array


def as_sequence(x: Any) -> Any:
    """Whole numbers (T,) as a batch of one, (T, 1); all else as it is."""
    x = as_input(x)
    if x.ndim == 1 and x.dtype.kind in "iu":
        return x[:, None]
    return x


@contextmanager
def running(module: Any, x: Any, made_up: bool = False) -> Iterator[None]:
    """Around a module that runs on x: where the two do not go together, the error names x."""
    try:
        yield
    except (DtypeError, ShapeError) as error:
        what = "a made-up x" if made_up else "x"
        remedy = ""
        if made_up:
            remedy = " Pass what it takes as x=..., symbols as whole numbers (T, B)."
        elif x.dtype.kind in "iu" and x.ndim < 3 and isinstance(error, ShapeError):
            remedy = (
                " These are whole numbers, and it takes vectors: pass "
                "x=functional.one_hot(x, D), or a model that begins with an nn.Embedding."
            )
        raise type(error)(
            f"{what} of shape {describe(x.shape)} and dtype {x.dtype} does not go into "
            f"{type(module).__name__}: {error}{remedy}"
        ) from error


def as_names(names: Mapping[str, str] | None) -> dict[str, str]:
    """What to call things. Raises `ValueError` for anything but a dictionary of texts."""
    given = {} if names is None else names
    if not isinstance(given, Mapping) or not all(
        isinstance(word, str) for pair in given.items() for word in pair
    ):
        raise ValueError(
            f"names={names!r} must be a dictionary of what to call x, y, h and c: {{'h': 'a'}}."
        )
    return dict(given)


def check_list(given: Any, argument: str, of: type | tuple[type, ...], example: str) -> None:
    """Raise `ValueError` for what is no list of these, or an empty one, which shows nothing."""
    listed = isinstance(given, Collection | Sequence | np.ndarray) and not isinstance(given, str)
    whole = listed and all(isinstance(one, of) and not isinstance(one, bool) for one in given)
    if not whole or not len(given):
        raise ValueError(
            f"{argument}={given!r} must be a list of at least one, such as {example}; leave it "
            "out for all that are usually shown."
        )
