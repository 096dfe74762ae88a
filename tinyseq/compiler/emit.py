"""The third pass: a plan as Python that a person can read and numba can compile.

Each list of equations becomes loops over the rows of a batch, one short loop an array that is
written: LLVM vectorises those, and gives up on long ones over many arrays. Cheap equations are
written into the loops that read them; others get a row of scratch memory, which stays in the
cache. Products are calls of the kernel on all rows of a thread at once.

A thread takes its sequences through all steps, a chunk of steps at a time: what leaves the loop
(`split`) is computed for a chunk before it is gone through, or after, while its numbers are in the
cache, and memory for it is that of a chunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tinyseq.compiler.program import Equation, Program, Value, leading_to, users
from tinyseq.compiler.split import DEAR, Plan, base, columns, flattened, kind, listed, stages

_MOST = 12  # operations in one loop …
_ARRAYS = 6  # … and arrays that it reads: beyond, LLVM does not vectorise
_LOGICAL = {"add": "({0} or {1})", "mul": "({0} and {1})"}
#: By where a value is: the role of its array, the step in it, and those of a chunk
_PLACES = {
    "state": ("state", "before, ", "lo + reverse:hi + reverse, "),
    "after": ("state", "after, ", "lo + 1 - reverse:hi + 1 - reverse, "),
    "carried": ("carried", "now, ", ""),
    "following": ("carried", "following, ", ""),
    "steps": ("steps", "t, ", "lo:hi, "),
    "chunk": ("chunk", "t - lo, ", ":hi - lo, "),
    "kept": ("chunk", "t - lo, ", ":hi - lo, "),
    "rows": ("rows", "", ""),
    "scratch": ("scratch", "", ""),
}
_ATOM = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789.")


class Argument(NamedTuple):
    """An array that an emitted function takes.

    ``role``: ``"steps"`` (T, B, W), ``"chunk"`` (chunk, B, W), ``"state"`` (T + 1, B, W),
    ``"carried"`` (2, B, W), ``"rows"`` (B, W), ``"scratch"`` and ``"sums"`` (parts, W),
    ``"weight"`` (parts, K, N), ``"flat"`` (as it is), ``"panels"`` (packed), ``"packed"`` and
    ``"tiles"`` (scratch for `gemm.outers`).
    """

    name: str
    role: str
    value: Value
    anew: bool  # whether each run brings an array of its own


@dataclass
class Function:
    """An emitted function: its text, and what it takes behind (part, first, last, T, …)."""

    name: str
    source: str
    arguments: list[Argument] = field(default_factory=list)


@dataclass
class Source:
    """The functions of a plan, and the text of their module."""

    forward: Function
    backward: Function | None
    text: str


def emit(plan: Plan) -> Source:
    """The source of a plan; its docstring is the program."""
    program = plan.program
    assert program.y is not None
    known: dict[Value, str] = {program.x: "steps"}
    known |= dict.fromkeys(program.noise, "steps")
    known |= dict.fromkeys(program.before, "state")
    later = [*plan.again, *plan.backward, *plan.collected, *flattened(plan.after)]
    read_back = {base(x) for e in later for x in e.inputs}
    read_back |= {held(x) for o in plan.outer for x in (o.left, o.right)}

    arguments: dict[tuple[str, str], Argument] = {}
    ahead: list[str] = []
    for n, stage in enumerate(plan.before):
        rest = [*flattened(plan.before[n + 1 :]), *plan.forward]
        needed = [*(x for e in rest for x in e.inputs), program.y, *program.states]
        read = read_back | {v for x in needed for v in (base(x), held(x))}
        made = {e.output for e in listed(stage)} & (read | {held(x) for x in read})
        known |= {v: "steps" if v in read_back else "chunk" for v in made}
        ahead += _Writer(program, "ahead", listed(stage), known, [], arguments).chunk()
    stored = dict.fromkeys(plan.saved, "steps")
    targets = [_Target(v, "state", i) for i, v in enumerate(program.states)]
    if program.y not in program.states:
        targets.append(_Target(program.y, "steps", "y"))
    writer = _Writer(program, "forward", plan.forward, known | stored, targets, arguments)
    forward = _function("forward", [*ahead, *writer.steps(back=False)], arguments, back=False)
    backward = _backward(plan, known | stored) if plan.wanted else None
    head = (
        f'"""{program}\n"""\n\n'
        "from numpy import float32, float64, inf, int64, isfinite, nan\n\n"
        "from tinyseq.kernels.activations import *\n"
        "from tinyseq.kernels.gemm import in_panels, matmul, matmuls, outers\n"
        "from tinyseq.kernels.threads import begin, end\n"
    )
    text = head + "".join(f"\n\n{f.source}" for f in (forward, backward) if f is not None)
    return Source(forward, backward, text)


def _backward(plan: Plan, known: dict[Value, str]) -> Function:
    program = plan.program
    known = {v: role for v, role in known.items() if role != "chunk"}  # gone by now
    known = dict.fromkeys(program.states, "state") | known
    known[program.seeds[0]] = "steps"
    known |= dict.fromkeys(program.seeds[1:], "carried")
    made = {e.output for e in [*plan.again, *plan.backward]}
    kept = {held(x) for o in plan.outer for x in (o.left, o.right)}
    kept |= {held(x) for e in flattened(plan.after) for x in e.inputs}
    ends = {program.gradients.get(v) for v in plan.wanted if v.kind == "x"}
    known |= {v: "chunk" for v in kept if v in made and v not in known}
    known |= {v: "steps" for v in ends & made if v is not None}
    late = [e for e in flattened(plan.after) if kind(e) != "product"]
    passing = kept | {base(x) for e in late for x in e.inputs}  # read when a chunk is done
    passing = {v for v in passing if known.get(v) == "carried"}

    arguments: dict[tuple[str, str], Argument] = {}
    targets = [
        _Target(program.gradients.get(v), "carried", i) for i, v in enumerate(program.before)
    ]
    targets += [_Target(v, "steps", x_gradient(v)) for v in ends if v and v.made is None]
    targets += [_Target(v, "chunk", f"{v.name}_kept") for v in passing]
    targets += [_Target(e.output, "sums", "") for e in plan.collected]
    equations = [*plan.again, *plan.backward, *plan.collected]
    writer = _Writer(program, "backward", equations, known, targets, arguments)
    body = writer.steps(back=True)
    known |= dict.fromkeys(passing, "kept")
    writer.where |= dict.fromkeys(passing, "kept")
    for n, stage in enumerate(plan.after):
        rest = flattened(plan.after[n + 1 :])
        read = {held(x) for e in rest for x in e.inputs}
        read |= {held(x) for o in plan.outer for x in (o.left, o.right)}
        for e in listed(stage):
            if kind(e) != "collect" and e.output in ends:
                known[e.output] = "steps"
            elif kind(e) != "collect" and (e.output in read or kind(e) == "product"):
                known[e.output] = "chunk"
        sums = [_Target(e.output, "sums", "") for e in listed(stage) if kind(e) == "collect"]
        equations = [*plan.again, *listed(stage)]
        body += _Writer(program, "behind", equations, known, sums, arguments).chunk()
    for right in dict.fromkeys(o.right for o in plan.outer):
        writer.where.setdefault(held(right), known[held(right)])
        body.append(
            f"in_panels({writer.block(right)}, {writer.array(right, 'packed', 'packed')}[part])"
        )
        for o in plan.outer:
            if o.right is right:
                writer.where.setdefault(held(o.left), known[held(o.left)])
                into, tiles = (
                    writer.array(o.result, "weight"),
                    writer.array(right, "tiles", "tiles"),
                )
                body.append(
                    f"outers({writer.block(o.left)}, packed[part], {into}[part], {tiles}[part], "
                    "s1 < T)"
                )
    return _function("backward", body, arguments, back=True)


def x_gradient(made: Value) -> str:
    """The name of the array for the gradient of x: one that no equation makes is copied there."""
    return "d_x" if made.made is None else made.name


def _function(
    name: str, body: list[str], arguments: dict[tuple[str, str], Argument], back: bool
) -> Function:
    """A function over chunks of steps, with its shapes in the docstring."""
    chunks = (
        ["for s1 in range(T, 0, -chunk):", "    s0 = max(s1 - chunk, 0)"]
        if back
        else ["for s0 in range(0, T, chunk):", "    s1 = min(s0 + chunk, T)"]
    )
    chunks.append("    lo, hi = (T - s1, T - s0) if reverse else (s0, s1)")
    names = ["team", "part", "first", "last", "T", "reverse", "chunk", *(k[0] for k in arguments)]
    shapes = "\n".join(f"    {a.name} {shape_of(a)}" for a in arguments.values())
    doc = f'    """For the sequences first … last − 1, with\n\n{shapes}\n    """'
    lines = [f"def {name}({', '.join(names)}):", doc, "    begin(team, part)", *indented(chunks)]
    text = "\n".join([*lines, *indented(indented(body)), "    end(team, part)", ""])
    return Function(name, text, list(arguments.values()))


def held(v: Value) -> Value:
    """What has to be in memory for a product to read v: v itself, or what it is a slice of."""
    while v.made is not None and v.row and kind(v.made) == "view":
        x, op = v.made.inputs[0], v.made.op.name
        if not x.row or (op == "broadcast_to" and x.width != v.width):
            break
        if op == "getitem":
            cols = columns(x, v.made.attrs["index"], v.made)
            if len(cols) > 1 and cols[1] - cols[0] != 1:
                break
        v = x
    return v


class _Target(NamedTuple):
    """A place that a value has to end up in, whether it is made there or copied."""

    value: Value | None  # None: zeros
    role: str
    place: Any  # which state, or which name


class _Index(NamedTuple):
    """Column ``step · j + start`` of a row."""

    start: int = 0
    step: int = 1
    variable: str = "j"

    def of(self, start: int, step: int) -> _Index:
        return _Index(start + step * self.start, step * self.step, self.variable)

    def __str__(self) -> str:
        if not self.step or not self.variable:
            return str(self.start)
        text = self.variable if self.step == 1 else f"{self.step} * {self.variable}"
        return f"{self.start} + {text}" if self.start else text


_ZERO = _Index(0, 0, "")
_J = _Index()


class _Writer:
    """One function: where each value is, and the loops that put it there."""

    def __init__(
        self,
        program: Program,
        name: str,
        equations: list[Equation],
        known: dict[Value, str],
        targets: list[_Target],
        arguments: dict[tuple[str, str], Argument],
    ) -> None:
        self.program, self.name, self.targets = program, name, targets
        self.number = str(program.dtype)
        self.arguments = arguments
        self.after: dict[Value, int] = {}
        self.made = made = {e.output for e in equations}
        stored = {v: r for v, r in known.items() if r in ("steps", "chunk") and v in made}
        ends = [t.value for t in targets if t.value is not None]
        needed = leading_to([*stored, *ends])
        self.equations = [e for e in equations if e.output in needed]
        self.where: dict[Value, str] = {v: r for v, r in known.items() if v not in made}
        self.stored = stored
        self.segments = stages([e for e in self.equations if kind(e) != "collect"])
        self.collected = [e for e in self.equations if kind(e) == "collect"]
        self.segment = {e.output: n for n, stage in enumerate(self.segments) for e in listed(stage)}
        self.users = users(self.equations)
        self.weight: dict[Value, int] = {}
        self.arrays: dict[Value, set[Value]] = {}
        self._place()

    # -- where each value is ----------------------------------------------------------------------

    def _place(self) -> None:
        forward = self.name in ("forward", "ahead")
        for target in self.targets:
            value = target.value
            if value is None or value not in self.segment or value in self.where:
                continue
            assert value.made is not None
            carried = target.role == "carried" and value not in self.stored
            if kind(value.made) != "view" and (carried or (target.role == "state" and forward)):
                self.after[value] = target.place
                self.where[value] = "following" if carried else "after"
        if not forward:
            for i, v in enumerate(self.program.states):
                if v not in self.segment:
                    self.after[v] = i
                    if self.where.get(v, "state") == "state":
                        self.where[v] = "after"
        operands = {held(e.inputs[0]) for e in self.equations if kind(e) == "product"}
        for stage in self.segments:
            for e in listed(stage):
                v = e.output
                if v in self.where:
                    pass
                elif v in self.stored:
                    self.where[v] = self.stored[v]
                elif kind(e) == "product" or v in operands:
                    self.where[v] = "rows"
                elif kind(e) == "view":
                    self.where[v] = "inline"
                elif self._leaves(v):
                    self.where[v] = "rows"
                elif v.width == 1 and kind(e) != "assemble":
                    self.where[v] = "local"
                elif kind(e) == "elementwise" and self._inline(e):
                    self.where[v] = "inline"
                else:
                    self.where[v] = "scratch"
                if self.where[v] in ("local", "scratch"):
                    self.where[v] = self._placed(v) or self.where[v]
                self._measure(e)

    def _placed(self, v: Value) -> str | None:
        """The memory that another part of the same function, which made v too, has for it: one name
        is one thing in a function.
        """
        roles = (role for role in ("rows", "scratch") if (v.name, role) in self.arguments)
        return next(roles, None)

    def _readers(self, v: Value) -> list[Equation]:
        """The equations that read v, itself or through views."""
        out: list[Equation] = []
        for e in self.users.get(v, []):
            if kind(e) == "view" and self.where.get(e.output, "inline") == "inline":
                out += self._readers(e.output)
            else:
                out.append(e)
        return out

    def _leaves(self, v: Value) -> bool:
        """Whether a later stage of this function reads v."""
        here = self.segment[v]
        return any(
            self.segment.get(e.output, len(self.segments)) != here
            for e in self._readers(v)
            if kind(e) != "collect"
        )

    def _inline(self, e: Equation) -> bool:
        readers = self._readers(e.output) + [
            e for t in self.targets if t.value is e.output and t.role != "sums"
        ]
        weight = 1 + sum(self.weight.get(x, 0) for x in e.inputs)
        arrays = set[Value]().union(*(self._reads(x) for x in e.inputs))
        if any(r.op.name in ("max", "min", "logsumexp") for r in readers):
            return False  # they read their input twice
        if len(readers) > 1 and (e.op.name in DEAR or weight > 3 or len(readers) > 2):
            return False
        return weight <= _MOST and len(arrays) <= _ARRAYS

    def _measure(self, e: Equation) -> None:
        v = e.output
        if self.where[v] == "inline":
            own = 0 if kind(e) == "view" else 4 if e.op.name in DEAR and e.op.name != "div" else 1
            self.weight[v] = own + sum(self.weight.get(x, 0) for x in e.inputs)
            self.arrays[v] = set[Value]().union(*(self._reads(x) for x in e.inputs))

    def _reads(self, x: Value) -> set[Value]:
        if x.number or x.kind == "constant":
            return set()
        return self.arrays.get(x, {x})

    # -- expressions ------------------------------------------------------------------------------

    def array(self, value: Value, role: str, name: str | None = None) -> str:
        name = name or value.name
        key = (name, role)
        if key not in self.arguments:
            anew = role in ("flat", "sums", "weight")
            if role == "steps":
                anew = value.kind in ("x", "noise", "seed")
                anew |= self.name in ("backward", "behind") and value in self.made  # a gradient
            self.arguments[key] = Argument(name, role, value, anew)
        return name

    def element(self, v: Value, j: _Index) -> str:
        """The text of one number of v: in column j of the row at hand."""
        if v.kind == "constant" and (v.number or (v.row and v.data is not None)):
            return self.literal(v)
        if not v.row:
            return self.flat(v, j)
        if v.width == 1:
            j = _ZERO
        where = self.where.get(v)
        if where == "inline" or (where is None and v.made is not None and kind(v.made) == "view"):
            return self.inline(v, j)
        if where == "local":
            return v.name
        front = self.front(v, "i")
        return f"{front}, {j}]"

    def front(self, v: Value, rows: str, chunk: bool = False) -> str:
        """The text of v's memory up to the column: ``h[before, i``, or at all steps of a chunk."""
        where, holder = self.where[v], v
        if where == "after":
            holder = self.program.before[self.after[v]]
        elif where == "following":
            holder = self.program.seeds[1 + self.after[v]]
        role, step, steps = _PLACES[where]
        array = self.array(holder, role, f"{v.name}_kept" if where == "kept" else None)
        return (
            f"{array}[part" if where == "scratch" else f"{array}[{steps if chunk else step}{rows}"
        )

    def literal(self, v: Value) -> str:
        assert v.data is not None
        value = v.data.item() if v.data.size == 1 else 0.0
        if isinstance(value, bool):
            return str(value)
        return f"{self.number}({float(value)!r})"

    def flat(self, v: Value, j: _Index) -> str:
        name = self.array(v, "flat")
        if v.shape == ():
            return f"{name}[()]"
        last = "0" if v.shape[-1] == 1 else str(j)
        return f"{name}[{'0, ' * (len(v.shape) - 1)}{last}]"

    def inline(self, v: Value, j: _Index) -> str:
        e = v.made
        assert e is not None
        if kind(e) == "view":
            x = e.inputs[0]
            if e.op.name == "getitem":
                cols = columns(x, e.attrs["index"], e)
                first = int(cols[0]) if len(cols) else 0
                step = int(cols[1] - cols[0]) if len(cols) > 1 else 0
                j = j.of(first, step) if step else _Index(first, 0, "")
            return self.element(x, j)
        return self.formula(e, j)

    def formula(self, e: Equation, j: _Index) -> str:
        """The right side of an element-wise equation."""
        texts = [self.element(x, j) for x in e.inputs]
        if e.op.name == "astype":
            return f"{e.output.dtype if e.output.dtype != bool else 'bool'}({texts[0]})"
        if e.output.dtype != bool and e.op.name != "where":
            texts = [
                f"{self.number}({text})" if x.dtype == bool else text
                for x, text in zip(e.inputs, texts, strict=True)
            ]
        assert e.op.emit is not None
        form = e.op.emit
        if e.output.dtype == bool:  # of numbers 0 and 1 the sum could be 2
            form = _LOGICAL.get(e.op.name, form)
        return grouped(form.format(*texts))

    # -- statements -------------------------------------------------------------------------------

    def statements(self, e: Equation) -> list[str]:
        """What puts the result of a row equation where it belongs, for one row."""
        v, what = e.output, kind(e)
        if self.where[v] == "inline":
            return []
        if what == "reduce":
            return self.reduction(e)
        if what == "assemble":
            return self.assembly(e)
        put = self.inline if what == "view" else lambda v, j: self.formula(e, j)
        if self.where[v] == "local":
            return [f"{v.name} = {bare(put(v, _ZERO))}"]
        if v.width == 1:
            return [f"{self.element(v, _ZERO)} = {bare(put(v, _ZERO))}"]
        return loop(v.width, f"{self.element(v, _J)} = {bare(put(v, _J))}")

    def reduction(self, e: Equation) -> list[str]:
        x, v = e.inputs[0], e.output
        total = v.name if self.where[v] == "local" else "total"
        zero = f"{self.number}(0.0)"
        term = bare(self.element(x, _J))
        if e.op.name in ("sum", "sum_to"):
            lines = [f"{total} = {zero}", *loop(x.width, f"{total} += {term}")]
        elif e.op.name in ("max", "min"):
            which = "maximum" if e.op.name == "max" else "minimum"
            first = bare(self.element(x, _ZERO))
            lines = [f"{total} = {first}"]
            lines += loop(x.width, f"{total} = {which}({total}, {term})")
        else:
            first = bare(self.element(x, _ZERO))
            lines = [f"largest = {first}"]
            lines += loop(x.width, f"largest = maximum(largest, {term})")
            lines += [f"largest = largest if isfinite(largest) else {zero}", f"{total} = {zero}"]
            lines += loop(x.width, f"{total} += exp({self.element(x, _J)} - largest)")
            lines += [f"{total} = log({total}) + largest"]
        if self.where[v] != "local":
            lines.append(f"{self.element(v, _ZERO)} = {total}")
        return lines

    def assembly(self, e: Equation) -> list[str]:
        """concat and scatter_add: each part in its own columns."""
        v = e.output
        if e.op.name == "concat":
            ends = np.cumsum([0, *(x.width for x in e.inputs)]).tolist()
            places = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
        else:
            places = [columns(v, index, e) for index in e.attrs["indices"]]
        covered = np.concatenate(places) if places else np.zeros(0, int)
        once = len(np.unique(covered)) == len(covered)
        lines = []
        if not once or len(covered) < v.width:
            lines += loop(v.width, f"{self.element(v, _J)} = {self.number}(0.0)")
        for x, cols in zip(e.inputs, places, strict=True):
            if not len(cols):
                continue
            step = int(cols[1] - cols[0]) if len(cols) > 1 else 1
            into = f"{self.front(v, 'i')}, {_Index(int(cols[0]), step)}]"
            sign = "=" if once else "+="
            lines += loop(len(cols), f"{into} {sign} {bare(self.element(x, _J))}")
        return lines

    def collection(self, e: Equation) -> list[str]:
        """A sum over steps and sequences, a part of it for each thread."""
        x, v = e.inputs[0], e.output
        name = self.array(v, "sums")
        term = bare(self.element(x, _J))
        if v.width == 1 and x.width > 1:
            return [
                f"total = {self.number}(0.0)",
                *loop(x.width, f"total += {term}"),
                f"{name}[part, 0] += total",
            ]
        if v.width == 1:
            return [f"{name}[part, 0] += {bare(self.element(x, _ZERO))}"]
        return loop(v.width, f"{name}[part, j] += {term}")

    def product(self, e: Equation) -> str:
        left, right = e.inputs
        panels = self.array(right, "panels", f"{right.name}_panels")
        if self.name in ("ahead", "behind"):
            return f"matmuls({self.block(left)}, {panels}, {self.block(e.output)})"
        out = f"{self.front(e.output, 'first:last')}]"
        return f"matmul({self.sliced(left, self.front(held(left), 'first:last'))}, {panels}, {out})"

    def block(self, v: Value) -> str:
        """v at all steps of a chunk, for the rows of this thread."""
        return self.sliced(v, self.front(held(v), "first:last", chunk=True))

    def sliced(self, v: Value, text: str) -> str:
        """The text of a matrix, cut to the columns of v where v is a slice of what is held."""
        start, width, whole = 0, v.width, held(v)
        if v is whole or width == whole.width:
            return f"{text}]"
        while v is not whole:
            assert v.made is not None
            if v.made.op.name == "getitem":
                start += int(columns(v.made.inputs[0], v.made.attrs["index"], v.made)[0])
            v = v.made.inputs[0]
        return f"{text}, {start}:{start + width}]"

    # -- functions --------------------------------------------------------------------------------

    def body(self) -> list[str]:
        """All statements of one step, for the rows of one thread."""
        lines: list[str] = []
        ends: dict[int, list[str]] = {}  # sums and copies, as soon as what they read is there
        for e in self.collected:
            ends.setdefault(self.rows_after(e.inputs[0]), []).extend(self.collection(e))
        for target in self.targets:
            ends.setdefault(self.rows_after(target.value), []).extend(self.copy(target))
        for n, stage in enumerate(self.segments):
            if isinstance(stage, Equation):
                lines.append(self.product(stage))
                continue
            rows = [s for e in stage for s in self.statements(e)]
            rows += ends.pop(n, [])
            if rows:
                lines += ["for i in range(first, last):", *indented(rows)]
        if pending := [s for part in ends.values() for s in part]:
            lines += ["for i in range(first, last):", *indented(pending)]
        return lines

    def rows_after(self, v: Value | None) -> int:
        """The first stage of rows in which v, or the scratch memory that it is made from, is there:
        the next stage has other rows in it.
        """
        n = 0 if v is None else self.segment.get(v, 0)
        while n < len(self.segments) and isinstance(self.segments[n], Equation):
            n += 1
        return n

    def copy(self, target: _Target) -> list[str]:
        """What has to end up in a place where it was not made."""
        v, holder, where, name = target.value, target.value, target.role, target.place
        if where == "sums":
            return []
        if where in ("state", "carried"):
            of_states = where == "state"
            holder = (self.program.before if of_states else self.program.seeds[1:])[target.place]
            where, name = "after" if of_states else "following", None
            if v in self.segment and self.where[v] == where and self.after[v] == target.place:
                return []  # made there
        assert holder is not None
        role, step, _ = _PLACES[where]
        into = f"{self.array(holder, role, name)}[{step}i, "
        if v is not None and v.width == 1:
            return [f"{into}0] = {bare(self.element(v, _J))}"]
        text = f"{self.number}(0.0)" if v is None else bare(self.element(v, _J))
        return loop(holder.width, f"{into}j] = {text}")

    def steps(self, back: bool) -> list[str]:
        """Step by step through a chunk, from its first step to its last or back."""
        head = ["t = T - 1 - s if reverse else s"]
        head += ["before, after = t + reverse, t + 1 - reverse"]
        if back:
            head += ["now = (T - 1 - s) % 2", "following = 1 - now"]
        steps = "range(s1 - 1, s0 - 1, -1)" if back else "range(s0, s1)"
        return [f"for s in {steps}:", *indented(head + self.body())]

    def chunk(self) -> list[str]:
        """For all steps of a chunk at once: a product, or rows in any order."""
        body = self.body()
        if any(isinstance(stage, Equation) for stage in self.segments):
            return body
        if any("[before, " in line or "[after, " in line for line in body):
            body = ["before, after = t + reverse, t + 1 - reverse", *body]
        return ["for t in range(lo, hi):", *indented(body)] if body else []


def shape_of(a: Argument) -> str:
    width = a.value.width
    flat = ", ".join(map(str, a.value.shape))
    return {
        "steps": f"(T, B, {width})",
        "chunk": f"(chunk, B, {width})",
        "weight": f"(parts, {flat}), added up over steps and sequences",
        "packed": "(parts, …), for one chunk of a factor of a weight's gradient",
        "tiles": "(parts, …), for one of the other factor",
        "state": f"(T + 1, B, {width}): before and after each step",
        "carried": f"(2, B, {width}): now and at the following step back",
        "rows": f"(B, {width})",
        "scratch": f"(parts, {width}), a row of scratch memory",
        "sums": f"(parts, {width}), added up over steps and sequences",
        "flat": f"({flat}{',' if len(a.value.shape) == 1 else ''})",
        "panels": f"({flat}), packed",
    }[a.role]


def loop(width: int, statement: str) -> list[str]:
    return [f"for j in range({width}):", f"    {statement}"]


def indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def grouped(text: str) -> str:
    """In parentheses, unless it is a name, a number, a call or in some already."""
    if set(text) <= _ATOM or _closed(text):
        return text
    head = text.split("(", 1)[0]
    if head and set(head) <= _ATOM and _closed(text[len(head) :]):
        return text
    return f"({text})"


def bare(text: str) -> str:
    """Without parentheses around the whole."""
    return text[1:-1] if _closed(text) else text


def _closed(text: str) -> bool:
    """Whether the first parenthesis is closed by the last character."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    depth = 0
    for n, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return n == len(text) - 1
    return False
