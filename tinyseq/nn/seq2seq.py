"""`EncoderDecoder`: one sequence in, another of a different length out."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, NamedTuple

import numpy as np

from tinyseq import errors, functional, graph, op, ops
from tinyseq.arguments import Count, Fraction, NotNegative, Rate, Size, checked, one_of
from tinyseq.functional import as_indices
from tinyseq.functional.targets import refuse_nothing
from tinyseq.nested import leaves, mapped
from tinyseq.nn import beam
from tinyseq.nn.attention import AdditiveAttention, DotAttention
from tinyseq.nn.beam import Hypothesis
from tinyseq.nn.layers import Dropout, Embedding, Linear
from tinyseq.nn.module import Module
from tinyseq.nn.recurrent import _as_layer, _check_sequence, _running
from tinyseq.nn.training import evaluation, reads_from_the_end
from tinyseq.primitives import check
from tinyseq.random import generator
from tinyseq.tensor import Tensor

Kind = Annotated[str, one_of("additive", "dot", "general")] | Module | None


class Source(NamedTuple):
    """What the encoder read, as the decoder looks at it again and again: memory (S, B, M), where it
    is no padding (S, B), and what an attention makes of it in advance.
    """

    memory: Tensor
    mask: Tensor | None
    keys: Tensor | None


class EncoderDecoder(Module):
    """Two recurrent layers: one reads the source, the other writes the target, symbol by symbol.

    Encoder: (memory, s) = encoder(embedding(x⟨1⟩ … x⟨S⟩)). Decoder: s⟨0⟩ from the encoder's last
    state; then P(y⟨t⟩ | y⟨1⟩ … y⟨t−1⟩, x) = softmax(head(decoder(embedding(y⟨t−1⟩), s⟨t−1⟩))), with
    y⟨0⟩ = ``bos``. Sutskever, Vinyals and Le, 2014; Cho et al., 2014; the notes' many-to-many of
    different length.

    Where encoder and decoder have states of the same form, the last state goes over as it is;
    otherwise (other cells, layers, sizes, a bidirectional encoder) through a bridge, s⟨0⟩ =
    tanh([all parts of the encoder's state] w + b).

    ``attention`` lets the decoder look at all of the memory, not the last state alone:

    - ``"additive"`` (Bahdanau et al., 2015), before the step: c⟨t⟩ = attend(h⟨t−1⟩), and the
      decoder reads [embedding(y⟨t−1⟩), c⟨t⟩]; its ``input_size`` is therefore the embedding's size
      + M.
    - ``"dot"``, ``"general"`` (Luong et al., 2015), after the step: c⟨t⟩ = attend(h⟨t⟩).
    - a Module of your own, called as `nn.Attention` is.

    Either way what goes into the head is tanh([h⟨t⟩, c⟨t⟩] w + b) in place of h⟨t⟩.

    Args:
        encoder: any recurrent layer (or cell) of S steps, width of its output M.
        decoder: any that reads forwards, width of its output H. Both time first.
        source_size: how many symbols the source has; `None` for a source of vectors (S, B, D).
        target_size: V, how many symbols the target has, ``bos`` and ``eos`` among them.
        bos, eos: the symbols that start and end a target.
        attention: as above, or `None`.
        dropout: of embeddings and of what goes into the head, in training.

    The embeddings' sizes follow from the layers. Targets are passed without ``bos`` and with
    ``eos`` as their last symbol. Raises `ValueError` for layers, symbols or an attention that do
    not fit together.
    """

    source_size: Size | None
    target_size: Size
    bos: Count
    eos: Count
    dropout: Dropout

    @checked
    def __init__(
        self,
        encoder: Module,
        decoder: Module,
        source_size: Size | None,
        target_size: Size,
        *,
        bos: Count,
        eos: Count,
        attention: Kind = None,
        dropout: Fraction = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.source_size = None if source_size is None else int(source_size)
        self.target_size = V = int(target_size)
        for name, symbol in (("bos", bos), ("eos", eos)):
            if symbol >= V:
                raise ValueError(
                    f"EncoderDecoder: {name}={symbol} is no symbol of the target, 0 … {V - 1}."
                )
        if bos == eos:
            raise ValueError(f"EncoderDecoder: bos and eos are both {bos}. Give each its own.")
        self.bos, self.eos = int(bos), int(eos)
        self.encoder = _time_first(encoder, "encoder")
        self.decoder = _time_first(decoder, "decoder")
        if wrong := reads_from_the_end(self.decoder):
            raise ValueError(
                f"EncoderDecoder: the decoder reads from the end ({wrong}), which is not written "
                "yet when it is needed. Use a decoder that reads forwards."
            )
        M, H = self.encoder.hidden_size, self.decoder.hidden_size
        self.attention = _attention(attention, H, M, rng)
        E = self.decoder.input_size - (M if self._before else 0)
        if E < 1:
            raise ValueError(
                f"EncoderDecoder: the decoder's input_size={self.decoder.input_size} has no room "
                f"for an embedding beside the context of M={M} (the encoder's width) that this "
                f"attention puts there. Make it the size of the embedding + {M}."
            )
        self.source_embedding = (
            None if source_size is None else Embedding(source_size, self.encoder.input_size, rng)
        )
        self.target_embedding = Embedding(V, E, rng)
        states = self.encoder.initial_state(1), self.decoder.initial_state(1)
        given, wanted = mapped(lambda s: s.shape[-1], states)
        self.bridge = None if given == wanted else Bridge(given, wanted, rng)
        self.combine = None if attention is None else Linear(H + M, H, rng=rng)
        self.dropout = Dropout(dropout, rng)
        self.head = Linear(H, V, rng=rng)

    @property
    def _before(self) -> bool:
        return bool(getattr(self.attention, "before", False))

    # -- training -------------------------------------------------------------------------------

    @checked
    def forward(
        self,
        source: op.TensorLike,
        target: op.TensorLike,
        source_lengths: op.TensorLike | None = None,
        teacher_forcing: Rate = 1.0,
        rng: np.random.Generator | None = None,
    ) -> Tensor:
        """Logits (T, B, V) of each target symbol, given those before it.

        source (S, B) whole numbers, or (S, B, D); target (T, B) whole numbers. What stands in the
        source behind ``source_lengths`` (B) changes nothing.

        ``teacher_forcing`` is the probability with which the decoder is told the target's own
        symbol y⟨t−1⟩; otherwise it goes on from the likeliest by its own prediction. Drawn for each
        step and sequence from ``rng`` (by default the library's generator); nothing is drawn at 0
        and 1. No gradient flows through the choice. Bengio et al., 2015.

        Raises `ShapeError`, `IndexError` and `DtypeError` for sources and targets that do not fit,
        and `ValueError` for a rate outside of 0 … 1.
        """
        logits, _ = self._teach(source, target, source_lengths, teacher_forcing, rng)
        return logits

    @checked
    def loss(
        self,
        source: op.TensorLike,
        target: op.TensorLike,
        source_lengths: op.TensorLike | None = None,
        target_lengths: op.TensorLike | None = None,
        teacher_forcing: Rate = 1.0,
        rng: np.random.Generator | None = None,
    ) -> Tensor:
        """Mean cross-entropy a target symbol, in nats: −Σ ln P(y⟨t⟩ | …) / Σ ``target_lengths``.

        As `forward`; what stands in the target behind ``target_lengths`` (B) is not counted.
        """
        logits: Tensor = self(source, target, source_lengths, teacher_forcing, rng)
        target = _symbols(target, self.target_size, "target", "V")
        running = _running(target_lengths, target, "target_lengths")
        losses = functional.cross_entropy(logits, target, reduction="none")
        if running is None:
            return losses.mean()
        counted = running[:, :, 0].astype(losses.dtype)
        check(counted.sum(), rule=refuse_nothing, name="EncoderDecoder.loss")
        return (losses * counted).sum() / counted.sum()

    @checked
    def alignment(
        self,
        source: op.TensorLike,
        target: op.TensorLike,
        source_lengths: op.TensorLike | None = None,
    ) -> np.ndarray:
        """The attention's weights (T, B, S) while this target is written, for looking at.

        Raises `ValueError` when the model has no attention.
        """
        if self.attention is None:
            raise ValueError("this EncoderDecoder has no attention to show: make it with one.")
        with evaluation(self):
            _, weights = self._teach(source, target, source_lengths, 1.0, None)
        out: np.ndarray = weights.numpy()
        return out

    def _teach(
        self,
        source: op.TensorLike,
        target: op.TensorLike,
        source_lengths: op.TensorLike | None,
        teacher_forcing: float,
        rng: np.random.Generator | None,
    ) -> tuple[Tensor, Any]:  # no weights without an attention
        target = _symbols(target, self.target_size, "target", "V")
        if teacher_forcing < 1:  # whatever is drawn: it may be that all is told, this time
            graph.readable("Feeding back its own outputs")
        state, read = self.encode(source, source_lengths)
        T, B = target.shape
        if read.memory.shape[1] != B:
            raise errors.ShapeError(
                f"EncoderDecoder: the source has B={read.memory.shape[1]} sequences, the target "
                f"{errors.describe(target.shape, 'TB')}. Give each source its target."
            )
        first = np.full((1, B), self.bos)
        if teacher_forcing == 1 and not self._before:  # nothing waits for an output: all at once
            return self._decode(ops.concat([first, target[:-1]]), state, read)[:2]
        told = np.full((T, B), teacher_forcing == 1)
        if 0 < teacher_forcing < 1:
            told = generator(rng).random((T, B)) < teacher_forcing
        logits: list[Any] = []
        weights: list[Any] = []
        symbols: Any = first
        for t in range(T):
            with graph.scope(f"t={t}"):
                y, alpha, state = self._decode(symbols, state, read)
            logits.append(y)
            weights.append(alpha)
            if told[t].all():
                symbols = target[t : t + 1]
            else:
                symbols = ops.where(told[t], target[t], ops.argmax(y, axis=-1))
        return ops.concat(logits), None if self.attention is None else ops.concat(weights)

    # -- the two halves -------------------------------------------------------------------------

    @checked
    def encode(
        self, source: op.TensorLike, source_lengths: op.TensorLike | None = None
    ) -> tuple[Any, Source]:
        """The state that the decoder starts from, and what it may look at."""
        if self.source_embedding is None:
            x = op.as_tensor(source)
        else:
            x = self.source_embedding(_symbols(source, self.source_size, "source", "S"))
        _check_sequence(x, "source")
        running = _running(source_lengths, x, "source_lengths")
        memory, state = self.encoder(self.dropout(x), None, source_lengths)
        make_keys = getattr(self.attention, "keys", None)  # an attention of your own may have none
        mask = None if running is None else running[:, :, 0]
        if self.bridge is not None:
            state = self.bridge(state)
        return state, Source(memory, mask, None if make_keys is None else make_keys(memory))

    def _decode(
        self, symbols: op.TensorLike, state: Any, read: Source
    ) -> tuple[Tensor, Tensor | None, Any]:
        """symbols (T, B) → logits (T, B, V), weights (T, B, S) or `None`, the last state.

        T is 1 where the attention is asked before the step, for it asks with the step before's
        output.
        """
        x = self.dropout(self.target_embedding(symbols))
        weights = None
        if self.attention is None:
            y, state = self.decoder(x, state)
        elif self._before:
            h = _output(state)
            context, weights = self.attention(ops.reshape(h, 1, *h.shape), *read)
            y, state = self.decoder(ops.concat([x, context], axis=-1), state)
        else:
            y, state = self.decoder(x, state)
            context, weights = self.attention(y, *read)
        if self.combine is not None:
            y = ops.tanh(self.combine(ops.concat([y, context], axis=-1)))
        return self.head(self.dropout(y)), weights, state

    # -- writing --------------------------------------------------------------------------------

    @checked
    def greedy(
        self,
        source: op.TensorLike,
        source_lengths: op.TensorLike | None = None,
        max_steps: Size = 50,
    ) -> list[list[int]]:
        """The likeliest symbol at each step, until ``eos`` or ``max_steps``: one list a sequence,
        without ``bos`` and ``eos``.

        In evaluation mode, without leaving a trace in training. Raises `ValueError` when the
        model's output is not finite.
        """
        with evaluation(self):
            state, read = self.encode(source, source_lengths)
            B = read.memory.shape[1]
            written: list[list[int]] = [[] for _ in range(B)]
            symbols, going = np.full(B, self.bos), np.ones(B, bool)
            for _ in range(max_steps):
                logits, _, state = self._decode(symbols[None], state, read)
                symbols = beam.finite(logits._data, self)[0].argmax(axis=-1)
                going &= symbols != self.eos
                if not going.any():
                    break
                for b in np.flatnonzero(going):
                    written[b].append(int(symbols[b]))
        return written

    @checked
    def beam_search(
        self,
        source: op.TensorLike,
        source_lengths: op.TensorLike | None = None,
        width: Size = 4,
        max_steps: Size = 50,
        length_penalty: NotNegative = 0.0,
    ) -> list[list[Hypothesis]]:
        """For each sequence the best ``width`` hypotheses that were kept, best first.

        At each step every hypothesis that has not ended is continued by every symbol, and the best
        ``width`` of all go on; those that ended stay and compete. Ranked by ln P(y | x) /
        ((5 + |y|) / 6)^α with α = ``length_penalty`` and |y| counting the end: 0 ranks by
        probability, which favours the short; more favours the long (Wu et al., 2016). With
        ``width=1`` it is `greedy`; with V^max_steps, exhaustive search.

        In evaluation mode, without leaving a trace in training. Raises `ValueError` when the
        model's output is not finite or an argument out of range.
        """
        W = width
        with evaluation(self):
            state, read = self.encode(source, source_lengths)
            B = read.memory.shape[1]
            rows = np.repeat(np.arange(B), W)
            read = Source(*mapped(lambda part: part[:, rows], read))

            def step(symbols: np.ndarray, state: Any) -> tuple[Tensor, Any]:
                logits, _, state = self._decode(symbols, state, read)
                return logits, state

            return beam.beam_search(
                step,
                np.full(B, self.bos),
                state,
                model=self,
                eos=self.eos,
                width=W,
                max_steps=max_steps,
                length_penalty=length_penalty,
            )

    def _describe(self) -> str:
        return f"{self.source_size}, {self.target_size}, bos={self.bos}, eos={self.eos}"


class Bridge(Module):
    """s⟨0⟩ = tanh([all parts of a state] w + b), cut into the parts of another layer's state.

    Bahdanau et al., 2015, whose bridge is this one from a bidirectional encoder.
    """

    @checked
    def __init__(self, widths_in: Any, widths_out: Any, rng: np.random.Generator | None) -> None:
        self.widths = widths_out
        self.linear = Linear(sum(leaves(widths_in)), sum(leaves(widths_out)), rng=rng)

    def forward(self, state: Any) -> Any:
        flat = ops.tanh(self.linear(ops.concat(list(leaves(state)), axis=-1)))
        ends = itertools.accumulate(leaves(self.widths))
        return mapped(lambda n: flat[:, (end := next(ends)) - n : end], self.widths)

    def _describe(self) -> str:
        return ""


def _output(state: Any) -> Tensor:
    """The output that belongs to a state: of the last layer, the first of its cell's tensors."""
    while not isinstance(state, Tensor):
        state = state[0] if isinstance(state[0], Tensor) else state[-1]
    return state


def _symbols(x: op.TensorLike, size: int | None, name: str, letter: str) -> Tensor:
    assert size is not None
    symbols = as_indices(x, size, f"EncoderDecoder: {name}", letter)
    if symbols.ndim != 2 or 0 in symbols.shape:
        raise errors.ShapeError(
            f"EncoderDecoder: the {name} has shape {errors.describe(symbols.shape)}, expected "
            "(steps, B), at least one of each. Add the missing axis, e.g. x[:, None] for a batch "
            "of one."
        )
    return symbols


def _time_first(module: Module, name: str) -> Any:
    layer = _as_layer(module)
    if any(getattr(module, "batch_first", False) for _, module in layer.named_modules()):
        raise ValueError(
            f"EncoderDecoder: the {name} was made with batch_first=True; source and target are "
            "time first, (S, B) and (T, B). Make it without."
        )
    return layer


def _attention(kind: Kind, H: int, M: int, rng: np.random.Generator | None) -> Module | None:
    if kind is None or isinstance(kind, Module):
        return kind
    if kind == "additive":
        return AdditiveAttention(H, M, rng=rng)
    return DotAttention(H, M, general=kind == "general", rng=rng)
