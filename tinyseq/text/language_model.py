"""A recurrent language model, its score on a text, and text sampled from it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tinyseq import awake, errors, functional, graph, nn
from tinyseq.random import generator
from tinyseq.tensor import Tensor
from tinyseq.text.vocabulary import Vocabulary

_DIVERGED = "the model's output is not finite: its training has diverged. Lower the learning rate"
CELLS: dict[str, Callable[..., nn.Stacked]] = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "peephole": partial(nn.LSTM, peephole="new"),
    "layernorm": partial(nn.LSTM, layer_norm=True),
}


class LanguageModel(nn.Module):
    """Predicts each next symbol: embedding → recurrent layers → dropout → linear head.

    P(symbol t+1 | symbols up to t) = softmax(h_t w + b), with h_t the output of the last layer.

    Args:
        vocabulary_size: V, how many symbols there are.
        hidden_size: H, of every recurrent layer.
        num_layers: recurrent layers on top of each other.
        cell: ``"rnn"``, ``"gru"``, ``"lstm"``, ``"peephole"`` (an LSTM whose gates see its memory,
            the output gate the new one) or ``"layernorm"`` (an LSTM with layer norm).
        embedding_size: D of the embedding; H when left out.
        dropout: share of the units set to zero between the layers and before the head, in training.
        mode: of the recurrent layers, as in `nn.Recurrent`.

    Raises:
        ValueError: an unknown cell or mode, a size below one, a dropout outside of 0 … 1.
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_size: int = 128,
        num_layers: int = 2,
        cell: str = "lstm",
        *,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        mode: str | None = None,
    ) -> None:
        if cell not in CELLS:
            raise ValueError(f"cell={cell!r} is unknown. Use one of {', '.join(map(repr, CELLS))}.")
        embedding_size = hidden_size if embedding_size is None else embedding_size
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.recurrent = CELLS[cell](
            embedding_size, hidden_size, num_layers, dropout=dropout, mode=mode
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocabulary_size)

    def forward(self, indices: np.ndarray, state: Any = None) -> tuple[Tensor, Any]:
        """Symbols (T, B), whole numbers → logits (T, B, V) for the next ones, and the last state.

        That state goes in with the symbols that follow; ``None`` starts afresh, from zeros.
        """
        y, state = self.recurrent(self.embedding(indices), state)
        return self.head(self.dropout(y)), state

    def initial_state(self, batch_size: int) -> Any:
        """The state before any symbol, for B parallel texts: zeros."""
        return self.recurrent.initial_state(batch_size)


def score(
    model: nn.Module,
    indices: np.ndarray,
    *,
    tracks: int = 32,
    context: int = 200,
    steps: int = 100,
) -> float:
    """Mean nats of predicting ``indices[1:]``, each symbol exactly once, the state carried along.

    A single pass from end to end is exact but slow, one symbol at a time. The text is therefore cut
    into ``tracks`` contiguous tracks, read at once. Each but the first is read in over the
    ``context`` symbols before it, so that its first predictions do not suffer from a fresh state.
    With ``tracks=1`` it is the single pass. A text too short for its tracks gets fewer.

    Bits per character are ``nats / ln 2``, perplexity is ``exp(nats)``. Runs in
    `nn.evaluation`: the model and every random generator are left as they were.

    Args:
        model: called as ``logits, state = model(symbols (T, B), state)``.
        indices: whole numbers (N,), N ≥ 2.
        steps: read at once; no influence on the result.

    Raises:
        ValueError: fewer than two symbols, arguments out of range, or a loss that is not finite.
    """
    if len(indices) < 2:
        raise ValueError(f"a score needs at least 2 symbols, there are {len(indices)}")
    if tracks < 1 or context < 0 or steps < 1:
        raise ValueError(
            f"tracks ({tracks}) and steps ({steps}) have to be at least 1, "
            f"context ({context}) at least 0"
        )
    predictions = len(indices) - 1
    # A track that is not clearly longer than its own context would be spent on reading in.
    tracks = max(1, min(tracks, (predictions - context) // max(1, context)))
    # Track k reads from k·length on. The first counts all that it predicts, the others what comes
    # after their context; what runs over the end of the text is filled up and not counted.
    length = math.ceil((predictions - context) / tracks) if tracks > 1 else predictions
    width = length + context if tracks > 1 else predictions
    at = np.arange(width)[:, None] + length * np.arange(tracks)
    counted = at < predictions
    counted[: width - length, 1:] = False
    at = np.minimum(at, predictions - 1)

    total, state = 0.0, None
    with nn.evaluation(model):
        for t in range(0, width, steps):
            rows = at[t : t + steps]
            logits, state = model(indices[rows], state)
            losses = functional.cross_entropy(logits, indices[rows + 1], reduction="none")
            total += float(losses.numpy()[counted[t : t + steps]].sum(dtype=np.float64))
    if not math.isfinite(total):
        raise ValueError(_DIVERGED)
    return total / predictions


def sample(
    model: nn.Module,
    vocabulary: Vocabulary,
    prime: str = "\n",
    length: int = 500,
    temperature: float = 0.8,
    rng: np.random.Generator | None = None,
    mode: str | None = None,
) -> str:
    """``length`` characters that the model writes after ``prime``, without the prime itself.

    Each is drawn from softmax(logits / temperature): below 1 is more careful, above 1 more daring,
    0 takes the most probable one, without a draw. Runs in `nn.evaluation`: the model is left as it
    was.

    Args:
        rng: what to draw from; the library's own generator when left out. Pass one during training,
            so that samples do not change the run.
        mode: ``"unroll"`` calls the model once a character, ``"compiled"`` runs all of them in one
            numba loop over a `LanguageModel`'s step, many times as fast, and raises `CompileError`
            where there is none. `None`: compiled, where that can be done, from the call on in
            which ``COMPILED_FROM`` characters of this model are reached in all. The characters are
            the same, but for what rounding may do to one draw in millions.

    Raises:
        ValueError: an empty prime, a character that the vocabulary lacks, a negative length or
            temperature, an unknown mode, or a model that gives numbers which are not finite.
    """
    if mode not in (None, "unroll", "compiled"):
        raise ValueError(f"mode={mode!r} is unknown. Use 'unroll', 'compiled', or None.")
    if not prime:
        raise ValueError("the prime is empty: a model needs at least one character to go on from")
    if length < 0:
        raise ValueError(f"length is a number of characters, 0 or more, not {length}")
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature is a finite number, 0 or more, not {temperature}")
    symbols = vocabulary.encode(prime)
    # Drawn before `nn.evaluation`, which puts the library's generator back to where it was.
    draws = generator(rng).random(length) if temperature > 0 else np.zeros(length)
    written = np.empty(length, np.int64)
    with nn.evaluation(model):
        n, state = 0, None
        while n < length:
            logits, state = model(symbols[:, None], state)
            written[n] = _pick(logits.numpy()[-1, 0], temperature, draws[n])
            symbols = written[n : n + 1]
            n += 1
            if n == 1 < length and _compiles(model, length, mode):
                n = _write(model, logits, state, written, draws, temperature, mode)
    return vocabulary.decode(written)


COMPILED_FROM = 1000  # characters that a model writes unrolled, before its step is compiled
_length: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # written so far
_said: set[str] = set()


def _compiles(model: nn.Module, length: int, mode: str | None) -> bool:
    """Whether this text is to be written in a compiled loop: there is enough to be worth it."""
    if mode == "unroll" or graph.recording.anomaly:  # which names the step and the op
        return False
    kind = type(model)
    if (kind.forward, kind.__call__) != (LanguageModel.forward, LanguageModel.__call__):
        if mode is None:
            return False
        raise errors.CompileError(
            f"mode='compiled' takes a text.LanguageModel, and {kind.__name__} has a forward of its "
            "own. Use mode=None."
        )
    if mode is None:
        layers = [m for _, m in model.named_modules() if isinstance(m, nn.Recurrent)]
        if any(layer.mode == "unroll" for layer in layers):
            return False
        _length[model] = _length.get(model, 0) + length
        if _length[model] < COMPILED_FROM:
            return False
    awake.wake()
    return mode == "compiled" or awake.kernels is not None


def _write(
    model: nn.Module,
    logits: Tensor,
    state: Any,
    written: np.ndarray,
    draws: np.ndarray,
    temperature: float,
    mode: str | None,
) -> int:
    """Go on in the compiled loop: how much is written then, 1 where there is no such loop."""
    from tinyseq.compiler.generate import write

    try:
        end = write(model, logits, state, written, draws, temperature)
    except errors.CompileError as reason:
        if mode == "compiled":
            raise
        if str(reason) not in _said:
            _said.add(str(reason))
            warnings.warn(f"{reason} It runs unrolled.", RuntimeWarning, stacklevel=4)
        return 1
    if end < len(written):
        raise ValueError(_DIVERGED)
    return end


def _pick(logits: np.ndarray, temperature: float, draw: float) -> int:
    """The symbol that a uniform draw from [0, 1) falls on."""
    if not np.isfinite(logits).all():
        raise ValueError(_DIVERGED)
    if temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64)
    with np.errstate(over="ignore"):  # −∞ is right: a probability of 0
        scaled = (scaled - scaled.max()) / temperature
    cumulative = np.cumsum(np.exp(scaled))
    # side="right": a draw of exactly 0 must not pick a symbol of probability 0
    return int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))
