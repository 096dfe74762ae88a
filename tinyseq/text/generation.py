"""Texts that a language model writes: symbol by symbol, or in a compiled loop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tinyseq import errors, graph, nn, ops
from tinyseq.arguments import Count, NotNegative, Size, checked
from tinyseq.kernels import load
from tinyseq.nested import leaves, mapped
from tinyseq.nn import beam
from tinyseq.nn.modes import mode_of
from tinyseq.random import generator
from tinyseq.tensor import Tensor
from tinyseq.text.language_model import START, LanguageModel, as_tokens
from tinyseq.text.ngram import NGram
from tinyseq.text.sampling import Choice, Nucleus, choice, pick
from tinyseq.text.vocabulary import Vocabulary

__all__ = ["beam_search", "generate", "generate_batch", "sample"]

COMPILED_FROM = 1000  # symbols that a model writes unrolled, before its step is compiled
_TOGETHER = 16  # symbols that are written unrolled before the first of them is handed out
_LONGEST = 1024  # … and compiled; from call to call twice as many
_length: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # written so far


@checked
def generate(
    model: nn.Module | NGram,
    vocabulary: Vocabulary,
    prime: str | list[str] = "",
    length: Count | None = 500,
    *,
    temperature: NotNegative = 1.0,
    top_k: Size | None = None,
    top_p: Nucleus = 1.0,
    beam_width: Size | None = None,
    allow_unknown: bool = True,
    start: bool = True,
    state: Any = None,
    rng: np.random.Generator | None = None,
    mode: str | None = "auto",
) -> Iterator[str]:
    """The symbols that the model writes after ``prime``, one by one, until it writes ``<EOS>``.

    ``<EOS>`` itself is not handed out, and ``<PAD>`` and ``<BOS>`` are never written. Each symbol
    is drawn from softmax(logits / temperature), cut to what is allowed and brought back to a sum of
    1::

        print(*text.generate(model, vocabulary, top_p=0.9))  # words; characters with sep=""

    Args:
        model: called as ``logits, state = model(symbols (T, B), state)``; or an `NGram`, whose
            logits are its log-probabilities.
        prime: what the text goes on from, a text of characters or a list of tokens; empty for a
            text from its beginning.
        length: the most symbols to write, ``None`` for no end but ``<EOS>``.
        temperature: below 1 is more careful, above 1 more daring; 0 is greedy, it takes the
            likeliest each time, without a draw.
        top_k: draw from the k likeliest (Fan et al., 2018).
        top_p: draw from the nucleus, the fewest likeliest that have this probability together
            (Holtzman et al., 2020): out of the k likeliest, where both are given.
        beam_width: search for the likeliest text with so many hypotheses, and hand that out: see
            `beam_search`, which gives all of them. Nothing is drawn.
        allow_unknown: whether ``<UNK>`` may be written.
        start: whether the zero vector is read before the prime, as `LanguageModel.log_probability`
            does; of an `NGram`, its ``start``. ``False`` for a model of one long stream, whose
            training had no first symbols.
        state: what the model starts from, as it returns it, nested tuples of tensors (B, …) with
            B = 1; from zeros when left out. What is written can so depend on a genre or a kind, or
            go on from what the model has read: the prime is then the next symbol, and ``start`` is
            ``False``. An `NGram` has none.
        rng: what to draw from, by default the library's own generator; one uniform number a symbol,
            drawn in blocks.
        mode: ``"unroll"`` calls the model once a symbol, ``"compiled"`` writes blocks of symbols in
            one numba loop over a `LanguageModel`'s step, many times as fast, and raises
            `CompileError` where there is none. ``"auto"``, or `None`: compiled, where that can be
            done, from the block on in which ``COMPILED_FROM`` symbols of this model are reached in
            all. The text is the same, but for what rounding may do to one draw in millions.

    The model is in `nn.evaluation` while symbols are written, not in between. Do not train it
    before the last one.

    Raises:
        TypeError: a prime that is one string, for a vocabulary of words.
        ValueError: an argument out of range, a state of another number of texts, a symbol of the
            prime that the vocabulary lacks, or, when it comes to that, a model that gives numbers
            which are not finite.
    """
    mode = mode_of(mode)
    if beam_width is not None:
        if temperature != 1 or top_k is not None or top_p != 1:
            raise ValueError(
                f"beam_width={beam_width} draws nothing: leave out temperature, top_k and top_p, "
                "or the width"
            )
        if length is None:
            raise ValueError("a beam search needs a length, the most symbols to write")
        if length == 0:
            return iter(())
        options: Any = {"allow_unknown": allow_unknown, "start": start, "state": state}
        found = beam_search(model, vocabulary, prime, length, beam_width, **options)
        return (vocabulary.symbols[i] for i in found[0].symbols)
    symbols = _encoded(vocabulary, prime, start)
    how = choice(vocabulary, temperature, top_k, top_p, allow_unknown)
    blocks = _blocks(_network(model, state, 1), [symbols], _sizes(length), how, rng, mode, state)
    texts = (vocabulary.symbols_of(_until(block[:, 0], how.eos)) for block in blocks)
    return itertools.chain.from_iterable(texts)


@checked
def generate_batch(
    model: nn.Module | NGram,
    vocabulary: Vocabulary,
    primes: Iterable[str | list[str]],
    length: Count = 500,
    *,
    temperature: NotNegative = 1.0,
    top_k: Size | None = None,
    top_p: Nucleus = 1.0,
    allow_unknown: bool = True,
    start: bool = True,
    state: Any = None,
    rng: np.random.Generator | None = None,
    mode: str | None = "auto",
) -> list[list[str]]:
    """The symbols of many texts, one for each prime, written at the same time.

    As `generate`, whose arguments these are; the state is of B texts, one for each prime. The
    primes may be of different lengths, and ``[""] * B`` gives B texts from their beginning. Faster
    than one after the other: the weights are read once for all, and the texts are shared out over
    the cores.

    Raises:
        ValueError: as `generate`; no primes, no length.
    """
    primes = [as_tokens(prime) for prime in primes]
    if not primes:
        raise ValueError("primes is a list of what each text goes on from, one or more of them")
    symbols = [_encoded(vocabulary, prime, start) for prime in primes]
    how = choice(vocabulary, temperature, top_k, top_p, allow_unknown)
    network = _network(model, state, len(primes))
    blocks = list(_blocks(network, symbols, _sizes(length), how, rng, mode_of(mode), state))
    written = np.concatenate(blocks) if blocks else np.empty((0, len(primes)), np.int64)
    return [vocabulary.symbols_of(_until(row, how.eos)) for row in written.T]


@checked
def sample(
    model: nn.Module | NGram,
    vocabulary: Vocabulary,
    prime: str | list[str] = "\n",
    length: Count = 500,
    temperature: NotNegative = 0.8,
    rng: np.random.Generator | None = None,
    mode: str | None = "auto",
) -> str:
    """``length`` characters that the model writes after ``prime``, without the prime itself.

    For a model of one long stream of characters: what `generate` writes with ``start=False``, but
    it does not stop at an ``<EOS>``, and all draws are made at the start. Each character is drawn
    from softmax(logits / temperature): below 1 is more careful, above 1 more daring, 0 takes the
    most probable one, without a draw. Runs in `nn.evaluation`: the model is left as it was.

    Args:
        rng: what to draw from; the library's own generator when left out. Pass one during training,
            so that samples do not change the run.
        mode: as for `generate`.

    Raises:
        ValueError: an empty prime, a character that the vocabulary lacks, a negative length or
            temperature, an unknown mode, or a model that gives numbers which are not finite.
    """
    if not len(prime):
        raise ValueError("the prime is empty: a model needs at least one character to go on from")
    how = choice(vocabulary, temperature, None, 1.0, True)._replace(eos=None)
    sizes = [length] if length else []
    primes = [vocabulary.encode(prime)]
    network = _network(model, None, 1)
    blocks = list(_blocks(network, primes, sizes, how, rng, mode_of(mode)))
    return vocabulary.decode(np.concatenate(blocks) if blocks else [])


@checked
def beam_search(
    model: nn.Module | NGram,
    vocabulary: Vocabulary,
    prime: str | list[str] = "",
    length: Size = 50,
    width: Size = 4,
    *,
    length_penalty: NotNegative = 0.0,
    allow_unknown: bool = True,
    start: bool = True,
    state: Any = None,
) -> list[nn.Hypothesis]:
    """The likeliest texts after ``prime`` that a beam of ``width`` finds, the best first.

    ``length`` symbols at most, and ``prime``, ``start`` and ``state`` as for `generate`; ranked by
    log-probability / ((5 + |y|) / 6)^α with α = ``length_penalty``, as in
    `nn.EncoderDecoder.beam_search`, whose search this is. The symbols of a hypothesis are their
    numbers, without ``<EOS>``; its log-probability counts ``<EOS>`` where it ``ended``. With
    ``allow_unknown=False`` the probability of ``<UNK>`` is shared out among the others.

    Raises:
        ValueError: a width or a length below 1, a negative penalty, a symbol that the vocabulary
            lacks, or a model that gives numbers which are not finite.
    """
    symbols = _encoded(vocabulary, prime, start)
    how = choice(vocabulary, 1.0, None, 1.0, allow_unknown)
    network = _network(model, state, 1)
    with nn.evaluation(network):
        if len(symbols) > 1:
            _, state = network(symbols[:-1, None], state)
        found = beam.beam_search(
            network,
            symbols[-1:],
            state,
            model=network,
            eos=how.eos,
            width=width,
            max_steps=length,
            length_penalty=length_penalty,
            refused=how.refused,
        )[0]
    return [h for h in found if h.log_probability > _NEVER]


# -- what is asked for ----------------------------------------------------------------------------


def _encoded(vocabulary: Vocabulary, prime: str | list[str], start: bool) -> np.ndarray:
    """The prime as numbers, behind the number of the zero vector."""
    symbols = vocabulary.encode(prime if len(prime) else [])
    if start:
        return np.concatenate([[START], symbols])
    if not len(symbols):
        raise ValueError(
            "the prime is empty, and start=False: a model needs a symbol to go on from. Give one, "
            "or start=True for the zero vector"
        )
    return symbols


def _sizes(length: int | None) -> Iterator[int]:
    """Of the blocks of a text: the first symbols are there soon, the later ones at little cost."""
    size, left = _TOGETHER, math.inf if length is None else int(length)
    while left > 0:
        yield int(min(size, left))
        left -= size
        size = min(2 * size, _LONGEST)


# -- writing --------------------------------------------------------------------------------------


class _NGram(nn.Module):
    """An `NGram` as a network: symbols (T, B), state → logits (1, B, V) for the next ones, and the
    last n symbols (B, n) as its state, of which the first may be `START`.
    """

    def __init__(self, ngram: NGram) -> None:
        self.ngram = ngram

    def forward(self, indices: np.ndarray, state: Any = None) -> tuple[Tensor, Any]:
        n, start, rows = self.ngram.n, self.ngram.start, np.asarray(indices).T
        before = np.full((len(rows), n), _NOTHING) if state is None else state[0]._data
        rows = np.hstack([before, rows])
        first = _NOTHING if start is None else start
        contexts = [c[c != _NOTHING] for c in np.where(rows == START, first, rows)]
        nats = np.stack([self.ngram.log_probabilities(context=c) for c in contexts])
        return Tensor(np.maximum(nats, _NEVER)[None]), (Tensor(rows[:, -n:]),)


_NOTHING = -2  # in place of a symbol, where there is none so far back
_NEVER = -1e300  # in place of −∞, log 0


def _network(model: nn.Module | NGram, state: Any, texts: int) -> nn.Module:
    """The model as a network, for which the state is looked at."""
    if isinstance(model, NGram):
        if state is not None:
            raise ValueError(
                "an NGram has no state: what came before is its prime. Leave state out"
            )
        return _NGram(model)
    wrong = [np.shape(part) for part in leaves(state) if np.shape(part)[:1] != (texts,)]
    if wrong:
        raise errors.ShapeError(
            f"state holds a tensor of shape {errors.describe(wrong[0])}, and texts to write: "
            f"{texts}. Each tensor is ({texts}, …), as the model returns it for so many"
        )
    return model


def _blocks(
    model: nn.Module,
    primes: list[np.ndarray],
    sizes: Iterable[int],
    how: Choice,
    rng: np.random.Generator | None,
    mode: str,
    state: Any = None,
) -> Iterator[np.ndarray]:
    """The symbols (n, B) of B texts, until all have ended; what follows an end means nothing."""
    ended = np.zeros(len(primes), bool)
    unrolled: _Unrolled | None = None
    writing: Any = None  # compiled, where it is
    for size in sizes:
        # Drawn before `nn.evaluation`, which puts the library's generator back to where it was.
        shape = (size, len(primes))
        draws = generator(rng).random(shape) if how.temperature > 0 else np.zeros(shape)
        if unrolled is None:
            with nn.evaluation(model):
                unrolled = _Unrolled(model, primes, how, state)
        if writing is None and _compiles(model, draws.size, mode):
            with nn.evaluation(model):
                writing = _compiled(unrolled, mode)
        writer, together = (unrolled, _TOGETHER) if writing is None else (writing, size)
        for n in range(0, size, together):
            part = draws[n : n + together]
            written = np.zeros_like(part, np.int64)
            with nn.evaluation(model):
                good = writer.go_on(part, ended, written)
            if not good:
                raise beam.not_finite(model)
            yield written
            if ended.all():
                return


def _until(symbols: np.ndarray, eos: int | None) -> np.ndarray:
    """What is before the first <EOS>."""
    ended = symbols == eos
    return symbols[: ended.argmax()] if ended.any() else symbols


class _Unrolled:
    """B texts on the way, written by calling the model once for each of their symbols."""

    def __init__(self, model: nn.Module, primes: list[np.ndarray], how: Choice, state: Any) -> None:
        self.model = model
        self._logits, self.state = _read(model, primes, state)
        self.following: np.ndarray | None = None  # what has been written, and not yet read
        V = self._logits.shape[-1]
        self.how = how._replace(refused=how.refused[how.refused < V])
        if len(self.how.refused) == V:
            raise ValueError("every symbol of the vocabulary is refused: there is nothing to write")

    def logits(self) -> Tensor:
        """(B, V), for the next symbols."""
        if self.following is not None:
            logits, self.state = self.model(self.following[None], self.state)
            self._logits, self.following = logits[-1], None
        return self._logits

    def go_on(self, draws: np.ndarray, ended: np.ndarray, written: np.ndarray) -> bool:
        """As `tinyseq.text.writing.Writing.go_on`."""
        for n in range(len(draws)):
            logits = self.logits().numpy()
            if not np.isfinite(logits[~ended]).all():
                return False
            for b in np.flatnonzero(~ended):
                written[n, b] = pick(logits[b], draws[n, b], self.how)
            if self.how.eos is not None:
                written[n, ended] = self.how.eos
                ended |= written[n] == self.how.eos
                if ended.all():
                    break
            self.following = written[n]
        return True


def _read(model: nn.Module, primes: list[np.ndarray], state: Any) -> tuple[Tensor, Any]:
    """The logits (B, V) behind each prime, and the state. Those of one length are read at once."""
    lengths = np.array([len(prime) for prime in primes])
    groups = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
    read = [
        model(np.stack([primes[b] for b in rows], axis=1), beam.rows_of(state, rows))
        for rows in groups
    ]
    last = [(logits[-1], state) for logits, state in read]
    if len(last) == 1:
        return last[0]
    joined = mapped(lambda *parts: ops.concat(parts), *last)  # one batch of all
    return tuple(beam.rows_of(joined, np.argsort(np.concatenate(groups))))  # in their order again


def _compiles(model: nn.Module, symbols: int, mode: str) -> bool:
    """Whether so many symbols are to be written in a compiled loop: it is worth it."""
    if mode == "unroll" or graph.recording.anomaly:  # which names the step and the op
        return False
    kind = type(model)
    if (kind.forward, kind.__call__) != (LanguageModel.forward, LanguageModel.__call__):
        if mode == "auto":
            return False
        raise errors.CompileError(
            f"mode='compiled' takes a text.LanguageModel, and {kind.__name__.lstrip('_')} has a "
            "forward of its own. Use mode='auto'."
        )
    if mode == "auto":
        layers = [m for _, m in model.named_modules() if isinstance(m, nn.Recurrent)]
        if any(layer.mode == "unroll" for layer in layers):
            return False
        _length[model] = _length.get(model, 0) + symbols
        if _length[model] < COMPILED_FROM:
            return False
    load.load_kernels()
    return mode == "compiled" or load.kernels is not None


def _compiled(texts: _Unrolled, mode: str) -> Any:
    """What goes on with the texts in a compiled loop; `None` where there is no such loop."""
    from tinyseq.text import writing

    try:
        return writing.Writing(texts.model, texts.logits(), texts.state, texts.how)
    except errors.CompileError as reason:
        if mode == "compiled":
            raise
        errors.warn_unrolled(reason)
        return None
