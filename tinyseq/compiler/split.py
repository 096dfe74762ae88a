"""The second pass: what leaves the loop, and what is kept for the way back.

One law: *what does not touch the carried state leaves the loop.* On the way forward a product of an
input with a weight is taken for all steps at once, before; on the way back whatever no earlier step
waits for is, after: the gradients of the weights, Σₜ hₜᵀ gₜ = Hᵀ G, and of the inputs. What is
computed element by element stays where its numbers are in the cache: in the loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyseq.compiler.program import BATCH, Equation, Program, Value, leading_to, made_from
from tinyseq.errors import CompileError, describe
from tinyseq.tensor import FLOATS

VIEWS = ("getitem", "broadcast_to", "reshape")  # another way to read the same numbers
REDUCTIONS = ("sum", "sum_to", "max", "min", "logsumexp")
ASSEMBLIES = ("concat", "scatter_add")
#: As much work as several loads: kept rather than computed again
DEAR = {"exp", "log", "expm1", "log1p", "sin", "cos", "erf", "tanh", "sigmoid", "softplus", "pow"}
DEAR |= {"sqrt", "div", "floor_divide", "remainder", "matmul", *REDUCTIONS, *ASSEMBLIES}


@dataclass
class Outer:
    """result = Σ over steps and sequences of leftᵀ right: the gradient of a weight."""

    result: Value
    left: Value
    right: Value


@dataclass
class Plan:
    """A program cut into its stages. ``before`` and ``after`` are products and, in between, lists
    of equations for all rows; ``forward`` and ``backward`` run step by step.
    """

    program: Program
    constant: list[Equation] = field(default_factory=list)  # of parameters alone
    before: list[Equation | list[Equation]] = field(default_factory=list)
    forward: list[Equation] = field(default_factory=list)
    saved: list[Value] = field(default_factory=list)  # made in the loop, kept for all steps
    again: list[Equation] = field(default_factory=list)  # forward ones that are cheaper made again
    backward: list[Equation] = field(default_factory=list)
    after: list[Equation | list[Equation]] = field(default_factory=list)
    outer: list[Outer] = field(default_factory=list)
    collected: list[Equation] = field(default_factory=list)  # sums over steps and sequences
    final: list[Equation] = field(default_factory=list)  # on those sums, once
    wanted: set[Value] = field(default_factory=set)  # inputs whose gradient is asked for


def split(program: Program, wanted: Iterable[Value], saving: bool) -> Plan:
    """The plan of a program, for the gradients of the ``wanted`` inputs (none: ``saving=False``).

    Raises `CompileError` for a step that mixes sequences, or uses an op that has no loop.
    """
    plan = Plan(program, wanted=set(wanted))
    assert program.y is not None
    carried = made_from(program.forward, program.before)
    needed = leading_to([program.y, *program.states])
    backward: list[Equation] = []
    if saving:
        ends = [program.gradients.get(v) for v in (*plan.wanted, *program.before)]
        needed |= leading_to(ends)
        backward = [e for e in program.backward if e.output in needed]
    forward = [e for e in program.forward if e.output in needed]
    for equation in forward:  # says so when there is no loop for one
        if kind(equation) in ("outer", "collect", "transposed"):
            raise _mixes(equation)
    for equation in backward:
        kind(equation)
    _forward(plan, forward, carried)
    if saving:
        _backward(plan, backward)
        _save(plan)
    return plan


def _forward(plan: Plan, equations: list[Equation], carried: set[Value]) -> None:
    free = [e for e in equations if e.output.row and e.output not in carried]
    products = {e.output for e in free if kind(e) == "product"}
    leaving = leading_to(products)
    plan.constant = [e for e in equations if not e.output.row]
    out = [e for e in free if e.output in leaving]
    plan.before = stages(out)
    plan.forward = [e for e in equations if e.output.row and e not in out]


def _backward(plan: Plan, equations: list[Equation]) -> None:
    program = plan.program
    waited_for = leading_to(program.gradients.get(v) for v in program.before)
    collected = made_from(
        equations, [e.output for e in equations if kind(e) in ("outer", "collect")]
    )
    late: set[Value] = set()  # made from a product that is taken after the loop
    after: list[Equation] = []
    for e in equations:
        what = kind(e)
        if e.output in collected and what not in ("outer", "collect"):
            plan.final.append(e)
        elif what == "outer":
            left, right = (untransposed(e.inputs[0]), e.inputs[1])
            plan.outer.append(Outer(e.output, left, right))
        elif what == "collect":
            plan.collected.append(e)
        elif not e.output.row and what != "transposed":
            plan.constant.append(e)
        elif what == "transposed":
            continue
        elif e.output in waited_for:
            plan.backward.append(e)
        elif what == "product" or any(x in late for x in e.inputs):
            late.add(e.output)
            after.append(e)
        else:
            plan.backward.append(e)
    after += [e for e in plan.collected if not late.isdisjoint(e.inputs)]
    plan.collected = [e for e in plan.collected if e not in after]
    plan.after = stages(after)


def _save(plan: Plan) -> None:
    """What the way back reads of the way forward is kept, or made again where that is cheap."""
    program = plan.program
    made = {e.output for e in plan.forward}
    kept = {program.x, *program.before, *program.states, *program.noise}
    kept |= {e.output for e in flattened(plan.before)}
    operands = {base(e.inputs[0]) for e in plan.forward if kind(e) == "product"}
    read: list[Value] = []
    for e in [*plan.backward, *flattened(plan.after)]:
        read += e.inputs
    read += [x for e in plan.collected for x in e.inputs]
    read += [x for o in plan.outer for x in (o.left, o.right)]
    direct = {x for x in dict.fromkeys(read) if x in made}
    saved: set[Value] = set()
    again: set[Value] = set()

    def at_hand(value: Value, keep: bool) -> bool:
        """Whether the way back has this value, with ``keep`` after keeping what it takes."""
        if value in kept or value in saved or value in again or not value.row:
            return True
        if value.kind != "made" or value not in made:
            return value.kind != "made" or value in again
        equation = value.made
        assert equation is not None
        if value not in operands and equation.op.name not in DEAR:
            view = equation.op.name in VIEWS
            if all(at_hand(x, keep and view) for x in equation.inputs):
                again.add(value)
                return True
        if keep:
            saved.add(value)
        return keep

    order = {e.output: (e.op.name not in DEAR, n) for n, e in enumerate(plan.forward)}
    for value in sorted(direct, key=order.__getitem__):  # dear ones first
        at_hand(value, keep=True)
    plan.saved = [e.output for e in plan.forward if e.output in saved]
    plan.again = [e for e in plan.forward if e.output in again]


def stages(equations: list[Equation]) -> list[Equation | list[Equation]]:
    """In an order that can be run: as many row equations as are ready, then the products that are.

    What has to be complete for all rows before the next: a product, or a list of row equations.
    """
    left, waiting = list(equations), {e.output for e in equations}
    out: list[Equation | list[Equation]] = []
    while left:
        rows: list[Equation] = []
        for e in left:
            if kind(e) != "product" and waiting.isdisjoint(e.inputs):
                rows.append(e)
                waiting.remove(e.output)
        ready = [e for e in left if kind(e) == "product" and waiting.isdisjoint(e.inputs)]
        waiting -= {e.output for e in ready}
        assert rows or ready, "equations come in an order in which they can be run"
        out += [rows, *ready] if rows else ready
        left = [e for e in left if e.output in waiting]
    return out


def listed(stage: Equation | list[Equation]) -> list[Equation]:
    return stage if isinstance(stage, list) else [stage]


def flattened(stages: Iterable[Equation | list[Equation]]) -> list[Equation]:
    return [e for stage in stages for e in listed(stage)]


# -- what an equation is to a loop over rows ------------------------------------------------------


def kind(e: Equation) -> str:
    """How an equation is run. Raises `CompileError` when it cannot be, row by row.

    ``"flat"``: no row in it; ``"product"``: a row times a weight; ``"outer"``: Σ leftᵀ right over
    rows; ``"collect"``: a sum over rows; ``"view"``, ``"reduce"``, ``"assemble"``,
    ``"elementwise"``; ``"transposed"``: the left side of an outer.
    """
    op, out = e.op.name, e.output
    rows = [x.row for x in e.inputs]
    if not out.row:
        if BATCH in out.shape:
            if op == "transpose" and e.attrs["axes"] == (1, 0) and rows == [True]:
                return "transposed"
            raise _mixes(e)
        if not any(rows) and all(BATCH not in x.shape for x in e.inputs):
            return "flat"
        if op == "matmul" and rows == [False, True] and _transposed(e.inputs[0]):
            return "outer"
        if op in ("sum_to", "sum"):
            return "collect"
        raise _mixes(e)
    if len(out.shape) > 2:
        raise CompileError(
            f"{e.line}: {op} makes a tensor of shape {describe(out.shape)}. In a compiled step "
            "there are (B, W) and (B,) alone: write the parts of the last axis as slices."
        )
    if op == "matmul":
        if rows == [True, False] and len(e.inputs[1].shape) == 2:
            return "product"
        raise _mixes(e)
    if op in VIEWS:
        if op == "getitem":
            columns(e.inputs[0], e.attrs["index"], e)
        elif op == "reshape" and e.inputs[0].width != out.width:
            raise _mixes(e)
        return "view"
    if op in REDUCTIONS:
        if op == "sum_to":
            return "view" if e.inputs[0].shape == out.shape else "reduce"
        if e.attrs["axis"] not in ((1,), ()):
            raise _mixes(e)
        return "reduce" if e.attrs["axis"] else "view"
    if op in ASSEMBLIES:
        if op == "concat" and e.attrs["axis"] != 1:
            raise _mixes(e)
        for x, index in zip(e.inputs, e.attrs.get("indices", ()), strict=False):
            if len(columns(out, index, e)) != x.width:
                raise _mixes(e)
        return "assemble"
    if op == "astype":
        given = e.inputs[0].dtype
        if given == out.dtype or (given.kind in "bi" and out.dtype in (*FLOATS, np.int64)):
            return "elementwise"
    elif e.op.emit is not None:
        return "elementwise"
    raise CompileError(
        f"{e.line}: {op} has no form for a compiled loop. Write the step with element-wise ops, "
        "matmul with a weight, slices and reductions of the last axis."
    )


def _mixes(e: Equation) -> CompileError:
    sizes = " and ".join(describe(x.shape) for x in e.inputs)
    return CompileError(
        f"{e.line}: {e.op.name} of {sizes} mixes the sequences of the batch, or a row with itself. "
        "A compiled step does the same for each sequence: keep axis 0 the batch, multiply by "
        "weights from the right, x @ w, and reduce the last axis alone."
    )


def _transposed(v: Value) -> bool:
    return v.made is not None and v.made.op.name == "transpose" and v.made.inputs[0].row


def untransposed(v: Value) -> Value:
    assert v.made is not None
    return v.made.inputs[0]


def columns(source: Value, index: Any, e: Equation) -> np.ndarray:
    """The columns of each row that source[index] reads, evenly spaced."""
    width = source.width
    first = index[0] if isinstance(index, tuple) and index else index
    if isinstance(first, slice) and first.stop is BATCH and not first.start and not first.step:
        rest = index[1:] if isinstance(index, tuple) else ()  # [0:B] are all rows
        index = (slice(None), *rest)
    probe = np.broadcast_to(np.arange(width), (2, width)).reshape(2, *source.shape[1:])
    lines = np.broadcast_to(np.arange(2)[:, None], (2, width)).reshape(probe.shape)
    try:
        if "B" in repr(index):
            raise IndexError
        cols, rows = probe[index], lines[index]
    except (IndexError, TypeError, ValueError):
        raise _mixes(e) from None
    if cols.ndim not in (1, 2) or len(cols) != 2:
        raise _mixes(e)
    cols, rows = cols.reshape(2, -1), rows.reshape(2, -1)
    steps = np.diff(cols[0])
    if not (rows == np.arange(2)[:, None]).all() or (steps != steps[:1]).any():
        raise CompileError(
            f"{e.line}: this index picks single columns, or other ones for other sequences. In a "
            "compiled step use slices of the last axis, x[:, 2:5]."
        )
    return cols[0]  # type: ignore[no-any-return]


def base(v: Value) -> Value:
    """The value whose numbers a view reads."""
    while v.made is not None and kind(v.made) == "view":
        v = v.made.inputs[0]
    return v
