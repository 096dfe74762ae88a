"""One small model of each input-output shape of a recurrent network, each trained in seconds.

    python demos/shapes.py                  # all five
    python demos/shapes.py many-to-one      # one of them

one-to-one              a year, its digits at once → is it a leap year?
one-to-many             a number → its Roman numeral, letter by letter
many-to-one             a number, digit by digit → its remainder after division by 3
many-to-many-equal      text without spaces, letter by letter → does a word end here?
many-to-many-different  an English number name, word by word → the French one

Each prints what it reaches on data that it was not trained on.
"""

from __future__ import annotations

import argparse
import calendar
import os
import pydoc_data.topics
import re
import sys
import time
from collections.abc import Callable, Mapping

# One thread for NumPy's products, unless the user says otherwise; set before NumPy is loaded. A
# second one gains nothing at these sizes, and loses a lot when something else keeps a core busy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import tinyseq as ts
from tinyseq import functional, nn, optim, text

END = 0  # the symbol that ends a sequence, and fills up what is shorter


def train(model: nn.Module, loss: Callable[[], ts.Tensor], steps: int, lr: float) -> None:
    """Adam on what ``loss`` draws; the learning rate falls along a cosine."""
    optimizer = optim.Adam(model.parameters(), lr=lr)
    for step in range(steps):
        optimizer.lr = lr * (1 + np.cos(np.pi * step / steps)) / 2
        optimizer.zero_grad()
        loss().backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()


def digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """(B,) → (width, B): the digits as they are written, with zeros in front."""
    return numbers // 10 ** np.arange(width)[::-1, None] % 10


# -- one to one -----------------------------------------------------------------------------------


class Network(nn.Module):
    """x → ŷ: no sequence and no recurrence, as networks were before."""

    def __init__(self) -> None:
        self.inner = nn.Linear(40, 64)
        self.outer = nn.Linear(64, 2)

    def forward(self, years: np.ndarray) -> ts.Tensor:
        x = functional.one_hot(digits(years, 4).T, 10).reshape(len(years), 40)
        logits: ts.Tensor = self.outer(ts.relu(self.inner(x)))
        return logits


def one_to_one(steps: int = 1000) -> float:
    rng = np.random.default_rng(0)
    years = rng.permutation(np.arange(1600, 2400))
    leap = np.array([calendar.isleap(int(year)) for year in years], int)
    network = Network()

    def loss() -> ts.Tensor:
        i = rng.integers(0, 600, 64)
        return functional.cross_entropy(network(years[i]), leap[i])

    train(network, loss, steps, lr=0.01)
    with nn.evaluation(network):
        guess = network(years[600:]).numpy().argmax(axis=-1)
    right = float((guess == leap[600:]).mean())
    never = 1 - leap[600:].mean()
    print(f"  200 years it has not seen: {right:.1%} right (always saying no: {never:.1%})")
    return right


# -- one to many ----------------------------------------------------------------------------------

ROMAN = "\nIVXLCDM"


def roman(n: int) -> str:
    """A number from 1 to 3999 as the Romans wrote it."""
    out = ""
    for value, letters in zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
        strict=True,
    ):
        times, n = divmod(n, value)
        out += letters * times
    return out


class Speller(nn.Module):
    """x → ŷ⟨1⟩, ŷ⟨2⟩ …: x makes the first state, each letter is the next step's input."""

    def __init__(self) -> None:
        self.start = nn.Linear(40, 64)
        self.embedding = nn.Embedding(len(ROMAN), 16)
        self.recurrent = nn.Recurrent(nn.GRUCell(16, 64))
        self.head = nn.Linear(64, len(ROMAN))

    def state(self, numbers: np.ndarray) -> tuple[ts.Tensor, ...]:
        x = functional.one_hot(digits(numbers, 4).T, 10).reshape(len(numbers), 40)
        return (ts.tanh(self.start(x)),)

    def forward(self, letters: np.ndarray, state: tuple[ts.Tensor, ...]) -> tuple[ts.Tensor, ...]:
        y, state = self.recurrent(self.embedding(letters), state)
        return self.head(y), *state

    def write(self, numbers: np.ndarray) -> list[str]:
        letters = np.full((1, len(numbers)), END)
        written = []
        with nn.evaluation(self):
            state = self.state(numbers)
            for _ in range(16):
                logits, *state = self(letters, state)
                letters = logits.numpy().argmax(axis=-1)
                written.append(letters[0])
        return ["".join(ROMAN[i] for i in one).split("\n")[0] for one in np.array(written).T]


def one_to_many(steps: int = 600) -> float:
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.arange(1, 4000))
    names = [roman(int(n)) for n in numbers]
    targets, lengths = text.padded([[ROMAN.index(c) for c in name + "\n"] for name in names])
    speller = Speller()

    def loss() -> ts.Tensor:
        i = rng.integers(0, 3000, 32)
        target = targets[: lengths[i].max(), i]
        told = np.concatenate([np.full((1, 32), END), target[:-1]])
        logits, _ = speller(told, speller.state(numbers[i]))
        return functional.cross_entropy(logits, target)

    train(speller, loss, steps, lr=0.01)
    written = speller.write(numbers[3000:])
    right = float(np.mean([a == b for a, b in zip(written, names[3000:], strict=True)]))
    print(f"  999 numbers it has not seen: {right:.1%} written without a mistake")
    print(f"  {numbers[3000]} → {written[0]}")
    return right


# -- many to one ----------------------------------------------------------------------------------


class Reader(nn.Module):
    """x⟨1⟩ … x⟨T⟩ → ŷ: only the last state is asked."""

    def __init__(self) -> None:
        self.embedding = nn.Embedding(10, 16)
        self.recurrent = nn.GRU(16, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, symbols: np.ndarray, lengths: np.ndarray | None = None) -> ts.Tensor:
        _, state = self.recurrent(self.embedding(symbols), lengths=lengths)
        (h,) = state[-1]
        logits: ts.Tensor = self.head(h)
        return logits


def many_to_one(steps: int = 500) -> float:
    rng = np.random.default_rng(0)
    reader = Reader()

    def loss() -> ts.Tensor:
        lengths = rng.integers(1, 9, 64)
        symbols = rng.integers(0, 10, (8, 64)) * (np.arange(8)[:, None] < lengths)
        return functional.cross_entropy(reader(symbols, lengths), symbols.sum(axis=0) % 3)

    train(reader, loss, steps, lr=0.01)
    symbols = np.concatenate([rng.integers(1, 10, (1, 500)), rng.integers(0, 10, (29, 500))])
    numbers = [int("".join(map(str, column))) for column in symbols.T]
    with nn.evaluation(reader):
        guess = reader(symbols).numpy().argmax(axis=-1)
    right = float(np.mean(guess == [n % 3 for n in numbers]))
    print(f"  trained on up to 8 digits; 500 numbers of 30 digits: {right:.1%} right (chance: 33%)")
    print(f"  {numbers[0]} → {guess[0]}")
    return right


# -- many to many, of equal length ----------------------------------------------------------------


class Tagger(nn.Module):
    """x⟨t⟩ → ŷ⟨t⟩ at every step."""

    def __init__(self, bidirectional: bool) -> None:
        self.embedding = nn.Embedding(26, 16)
        self.recurrent = nn.GRU(16, 48, bidirectional=bidirectional)
        self.head = nn.Linear(self.recurrent.hidden_size, 2)

    def forward(self, letters: np.ndarray) -> ts.Tensor:
        y, _ = self.recurrent(self.embedding(letters))
        logits: ts.Tensor = self.head(y)
        return logits


def prose() -> tuple[np.ndarray, np.ndarray]:
    """The letters of Python's own manual (N,), and whether each is the last of its word (N,)."""
    words = re.findall("[a-z]+", " ".join(pydoc_data.topics.topics.values()).lower())
    letters = np.frombuffer("".join(words).encode(), np.uint8).astype(int) - ord("a")
    ends = np.zeros(len(letters), int)
    ends[np.cumsum([len(word) for word in words]) - 1] = 1
    return letters, ends


def many_to_many_equal(steps: int = 200) -> float:
    rng = np.random.default_rng(0)
    letters, ends = prose()
    held_out = len(letters) * 9 // 10

    def f1(bidirectional: bool) -> float:
        ts.seed(0)
        tagger = Tagger(bidirectional)

        def loss() -> ts.Tensor:
            at = np.arange(40)[:, None] + rng.integers(0, held_out - 40, 32)
            return functional.cross_entropy(tagger(letters[at]), ends[at])

        train(tagger, loss, steps, lr=0.02)
        at = np.arange(40)[:, None] + np.arange(held_out, held_out + 40 * 300, 40)
        with nn.evaluation(tagger):
            guess = tagger(letters[at]).numpy().argmax(axis=-1)
        return float(2 * (guess & ends[at]).sum() / (guess.sum() + ends[at].sum()))

    forward, both = f1(bidirectional=False), f1(bidirectional=True)
    print(f"  word ends found in text that it has not seen, F1: {both:.1%}")
    print(f"  without reading ahead, from left to right alone:  {forward:.1%}")
    return both


# -- many to many, of different length ------------------------------------------------------------


def words(text: str) -> list[str]:
    return text.split()


ONES = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")


def english(n: int) -> list[str]:
    """The words of a number below 1000."""
    if n >= 100:
        rest = ["and", *english(n % 100)] if n % 100 else []
        return [ONES[n // 100], "hundred", *rest]
    if n >= 20:
        return [TENS[n // 10 - 2], *([ONES[n % 10]] if n % 10 else [])]
    return [ONES[n]]


UN = words(
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze "
    "seize dix-sept dix-huit dix-neuf"
)
VINGT = words("vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt")


def french(n: int) -> list[str]:
    """The words of a number below 1000: 71 is "sixty and eleven", 80 "four twenties"."""
    if n >= 100:
        hundreds = [] if n < 200 else [UN[n // 100]]
        cent = "cents" if n >= 200 and n % 100 == 0 else "cent"
        return [*hundreds, cent, *(french(n % 100) if n % 100 else [])]
    if n < 20:
        return UN[n].split("-")
    tens = n // 10
    rest = n % 10 + (10 if tens in (7, 9) else 0)
    if n == 80:
        return ["quatre", "vingts"]
    et = ["et"] if rest in (1, 11) and tens < 8 else []
    return [*VINGT[tens - 2].split("-"), *et, *(UN[rest].split("-") if rest else [])]


def many_to_many_different(steps: int = 400) -> float:
    rng = np.random.default_rng(0)
    numbers = [int(n) for n in rng.permutation(1000)]
    pairs = [(english(n), french(n)) for n in numbers]
    from_words = sorted({word for source, _ in pairs for word in source})
    to_words = ["<end>", "<start>", *sorted({word for _, target in pairs for word in target})]
    x, x_lengths = text.padded([[from_words.index(w) for w in source] for source, _ in pairs])
    y, y_lengths = text.padded(
        [[to_words.index(w) for w in [*target, "<end>"]] for _, target in pairs]
    )
    model = nn.EncoderDecoder(
        nn.GRU(16, 32, bidirectional=True), nn.GRU(16, 64), len(from_words), len(to_words),
        bos=1, eos=END, attention="dot", dropout=0.1,
    )  # fmt: skip

    def loss() -> ts.Tensor:
        i = rng.integers(0, 700, 32)
        return model.loss(x[:, i], y[:, i], x_lengths[i], y_lengths[i], teacher_forcing=0.9)

    train(model, loss, steps, lr=0.01)
    found = [beam[0].symbols for beam in model.beam_search(x[:, 700:], x_lengths[700:], 3, 12)]
    written = [" ".join(to_words[i] for i in symbols) for symbols in found]
    right = float(
        np.mean([a == " ".join(t) for a, (_, t) in zip(written, pairs[700:], strict=True)])
    )
    print(f"  300 numbers it has not seen: {right:.1%} translated without a mistake")
    print(f"  {' '.join(pairs[700][0])} → {written[0]}")
    return right


SHAPES: dict[str, Callable[[], float]] = {
    "one-to-one": one_to_one,
    "one-to-many": one_to_many,
    "many-to-one": many_to_one,
    "many-to-many-equal": many_to_many_equal,
    "many-to-many-different": many_to_many_different,
}


def run_examples(
    what: str, examples: Mapping[str, Callable[[], object]], about: str, arguments: list[str] | None
) -> int:
    """Run the examples that the command line names, or all, each from the same random numbers."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(what, nargs="*", help=f"of {', '.join(examples)} [all]")
    for name in getattr(parser.parse_args(arguments), what) or examples:
        if name not in examples:
            parser.error(f"{name!r} is no {what}. Use {', '.join(examples)}.")
        print(name)
        ts.seed(0)
        start = time.perf_counter()
        examples[name]()
        print(f"  {time.perf_counter() - start:.1f} s")
    return 0


def main(arguments: list[str] | None = None) -> int:
    return run_examples("shape", SHAPES, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
