"""Einstein's summation, taken apart into transposes, one matrix product a pair, and sums.

It is a primitive nowhere: composed, its gradient of any order comes for free, and its products run
in BLAS, stacked over the steps that share a weight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from tinyseq import errors
from tinyseq import primitives as raw
from tinyseq.op import TensorLike, coerce
from tinyseq.tensor import Tensor

Labels = list[str]

_TERM = re.compile(r"[A-Za-z]*(\.\.\.)?[A-Za-z]*")


def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """y[output labels] = Σ over all other labels of Π operands: ``einsum("tbd,dh->tbh", x, w)``.

    As in NumPy: one letter an axis; a letter twice in one operand is its diagonal; without ``->``
    the output has the letters that come once, in alphabetical order; ``...`` stands for axes that
    broadcast, and must stand in the output if it stands for any. Axes of one letter are of one
    length or 1. Operands are multiplied from left to right, two at a time: put them in the order in
    which you would multiply them.

    Raises `ValueError` for subscripts that mean nothing, `ShapeError` for operands that they do not
    fit, `DtypeError` for booleans.
    """
    if not isinstance(subscripts, str):
        raise TypeError(
            "einsum: give the subscripts as a string, as in einsum('ij,jk->ik', a, b); lists of "
            "numbers are not offered."
        )
    xs = coerce(operands, "einsum", ("operands",)) if operands else ()
    for x in xs:
        if x.dtype == bool:
            raise errors.DtypeError(
                "einsum: operands of booleans have no sum. Use astype on them first."
            )
    terms, output = _parse(subscripts, [x.ndim for x in xs])
    sizes = _sizes(subscripts, xs, terms)
    simple = [_simple(x, labels, sizes) for x, labels in zip(xs, terms, strict=True)]
    y, labels = simple[0]
    for i, (x, others) in enumerate(simple[1:], start=2):
        later = {*output, *(label for _, rest in simple[i:] for label in rest)}
        y, labels = _product(y, labels, x, others, later)
    y, labels = _summed(y, labels, set(output))
    return raw.transpose(y, axes=tuple(labels.index(label) for label in output))


def _parse(subscripts: str, ndims: list[int]) -> tuple[list[Labels], Labels]:
    """The labels of each operand and of the output. Axes under an ellipsis are numbered from the
    right, ``"0"`` the last, so that they meet as in broadcasting.
    """

    def wrong(why: str) -> ValueError:
        return ValueError(f"einsum: subscripts={subscripts!r}: {why}.")

    inputs, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    for term in (*terms, right):
        if not _TERM.fullmatch(term):
            raise wrong(f"{term!r} is not made of letters with at most one '...' among them")
    if len(terms) != len(ndims):
        raise wrong(f"names {len(terms)} operands, got {len(ndims)}")
    labels = []
    for term, ndim in zip(terms, ndims, strict=True):
        before, dots, after = term.partition("...")
        rest = ndim - len(before) - len(after)
        if rest < 0 or (rest and not dots):
            raise errors.ShapeError(
                f"einsum: subscripts={subscripts!r}: {term!r} does not fit one of operands "
                f"with {ndim} axes. Name every axis, or write '...' for those left."
            )
        labels.append([*before, *map(str, reversed(range(rest))), *after])
    flat = [label for operand in labels for label in operand]
    broadcast = sorted({label for label in flat if label.isdigit()}, key=int, reverse=True)
    if not arrow:
        return labels, broadcast + sorted(
            c for c in set(flat) if c.isalpha() and flat.count(c) == 1
        )
    before, dots, after = right.partition("...")
    if broadcast and not dots:
        raise wrong("the output needs '...' for the axes that it stands for in an operand")
    if len(set(before + after)) != len(before + after):
        raise wrong("the output names a letter twice")
    if unknown := sorted(set(before + after) - set(flat)):
        raise wrong(f"the output's {unknown[0]!r} is in no operand")
    return labels, [*before, *broadcast, *after]


def _sizes(subscripts: str, xs: Sequence[Tensor], terms: list[Labels]) -> dict[str, int]:
    """How long each label is: 1, or what all axes of that label agree on that are not 1."""
    sizes: dict[str, int] = {}
    for x, labels in zip(xs, terms, strict=True):
        for label, n in zip(labels, x.shape, strict=True):
            size = sizes.setdefault(label, n)
            twice = labels.count(label) > 1 and n != x.shape[labels.index(label)]
            if twice or (n != size and 1 not in (n, size)):
                name = "an axis under '...'" if label.isdigit() else repr(label)
                shapes = errors.listed(errors.describe(x.shape) for x in xs)
                raise errors.ShapeError(
                    f"einsum: subscripts={subscripts!r}: {name} is {size} and {n} long in operands "
                    f"{shapes}. Axes of one letter must be equal or 1."
                )
            sizes[label] = n if size == 1 else size
    return sizes


def _simple(x: Tensor, labels: Labels, sizes: dict[str, int]) -> tuple[Tensor, Labels]:
    """Every label once, and none along which x would only be repeated: it counts as a factor."""
    while twice := next((label for label in labels if labels.count(label) > 1), None):
        pair = [i for i, label in enumerate(labels) if label == twice][:2]
        rest = [i for i in range(x.ndim) if i not in pair]
        diagonal = Tensor.wrap(np.arange(x.shape[pair[0]]))
        x = raw.transpose(x, axes=(*pair, *rest))
        x = raw.getitem(x, diagonal, diagonal, index=(raw.ARRAY, raw.ARRAY))
        labels = [twice, *(labels[i] for i in rest)]
    kept = [i for i, label in enumerate(labels) if x.shape[i] == sizes[label]]
    x = raw.reshape(x, shape=tuple(x.shape[i] for i in kept))
    return x, [labels[i] for i in kept]


def _product(
    a: Tensor, of_a: Labels, b: Tensor, of_b: Labels, later: set[str]
) -> tuple[Tensor, Labels]:
    """a·b summed over what nobody needs later, as a batch of matrix products."""
    a, of_a = _summed(a, of_a, later | set(of_b))
    b, of_b = _summed(b, of_b, later | set(of_a))
    batch = [label for label in of_a if label in of_b and label in later]
    inner = [label for label in of_a if label in of_b and label not in later]
    rows = [label for label in of_a if label not in of_b]
    columns = [label for label in of_b if label not in of_a]
    left = _matrices(a, of_a, batch, rows, inner)
    right = _matrices(b, of_b, batch, inner, columns)
    y = raw.matmul(left, right) if inner else left * right
    size = dict(zip(of_a, a.shape, strict=True)) | dict(zip(of_b, b.shape, strict=True))
    labels = batch + rows + columns
    return raw.reshape(y, shape=tuple(size[label] for label in labels)), labels


def _matrices(x: Tensor, labels: Labels, batch: Labels, rows: Labels, columns: Labels) -> Tensor:
    """x as (…batch, rows, columns)."""
    n = dict(zip(labels, x.shape, strict=True))
    order = [*batch, *rows, *columns]
    shape = *(n[c] for c in batch), math.prod(n[c] for c in rows), math.prod(n[c] for c in columns)
    return raw.reshape(raw.transpose(x, axes=tuple(map(labels.index, order))), shape=shape)


def _summed(x: Tensor, labels: Labels, wanted: set[str]) -> tuple[Tensor, Labels]:
    axes = tuple(i for i, label in enumerate(labels) if label not in wanted)
    if not axes:
        return x, labels
    return raw.sum(x, axis=axes, keepdims=False), [label for label in labels if label in wanted]
