"""`Op` and the registry: how an op is declared, and what happens when one is called.

Calling an op computes with NumPy and, if any input requires a gradient, records a `Node`: that is
all the engine does on the way forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from inspect import Parameter, Signature
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyseq import changes, errors, graph
from tinyseq.arguments import shown
from tinyseq.graph import Node, recording
from tinyseq.tensor import FLOATS, Tensor, constant

TensorLike = Tensor | npt.ArrayLike
Vjp = Callable[..., tuple[Tensor | None, ...]]


class Use(NamedTuple):
    """One use of a tensor as an input of an op: the cotangent of the result, and the op's
    arguments.
    """

    g: Tensor
    inputs: tuple[Tensor, ...]
    attrs: dict[str, Any]


Joint = Callable[[Tensor, list[Use]], Tensor]
Write = Callable[[], Any]

F16 = np.dtype(np.float16)
F32, F64 = FLOATS


class Op:
    """One primitive; call it on Tensors (arrays and Python numbers are taken in as constants)."""

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        vjp: Vjp | None,
        reads: str,
        joint: dict[int, Joint],
        emit: str | None,
        hint: str | None,
        into: Callable[..., Any] | str | None = None,
        casts: bool = True,
    ) -> None:
        self.name = name
        self.forward = forward
        self.vjp = vjp  # None: not differentiable, the result is a constant
        self.reads_output = "y" in reads
        self.reads_all = "x" in reads
        self.reads_inputs = {int(i) for i in reads if i.isdigit()}
        self.joint = joint  # inputs whose cotangent is computed from all their uses together
        self.emit = emit  # None: cannot sit in a compiled loop
        self.into = into  # None: makes an array of its own each time
        self.hint = hint  # None: its errors say everything
        self.casts = casts  # False: the inputs are Tensors and stay what they are, indices say
        self.names = tuple(n for n, kind in forward.__annotations__.items() if kind == "np.ndarray")
        self.__doc__ = forward.__doc__
        parameters = forward.__code__.co_varnames[: forward.__code__.co_argcount]
        self.named = self.names == parameters  # it has inputs alone, so they go by name, too
        if self.named:
            self.__signature__ = Signature(
                [
                    Parameter(n, Parameter.POSITIONAL_OR_KEYWORD, annotation=TensorLike)
                    for n in parameters
                ]
            )

    def __call__(self, *args: TensorLike, **attrs: Any) -> Tensor:
        if (attrs or not args) and self.named:
            args, attrs = self._bound(args, attrs), {}
        inputs: tuple[Tensor, ...] = (
            coerce(args, self.name, self.names) if self.casts else args  # type: ignore[assignment]
        )
        arrays = [x._data for x in inputs]
        try:
            out = self.forward(*arrays, **attrs)
        except (ValueError, IndexError, TypeError) as cause:
            if self.hint is None or isinstance(cause, errors.DtypeError):
                raise
            scope = recording.scope
            raise graph.reword(self, scope, arrays, attrs, cause) from cause
        if out.__class__ is not np.ndarray:
            out = np.asarray(out)  # NumPy gives scalars where no axis is left
        if out.dtype is F64:
            if self.casts and "dtype" not in attrs and F64 not in [a.dtype for a in arrays]:
                out = out.astype(F32)  # whole numbers went in: the default float comes out
        elif out.dtype is F16 and self.casts:
            out = self.forward(*[a.astype(F32) for a in arrays], **attrs)  # booleans went in
        if recording.anomaly:
            self._look(out, inputs)
        y = Tensor.wrap(out)
        if recording.enabled and self.vjp is not None:
            for x in inputs:
                if x._requires_grad:
                    y._requires_grad = True
                    self._record(y, inputs, attrs)
                    break
        if recording.tape is not None:
            recording.tape(self, inputs, attrs, y)
        return y

    def _bound(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        try:
            return self.__signature__.bind(*args, **named).args
        except TypeError as cause:
            raise TypeError(f"{self.name}: {cause}.") from None

    def writing(
        self, out: np.ndarray, arrays: Sequence[np.ndarray], attrs: dict[str, Any]
    ) -> Write | None:
        """What writes the result for these arrays into ``out``, of its shape and dtype, each time
        that it is called; `None` where there is no such thing.

        ``into`` is a NumPy ufunc; ``"out"``, where the forward takes that; or it gives what writes:
        ``into(out, *arrays, **attrs)``.
        """
        if isinstance(self.into, np.ufunc):
            return partial(self.into, *arrays, out=out)
        if isinstance(self.into, str):
            return partial(self.forward, *arrays, **attrs, out=out)
        return None if self.into is None else self.into(out, *arrays, **attrs)

    def _look(self, out: np.ndarray, inputs: Sequence[Tensor]) -> None:
        """Raise if a NaN or an Inf is made here, or comes in with what no op has made."""
        if out.dtype not in FLOATS or np.isfinite(out).all():
            return
        where = graph.located(self.name)
        for i, x in enumerate(inputs):
            if _comes_from_outside(x):
                raise errors.AnomalyError(f"{where} {_origin(i, x)}")
        arrays = [x._data for x in inputs]
        wrong = np.isnan(out)
        if not wrong.any():
            if any(a.dtype in FLOATS and not np.isfinite(a).all() for a in arrays):
                return  # a mask of −∞ may go on as long as no NaN comes of it
            wrong = ~np.isfinite(out)
        place = tuple(np.argwhere(wrong)[0].tolist())
        ranges = errors.listed(
            f"{errors.describe(a.shape)} from {a.min():.4g} to {a.max():.4g}"
            for a in arrays
            if a.size
        )
        raise errors.AnomalyError(
            f"{where} made the first {out[place]}, at {list(place)} of its result of shape "
            f"{errors.describe(out.shape)}, from {ranges}. A path that begins with grad is a "
            "backward pass. Keep its input away from there: clip, add an eps, or lower the "
            "learning rate."
        )

    def _record(self, y: Tensor, inputs: tuple[Tensor, ...], attrs: dict[str, Any]) -> None:
        # Of the result the contents alone: the tensor itself would keep its own node alive.
        output = Tensor.wrap(y._data) if self.reads_output else None
        if not self.reads_all:
            inputs = tuple(
                x if x.node is None or i in self.reads_inputs else x.husk()
                for i, x in enumerate(inputs)
            )
        y.node = Node(self, inputs, attrs, recording.scope, changes.clock, output)
        if changes.out:
            y.node.seen = [changes.fingerprint(x._data) for _, x in y.node.read()]

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def _comes_from_outside(x: Tensor) -> bool:
    """Whether a NaN or an Inf of an op's input was there before: an op that made it would have been
    refused. −∞ in a constant is let pass, and so is a number: that is how masks and bounds are
    written.
    """
    a = x._data
    if a.dtype not in FLOATS or np.isfinite(a).all():
        return False
    if np.isnan(a).any() or (x.requires_grad and x.node is None):
        return True
    return x.node is None and a.ndim > 0 and bool(np.isposinf(a).any())


def _origin(i: int, x: Tensor) -> str:
    kind = "the parameter" if x.requires_grad else "the tensor"
    wrong = errors.spoiled([(f"{kind} {x.name}" if x.name else f"its input {i}", x._data)])
    if x.node is not None:
        return (
            f"reads what is not finite: {wrong}. An op outside of detect_anomaly made it: "
            "run that inside, too."
        )
    remedy = (
        "Restore it from a checkpoint, or look for what wrote it."
        if x.requires_grad
        else "Look for it in the data, np.isnan finds it, and leave it out or replace it."
    )
    return f"reads what is not finite: {wrong}. No op made it: it was given so. {remedy}"


REGISTRY: dict[str, Op] = {}


def primitive(
    vjp: Vjp | None = None,
    *,
    reads: str = "xy",
    joint: dict[int, Joint] | None = None,
    emit: str | None = None,
    hint: str | None = "",
    into: Callable[..., Any] | str | None = None,
    casts: bool = True,
) -> Callable[[Callable[..., Any]], Op]:
    """Declare the decorated NumPy function as an op of that name."""

    def declare(forward: Callable[..., Any]) -> Op:
        name = forward.__name__.strip("_")
        op = Op(name, forward, vjp, reads, joint or {}, emit, hint, into, casts)
        REGISTRY[name] = op
        return op

    return declare


def as_tensor(
    x: TensorLike, dtype: np.dtype[Any] | None = None, name: str = "", argument: str = "x"
) -> Tensor:
    """``x`` itself when it is a Tensor, else a constant from a copy of it. An error names the op
    and the argument.
    """
    if isinstance(x, Tensor):
        return x
    try:
        return constant(x, dtype)
    except (TypeError, ValueError) as cause:
        if not name:
            raise
        kind = errors.DtypeError if isinstance(cause, errors.DtypeError) else TypeError
        raise kind(f"{name}: {argument}={shown(x)}: {cause}") from cause


def coerce(
    args: tuple[TensorLike, ...], name: str = "", names: Sequence[str] = ()
) -> tuple[Tensor, ...]:
    """Constants made Tensors; Python numbers and whole-number tensors take the float dtype they
    meet. The ``name`` of the op, and those of its arguments (or one of all), are for errors.
    """
    dtype = args[0]._data.dtype if isinstance(args[0], Tensor) else None
    for x in args:
        if not isinstance(x, Tensor) or x._data.dtype is not dtype:
            break
    else:
        return args  # type: ignore[return-value]  # the usual case, on the way of every op
    # the next one: x * 0.5 (None would be in FLOATS: NumPy takes it for float64)
    if len(args) == 2 and dtype is not None and dtype in FLOATS and type(args[1]) is float:
        return args[0], Tensor.wrap(np.asarray(args[1], dtype))  # type: ignore[return-value]
    try:
        tensors = [as_tensor(x) for x in args]
    except (TypeError, ValueError):
        for i, x in enumerate(args if names else ()):
            which = names[i] if i < len(names) > 1 or len(args) == 1 else f"{names[-1]}[{i}]"
            as_tensor(x, None, name, which)
        raise
    # numpy.float64 is a float: a scalar never widens what it meets
    weak = [isinstance(x, bool | int | float | list | tuple) for x in args]
    dtypes = {x._data.dtype for x, w in zip(tensors, weak, strict=True) if not w}
    meets = F64 if F64 in dtypes else F32 if F32 in dtypes else None
    if recording.tape is not None:  # a step is traced: there the cast is an op
        tensors = [
            REGISTRY["astype"](x, dtype=meets)
            if meets and isinstance(arg, Tensor) and _gives_way(x, False)
            else x
            for arg, x in zip(args, tensors, strict=True)
        ]
    return tuple(
        # a number anew from Python's own: by way of float32 it would lose half of its digits
        Tensor.wrap(np.asarray(arg if w else x._data, meets)) if meets and _gives_way(x, w) else x
        for arg, x, w in zip(args, tensors, weak, strict=True)
    )


def _gives_way(x: Tensor, weak: bool) -> bool:
    return x._data.dtype.kind == "i" or (weak and x._data.dtype.kind == "f")
