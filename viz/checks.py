"""What the functions of viz are given: errors that name the argument, its sizes and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinyseq.arguments import shown
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


def as_tensors(what: Any) -> Sequence[Tensor] | None:
    """The tensors that are to be drawn; `None` for a module or a function, which is run first."""
    if isinstance(what, Tensor):
        return [what]
    return None if callable(what) else list(what)


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


@contextmanager
def calling(function: Callable[..., Any], argument: str) -> Iterator[None]:
    """Around a call of a function that was given: where it fails, the error names the argument."""
    try:
        yield
    except Exception as cause:
        raise ValueError(
            f"{argument}={shown(function)} raised {type(cause).__name__}, as told above."
        ) from cause


def refuse_empty(given: Collection[Any] | None, argument: str, example: str) -> None:
    """Raise `ValueError` for an empty list, which shows nothing."""
    if given is not None and not len(given):
        raise ValueError(
            f"{argument}={given!r} must be a list of at least one, such as {example}; leave it "
            "out for all that are usually shown."
        )
