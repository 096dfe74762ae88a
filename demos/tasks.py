"""The tasks of the lecture notes, each in at most 20 lines and trained in seconds.

    python demos/tasks.py                # all of them
    python demos/tasks.py agreement dna  # some

entities     a sentence → for each word, is it part of a person's name?
sentiment    a review → its stars
music        nothing → a melody in ABC notation, character by character
agreement    the cat, which …, → was; the cats, which …, → were: from how far back?
dna          DNA → protein, an amino acid for every three bases
translation  an English sentence → the French one, other words in another order
video        a film, a vector a frame → which way does it move?

The data is made here, at random. Each prints what it reaches on data that it was not trained on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from shapes import run_examples, train  # before NumPy: it says how many threads that takes

# isort: split
import numpy as np

import tinyseq as ts
from tinyseq import functional, nn, text


class Network(nn.Module):
    """Symbols (T, B), or vectors (T, B, D), through a recurrent layer to scores (T, B, classes)."""

    def __init__(self, inputs: int, classes: int, layer: Any = nn.GRU, **options: Any) -> None:
        self.embedding = nn.Embedding(inputs, 32)
        self.recurrent = layer(32, 32, **options)
        self.head = nn.Linear(self.recurrent.hidden_size, classes)

    def forward(self, x: np.ndarray, lengths: np.ndarray | None = None) -> ts.Tensor:
        vectors = self.embedding(x) if x.ndim == 2 else x @ self.embedding.weight
        a, _ = self.recurrent(vectors, lengths=lengths)
        scores: ts.Tensor = self.head(a)
        return scores


def scores_of(model: Network, *given: Any) -> np.ndarray:
    with nn.evaluation(model):
        scores: np.ndarray = model(*given).numpy()
    return scores


def choose(rng: np.random.Generator, words: str) -> str:
    return str(rng.choice(words.split()))


# -- named entities: many to many, of equal length ------------------------------------------------

FIRST, LAST = "Teddy Rose Mark Grace Harry Luna", "Roosevelt Potter Granger Weasley Lovegood"
THINGS, VERBS = "bears petals sheets notes songs", "saw met missed liked praised invented"


def news(rng: np.random.Generator) -> tuple[list[str], list[float]]:
    """Teddy Roosevelt met Rose petals: its words, and whether each is part of a person's name."""
    words, labels = list[str](), list[float]()
    for n in range(rng.integers(2, 5)):
        person = int(rng.integers(2))
        verb = [choose(rng, VERBS)] if n else []
        words += [*verb, choose(rng, FIRST), choose(rng, LAST if person else THINGS)]
        labels += [0.0] * len(verb) + [float(person)] * 2
    return words, labels


def entities(steps: int = 100) -> float:
    """A σ for each word, and the losses summed over time. What follows tells Teddy from Teddy."""
    rng = np.random.default_rng(0)
    vocabulary = text.Vocabulary.from_counts(f"{FIRST} {LAST} {THINGS} {VERBS}".split())

    def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        words, labels = zip(*(news(rng) for _ in range(32)), strict=True)
        x, lengths = text.padded([vocabulary.encode(sentence) for sentence in words])
        y = np.array([[*one, *[0] * (len(x) - len(one))] for one in labels], np.float32)
        return x, y.T[..., None], lengths

    def loss() -> ts.Tensor:
        x, y, lengths = batch()
        each = functional.binary_cross_entropy_with_logits(model(x, lengths), y, "none")
        return functional.sequence_loss(each, lengths)

    for directions in (1, 2):
        model = Network(len(vocabulary), 1, bidirectional=directions == 2)
        train(model, loss, steps, lr=0.01)
        x, y, lengths = batch()
        right = ((scores_of(model, x, lengths) > 0) == y)[np.arange(len(x))[:, None] < lengths]
        print(f"  {right.mean():.1%} of the words told right, reading in {directions} direction(s)")
    return float(right.mean())


# -- sentiment: many to one -----------------------------------------------------------------------

GOOD, BAD = "good great lovely funny moving", "bad dull awful boring silly"
PARTS = "plot cast music ending"


def review(rng: np.random.Generator) -> tuple[list[str], int]:
    """the plot is not bad , the cast is dull , …: a star, and one more for each praise."""
    words, stars = list[str](), 0
    for part in PARTS.split():
        good, denied = rng.integers(2, size=2)
        words += ["the", part, "is", *["not"] * denied, choose(rng, GOOD if good else BAD), ","]
        stars += int(good != denied)
    return words, stars


def sentiment(steps: int = 200) -> float:
    """The last state says how many stars, 1 to 5."""
    rng = np.random.default_rng(0)
    vocabulary = text.Vocabulary.from_counts(f"the is not , {PARTS} {GOOD} {BAD}".split())
    model = Network(len(vocabulary), 5)

    def batch(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        words, stars = zip(*(review(rng) for _ in range(size)), strict=True)
        x, lengths = text.padded([vocabulary.encode(one) for one in words])
        return x, lengths, np.array(stars)

    def last(x: np.ndarray, lengths: np.ndarray) -> Any:
        return model(x, lengths)[lengths - 1, np.arange(len(lengths))]

    def loss() -> ts.Tensor:
        x, lengths, stars = batch(32)
        return functional.cross_entropy(last(x, lengths), stars)

    train(model, loss, steps, lr=0.02)
    x, lengths, stars = batch(500)
    right = float((last(x, lengths).numpy().argmax(axis=-1) == stars).mean())
    print(
        f"  500 reviews: {right:.1%} of the stars right (always three: {(stars == 2).mean():.1%})"
    )
    return right


# -- music: one to many ---------------------------------------------------------------------------


def tune(rng: np.random.Generator) -> str:
    """Four bars in ABC notation, each of eight quavers: C2D2EFG2|… ; from C, step by step, to C."""
    at, bars = 0, list[str]()
    for _ in range(4):
        left, bar = 8, ""
        while left:
            length = int(rng.choice([n for n in (1, 2, 4) if n <= left]))
            bar += "CDEFGAB"[at] + (str(length) if length > 1 else "")
            left, at = left - length, int(np.clip(at + rng.integers(-2, 3), 0, 6))
        bars.append(bar)
    return "|".join(bars) + "|\n"


def quavers(bar: str) -> int:
    return sum(int(length or 1) for length in re.findall(r"[A-G](\d?)", bar))


def music(steps: int = 400) -> float:
    """A language model of characters; nobody tells it that a bar has to last eight quavers."""
    rng = np.random.default_rng(0)
    tunes = "".join(tune(rng) for _ in range(1000))
    vocabulary = text.Vocabulary(tunes)
    numbers = vocabulary.encode(tunes)
    model = text.LanguageModel(len(vocabulary), hidden_size=64, num_layers=1)

    def loss() -> ts.Tensor:
        at = np.arange(65)[:, None] + rng.integers(0, len(numbers) - 65, 16)
        scores, _ = model(numbers[at[:-1]])
        return functional.cross_entropy(scores, numbers[at[1:]])

    train(model, loss, steps, lr=0.01)
    written = "".join(text.generate(model, vocabulary, "\n", 2000)).strip()
    bars = written.replace("\n", "").split("|")[:-1]
    right = float(np.mean([quavers(bar) == 8 for bar in bars]))
    print(f"  of {len(bars)} bars that it wrote {right:.1%} last eight quavers")
    print(f"  {written.split()[1]}")
    return right


# -- subject and verb: what is remembered, and from how far back ----------------------------------

NOUNS, OTHERS = 8, 24  # nouns, each singular and plural, and words between that have no number


def clause(rng: np.random.Generator, distance: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The cat(s), so many other words, nouns among them, and a comma (T, B); was it cats? (B,)."""
    x = rng.integers(0, 2 * NOUNS + OTHERS, (distance + 2, size))
    x[0], x[-1] = rng.integers(0, 2 * NOUNS, size), 2 * NOUNS + OTHERS
    return x, x[0] % 2


def agreement(steps: int = 400) -> dict[str, list[float]]:
    """Trained with up to 30 words between; was, or were?"""
    distances, found = (1, 5, 10, 20, 30, 50), {}
    print("  words between  " + "".join(f"{d:8d}" for d in distances))
    for name, layer in (("RNN", nn.RNN), ("GRU", nn.GRU), ("LSTM", nn.LSTM)):
        ts.seed(0)
        rng = np.random.default_rng(0)
        model = Network(2 * NOUNS + OTHERS + 1, 2, layer)

        def loss(model: Network = model, rng: np.random.Generator = rng) -> ts.Tensor:
            x, were = clause(rng, int(rng.integers(0, 31)), 32)
            return functional.cross_entropy(model(x)[-1], were)

        train(model, loss, steps, lr=0.01)
        tests = [clause(rng, distance, 500) for distance in distances]
        guesses = [scores_of(model, x)[-1].argmax(axis=-1) for x, _ in tests]
        found[name] = [float((g == y).mean()) for g, (_, y) in zip(guesses, tests, strict=True)]
        print(f"  {name:14} " + "".join(f"{right:8.1%}" for right in found[name]))
    return found


# -- DNA: many to many, a third as long -----------------------------------------------------------

BASES = "TCAG"
ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"  # the genetic code
LETTERS = sorted(set(ACIDS))  # 20 amino acids, and the stop


def dna(steps: int = 250) -> float:
    """Ten amino acids from 30 bases: only what is said at each third base counts."""
    rng = np.random.default_rng(0)
    acids = np.array([LETTERS.index(letter) for letter in ACIDS])
    model = Network(4, len(LETTERS))

    def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
        bases = rng.integers(0, 4, (30, size))
        return bases, acids[16 * bases[0::3] + 4 * bases[1::3] + bases[2::3]]

    def loss() -> ts.Tensor:
        x, y = batch(32)
        return functional.cross_entropy(model(x)[2::3], y)

    train(model, loss, steps, lr=0.02)
    x, y = batch(200)
    guess = scores_of(model, x)[2::3].argmax(axis=-1)
    right = float((guess == y).mean())
    print(f"  2000 amino acids: {right:.1%} right (always the commonest: {6 / 64:.1%})")
    print(f"  {''.join(BASES[b] for b in x[:, 0])} → {''.join(LETTERS[i] for i in guess[:, 0])}")
    return right


# -- translation: many to many, of different length -----------------------------------------------

ADJECTIVES = {"red": ("rouge",) * 2, "black": ("noir", "noire"), "small": ("petit", "petite")}
OBJECTS = {"cat": ("le", "chat"), "dog": ("le", "chien"), "apple": ("la", "pomme"),
           "table": ("la", "table"), "mouse": ("la", "souris"), "tea": ("le", "thé")}  # fmt: skip
EATS = {"sees": ["voit"], "wants": ["veut"], "does not see": ["ne", "voit", "pas"],
        "does not want": ["ne", "veut", "pas"]}  # fmt: skip


def phrase(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """the black mouse → la souris noire; but the small mouse → la petite souris."""
    noun, adjective = (str(rng.choice(list(words))) for words in (OBJECTS, ADJECTIVES))
    article, word = OBJECTS[noun]
    form = ADJECTIVES[adjective][article == "la"]
    french = [article, form, word] if adjective == "small" else [article, word, form]
    return ["the", adjective, noun], french


def pair(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    (who, qui), (what, quoi) = phrase(rng), phrase(rng)
    verb = str(rng.choice(list(EATS)))
    return [*who, *verb.split(), *what], [*qui, *EATS[verb], *quoi]


def translation(steps: int = 150) -> float:
    """An encoder reads, and a decoder writes until it says <end>."""
    rng = np.random.default_rng(0)
    pairs = list({str(p): p for p in (pair(rng) for _ in range(3000))}.values())[:1000]
    english = sorted({word for source, _ in pairs for word in source})
    french = ["<end>", "<start>", *sorted({word for _, target in pairs for word in target})]
    x, read = text.padded([[english.index(w) for w in source] for source, _ in pairs])
    y, told = text.padded([[*map(french.index, target), 0] for _, target in pairs])
    model = nn.EncoderDecoder(nn.GRU(16, 24, bidirectional=True), nn.GRU(16, 48), len(english),
                              len(french), bos=1, eos=0, attention="dot")  # fmt: skip

    def loss() -> ts.Tensor:
        i = rng.integers(0, 700, 32)
        return model.loss(x[:, i], y[:, i], read[i], told[i])

    train(model, loss, steps, lr=0.01)
    beams = model.beam_search(x[:, 700:], read[700:], 2, 12)
    written = [[french[i] for i in beam[0].symbols] for beam in beams]
    right = float(np.mean([w == p[1] for w, p in zip(written, pairs[700:], strict=True)]))
    print(f"  300 sentences: {right:.1%} translated without a mistake")
    print(f"  {' '.join(pairs[700][0])} → {' '.join(written[0])}")
    return right


# -- video: many to one, a vector a step ----------------------------------------------------------

WAYS = ["left", "right", "up", "down"]


def film(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Six frames of 5 × 5 pixels, in each a dot that moves, and noise (T, B, 25); the way (B,)."""
    way = rng.integers(0, 4, size)
    step = np.array([(0, -1), (0, 1), (-1, 0), (1, 0)])[way]
    row, column = ((rng.integers(0, 5, (size, 2)) + np.arange(6)[:, None, None] * step) % 5).T
    frames = rng.normal(scale=0.2, size=(6, size, 5, 5)).astype(np.float32)
    frames[np.arange(6)[:, None], np.arange(size), row.T, column.T] += 1
    return frames.reshape(6, size, 25), way


def video(steps: int = 300) -> float:
    """No single frame tells which way it goes."""
    rng = np.random.default_rng(0)
    model = Network(25, len(WAYS), nn.LSTM)

    def loss() -> ts.Tensor:
        frames, way = film(rng, 64)
        return functional.cross_entropy(model(frames)[-1], way)

    train(model, loss, steps, lr=0.01)
    frames, way = film(rng, 500)
    right = float((scores_of(model, frames)[-1].argmax(axis=-1) == way).mean())
    print(f"  500 films: {right:.1%} told right (chance: 25%)")
    return right


TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task for task in (entities, sentiment, music, agreement, dna, translation, video)
}


def main(arguments: list[str] | None = None) -> int:
    return run_examples("task", TASKS, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
