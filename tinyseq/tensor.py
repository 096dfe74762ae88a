"""`Tensor`: an ndarray that knows how it was made. Every operator is a one-line call of an op."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tinyseq import changes, graph
from tinyseq.arguments import checked, shown
from tinyseq.errors import DtypeError, GraphError, ShapeError, describe
from tinyseq.graph import Node, readable, unrepeated

if TYPE_CHECKING:  # what is written over Tensor and its methods call: `tinyseq/__init__` sets them
    from tinyseq import backprop, display, ops
    from tinyseq.ops import indexing, numpy_functions

Hook = Callable[["Tensor"], "Tensor | None"]
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
Axis = int | Sequence[int] | None


@functools.lru_cache(maxsize=256)
def _nan(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """NaN of any shape in the memory of one: it looks like an array and holds nothing."""
    return np.broadcast_to(np.array(np.nan, dtype), shape)


class Tensor:
    """A NumPy array with the recording of how it was made.

    ``data`` is copied in. dtypes: float32 and float64 are kept, Python floats become float32, whole
    numbers stay int64 and booleans stay bool (neither can require a gradient); anything else is
    refused. Python scalars take the dtype of the tensor they meet, as in NumPy 2; a whole-number
    tensor that meets a float one takes its dtype.

    Attributes: ``shape``, ``dtype``, ``ndim``, ``size`` as in NumPy; ``requires_grad``; ``grad``, a
    Tensor that `backward` fills on leaves; ``name``, for error messages and pictures; ``node``, how
    it was made (`None` for a leaf).
    """

    __slots__ = ("__weakref__", "_data", "_grad", "_requires_grad", "hooks", "name", "node")

    # What it was detached from, if that was recorded (weakly, for its memory is to be free), and
    # where that was made.
    cut_from: tuple[weakref.ref[Node], tuple[str, ...]] | None = None

    _data: np.ndarray
    _grad: Tensor | None
    _requires_grad: bool  # as it is read on the way of every op
    hooks: list[Hook] | None
    name: str | None
    node: Node | None

    def __init__(
        self,
        data: npt.ArrayLike | Tensor,
        dtype: npt.DTypeLike | None = None,
        requires_grad: bool = False,
        name: str | None = None,
    ) -> None:
        dtype = None if dtype is None else known_dtype(dtype, "Tensor")
        if isinstance(data, Tensor):  # by an op: a step that is recorded copies anew in each call
            self._data = ops.copy(data, dtype)._data
        else:
            try:
                self._data = _as_array(data, dtype)
            except (TypeError, ValueError) as cause:
                kind = DtypeError if isinstance(cause, DtypeError) else TypeError
                raise kind(f"Tensor: data={shown(data)}: {cause}") from cause
        if name is not None and not isinstance(name, str):
            raise TypeError(f"Tensor: name={shown(name)} must be a string or None.")
        self.name = name
        self.requires_grad = requires_grad
        self._grad = None
        self.hooks = None
        self.node = None

    @staticmethod
    def wrap(array: np.ndarray) -> Tensor:
        """A constant around ``array`` itself: no copy, no checks. For ops, which own what they
        made.
        """
        self = Tensor.__new__(Tensor)
        self._data = array
        self._grad = None
        self.hooks = None
        self.name = None
        self.node = None
        self._requires_grad = False
        return self

    def husk(self) -> Tensor:
        """The same value of the recording without its contents: what is read from it by mistake is
        NaN.
        """
        out = Tensor.wrap(_nan(self._data.shape, self._data.dtype))
        out.node = self.node
        out.name = self.name
        out._requires_grad = self._requires_grad
        return out

    # -- what it holds --------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """The contents themselves, not a copy. Writing into them is noticed: a backward pass that
        needs those from before raises `GraphError` instead of giving wrong gradients.
        """
        readable(".data")
        return changes.hand_out(self._data)

    @data.setter
    def data(self, value: npt.ArrayLike) -> None:
        array = _as_array(value, self.dtype)
        if array.shape != self.shape:
            raise ValueError(
                f"data of shape {describe(array.shape)} cannot replace data of shape "
                f"{describe(self.shape)}. Make a new Tensor for another shape."
            )
        self.replace(array)

    def changed(self) -> None:
        """To be called after writing into ``_data`` inside the library, as optimisers do."""
        changes.note(self._data)

    def replace(self, array: np.ndarray) -> None:
        """Another array in place of ``_data``: a change, but not for views of the old one."""
        unrepeated("Tensor.data = …")
        self._data = array
        self.changed()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    def numpy(self) -> np.ndarray:
        """A copy of the contents as a NumPy array."""
        readable("numpy()")
        return self._data.copy()

    def item(self) -> Any:
        """The one element as a Python number; `ValueError` when there is not exactly one."""
        if self.size != 1:
            raise ValueError(
                f"item() needs a tensor of one element, this one has shape {describe(self.shape)}. "
                "Reduce it first (sum, mean, max) or use numpy()."
            )
        readable("A number, or the truth, of a tensor (item(), float(), if)")
        return self._data.item()

    def tolist(self) -> Any:
        """The contents as nested lists of Python numbers."""
        readable("tolist()")
        return self._data.tolist()

    def detach(self) -> Tensor:
        """The same contents, cut off from the recording. Shares memory."""
        if graph.recording.tape is not None:  # a step is traced: there it is an op
            return ops.detach(self)
        node = self.node
        origin = self.cut_from if node is None else (weakref.ref(node), node.scope)
        return Tensor.wrap(self._data) if origin is None else _Detached.of(self._data, origin)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For pickle and the functions of `copy`. Raises `GraphError` for a tensor that was
        recorded, or whose gradient was.
        """
        for what, t in (("a tensor", self), ("a tensor's .grad", self.grad)):
            if t is not None and t.node is not None:
                how = t.node.op.name if t.node.op else "freed"
                raise GraphError(
                    f"{what} of shape {describe(t.shape)} that was computed (op={how}) cannot be "
                    "copied or pickled: it belongs to a recording. detach() it first."
                )
        return super().__reduce_ex__(max(int(protocol), 2))  # older ones know no slots

    def __setstate__(self, state: tuple[dict[str, Any] | None, dict[str, Any]]) -> None:
        attributes, slots = state
        for name, value in {**(attributes or {}), **slots}.items():
            setattr(self, name, _with_numpys_dtype(value) if name == "_data" else value)

    def __repr__(self) -> str:
        body = np.array2string(self._data, separator=", ", prefix="Tensor(")
        dtype = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        if self.node is not None:
            how = f", op={self.node.op.name if self.node.op else 'freed'}"
        else:
            how = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({body}{dtype}{how})"

    def _repr_html_(self) -> str:
        """Where a notebook shows the tensor: what it is, its values, and those of its gradient."""
        return display.html(self)

    def __format__(self, spec: str) -> str:
        """``f"{loss:.3f}"``: the one element by Python's rules for numbers; without a format spec,
        as `str`. Raises `TypeError` for a spec where there is not exactly one element.
        """
        if not spec:
            return str(self)
        if self.size != 1:
            raise TypeError(
                f"format spec {spec!r} needs a tensor of one element, this one has shape "
                f"{describe(self.shape)}. Reduce it first (sum, mean, max), or print numpy()."
            )
        return format(self.item(), spec)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a tensor without axes; use .size or .item()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind != "i":
            raise DtypeError(f"a tensor of dtype {self.dtype} is no index; whole numbers are.")
        return int(self.item())

    # -- NumPy's side ---------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        readable("Turning it into an ndarray", by_cells=True)
        if self.requires_grad:
            raise GraphError(
                "turning a tensor that requires a gradient into an ndarray would cut it "
                "off silently. "
                "Use tinyseq's own op of that name, or .detach().numpy() to cut it off on purpose."
            )
        return np.array(self._data, dtype=dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return numpy_functions.apply(
            ufunc if method == "__call__" else getattr(ufunc, method), inputs, kwargs
        )

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return numpy_functions.apply(func, args, kwargs)

    @property
    def _mask(self) -> Any:
        """What numpy.ma asks for in ``masked + x``, which would go past our ops and gradients."""
        raise TypeError(
            "a masked array cannot be computed with a Tensor, whose gradient would be cut off. Say "
            "what to put where it is masked: a.filled(0.0)."
        )

    # -- the gradient ---------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        value = flag(value, "Tensor", "requires_grad")
        if value and self._data.dtype not in FLOATS:
            raise DtypeError(
                f"a tensor of dtype {self._data.dtype} cannot require a gradient: only float32 "
                "and float64 can. Pass dtype=np.float32, or drop requires_grad."
            )
        self._requires_grad = value

    @property
    def grad(self) -> Tensor | None:
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"Tensor: grad={shown(value)} must be a Tensor or None. Make it one first: "
                    "tinyseq.tensor(…)."
                )
            if value.shape != self.shape:
                raise ShapeError(
                    f"Tensor: grad of shape {describe(value.shape)} is none of a tensor of shape "
                    f"{describe(self.shape)}. They must be equal."
                )
        self._grad = value

    def backward(
        self,
        gradient: Tensor | npt.ArrayLike | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Add d self / d leaf to ``.grad`` of every leaf that requires one. See
        `tinyseq.backward`.
        """
        backprop.backward(self, gradient, retain_graph, create_graph)

    @checked
    def register_hook(self, hook: Hook) -> Callable[[], None]:
        """Call ``hook(g)`` with the gradient of this tensor whenever a backward pass has it whole.

        What the hook returns, if it is not `None`, takes the gradient's place, for ``.grad`` and
        for everything further back. Gives a function that removes the hook. Raises `GraphError` for
        a tensor without a gradient, in the backward pass `ShapeError` for a gradient of another
        shape.
        """
        if not self.requires_grad:
            raise GraphError(
                "register_hook: this tensor does not require a gradient, so no hook would ever be "
                "called. Make it with requires_grad=True."
            )
        holder = self if self.node is None else self.node
        if holder.hooks is None:
            holder.hooks = []
        hooks = holder.hooks
        hooks.append(hook)
        return lambda: hooks.remove(hook) if hook in hooks else None

    # -- operators ------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.div(other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        return ops.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return ops.floor_divide(other, self)

    def __mod__(self, other: Any) -> Tensor:
        return ops.remainder(self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return ops.remainder(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return ops.pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.pow(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __and__(self, other: Any) -> Tensor:
        return ops.logical_and(self, other)

    def __rand__(self, other: Any) -> Tensor:
        return ops.logical_and(other, self)

    def __or__(self, other: Any) -> Tensor:
        return ops.logical_or(self, other)

    def __ror__(self, other: Any) -> Tensor:
        return ops.logical_or(other, self)

    def __invert__(self) -> Tensor:
        return ops.logical_not(self)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    def __lt__(self, other: Any) -> Tensor:
        return ops.less(self, other)

    def __le__(self, other: Any) -> Tensor:
        return ops.less_equal(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ops.greater(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return ops.greater_equal(self, other)

    # Python's own answer for what is no number at all: x == None is False
    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return ops.equal(self, other) if _numeric(other) else NotImplemented

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return ops.not_equal(self, other) if _numeric(other) else NotImplemented

    __hash__ = object.__hash__

    # -- methods: the ops of these names, as ndarrays and PyTorch's tensors have them ------------

    def astype(self, dtype: npt.DTypeLike) -> Tensor:
        return ops.astype(self, dtype)

    def abs(self) -> Tensor:
        return ops.abs(self)

    def exp(self) -> Tensor:
        return ops.exp(self)

    def expm1(self) -> Tensor:
        return ops.expm1(self)

    def log(self) -> Tensor:
        return ops.log(self)

    def log1p(self) -> Tensor:
        return ops.log1p(self)

    def log2(self) -> Tensor:
        return ops.log2(self)

    def log10(self) -> Tensor:
        return ops.log10(self)

    def sqrt(self) -> Tensor:
        return ops.sqrt(self)

    def sin(self) -> Tensor:
        return ops.sin(self)

    def cos(self) -> Tensor:
        return ops.cos(self)

    def tan(self) -> Tensor:
        return ops.tan(self)

    def tanh(self) -> Tensor:
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        return ops.sigmoid(self)

    def relu(self) -> Tensor:
        return ops.relu(self)

    def floor(self) -> Tensor:
        return ops.floor(self)

    def round(self, decimals: int = 0) -> Tensor:
        return ops.round(self, decimals)

    def isnan(self) -> Tensor:
        return ops.isnan(self)

    def masked_fill(self, mask: Tensor | npt.ArrayLike, value: Tensor | npt.ArrayLike) -> Tensor:
        return ops.masked_fill(self, mask, value)

    def clip(
        self, min: Tensor | npt.ArrayLike | None = None, max: Tensor | npt.ArrayLike | None = None
    ) -> Tensor:
        return ops.clip(self, min, max)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis, keepdims)

    def var(self, axis: Axis = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor:
        return ops.var(self, axis, keepdims, ddof=ddof)

    def std(self, axis: Axis = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor:
        return ops.std(self, axis, keepdims, ddof=ddof)

    def prod(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.prod(self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.min(self, axis, keepdims)

    def norm(self, ord: float | None = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.norm(self, ord, axis, keepdims)

    def logsumexp(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.logsumexp(self, axis, keepdims)

    def any(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.any(self, axis, keepdims)

    def all(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.all(self, axis, keepdims)

    def cumsum(self, axis: int | None = None) -> Tensor:
        return ops.cumsum(self, axis)

    def cumprod(self, axis: int | None = None) -> Tensor:
        return ops.cumprod(self, axis)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return ops.argmax(self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        return ops.argmin(self, axis, keepdims)

    def argsort(self, axis: int | None = -1) -> Tensor:
        return ops.argsort(self, axis)

    def topk(self, k: int, axis: int = -1, largest: bool = True) -> indexing.TopK:
        return ops.topk(self, k, axis, largest)

    def take(self, indices: Tensor | npt.ArrayLike, axis: int | None = None) -> Tensor:
        return ops.take(self, indices, axis)

    def gather(self, axis: int, index: Tensor | npt.ArrayLike) -> Tensor:
        return ops.gather(self, axis, index)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        return ops.reshape(self, *shape)

    def view(self, *shape: int | Sequence[int]) -> Tensor:
        """PyTorch's name of reshape."""
        return ops.reshape(self, *shape)

    def ravel(self) -> Tensor:
        return ops.ravel(self)

    def flatten(self) -> Tensor:
        """PyTorch's name of ravel."""
        return ops.ravel(self)

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        return ops.transpose(self, *axes)

    def permute(self, *axes: int | Sequence[int]) -> Tensor:
        return ops.permute(self, *axes)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        return ops.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Axis = None) -> Tensor:
        return ops.squeeze(self, axis)

    def unsqueeze(self, axis: int | Sequence[int]) -> Tensor:
        """A new axis of length 1 at that place; PyTorch's name of expand_dims."""
        return ops.expand_dims(self, axis)

    def expand(self, *shape: int | Sequence[int]) -> Tensor:
        return ops.expand(self, *shape)

    def flip(self, axis: Axis = None) -> Tensor:
        return ops.flip(self, axis)

    def roll(self, shift: int | Sequence[int], axis: Axis = None) -> Tensor:
        return ops.roll(self, shift, axis)

    def repeat(self, repeats: npt.ArrayLike, axis: int | None = None) -> Tensor:
        return ops.repeat(self, repeats, axis)

    def tile(self, reps: int | Sequence[int]) -> Tensor:
        return ops.tile(self, reps)

    def tril(self, k: int = 0) -> Tensor:
        return ops.tril(self, k)

    def triu(self, k: int = 0) -> Tensor:
        return ops.triu(self, k)

    def dot(self, b: Tensor | npt.ArrayLike) -> Tensor:
        return ops.dot(self, b)

    def outer(self, b: Tensor | npt.ArrayLike) -> Tensor:
        return ops.outer(self, b)

    def chunk(self, chunks: int, axis: int = 0) -> list[Tensor]:
        return ops.chunk(self, chunks, axis)

    @property
    def T(self) -> Tensor:
        return ops.transpose(self)

    @property
    def mT(self) -> Tensor:
        return ops.swapaxes(self, -1, -2)


def tensor(
    data: npt.ArrayLike | Tensor,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
    name: str | None = None,
) -> Tensor:
    """A new leaf `Tensor` from a copy of ``data``; spelled as in PyTorch."""
    return Tensor(data, dtype, requires_grad, name)


class _Detached(Tensor):
    """A tensor that remembers, for pictures, what it was detached from; elsewhere it is any other
    leaf.
    """

    __slots__ = ("cut_from",)

    @staticmethod
    def of(array: np.ndarray, origin: tuple[weakref.ref[Node], tuple[str, ...]]) -> _Detached:
        self = _Detached.__new__(_Detached)
        self._data, self.node, self.name = array, None, None
        self._grad, self.hooks, self._requires_grad = None, None, False
        self.cut_from = origin
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:  # a copy, or a file, does not remember it
        plain = Tensor.wrap(self._data)
        plain.name, plain.requires_grad, plain.grad = self.name, self.requires_grad, self.grad
        plain.hooks = self.hooks
        return copy.copy, (plain,)


def constant(data: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Tensor:
    """A Tensor of a copy of ``data``, to which no gradient flows."""
    return Tensor.wrap(_as_array(data, dtype))


def flag(value: Any, name: str, argument: str) -> bool:
    """True or False, NumPy's too; `TypeError` for anything else."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"{name}: {argument}={shown(value)} must be True or False.")


def known_dtype(dtype: npt.DTypeLike, name: str) -> np.dtype[Any]:
    """A dtype as NumPy's own object; `DtypeError` for anything else."""
    try:
        if dtype is not None:  # which NumPy takes for float64
            return np.dtype(dtype)
    except (TypeError, ValueError):
        pass
    raise DtypeError(f"{name}: dtype={shown(dtype)} must be a dtype, such as np.float32.")


def _numeric(x: Any) -> bool:
    return hasattr(x, "__array__") or (isinstance(x, Number | Sequence) and not isinstance(x, str))


def _as_array(data: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> np.ndarray:
    """A fresh array of a dtype that tinyseq computes with."""
    try:
        array = np.array(plain(data))
    except ValueError as cause:
        raise DtypeError(f"no rectangular array can be made of this: {cause}") from cause
    if (
        dtype is None
        and array.dtype == np.float64
        and not isinstance(data, np.ndarray | np.generic)
    ):
        dtype = (
            np.float32
        )  # Python floats carry no dtype of their own: the library's default applies
    if dtype is None and array.dtype.kind in "iu":
        dtype = np.int64
    if dtype is not None:
        wanted = np.dtype(dtype)
        if array.dtype.kind not in "fiub":
            raise _refused(array.dtype)
        refuse_fractions(array, wanted)
        array = array.astype(wanted, copy=False)
    refuse_dtype(array.dtype)
    return _with_numpys_dtype(array)


def _with_numpys_dtype(array: np.ndarray) -> np.ndarray:
    """The same array. One that was pickled has an equal dtype of its own, and ours are told apart
    by identity, which is quicker.
    """
    dtype = np.dtype(array.dtype.type)
    return array if array.dtype is dtype else array.view(dtype)


def plain(data: Any) -> Any:
    """``data`` itself, to make an array of. `TypeError` where that array would not mean the same:
    for masked arrays and matrices, also within lists, and for what can be read only once.
    """
    if isinstance(data, np.ndarray):
        if type(data) is not np.ndarray:
            _refuse_subclass(data)
    elif isinstance(data, list | tuple):
        for part in data:
            if type(part) not in _NUMBERS:
                plain(part)
    elif type(data) not in _NUMBERS and isinstance(data, Iterator):
        raise TypeError(
            f"no array can be made of a {type(data).__name__}, which can be read only once. "
            "Make it a list first: list(…)."
        )
    return data


def plain_array(data: Any) -> np.ndarray:
    """``data`` as an array without a copy, where it is `plain`."""
    return np.asarray(plain(data))


_NUMBERS = (float, int, bool)


def _refuse_subclass(array: np.ndarray) -> None:
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"a masked array of shape {describe(array.shape)} would lose its mask, and what it "
            "masks would be computed with. Say what to put there: x.filled(0.0)."
        )
    if isinstance(array, np.matrix):
        raise TypeError(
            f"a numpy.matrix of shape {describe(array.shape)} multiplies by other rules than an "
            "array. Make it one first: np.asarray(x)."
        )


def refuse_dtype(dtype: np.dtype[Any]) -> None:
    """Raise `DtypeError` for a dtype that no Tensor has."""
    if dtype not in (*FLOATS, np.dtype(np.int64), np.dtype(np.bool_)):
        raise _refused(dtype)


def refuse_fractions(array: np.ndarray, wanted: np.dtype[Any]) -> None:
    """Raise `DtypeError` where the wanted dtype would cut them off, or is too small."""
    whole = array.dtype.kind != "f" or wanted.kind not in "iub"
    if not whole and not np.all(array == np.trunc(array)):
        raise DtypeError(
            f"dtype {wanted} would cut off the fractions of this {array.dtype} data. "
            "Round it first."
        )
    large = array.dtype.kind in "fu" and wanted.kind in "iu" and array.size
    if large and (np.max(array) >= 2**63 or np.min(array) < -(2**63)):
        raise DtypeError(
            f"dtype {wanted} cannot hold {np.max(np.abs(array))}, of this {array.dtype} data: it "
            "goes from −2⁶³ to 2⁶³ − 1. Keep it in float64, or clip it first."
        )


def _refused(dtype: np.dtype[Any]) -> DtypeError:
    if dtype.kind not in "biufc":
        return DtypeError(
            f"dtype {dtype} is not supported: a tensor holds numbers and booleans, no text, "
            "None or other objects. Turn them into numbers first."
        )
    return DtypeError(
        f"dtype {dtype} is not supported: tinyseq computes in float32 and float64 and "
        "indexes with int64 "
        "and bool. Convert the data first, e.g. with .astype(np.float32)."
    )
