"""Text written by a language model in one compiled loop: its step, the head, and the draw.

One step of the whole model, from the row of a symbol's embedding to the logits of the next one, is
a cell like any other; its state is (logits, states of all layers). So it is traced, split and
emitted as cells are, and the loop around it is a few lines more of the same source. What does not
touch the carried state leaves the loop; here there are as many different inputs as symbols, so the
products of the input with a weight become tables, with a row for each symbol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tinyseq.compiler.emit import Source, emit
from tinyseq.compiler.program import Program
from tinyseq.compiler.runtime import Compiled, Run, said
from tinyseq.compiler.scan import lookup
from tinyseq.compiler.split import kind
from tinyseq.errors import CompileError
from tinyseq.kernels import gemm
from tinyseq.kernels.threads import ALONE
from tinyseq.nn.layers import Embedding
from tinyseq.nn.module import Module
from tinyseq.nn.recurrent import Recurrent, Stacked
from tinyseq.nn.training import evaluation
from tinyseq.tensor import Tensor

_LARGEST_TABLE = 2**22  # numbers, 16 MB of float32
_CANNOT = "Generation cannot be compiled: "
_ONE_CALL = 2e9  # operations until Python is asked whether Ctrl-C was pressed: tenths of a second


class Generation(Module):
    """A step of a model that is embedding → recurrent → dropout → head, behind its embedding:
    x (B, D), (logits, *states) → the same after it.
    """

    cells: list[Any]
    between: list[Module | None]  # the dropout in front of each
    sizes: list[int]  # of each cell's state: how many tensors
    dropout: Module
    head: Module

    def follow(self, model: Any, states: Sequence[tuple[Tensor, ...]]) -> None:
        """Be the step of this model. Its parts are entered in the dictionary: as attributes they
        would take their names in pictures from here.
        """
        layers = list(_flat(model.recurrent))
        vars(self).update(
            cells=[layer.cell for layer, _ in layers],
            between=[dropout for _, dropout in layers],
            dropout=model.dropout,
            head=model.head,
            symbols=model.embedding.num_embeddings,
            sizes=[len(s) for s in states],
            training=False,
        )

    @property
    def state_names(self) -> tuple[str, ...]:
        """``logits``, ``h_0``, ``c_0``, ``h_1`` …"""
        names = ["logits"]
        for n, (cell, size) in enumerate(zip(self.cells, self.sizes, strict=True)):
            own = getattr(cell, "state_names", None) or [f"state{i}" for i in range(size)]
            names += [f"{name}_{n}" for name in own]
        return tuple(names)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        before, after = list(state[1:]), list[Tensor]()
        for cell, size, dropout in zip(self.cells, self.sizes, self.between, strict=True):
            if dropout is not None:
                x = dropout(x)
            new = cell(x, tuple(before[:size]))
            if not isinstance(new, tuple) or len(new) != size:
                raise CompileError("a cell does not return a tuple like its state.")
            del before[:size]
            after += new
            x = new[0]
        return (self.head(self.dropout(x)), *after)


def _flat(layer: Module, dropout: Any = None) -> Iterator[tuple[Recurrent, Any]]:
    """The layers in the order in which they run, each with the dropout in front of it."""
    if type(layer) is Recurrent and not layer.reverse:
        yield layer, dropout
    elif type(layer) is Stacked and not layer.batch_first:
        for n, inner in enumerate(layer.layers):
            yield from _flat(inner, layer.dropout if n else dropout)
    else:
        raise CompileError(
            f"{_CANNOT}{type(layer).__name__} is no layer that a compiled loop generates with. "
            "These are Recurrent, not in reverse, and Stacked of them, not batch first."
        )


def _states(state: Any) -> Iterator[tuple[Tensor, ...]]:
    """The state of each layer, in the order of `_flat`."""
    if all(isinstance(s, Tensor) for s in state):
        yield tuple(state)
    else:
        for inner in state:
            yield from _states(inner)


# -- compiled -------------------------------------------------------------------------------------


class _Loop(Compiled):
    """The compiled step of a model and, in the same source, the loop that generates with it."""

    def __init__(self, program: Program, symbols: int) -> None:
        self.products = [
            e
            for e in program.forward
            if program.x in e.inputs
            and kind(e) == "product"
            and e.inputs[1].kind == "parameter"
            and symbols * e.output.width <= _LARGEST_TABLE
        ]
        for e in self.products:  # given from now on, as x is
            e.output.kind, e.output.made = "noise", None
        program = replace(
            program,
            noise=[e.output for e in self.products],
            forward=[e for e in program.forward if e not in self.products],
            seeds=[],
            backward=[],
            gradients={},
        )
        super().__init__(program, frozenset(), saving=False)

    def emitted(self) -> Source:
        source = emit(self.plan)
        program = self.program
        assert program.y is not None
        names = [a.name for a in source.forward.arguments]
        given = [
            f"{a.name}[symbol:symbol + 1]" if a.value in (program.x, *program.noise) else a.name
            for a in source.forward.arguments
        ]
        made = [(e.output, f"embedding @ {e.inputs[1].name}") for e in self.products]
        tables = [
            f"    {v.name} (V, 1, {v.width}): {what}, a row for each symbol"
            for v, what in [(program.x, "embedding"), *made]
            if v.name in names
        ]
        text = f'''

def generate(team, begin, end, symbol, temperature, draws, written, cumulative, {", ".join(names)}):
    """Into ``written``: the symbols begin … end − 1 of a text, that go on after ``symbol``.

{chr(10).join(tables)}

    The states before symbol n are at n % 2. Returns ``end``, or the place of the first symbol that
    could not be drawn, as the logits were not finite.
    """
    for n in range(begin, end):
        forward(team, 0, 0, 1, 1, n % 2, 1, {", ".join(given)})
        symbol = pick(logits[1 - n % 2, 0], temperature, draws[n], cumulative)
        if symbol < 0:
            return n
        written[n] = symbol
    return end
'''
        head, gap, functions = source.text.partition("\n\n\ndef ")
        head = head.replace("\nnoise ", "\nfrom tables ", 1)
        head += "\nfrom tinyseq.kernels.sampling import pick"
        return Source(source.forward, None, head + gap + functions + text)


def _look_up(model: Any, logits: Tensor, state: Any) -> tuple[Any, list[Tensor]]:
    """What is known of the step of a model, and the tensors that it takes."""
    if type(model.embedding) is not Embedding:
        raise CompileError(f"{_CANNOT}{type(model.embedding).__name__} is not nn.Embedding.")
    V, D = model.embedding.weight.shape
    if logits.shape[-1] > V:
        raise CompileError(
            f"{_CANNOT}there are logits for {logits.shape[-1]} symbols, embeddings for {V}."
        )
    states = list(_states(state))
    step = _steps.setdefault(model, Generation())
    step.follow(model, states)
    dtype = model.embedding.weight.dtype
    for cell, own in zip(step.cells, states, strict=True):
        if hasattr(cell, "noise"):
            with evaluation(model):  # what it draws here is not missing where it runs unrolled
                noise = cell.noise(Tensor(np.zeros((1, 1, cell.input_size), dtype)), own)
            if noise is not None:
                raise CompileError(
                    f"{_CANNOT}{type(cell).__name__} draws random numbers in evaluation."
                )
    x = Tensor(np.zeros((1, 1, D), dtype))
    inputs = [x, logits[-1], *(part for own in states for part in own)]
    known = lookup(step, x, tuple(inputs[1:]), None, None)
    return known, [*inputs, *known.tensors]


_steps: WeakKeyDictionary[Module, Generation] = WeakKeyDictionary()


def write(
    model: Any,
    logits: Tensor,
    state: Any,
    written: np.ndarray,
    draws: np.ndarray,
    temperature: float,
) -> int:
    """Fill ``written`` (N,) from its second symbol on; the model gave ``logits``
    (T, 1, V) and ``state`` for that one.

    Symbol n is decided by ``draws[n]``. Returns N, or the place of the first symbol for which the
    logits were not finite. The model, a `text.LanguageModel`, is in evaluation mode. Raises
    `CompileError`, with nothing written, where its step cannot be compiled.
    """
    known, inputs = _look_up(model, logits, state)
    weight = np.ascontiguousarray(model.embedding.weight._data)
    V = len(weight)
    if "loop" not in known.compiled:
        known.compiled["loop"] = _Loop(known.program, V)
    loop: Any = known.compiled["loop"]
    program = loop.program
    traced = [program.x, *program.before, *program.parameters]
    arrays = {v: np.ascontiguousarray(t._data) for v, t in zip(traced, inputs, strict=True)}
    row = np.zeros((1, 1), weight.dtype)
    arrays |= {e.output: np.broadcast_to(row, (1, 1, e.output.width)) for e in loop.products}
    run = Run(loop, arrays, reverse=True)  # the state goes to 1: the first symbol has number 1
    prepared = run.prepare()
    tables = {program.x: weight}
    tables |= {e.output: gemm.product(weight, arrays[e.inputs[1]]) for e in loop.products}
    bound = [
        tables[a.value].reshape(V, 1, -1) if a.value in tables else array
        for a, array in zip(loop.source.forward.arguments, prepared, strict=True)
    ]
    generate = loop.functions["generate"]
    cumulative = np.empty(program.before[0].width)
    first = np.int64(written[0])
    given = (float(temperature), draws, written, cumulative, *bound)
    if not getattr(generate, "signatures", True):
        with said(program.name, "generate"):
            generate(ALONE, 1, 1, first, *given)  # compiles, or loads: nothing to write yet
    step = max(2, int(_ONE_CALL / loop.work))
    n = 1
    while n < len(written):
        end = min(n + step, len(written))
        done = generate(ALONE, n, end, written[n - 1], *given)
        if done < end:
            return int(done)
        n = end
    return n
