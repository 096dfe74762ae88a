"""A recurrent language model: how likely a text is, a sentence, and the next symbol."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tinyseq import errors, functional, nn, op, ops
from tinyseq.arguments import Count, Fraction, Size, Within, checked, one_of
from tinyseq.functional.targets import IGNORED
from tinyseq.nn.beam import finite, log_softmax
from tinyseq.nn.training import reads_from_the_end
from tinyseq.tensor import Tensor, plain_array
from tinyseq.text.batches import padded
from tinyseq.text.epochs import Shard
from tinyseq.text.measures import numbers_of, of_nats, sequences_of
from tinyseq.text.partition import one_text
from tinyseq.text.vocabulary import Vocabulary

__all__ = ["START", "LanguageModel", "Ranked", "likeliest", "rank", "score"]

START = -1  # in place of a symbol: the zero vector, which is read before a sentence
CELLS: dict[str, Callable[..., nn.Stacked]] = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "peephole": partial(nn.LSTM, peephole="new"),
    "layernorm": partial(nn.LSTM, layer_norm=True),
}
MakesCells = Annotated[
    Callable[..., nn.Module],
    Within(lambda f: not isinstance(f, type) or issubclass(f, nn.Module), "or a class of cells"),
]


class LanguageModel(nn.Module):
    """Predicts each next symbol: embedding → recurrent layers → dropout → linear head.

    P(symbol t+1 | symbols up to t) = softmax(h_t w + b), with h_t the output of the last layer.

    It reads one long stream, the state carried from chunk to chunk (`Partition`, `score`), or
    sentence by sentence, each from zeros on (`log_probability`). The first input of a sentence is
    then the zero vector, `START` in place of a symbol; to train so::

        for inputs, targets, _ in text.Batches([[text.START, *s, eos] for s in sentences], 32):
            logits, _ = model(inputs)
            loss = functional.cross_entropy(logits, targets)

    Args:
        vocabulary_size: V, how many symbols there are.
        hidden_size: H, of every recurrent layer.
        num_layers: recurrent layers on top of each other.
        cell: ``"rnn"``, ``"gru"``, ``"lstm"``, ``"peephole"`` (an LSTM whose gates see its memory,
            the output gate the new one) or ``"layernorm"`` (an LSTM with layer norm); or what makes
            a cell for sizes D and H: a class, such as `nn.PeepholeLSTMCell`, or a function.
        embedding_size: D of the embedding; H when left out.
        dropout: share of the units set to zero between the layers and before the head, in training.
        mode: of the recurrent layers, as in `nn.Recurrent`.
        options: of `nn.RNN`, `nn.GRU` or `nn.LSTM` for a cell by its name, such as
            ``variant="reset_before"`` or ``peephole="previous"``; of a class or function, its own.

    Raises:
        ValueError: an unknown cell or mode, a size below one, a dropout outside of 0 … 1, and
            ``bidirectional`` or ``batch_first``: a text is read forwards, time first.
    """

    @checked
    def __init__(
        self,
        vocabulary_size: Size,
        hidden_size: Size = 128,
        num_layers: Size = 2,
        cell: Annotated[str, one_of(*CELLS)] | MakesCells = "lstm",
        *,
        embedding_size: Size | None = None,
        dropout: Fraction = 0.0,
        mode: str | None = "auto",
        **options: Any,
    ) -> None:
        if refused := {"bidirectional", "batch_first"} & options.keys():
            raise ValueError(
                f"LanguageModel: {min(refused)}={options[min(refused)]} is no option here. A text "
                "is read forwards, time first: leave it out."
            )
        embedding_size = hidden_size if embedding_size is None else embedding_size
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        if isinstance(cell, str):
            self.recurrent = CELLS[cell](
                embedding_size, hidden_size, num_layers, dropout=dropout, mode=mode, **options
            )
        else:
            sizes = [embedding_size, *[hidden_size] * (num_layers - 1)]
            cells = [cell(D, hidden_size, **options) for D in sizes]
            self.recurrent = nn.Stacked(
                *(nn.Recurrent(one, mode=mode) for one in cells), dropout=dropout
            )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.recurrent.hidden_size, vocabulary_size)

    def forward(self, indices: npt.ArrayLike, state: Any = None) -> tuple[Tensor, Any]:
        """Symbols (T, B), whole numbers → logits (T, B, V) for the next ones, and the last state.

        That state goes in with the symbols that follow; ``None`` starts afresh, from zeros.
        `START`, −1 in place of a symbol, is the zero vector.
        """
        vectors = self._vectors(indices)
        if vectors.ndim != 3:
            raise errors.ShapeError(
                f"LanguageModel: indices of shape {errors.describe(np.shape(indices))}, expected "
                "(T, B): steps, batch. A single text is indices[:, None]."
            )
        y, state = self.recurrent(vectors, state)
        return self.head(self.dropout(y)), state

    def _vectors(self, indices: npt.ArrayLike) -> Tensor:
        """The embeddings (T, B, D), zeros at `START`."""
        if type(self.embedding) is nn.Embedding:
            vectors: Tensor = self.embedding(indices, zeros=True)
            return vectors
        symbols = op.as_tensor(indices)  # one of your own may know no START
        start = symbols == START
        return ops.where(start[..., None], 0.0, self.embedding(ops.where(start, 0, symbols)))

    @checked
    def initial_state(self, batch_size: Count, dtype: npt.DTypeLike = np.float32) -> Any:
        """The state before any symbol, for B parallel texts: zeros."""
        return self.recurrent.initial_state(batch_size, dtype)

    # -- of sentences -------------------------------------------------------------------------

    @checked
    def log_probability(self, indices: npt.ArrayLike) -> float:
        """ln P(y⟨1⟩ … y⟨T⟩) = Σ_t ln P(y⟨t⟩ | y⟨1⟩ … y⟨t−1⟩) of a sentence, in nats.

        The chain rule of the notes: the state starts as zeros, the first input is the zero vector,
        and each input after it is the symbol before. For the probability of a whole sentence its
        last symbol is ``<EOS>``; of symbols without it, that of all sentences that begin so. Runs
        in `nn.evaluation`.

        Args:
            indices: whole numbers (T,); for T = 0 the result is 0, ln 1.

        Raises:
            IndexError: a symbol outside of 0 … V − 1.
            ValueError: more than one dimension, a model that reads from the end, or one whose
                output is not finite.
        """
        row = _sentence(indices, self.embedding.num_embeddings, "indices")
        return float(self._log_probabilities([row])[0])

    @checked
    def log_probabilities_of(self, sentences: Iterable[npt.ArrayLike]) -> np.ndarray:
        """`log_probability` of each of B sentences (T_b,) of any lengths, read at once: (B,)."""
        return self._log_probabilities(self._rows(sentences, "sentences"))

    def _rows(self, sentences: Iterable[npt.ArrayLike], name: str) -> list[np.ndarray]:
        V = self.embedding.num_embeddings
        return [_sentence(s, V, f"{name}[{b}]") for b, s in enumerate(sentences)]

    def _log_probabilities(self, rows: list[np.ndarray], given: int = 0) -> np.ndarray:
        """ln P of each row but its first symbols, so many, which are given."""
        _check_reads_forwards(self, "log_probability")
        out = np.zeros(len(rows))
        order = sorted(range(len(rows)), key=lambda b: len(rows[b]))  # little padding in a batch
        with nn.evaluation(self):
            for n in range(0, len(rows), _BATCH):
                batch = order[n : n + _BATCH]
                out[batch] = self._read([rows[b] for b in batch], given)
        return finite(out, self)

    def _read(self, sentences: list[np.ndarray], given: int) -> np.ndarray:
        both, _ = padded([np.concatenate([[START], s]) for s in sentences], IGNORED)
        inputs, targets = np.where(both == IGNORED, 0, both)[:-1], both[1:]
        total, state = np.zeros(len(sentences)), None
        steps = max(1, _LOGITS // (len(sentences) * self.head.out_features))
        for t in range(0, len(inputs), steps):
            logits, state = self(inputs[t : t + steps], state)
            losses = functional.cross_entropy(logits, targets[t : t + steps], "none")
            total -= losses.numpy()[max(0, given - t) :].sum(axis=0, dtype=np.float64)
        return total

    @checked
    def perplexity(
        self,
        sequences: str | Iterable[Any],
        context: str | Iterable[Any] = (),
        *,
        vocabulary: Vocabulary | None = None,
    ) -> float:
        """exp(−1/N Σ ln p) over all N symbols of one sequence or several: see `text.perplexity`.

        As many equally likely symbols would be as hard to predict; at most the largest float. The
        first symbol of each sequence is that of a sentence, after the zero vector, unless a
        ``context`` says what came before. Each ``<EOS>`` that is given is a symbol.

        Args:
            sequences: whole numbers (T,), or a list of such; or strings, with their ``vocabulary``:
                a text of characters, a list of tokens, or a list of such.
            context: the symbols between the zero vector and each sequence, numbers or strings.

        Raises:
            TypeError: strings without a vocabulary.
            ValueError: no symbols at all, or what `log_probability` raises.
        """
        rows = self._rows(sequences_of(sequences, vocabulary), "sequences")
        V = self.embedding.num_embeddings
        before = _sentence(numbers_of(context, vocabulary, "context"), V, "context")
        symbols = sum(map(len, rows))
        rows = [np.concatenate([before, row]) for row in rows]
        return of_nats(-self._log_probabilities(rows, len(before)).sum(), symbols)

    @checked
    def log_probabilities(self, prefix: npt.ArrayLike = ()) -> np.ndarray:
        """ln P(next symbol | prefix): (V,) float64, none of them −∞.

        ``prefix``: whole numbers (T,), the start of a sentence; empty for its first symbol. Runs in
        `nn.evaluation`, and raises as `log_probability`.
        """
        symbols = _sentence(prefix, self.embedding.num_embeddings, "prefix")
        with nn.evaluation(self):
            logits, _ = self(np.concatenate([[START], symbols])[:, None])
        return log_softmax(finite(logits.numpy()[-1, 0], self))


_BATCH = 64  # sentences that are read at once
_LOGITS = 2**22  # numbers, 16 MB of float32


def _sentence(indices: npt.ArrayLike, size: int, name: str) -> np.ndarray:
    symbols = plain_array(indices)
    if symbols.ndim != 1:
        raise ValueError(
            f"{name}: a sentence is one row of symbols (T,), and this one has shape "
            f"{symbols.shape}. Pass several sentences as a list to log_probabilities_of"
        )
    if not symbols.size:
        return np.zeros(0, np.int64)
    return functional.as_indices(symbols, size, name, "V").numpy()


def _check_reads_forwards(model: nn.Module, who: str) -> None:
    """What reads from the end has seen the symbol that it is to predict."""
    if wrong := reads_from_the_end(model):
        raise ValueError(
            f"{who}: {wrong} reads from the end of the text, so the model has seen each symbol "
            "before it predicts it, and no such number is a probability. Use layers that read "
            "forwards: bidirectional=False."
        )


class Ranked(NamedTuple):
    """A candidate of `rank`: its log-probability in nats, ``<EOS>`` included, and over symbols."""

    sentence: str | list[str]
    log_probability: float
    per_symbol: float


class Reader(Protocol):
    """What has `log_probabilities_of`: a `LanguageModel`, an `NGram`."""

    def log_probabilities_of(self, sentences: Iterable[Any], /) -> np.ndarray: ...


@checked
def rank(
    model: Reader,
    vocabulary: Vocabulary,
    candidates: Iterable[str | list[str]],
    *,
    by: Annotated[str, one_of("log_probability", "per_symbol")] = "log_probability",
) -> list[Ranked]:
    """The sentences, the likeliest first: which of them was meant, if all sound alike? ::

        heard = ["The apple and pair salad", "The apple and pear salad"]
        text.rank(model, vocabulary, [text.Words().split(sentence) for sentence in heard])

    A candidate is what ``vocabulary.encode`` takes: a text of characters, or a list of tokens.
    ``<EOS>`` is added to each if the vocabulary has one. What the vocabulary lacks is ``<UNK>``,
    where it has that: some rare word, no matter which, so that such a candidate is likelier than
    the word itself would make it.

    Args:
        model: a `LanguageModel` or an `NGram`.
        by: ``"log_probability"`` of the whole sentence, which is what the question asks; it favours
            the short. ``"per_symbol"``, the mean over symbols, compares sentences of different
            lengths.

    Raises:
        TypeError: a candidate that is one string, for a vocabulary of words.
        ValueError: no candidates, one without symbols, one with a symbol that a vocabulary without
            ``<UNK>`` lacks, or what ``model.log_probabilities_of`` raises.
    """
    candidates = [as_tokens(c) for c in candidates]
    if not candidates:
        raise ValueError("candidates is a list of sentences, one or more of them")
    end = [] if vocabulary.eos is None else [vocabulary.eos]
    rows = [np.concatenate([vocabulary.encode(c), end]).astype(np.int64) for c in candidates]
    if empty := [n for n, row in enumerate(rows) if not len(row)]:
        raise ValueError(f"candidates[{empty[0]}] is empty: there is nothing to rank")
    found = model.log_probabilities_of(rows)
    ranked = [
        Ranked(c, float(p), float(p) / len(row))
        for c, p, row in zip(candidates, found, rows, strict=True)
    ]
    return sorted(ranked, key=lambda r: -getattr(r, by))


def as_tokens(symbols: Any) -> Any:
    """A text, or its tokens in a list, from which they can be read again."""
    return symbols if isinstance(symbols, str | list) else list(symbols)


class Predictor(Protocol):
    """What has `log_probabilities`: a `LanguageModel`, an `NGram`."""

    def log_probabilities(self, prefix: npt.ArrayLike = ..., /) -> np.ndarray: ...


@checked
def likeliest(
    model: Predictor, vocabulary: Vocabulary, prefix: str | list[str] = "", k: Size = 10
) -> list[tuple[str, float]]:
    """The k likeliest symbols after a prefix, each with its probability, the likeliest first.

    ``prefix`` is the start of a sentence, a text of characters or a list of tokens; ``model`` a
    `LanguageModel` or an `NGram`.

    Raises:
        TypeError: a prefix that is one string, for a vocabulary of words.
        ValueError: k below 1, a symbol that the vocabulary lacks, or a vocabulary that is smaller
            than the model's.
    """
    log_p = model.log_probabilities(vocabulary.encode(prefix if len(prefix) else []))
    if len(vocabulary) < len(log_p):
        raise ValueError(
            f"the model knows {len(log_p)} symbols, and the vocabulary {len(vocabulary)}: it is "
            "not the one that the model was trained with"
        )
    order = np.argsort(-log_p, kind="stable")[:k]
    return [(vocabulary.symbols[i], math.exp(log_p[i])) for i in order]


@checked
def score(
    model: nn.Module,
    indices: npt.ArrayLike,
    *,
    tracks: Size = 32,
    context: Count = 200,
    steps: Size = 100,
    shard: Shard = (0, 1),
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
        shard: of several processes this one's number, from 0, and how many there are. It reads
            every size-th track, and the sum of what all give is the score.

    Raises:
        ValueError: fewer than two symbols, arguments out of range, a model that reads from the end,
            or a loss that is not finite.
    """
    _check_reads_forwards(model, "score")
    indices = one_text(indices)
    if len(indices) < 2:
        raise ValueError(f"indices: a score needs at least 2 symbols, there are {len(indices)}")
    predictions = len(indices) - 1
    # A track that is not clearly longer than its own context would be spent on reading in.
    tracks = max(1, min(tracks, (predictions - context) // max(1, context)))
    # Track k reads from k·length on. The first counts all that it predicts, the others what comes
    # after their context; what runs over the end of the text is filled up and not counted.
    length = math.ceil((predictions - context) / tracks) if tracks > 1 else predictions
    width = length + context if tracks > 1 else predictions

    total, state, mine = 0.0, None, np.arange(shard[0], tracks, shard[1])
    with nn.evaluation(model):
        for t in range(0, width if len(mine) else 0, steps):
            time = np.arange(t, min(t + steps, width))[:, None]
            at = time + length * mine
            counted = (at < predictions) & ((mine == 0) | (time >= width - length))
            at = np.minimum(at, predictions - 1)
            logits, state = model(indices[at], state)
            losses = functional.cross_entropy(logits, indices[at + 1], reduction="none")
            total += float(losses.numpy()[counted].sum(dtype=np.float64))
    return float(finite(np.array(total), model) / predictions)
