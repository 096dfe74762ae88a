"""The compiled loop of text generation: a language model's step, the head, and the draw.

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
from tinyseq.kernels.sampling import NOT_FINITE
from tinyseq.kernels.threads import ALONE, get_num_threads, parallel
from tinyseq.nn.layers import Embedding
from tinyseq.nn.module import Module
from tinyseq.nn.recurrent import Recurrent, Stacked
from tinyseq.nn.training import evaluation
from tinyseq.tensor import Tensor
from tinyseq.text.sampling import Choice

_LARGEST_TABLE = 2**22  # numbers, 16 MB of float32
_CANNOT = "Generation cannot be compiled: "
_WORTH_SHARING = 2e7  # operations on all texts below which a second thread is not worth waking …
_SYMBOLS = 100  # … in so many symbols of a text
_NONE = -2  # in place of the symbol that ends a text
_ONE_CALL = 2e9  # operations until Python is asked whether Ctrl-C was pressed: tenths of a second


class Generation(Module):
    """A step of a model that is embedding → recurrent → dropout → head, behind its embedding:
    x (B, D), (logits, *states) → the same after it.
    """

    cells: list[Any]
    between: Sequence[Module | None]  # the dropout in front of each
    sizes: list[int]  # of each cell's state: how many tensors
    dropout: Module
    head: Module

    def follow(self, model: Any, state: Any) -> list[tuple[Tensor, ...]]:
        """Be the step of this model; the state of each of its cells. Its parts are entered in the
        dictionary: as attributes they would take their names in pictures from here.
        """
        layers, states, between = zip(*_flat(model.recurrent, state), strict=True)
        vars(self).update(
            cells=[layer.cell for layer in layers],
            between=between,
            dropout=model.dropout,
            head=model.head,
            symbols=model.embedding.num_embeddings,
            sizes=[len(s) for s in states],
            training=False,
        )
        return list(states)

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


def _flat(
    layer: Module, state: Any, dropout: Any = None
) -> Iterator[tuple[Recurrent, tuple[Tensor, ...], Any]]:
    """The layers in the order in which they run, each with its state and the dropout before it."""
    if type(layer) is Recurrent and not layer.reverse:
        yield layer, tuple(state), dropout
    elif type(layer) is Stacked and not layer.batch_first:
        for n, (inner, own) in enumerate(zip(layer.layers, state, strict=True)):
            yield from _flat(inner, own, layer.dropout if n else dropout)
    else:
        raise CompileError(
            f"{_CANNOT}{type(layer).__name__} is no layer that a compiled loop generates with. "
            "These are Recurrent, not in reverse, and Stacked of them, not batch first."
        )


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
        made = [(e.output, f"embedding @ {e.inputs[1].name}") for e in self.products]
        tables = [(v, what) for v, what in [(program.x, "embedding"), *made] if v.name in names]
        self.tables = [v for v, _ in tables]
        shapes = "\n".join(
            f"    {v.name}_of (V, {v.width}): {what}, a row for each symbol" for v, what in tables
        )
        copies = "\n".join(f"            {v.name}[0, b] = {v.name}_of[symbol]" for v in self.tables)
        given = ", ".join([*names, *(f"{v.name}_of" for v in self.tables)])
        text = f'''

def generate(
    team, part, first, last, begin, end, number, temperature, top_k, top_p, refused, eos,
    draws, weights, heap, ended, written, {given}
):
    """Into ``written`` (N, B): the symbols begin … end − 1 of the texts first … last − 1, with

{shapes}

    The states before symbol n are at (number + n) % 2. Ends early when all these texts have
    ``ended``, and when the logits of one are not finite: `NOT_FINITE` then stands for its symbol.
    """
    for n in range(begin, end):
        now = (number + n) % 2
        going = False
        for b in range(first, last):
            symbol = eos
            if not ended[b]:
                symbol = pick(
                    logits[now, b], draws[n, b], temperature, top_k, top_p, refused,
                    weights[part], heap[part]
                )
                written[n, b] = symbol
                if symbol == NOT_FINITE:
                    return
                ended[b] = symbol == eos
                going |= not ended[b]
{copies}
        if not going:
            return
        forward(team, part, first, last, 1, now, 1, {", ".join(names)})
'''
        head, gap, functions = source.text.partition("\n\n\ndef ")
        head = head.replace("\nnoise ", "\nfrom tables ", 1)
        head += "\nfrom tinyseq.kernels.sampling import NOT_FINITE, pick"
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
    step = _steps.setdefault(model, Generation())
    states = step.follow(model, state)
    dtype = model.embedding.weight.dtype
    for cell, own in zip(step.cells, states, strict=True):
        if hasattr(cell, "noise"):
            with evaluation(model):  # what it draws here is not missing where it runs unrolled
                noise = cell.noise(Tensor(np.zeros((1, 1, cell.input_size), dtype)), own)
            if noise is not None:
                raise CompileError(
                    f"{_CANNOT}{type(cell).__name__} draws random numbers in evaluation."
                )
    x = Tensor(np.zeros((1, len(logits), D), dtype))
    inputs = [x, logits, *(part for own in states for part in own)]
    known = lookup(step, x, tuple(inputs[1:]), None, None)
    return known, [*inputs, *known.tensors]


_steps: WeakKeyDictionary[Module, Generation] = WeakKeyDictionary()


class Writing:
    """B texts on the way, from the state of a model on; ``logits`` (B, V) for the next symbol.

    The model, a `text.LanguageModel`, is in evaluation mode; its weights are read here, once.
    Raises `CompileError` where its step cannot be compiled.
    """

    def __init__(self, model: Any, logits: Tensor, state: Any, how: Choice) -> None:
        known, inputs = _look_up(model, logits, state)
        weight = np.ascontiguousarray(model.embedding.weight._data)
        (B, width), V = logits.shape, len(weight)
        if "loop" not in known.compiled:
            known.compiled["loop"] = _Loop(known.program, V)
        self.loop: Any = known.compiled["loop"]
        program = self.loop.program
        traced = [program.x, *program.before, *program.parameters]
        arrays = {v: np.ascontiguousarray(t._data) for v, t in zip(traced, inputs, strict=True)}
        tables = {program.x: weight}
        tables |= {e.output: gemm.product(weight, arrays[e.inputs[1]]) for e in self.loop.products}
        for v, table in tables.items():  # what a step looks up there for each text
            arrays[v] = np.zeros((1, B, table.shape[1]), weight.dtype)
        enough = B * self.loop.work * _SYMBOLS > _WORTH_SHARING
        parts = min(get_num_threads(), B) if enough else 1
        self.run = Run(self.loop, arrays, reverse=True, parts=parts)  # the state goes to 1 …
        self.number = 1  # … where a first symbol of this number looks for it
        bound = self.run.prepare()
        self.bound = [*bound, *(tables[v] for v in self.loop.tables)]
        self.choice = (
            how.temperature,
            how.top_k or width,
            how.top_p,
            how.refused,
            _NONE if how.eos is None else how.eos,
        )
        self.scratch = np.empty((parts, width)), np.empty((parts, width), np.int64)

    def go_on(self, draws: np.ndarray, ended: np.ndarray, written: np.ndarray) -> bool:
        """Fill ``written`` (N, B) with the symbols that ``draws`` (N, B) decide.

        A text that has ``ended`` (B), by a symbol of its own, gets no more. Whether all logits on
        the way were finite.
        """
        generate, memory = self.loop.functions["generate"], self.run.memory
        N, B = draws.shape
        given = (*self.choice, draws, *self.scratch, ended, written, *self.bound)
        if not getattr(generate, "signatures", True):
            with said(self.loop.program.name, "generate", generate):  # compiles, or loads
                generate(ALONE, 0, 0, 0, 0, 0, 0, *given)
        written[...] = 0
        step = max(1, int(_ONE_CALL / (self.loop.work * B)))
        for n in range(0, N, step):
            end = min(n + step, N)

            def part(i: int, span: tuple[int, int] = (n, end)) -> None:
                generate(ALONE, i, *memory.cuts[i], *span, self.number, *given)

            parallel(part, memory.parts)
            if ended.all() or (written[n:end] == NOT_FINITE).any():
                break
        self.number += N
        return not (written == NOT_FINITE).any()
