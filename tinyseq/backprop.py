"""Back-propagation: the recording walked backwards, once, from the outputs to what is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from tinyseq import changes, errors, graph, ops
from tinyseq.arguments import checked
from tinyseq.graph import Node, identity, recorded
from tinyseq.op import Joint, Op, Use, as_tensor
from tinyseq.tensor import Hook, Tensor


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside this block the op that first makes a NaN or an Inf raises `AnomalyError`.

    Forward and backward passes are watched; the error names the op, the module path and time step,
    and the range of its inputs. A NaN or an Inf that was there before, in a parameter or in the
    data, is refused by the first op whose result it reaches, with the parameter's name or the
    number of the input, and the place. −∞ in a constant passes, as masks have it, until a NaN comes
    of it. Every result is looked at, and recurrent layers run unrolled, so it
    is slower. NumPy's own warnings about the same thing are silent meanwhile.
    """
    outer = graph.recording.anomaly
    graph.recording.anomaly = True
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        graph.recording.anomaly = outer


def no_grad() -> AbstractContextManager[None]:
    """Inside this block nothing is recorded: for evaluation and sampling."""
    return recorded(False)


@overload
def grad(  # type: ignore[overload-overlap]  # one Tensor can be iterated, too
    y: Tensor | Iterable[Tensor],
    xs: Tensor,
    grad_outputs: Tensor | npt.ArrayLike | Iterable[Tensor | npt.ArrayLike | None] | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Tensor: ...
@overload
def grad(
    y: Tensor | Iterable[Tensor],
    xs: Iterable[Tensor],
    grad_outputs: Tensor | npt.ArrayLike | Iterable[Tensor | npt.ArrayLike | None] | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> tuple[Tensor, ...]: ...


@checked
def grad(
    y: Tensor | Iterable[Tensor],
    xs: Tensor | Iterable[Tensor],
    grad_outputs: Tensor | npt.ArrayLike | Iterable[Tensor | npt.ArrayLike | None] | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Any:
    """The gradient of y with respect to each of ``xs``: gᵢ = Σ grad_outputs · ∂y/∂xᵢ, in xᵢ's shape
    and dtype.

    ``y``: one Tensor or several; a single element each, unless ``grad_outputs`` (of y's shape) says
    how much each element counts. ``xs``: one Tensor (one Tensor comes back) or several (a tuple);
    what y does not depend on gets zeros. ``create_graph=True`` records the gradient, so that it can
    be differentiated in turn. The recording is freed on the way unless ``retain_graph`` (by
    default: ``create_graph``) is true.

    Raises `GraphError` when y was not recorded, was freed, or when a tensor was changed in place
    since, and `ShapeError` when ``grad_outputs`` does not fit.
    """
    ys = [y] if isinstance(y, Tensor) else list(y)
    wanted = [xs] if isinstance(xs, Tensor) else list(xs)
    if not ys or not wanted:
        raise ValueError(
            f"grad: there is no {'xs' if ys else 'y'}. A generator can be read only once: if it "
            "was read before, make it a list first."
        )
    given = _given(y, grad_outputs, len(ys))
    for x in wanted:
        if not x.requires_grad:
            raise errors.GraphError(
                f"grad: one of xs, {_called(x)}, does not require a gradient, so nothing was "
                "recorded for it. Make it with requires_grad=True before it is used."
            )
    found = _walk(ys, _seeds(ys, given, "grad_outputs"), wanted, create_graph, retain_graph)
    out = []
    for x in wanted:
        key = identity(x)
        out.append(found[key][1] if key in found else Tensor.wrap(np.zeros(x.shape, x.dtype)))
    return out[0] if isinstance(xs, Tensor) else tuple(out)


@checked
def backward(
    y: Tensor,
    gradient: Tensor | npt.ArrayLike | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Add ∂y/∂leaf to ``.grad`` of every leaf that y was made from and that requires a gradient.

    As `grad`, with the leaves found by the walk itself; gradients add up over several calls until
    they are set to `None` (``module.zero_grad()``). ``gradient`` (of y's shape) is needed when y
    has more than one element. Raises as `grad` does.
    """
    found = _walk([y], _seeds([y], [gradient], "gradient"), None, create_graph, retain_graph)
    used: set[int] = set() if gradient is None else {id(as_tensor(gradient)._data)}
    for leaf, g in found.values():
        if leaf.grad is not None:
            leaf.grad = leaf.grad + g if create_graph else Tensor.wrap(leaf.grad._data + g._data)
        elif create_graph:  # recorded, but no array that another gradient has, too
            fresh = g._data.flags.writeable and id(g._data) not in used
            leaf.grad = g if fresh else g * 1
        else:  # an array of its own, for optimisers and clipping write into it
            fresh = g._data.base is None and g._data.flags.writeable and id(g._data) not in used
            leaf.grad = g if fresh else Tensor.wrap(g._data.copy())
        used.add(id(g._data))


def of_leaves(y: Tensor, wanted: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradient of a loss with respect to those of ``wanted`` that it hangs on, `None` else."""
    found = _walk([y], _seeds([y], [None], ""), list(wanted), False, None)
    return [found[identity(x)][1] if identity(x) in found else None for x in wanted]


def _given(y: Any, grad_outputs: Any, n: int) -> list[Any]:
    """As many grad_outputs as there are ys."""
    if isinstance(y, Tensor):
        return [grad_outputs]
    if grad_outputs is None:
        return [None] * n
    one = isinstance(grad_outputs, Tensor | np.ndarray) or not isinstance(grad_outputs, Iterable)
    several = [grad_outputs] if one else list(grad_outputs)
    if one or len(several) != n:
        raise errors.ShapeError(
            f"grad: y of {n} tensors needs a list of {n} grad_outputs, one each (None for 1), got "
            f"{'one' if one else len(several)}."
        )
    return several


def _seeds(
    ys: Sequence[Tensor], given: Iterable[Tensor | npt.ArrayLike | None], argument: str
) -> list[Tensor]:
    """The cotangent each output starts with: 1 for a single element, else what was given."""
    seeds = []
    for y, g in zip(ys, given, strict=True):
        if y.node is None and not y.requires_grad:
            raise errors.GraphError(
                f"y, {_called(y)}, was not recorded: nothing it was made from requires a gradient, "
                "or it was made under no_grad(). Give a leaf requires_grad=True first."
            )
        if g is None:
            if y.size != 1:
                raise errors.ShapeError(
                    f"the gradient of {_called(y)} is only defined for one element. Reduce it "
                    "first (sum, mean), or say how much each element counts: gradient=, "
                    "grad_outputs=."
                )
            g = Tensor.wrap(np.ones(y.shape, y.dtype))
        g = as_tensor(g, y.dtype, "gradient of y", argument)
        if g.shape != y.shape:
            raise errors.ShapeError(
                f"{argument}: the gradient given has shape {errors.describe(g.shape)}, but y, "
                f"{_called(y)}, does not. They must be equal."
            )
        seeds.append(g)
    return seeds


def _walk(
    ys: list[Tensor],
    seeds: list[Tensor],
    wanted: list[Tensor] | None,
    create_graph: bool,
    retain_graph: bool | None,
) -> dict[int, tuple[Tensor, Tensor]]:
    """Cotangents by the identity of the tensor; for ``wanted=None`` (tensor, cotangent) of every
    leaf.
    """
    if retain_graph is None:
        retain_graph = create_graph
    order = graph.topological(*ys)
    asked = None if wanted is None else {identity(x) for x in wanted}
    leads = None if asked is None else _leading_to(order, asked)
    # Those in the middle are read when the walk comes past, for their node is then freed with the
    # rest.
    cotangents: dict[int, Tensor] = {}
    owned: set[int] = set()  # identities of tensors whose cotangent is a sum that only we hold
    found: dict[int, tuple[Tensor, Tensor]] = {}
    uses: dict[int, dict[Joint, list[Use]]] = {}  # those that a joint rule takes together

    def accumulate(key: int, x: Tensor, g: Tensor) -> None:
        if g._data.shape != x._data.shape:
            g = ops.sum_to(g, x.shape)
        if g._data.dtype is not x._data.dtype:
            g = ops.astype(g, x.dtype)
        before = cotangents.get(key)
        if before is None:
            cotangents[key] = g
        elif create_graph or graph.recording.tape is not None:
            cotangents[key] = before + g
        elif key in owned:  # the next of many terms: into the same memory
            np.add(before._data, g._data, out=before._data)
        else:
            cotangents[key] = Tensor.wrap(np.asarray(before._data + g._data))
            owned.add(key)

    with recorded(create_graph), graph.scope("grad"):
        for y, seed in zip(ys, seeds, strict=True):
            accumulate(identity(y), y, seed)
        while order:
            t = order.pop()
            node = t.node
            key = id(t if node is None else node)  # as identity(t), in the innermost loop
            if key in uses:  # all uses of t lie behind us: none is missing
                for rule, together in uses.pop(key).items():
                    accumulate(key, t, rule(t, together))
            g = cotangents.pop(key, None)
            if g is None:
                continue
            for hook in (t.hooks if node is None else node.hooks) or ():
                g = _hooked(hook, t, g)
            leaf = node is None and t.requires_grad
            if leaf if asked is None else key in asked:
                found[key] = (t, g)
            if node is None:
                continue
            op = _checked(t, node)
            if create_graph or graph.recording.anomaly:
                graph.recording.scope = ("grad", *node.scope)
            assert op.vjp is not None
            cots = op.vjp(g, _result(t, node), *node.inputs, **node.attrs)
            for i, (x, gx) in enumerate(zip(node.inputs, cots, strict=True)):
                if not x._requires_grad:
                    continue
                key = id(x if x.node is None else x.node)
                if leads is not None and key not in leads:
                    continue
                if gx is not None:
                    accumulate(key, x, gx)
                elif i in op.joint:
                    by_rule = uses.setdefault(key, {})
                    use = Use(g, node.inputs, node.attrs)
                    by_rule.setdefault(op.joint[i], []).append(use)
            if not retain_graph:
                node.free()
    return found


def _hooked(hook: Hook, t: Tensor, g: Tensor) -> Tensor:
    remedy = 'Remove it, or let the step run as it is written: mode="unroll".'
    graph.unrepeated(f"a hook on {_called(t)}", remedy)
    if graph.recording.tape is not None:  # the rehearsal of a step: nobody's gradient
        return g
    changed = hook(g)
    if changed is None:
        return g
    changed = as_tensor(changed, t.dtype)
    if changed.shape != t.shape:
        raise errors.ShapeError(
            f"a hook on {_called(t)} returned a gradient of shape "
            f"{errors.describe(changed.shape)}. "
            "Return one of the tensor's own shape, or None to leave it as it is."
        )
    return changed


def _leading_to(order: list[Tensor], asked: set[int]) -> set[int]:
    """Ids of the tensors that are asked for, or were made from one that is."""
    leads: set[int] = set()
    for t in order:
        if t.node is not None and t.node.op is None:  # who knows what it was made from
            raise _freed(t)
        inputs = () if t.node is None else t.node.inputs
        key = identity(t)
        if key in asked or any(identity(x) in leads for x in inputs):
            leads.add(key)
    return leads


def _checked(t: Tensor, node: Node) -> Op:
    """The op of a node whose recording is whole: not freed, and nothing it keeps written
    to since.
    """
    if node.op is None:
        raise _freed(t)
    if changes.out or node.time < changes.clock:
        read = list(node.read())
        for (i, x), seen in zip(read, node.seen or [None] * len(read), strict=True):
            if changes.changed(x._data, node.time, seen):
                which = f"its result, {_called(t)}" if i is None else f"input {i}, {_called(x)}"
                raise _changed(node, which)
    return node.op


def _freed(t: Tensor) -> errors.GraphError:
    return errors.GraphError(
        f"the recording of {_called(t)} was freed by an earlier backward pass. If it is a "
        "state carried on from an earlier chunk, it was not cut off: detach() the state before "
        "the next chunk, nn.detach(state) for nested tuples, or let nn.tbptt do it. To walk "
        "one recording twice, keep it the first time: backward(retain_graph=True), "
        "grad(..., retain_graph=True)."
    )


def _changed(node: Node, which: str) -> errors.GraphError:
    assert node.op is not None
    return errors.GraphError(
        f"{graph.located(node.op.name, node.scope)}: {which}, was changed in place after it was "
        "recorded, so its gradient would be wrong. Run the backward pass first, or write "
        "into a copy."
    )


def _result(t: Tensor, node: Node) -> Tensor:
    """What the node made, with its contents if the rule reads them, and still part of the
    recording.
    """
    if node.output is None:
        return t
    y = Tensor.wrap(node.output._data)
    y.node, y._requires_grad = node, True
    return y


def _called(x: Tensor) -> str:
    name = f"tensor {x.name!r}" if x.name else "the tensor"
    return f"{name} of shape {errors.describe(x.shape)}"
