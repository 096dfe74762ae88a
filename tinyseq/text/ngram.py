"""N-gram models: the next symbol by counting what followed the last few. The baseline to beat."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyseq import display
from tinyseq.arguments import Count, NotNegative, Positive, Size, checked, one_of
from tinyseq.random import generator
from tinyseq.tensor import plain_array
from tinyseq.text.measures import numbers_of, of_nats, sequences_of
from tinyseq.text.sampling import Choice, pick
from tinyseq.text.vocabulary import Vocabulary

_TOGETHER = 2**19  # symbols that are counted or predicted at once: some 30 MB
_ROWS = 20  # of a table of counts that are shown


class NGram:
    """Predicts each symbol from the n − 1 before it, by how often it followed them in a text.

    Let c be a context, c′ the same without its first symbol, and N(cw) how often the symbol w came
    after c.

    ``"kneser-ney"``, interpolated and modified (Chen and Goodman, 1999): every count gives up a
    discount D, and what a context's counts give up is shared out as the shorter context says,
    down to the empty one and, below it, to 1 / V::

        P(w | c) = (N(cw) − D(N(cw))) / Σ_v N(cv) + (Σ_v D(N(cv)) / Σ_v N(cv)) · P(w | c′)

    For P(w | c′) and all below, N(c′w) is not how often c′w came but how many different symbols
    came before it, the beginning of the text being one. Each order has a D for counts of 1, of 2
    and of 3 or more, made from its n_i, how many of its counts are i: with Y = n_1 / (n_1 + 2 n_2)
    it is D(i) = i − (i + 1) · Y · n_{i+1} / n_i. Where that is not within 0 < D(i) < i, as for a
    handful of symbols that are all common, D is ½, 1 and 1½ (as in KenLM: Heafield et al., 2013).

    ``"add-k"`` (Laplace's rule, k = 1)::

        P(w | c) = (N(cw) + k) / (Σ_v N(cv) + k · V)

    Both are above 0 for every symbol. ``None`` is maximum likelihood, counting and nothing else::

        P(w | c) = N(cw) / Σ_v N(cv)

    An n-gram that was never seen has probability 0 and log-probability −∞, and so has every text
    with it. Σ_v N(cv) is how often c came, but where the text ends in c: nothing followed it there,
    so it is not counted, and probabilities add up to 1. What was never followed by anything has no
    maximum likelihood: then c′ stands in for c.

    All add up to 1 over the V symbols. A context of m < n − 1 symbols, as at the start of a text,
    is read as ``NGram(m + 1)`` of the same text would.

    For sentences, fit to one text in which an end-of-sentence symbol stands before, between and
    after them, and name it as ``start``: it is then the context of a sentence's first symbol.

    >>> model = NGram(3).fit([0, 1, 2, 0, 1, 2, 0, 1])
    >>> model.sample(6, prime=[0, 1], temperature=0)
    array([2, 0, 1, 2, 0, 1])

    >>> words = "the cat sits . the cat sleeps . the dog sits .".split()
    >>> vocabulary = Vocabulary.from_counts(words, unk=None, eos=None)
    >>> bigrams = NGram(2, smoothing=None).fit(vocabulary.encode(words))
    >>> bigrams.counts(2, vocabulary)["the", "cat"]
    2
    >>> the, cat = vocabulary.encode(["the", "cat"])
    >>> round(math.exp(bigrams.log_probability([cat], context=[the])), 4)
    0.6667

    Args:
        n: 1 for a unigram model, 2 for a bigram model, and so on.
        vocabulary_size: V, how many symbols there are; when left out, one more than the highest
            that is in the text.
        smoothing: ``"kneser-ney"``, ``"add-k"`` or ``None``.
        k: what add-k adds to each count, above 0.
        start: the symbol that stands before a sentence, as ``vocabulary.eos`` or ``vocabulary.bos``
            in the text; when left out, a first symbol has no context.

    Raises:
        ValueError: n or vocabulary_size below one, an unknown smoothing, a k that is not above 0.
    """

    @checked
    def __init__(
        self,
        n: Size,
        vocabulary_size: Size | None = None,
        smoothing: Annotated[str, one_of("kneser-ney", "add-k")] | None = "kneser-ney",
        *,
        k: Positive = 0.03,
        start: Count | None = None,
    ) -> None:
        self.n = n
        self.vocabulary_size = vocabulary_size
        self._given_size = vocabulary_size  # what `fit` finds in a text goes no further than it
        self.smoothing = smoothing
        self.k = k
        self.start = start
        self._orders: list[_Order] = []

    def __repr__(self) -> str:
        extra = f", k={self.k}" if self.smoothing == "add-k" else ""
        extra += "" if self.start is None else f", start={self.start}"
        return f"NGram({self.n}, {self.vocabulary_size}, {self.smoothing!r}{extra})"

    @checked
    def fit(self, indices: npt.ArrayLike) -> NGram:
        """Count a text, whole numbers (N,), instead of what was counted before. Returns the model.

        Takes O(n N log N): each order is sorted, a piece at a time. The memory is some 40 bytes for
        each different n-gram of each order, and at the peak 10 more for each symbol.

        Raises:
            TypeError: numbers that are not whole.
            ValueError: fewer than n symbols, one or ``start`` out of range, or more than one
                dimension.
        """
        text = _integers(indices, "indices")
        if len(text) < self.n:
            raise ValueError(
                f"indices: NGram({self.n}) counts groups of {self.n} symbols, and the text has "
                f"{len(text)}. Use a longer text or a smaller n"
            )
        size = self._given_size or int(text.max()) + 1
        _check_range(text, size, "indices")
        if self.start is not None and self.start >= size:
            raise ValueError(
                f"start={self.start} is out of range, for the vocabulary has {size} symbols, 0 to "
                f"{size - 1}. It is the number of the symbol that stands before a sentence"
            )
        if len(text) * size >= 2**63:
            raise ValueError(
                f"vocabulary_size={size} is too large to number the n-grams of {len(text)} symbols"
            )
        self._orders = list(self._count(text, size))
        self.vocabulary_size = size
        return self

    def _count(self, text: np.ndarray, size: int) -> Iterator[_Order]:
        """The orders 1 … n.

        An n-gram's number is its rank, by the number of its context and then by its last symbol:
        numbers stay below N, and keys below N · V, however large n and V are.
        """
        here = _numbered(np.broadcast_to(np.int64(0), len(text)), text, size)
        contexts = 1  # before the first order: the empty one
        for n in range(1, self.n + 1):
            grams = len(here.keys)
            above = None
            top = self._estimate(here.counts, here.keys // size, contexts, size)
            lower = None if self.smoothing else top
            if n < self.n:
                above = _numbered(here.of[:-1], text[n:], size)
                if self.smoothing == "kneser-ney":
                    # What each longer n-gram is without its first symbol: one kind of it is one
                    # symbol that came before.
                    ends = np.empty(len(above.keys), np.int64)
                    ends[above.of] = here.of[1:]
                    before = np.bincount(ends, minlength=grams)
                    before[here.of[0]] += 1  # the beginning of the text
                    lower = self._estimate(before, here.keys // size, contexts, size)
            counts = here.counts.astype(np.min_scalar_type(here.counts.max()))
            yield _Order(here.keys, counts, top, lower)
            if above is not None:
                here, contexts = above, grams

    def _estimate(
        self, counts: np.ndarray, context_of: np.ndarray, contexts: int, size: int
    ) -> _Estimate:
        """One order's probabilities, out of its counts and the number of each one's context."""
        total = np.bincount(context_of, counts, contexts)
        share = np.append(counts, 0.0)  # and, in place, what a count keeps of it: there may be many
        kept = share[:-1]
        if self.smoothing == "add-k":
            given_up = np.full(contexts, self.k * size)
            total += given_up
        else:
            discounts = _discounts(counts) if self.smoothing else np.zeros(4)
            discount = discounts[np.minimum(counts, 3)]
            kept -= discount
            given_up = np.bincount(context_of, discount, contexts)
            del discount
            # What the text ends in may be a context that nothing followed: all of it backs off.
            given_up[total == 0] = 1
            total[total == 0] = 1
        kept /= total[context_of]
        np.log(kept, out=kept)
        share[-1] = -np.inf
        with np.errstate(divide="ignore"):  # −∞ without smoothing
            return _Estimate(share, np.append(np.log(given_up / total), 0.0))

    @checked
    def counts(self, n: Size, vocabulary: Vocabulary | None = None) -> Counts:
        """How often each n-gram came, by the tuple of its numbers, the most frequent first.

        With a ``vocabulary`` by the tuple of its symbols. n is any from 1 to that of the model.
        What never came has the count 0. Printed, and in a notebook, it is a table. ::

            print(ngram.counts(2, vocabulary))

        Raises:
            ValueError: an n above that of the model, a vocabulary that lacks a number, or a model
                that was not fitted.
        """
        size = self._fitted()
        if n > self.n:
            raise ValueError(f"n={n} is more than the {self.n} symbols that NGram({self.n}) counts")
        counts, contexts = self._orders[n - 1].counts, self._orders[n - 1].keys
        symbols = np.empty((len(contexts), n), np.int64)
        for m in reversed(range(n)):
            contexts, symbols[:, m] = np.divmod(contexts, size)
            contexts = self._orders[m - 1].keys[contexts]
        order = np.lexsort((*symbols.T[::-1], -counts.astype(np.int64)))
        named: list[Any] = symbols[order].ravel().tolist()
        if vocabulary is not None:
            named = vocabulary.symbols_of(named)
        grams = zip(*(named[m::n] for m in range(n)), strict=True)
        return Counts(dict(zip(grams, counts[order].tolist(), strict=True)))

    @checked
    def log_probability(
        self, indices: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> float:
        """log P(indices | context), in nats: the sum over all of ``indices``, the first included.

        Each is predicted from the up to n − 1 symbols before it, in ``indices`` or ``context``;
        without a context the first is that of a sentence, after ``start``. Without smoothing it is
        −∞ where one of them has probability 0.

        Raises:
            TypeError: numbers that are not whole.
            ValueError: a symbol out of range, or a model that was not fitted.
        """
        text = self._checked(indices, "indices")
        return self._total(text, self._before(context), 0)

    @checked
    def log_probabilities_of(self, sentences: Iterable[npt.ArrayLike]) -> np.ndarray:
        """`log_probability` of each of B sentences (T_b,): (B,)."""
        rows = [self._checked(s, f"sentences[{b}]") for b, s in enumerate(sentences)]
        return np.array([self._total(row, self._before(None), 0) for row in rows])

    @checked
    def score(self, indices: npt.ArrayLike, context: npt.ArrayLike = ()) -> float:
        """Mean nats of predicting ``indices[1:]``, each symbol exactly once, as `text.score` does.

        ``indices[0]`` is only read, as the last symbol of training is in what `text.split` holds
        out. ``context`` may hold what came before it; without, the next n − 2 predictions have
        less than n − 1 symbols to go on. Bits per symbol are ``nats / ln 2``.

        Raises:
            TypeError: numbers that are not whole.
            ValueError: fewer than two symbols, one out of range, or a model that was not fitted.
        """
        text = _integers(indices, "indices")
        if len(text) < 2:
            raise ValueError(f"indices: a score needs at least 2 symbols, there are {len(text)}")
        text = self._checked(text, "indices")
        return -self._total(text, self._checked(context, "context"), 1) / (len(text) - 1)

    @checked
    def perplexity(
        self,
        sequences: str | Iterable[Any],
        context: str | Iterable[Any] | None = None,
        *,
        vocabulary: Vocabulary | None = None,
    ) -> float:
        """exp(−1/N Σ ln p) over all N symbols of one sequence or several: see `text.perplexity`.

        As many equally likely symbols would be as hard to predict. The first symbol of each
        sequence is that of a sentence, after ``start``, unless a ``context`` says what came before.
        Without smoothing it is ∞ where a symbol has probability 0.

        Args:
            sequences: whole numbers (T,), or a list of such; or strings, with their ``vocabulary``:
                a text of characters, a list of tokens, or a list of such.
            context: what came before each, numbers or strings.

        Raises:
            TypeError: numbers that are not whole, or strings without a vocabulary.
            ValueError: no symbols at all, one out of range, or a model that was not fitted.
        """
        rows = [self._checked(s, "sequences") for s in sequences_of(sequences, vocabulary)]
        before = self._before(
            None if context is None else numbers_of(context, vocabulary, "context")
        )
        nats = -sum(self._total(row, before, 0) for row in rows)
        return of_nats(nats, sum(map(len, rows)))

    @checked
    def log_probabilities(
        self, prefix: npt.ArrayLike = (), context: npt.ArrayLike | None = None
    ) -> np.ndarray:
        """log P(w | context, prefix) of every symbol w, a float64 array (V,).

        Of the symbols before w, any number, the last n − 1 count; without a context ``prefix`` is
        the start of a sentence, after ``start``. Without smoothing, −∞ for what never came there.

        Raises:
            TypeError: numbers that are not whole.
            ValueError: a symbol out of range, or a model that was not fitted.
        """
        size = self._fitted()
        before = np.concatenate([self._before(context), self._checked(prefix, "prefix")])
        return self._next(self._read(before), size)

    @checked
    def sample(
        self,
        length: Count,
        prime: npt.ArrayLike = (),
        rng: np.random.Generator | None = None,
        temperature: NotNegative = 1.0,
    ) -> np.ndarray:
        """``length`` symbols that go on from ``prime``, without the prime: an int64 array.

        Each is drawn from P(w | the last n − 1)^(1 / temperature), normalised: below 1 is more
        careful, above 1 more daring, 0 takes the most probable one, without a draw.

        Args:
            prime: the start of a sentence, after ``start``.
            rng: what to draw from; the library's own generator when left out.

        Raises:
            TypeError: a prime of numbers that are not whole.
            ValueError: a negative length or temperature, a symbol of the prime that is out of
                range, or a model that was not fitted.
        """
        size = self._fitted()
        prime = np.concatenate([self._before(None), self._checked(prime, "prime")])
        contexts = self._read(prime)
        how = Choice(temperature, 0, 1.0, np.empty(0, np.int64), None)
        draws = generator(rng).random(length) if temperature > 0 else np.zeros(length)
        written = np.empty(length, np.int64)
        for i, draw in enumerate(draws):
            written[i] = pick(self._next(contexts, size), draw, how)
            contexts = self._append(contexts, int(written[i]), size)
        return written

    def _fitted(self) -> int:
        """The size of the vocabulary, known once there is something counted."""
        if not self._orders or self.vocabulary_size is None:
            raise ValueError(f"NGram({self.n}) has counted nothing yet. Call fit(indices) first")
        return self.vocabulary_size

    def _checked(self, indices: npt.ArrayLike, name: str) -> np.ndarray:
        array = _integers(indices, name)
        _check_range(array, self._fitted(), name)
        return array

    def _before(self, context: npt.ArrayLike | None) -> np.ndarray:
        """The symbols of a context; the start of a sentence where there is none."""
        if context is None:
            context = [] if self.start is None else [self.start]
        return self._checked(context, "context")

    def _total(self, text: np.ndarray, past: np.ndarray, first: int) -> float:
        """Σ log P of the symbols of a text from ``first`` on, some at a time."""
        total = 0.0
        for start in range(0, len(text), _TOGETHER):
            block = text[start : start + _TOGETHER]
            nats = self._predict(block, text[max(0, start - self.n) : start] if start else past)
            total += float((nats if start else nats[first:]).sum())
        return total

    def _predict(self, text: np.ndarray, past: np.ndarray) -> np.ndarray:
        """log P of each symbol of a text: all positions at once, one order after the other."""
        size = self._fitted()
        past = past[max(0, len(past) - self.n + 1) :]
        text = np.concatenate([past, text])
        nats = np.full(len(text), -math.log(size))
        contexts = np.zeros(len(text), np.int64)  # of the position i + n − 1, where i is the index
        for n, order in enumerate(self._orders[: len(text)], start=1):
            grams = order.find(contexts * size + text[n - 1 :])
            # The first position has no more symbols before it; others go on to the next order.
            full = slice(0, 1 if n < self.n else None)
            longer = slice(1, None)
            rest = nats[n - 1 :]
            rest[full] = order.top(rest[full], grams[full], contexts[full])
            if order.lower is not None:
                rest[longer] = order.lower(rest[longer], grams[longer], contexts[longer])
            contexts = grams[:-1]
        return nats[len(past) :]

    def _next(self, contexts: list[int], size: int) -> np.ndarray:
        """log P of every symbol, after contexts of 0, 1 … symbols, given as their numbers."""
        nats = np.full(size, -math.log(size))
        last = len(contexts)
        for n, (order, context) in enumerate(zip(self._orders, contexts, strict=False), start=1):
            estimate = order.top if n == last else order.lower
            if estimate is None or context < 0:
                continue
            grams = slice(*np.searchsorted(order.keys, (context * size, (context + 1) * size)))
            symbols = order.keys[grams] - context * size
            nats += estimate.backoff[context]
            nats[symbols] = np.logaddexp(estimate.share[grams], nats[symbols])
        return nats

    def _read(self, text: np.ndarray) -> list[int]:
        """The numbers of the contexts that a text ends in, of 0, 1 … at most n − 1 symbols."""
        contexts = [0]
        for symbol in text[max(0, len(text) - self.n + 1) :]:
            contexts = self._append(contexts, int(symbol), self._fitted())
        return contexts

    def _append(self, contexts: list[int], symbol: int, size: int) -> list[int]:
        """The contexts that a text ends in, one symbol later."""
        pairs = zip(self._orders[:-1], contexts, strict=False)
        return [0, *(int(order.find(context * size + symbol)) for order, context in pairs)]


class Counts(Counter[tuple[Any, ...]]):
    """n-grams and how often each came: a `collections.Counter` that shows itself as a table."""

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows = [[c.rjust(widths[0]), *map(str.ljust, rest, widths[1:])] for c, *rest in rows]
        return "\n".join(["  ".join(row).rstrip() for row in rows] + self._more())

    def _repr_html_(self) -> str:
        return display.table(self._rows() + [[more] for more in self._more()])

    def _rows(self) -> list[list[str]]:
        """A line of headings, and the most frequent: the count, and the symbols one by one."""
        shown = self.most_common(_ROWS)
        n = max((len(gram) for gram, _ in shown), default=0)
        rows = [["count", f"{n}-gram", *[""] * (n - 1)]]
        rows += [[f"{count:,d}", *map(_plain, gram)] for gram, count in shown]
        return [row + [""] * (len(rows[0]) - len(row)) for row in rows]

    def _more(self) -> list[str]:
        return [f"… and {len(self) - _ROWS:,d} more"] if len(self) > _ROWS else []


def _plain(symbol: object) -> str:
    """A symbol as it is, but where white space or nothing would be seen."""
    text = str(symbol)
    return text if text.isprintable() and text.split() == [text] else repr(text)


class _Numbered(NamedTuple):
    """The n-grams of a text."""

    keys: np.ndarray  # number of the context · V + symbol, of each n-gram, sorted
    of: np.ndarray  # the number of the n-gram at each position of the text
    counts: np.ndarray  # how often each n-gram came


def _numbered(contexts: np.ndarray, symbols: np.ndarray, size: int) -> _Numbered:
    """As `numpy.unique` with inverse and counts, a piece of the text at a time."""

    def keys_from(start: int) -> np.ndarray:
        piece = slice(start, start + _TOGETHER)
        found: np.ndarray = contexts[piece] * np.int64(size) + symbols[piece]
        return found

    starts = range(0, len(symbols), _TOGETHER)
    keys, counts = np.unique(keys_from(0), return_counts=True)
    for start in starts[1:]:
        here, more = np.unique(keys_from(start), return_counts=True)
        at = np.searchsorted(keys, here)
        known = keys[np.minimum(at, len(keys) - 1)] == here
        counts[at[known]] += more[known]
        counts = np.insert(counts, at[~known], more[~known])
        keys = np.insert(keys, at[~known], here[~known])
    of = np.empty(len(symbols), np.int32 if len(keys) < 2**31 else np.int64)
    for start in starts:
        here, inverse = np.unique(keys_from(start), return_inverse=True)
        of[start : start + _TOGETHER] = np.searchsorted(keys, here)[inverse]
    return _Numbered(keys, of, counts)


class _Estimate(NamedTuple):
    """log P(w | c) of one order, given that of the order below it.

    What was never seen has the number −1, which is the last entry: nothing of its own, and all of
    it left to the order below.
    """

    share: np.ndarray  # log of what cw keeps, of all that came after c
    backoff: np.ndarray  # log of what c leaves to the order below

    def __call__(self, below: np.ndarray, grams: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        mixed: np.ndarray = np.logaddexp(self.share[grams], self.backoff[contexts] + below)
        return mixed


class _Order(NamedTuple):
    """What is known of the n-grams of one n, by their numbers."""

    keys: np.ndarray  # number of the context · V + symbol, sorted
    counts: np.ndarray
    top: _Estimate  # as the highest order of a model
    lower: _Estimate | None  # below others; None: it has no part there

    def find(self, keys: npt.ArrayLike) -> np.ndarray:
        """The numbers of n-grams; −1 for those never seen. Those of contexts below 0 are none."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D for counts of 0, 1, 2 and from 3 on: see `NGram`."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(np.float64)
    i = np.arange(1, 4)
    if (n[i] > 0).all():
        discounts = i - (i + 1) * n[1] / (n[1] + 2 * n[2]) * n[i + 1] / n[i]
        if ((discounts > 0) & (discounts < i)).all():
            return np.array([0.0, *discounts])
    return np.array([0.0, 0.5, 1.0, 1.5])


def _integers(indices: npt.ArrayLike, name: str) -> np.ndarray:
    """As int64, or a smaller dtype, which takes less memory and becomes int64 beside int64."""
    array = plain_array(indices)
    if array.ndim != 1:
        raise ValueError(f"{name} of shape {array.shape}: expected one dimension, (N,)")
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} of {array.dtype}: expected the whole numbers of symbols")
    return array.astype(np.int64, copy=False) if array.dtype.itemsize == 8 else array


def _check_range(array: np.ndarray, size: int, name: str) -> None:
    if not array.size or (array.min() >= 0 and array.max() < size):
        return
    wrong = np.flatnonzero((array < 0) | (array >= size))
    raise ValueError(
        f"{name}[{wrong[0]}] is {array[wrong[0]]}: out of range, for the vocabulary has {size} "
        f"symbols, 0 to {size - 1}"
    )
