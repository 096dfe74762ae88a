"""Which words of a play are persons? Named entities, labelled by one direction and by two.

    python demos/characters.py

Many-to-many: a sentence goes in word by word, and for each word comes out whether it is the name
of a person. Capitals would tell, so all is lower-case here, as if one heard it. Then "ford" is a
man or a river, and often only the next words say which. The notes' example is "teddy roosevelt was
a president" beside "teddy bears are on sale": a network that reads from left to right has to say
what "teddy" is before it comes to them; one that reads in both directions has seen them.

Nobody labelled the plays, but they label themselves: each speech stands under its speaker's name.
A word is a person where it is written with a capital and somebody of that name speaks in one of the
plays. That has its limits. Who never speaks is nobody, like poor Yorick; York is a person even
where it is the town. At the start of a line, where every word has a capital, a name that is a
common word as well is neither trained on nor counted. Ranks such as SIR or FIRST LORD are no names.

Whole plays are held out, so that most of their persons are new. A word is seen in two ways: as an
entry of a vocabulary, and letter by letter, by a little network of its own (many-to-one), for there
is something Italian about the end of "petruchio" whether one has met him or not. The baseline is a
dictionary: a word is a person if it mostly was one in the plays that were trained on.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import common  # before NumPy, whose threads it sets
import numpy as np
from matplotlib.figure import Figure

import tinyseq as ts
from tinyseq import functional, nn, optim, text
from tinyseq.text import speeches

HELD_OUT = 8  # plays, of 38
STEPS, BATCH, LR = 3000, 64, 3e-3
WORD, SPELLING = 40, 24  # numbers that stand for a word: by vocabulary, by its letters
ONE_DIRECTION, TWO_DIRECTIONS = 112, 72  # units in each; about as many parameters
DROPOUT, UNKNOWN = 0.2, 0.3  # shares of inputs to the read-out; of words in training
RARE = 3  # a word that comes less often in training is not in the vocabulary
LONGEST = 40  # words of a sentence, before it is cut
LETTERS = "'-abcdefghijklmnopqrstuvwxyz"
PERSON, UNSURE = 1, -1  # labels, besides 0

# In capitals over speeches, and no names; so are words of one or two letters (II, OF, LA).
NO_NAMES = re.findall(
    r"\w+",
    """
    all another archbishop attendant bastard bishop both boys captain cardinal citizen citizens
    clerk countess court dauphin doctor don duchess duke earl english esquire first fourth french
    frenchman frenchmen frenchwoman friar gardener gentleman gentlemen ghost governor herald iii
    king knights lady lord lords mariner mistress myrmidons nurse poet pol poor prince princess
    pucelle queen rumour second senior sir spring the third viii winter young
    """,
)


class Sentence(NamedTuple):
    words: list[str]  # lower-cased
    labels: np.ndarray  # (T,): 0, PERSON or UNSURE


# -- the data -------------------------------------------------------------------------------------


def names_of(speaker: str) -> list[str]:
    """The names in a heading: those words of it that are in capitals, before any "of".

    >>> names_of("SIR TOBY BELCH"), names_of("DUKE OF YORK"), names_of("Young MARCIUS")
    (['toby', 'belch'], [], ['marcius'])
    """
    words = re.split(" of ", speaker, flags=re.IGNORECASE)[0].split()
    names = [word.lower() for word in words if word.isupper() and len(word) > 2]
    return [name for name in names if name not in NO_NAMES]


def sentences(speech: str, names: set[str], common_words: set[str]) -> list[Sentence]:
    """The sentences of a speech, with a label for each word and each punctuation mark."""
    found: list[Sentence] = []
    words: list[str] = []
    labels: list[int] = []
    starts = True  # a line or a sentence: there any word has a capital
    for token in [*re.findall(r"\n|\w+(?:['-](?!s\b)\w+)*|'s\b|[^\w\s]", speech), None]:
        if words and (token is None or words[-1] in ".?!" or len(words) == LONGEST):
            found.append(Sentence(words, np.array(labels)))
            words, labels = [], []
        if token is None:
            break
        if token != "\n":
            word = token.lower()
            person = word in names and token[0].isupper()
            unsure = person and starts and word in common_words
            words.append(word)
            labels.append(UNSURE if unsure else int(person))
        starts = token in "\n.?!:;\"'-("
    return found


def by_play() -> dict[str, list[Sentence]]:
    """The labelled sentences of each play."""
    everything = speeches()
    names = {name for speech in everything for name in names_of(speech.speaker)}
    lower = {w for speech in everything for w in re.findall(r"\b[a-z][\w'-]*", speech.text)}
    plays: dict[str, list[Sentence]] = {}
    for speech in everything:
        plays.setdefault(speech.play, []).extend(sentences(speech.text, names, lower))
    return plays


class Words:
    """All words by number: their place in the vocabulary (of training alone), and their letters."""

    def __init__(self, training: Sequence[Sentence], held_out: Sequence[Sentence]) -> None:
        counts = Counter(word for sentence in training for word in sentence.words)
        vocabulary = text.Vocabulary.from_counts(counts, min_count=RARE, eos=None)
        assert vocabulary.unk is not None
        self.unknown, self.known = vocabulary.unk, len(vocabulary)
        self.words = sorted(counts | Counter(w for s in held_out for w in s.words))
        self.number = {word: i for i, word in enumerate(self.words)}
        self.entry = vocabulary.encode(self.words)  # (W,)
        spelled = [[LETTERS.find(c) + 1 for c in word[:15]] for word in self.words]
        self.letters, self.lengths = text.padded(spelled)  # (L, W), (W,); 0 is any other character

    def encode(self, batch: Sequence[Sentence]) -> tuple[np.ndarray, np.ndarray]:
        """Words (T, B) and how many there are of each sentence (B)."""
        return text.padded([[self.number[word] for word in s.words] for s in batch])


# -- the network, and the dictionary --------------------------------------------------------------


class Tagger(nn.Module):
    """x⟨t⟩ → ŷ⟨t⟩ at every step, from the past alone or from both directions."""

    def __init__(self, words: Words, bidirectional: bool) -> None:
        self.words = words
        self.letter = nn.Embedding(len(LETTERS) + 1, 16)
        self.speller = nn.Recurrent(nn.GRUCell(16, SPELLING))
        self.embedding = nn.Embedding(words.known, WORD)
        hidden = TWO_DIRECTIONS if bidirectional else ONE_DIRECTION
        self.recurrent = nn.GRU(WORD + SPELLING, hidden, bidirectional=bidirectional)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(self.recurrent.hidden_size, 2)

    def forward(self, words: np.ndarray, lengths: np.ndarray, unknown: np.ndarray) -> ts.Tensor:
        """Scores (T, B, 2) for words (T, B); those ``unknown`` go by their letters alone."""
        distinct, place = np.unique(words, return_inverse=True)
        letters = self.words.letters[:, distinct]
        _, (spelling,) = self.speller(self.letter(letters), lengths=self.words.lengths[distinct])
        entries = np.where(unknown, self.words.unknown, self.words.entry[words])
        spelled = spelling[place.reshape(words.shape)]
        y, _ = self.recurrent(
            ts.concat([self.embedding(entries), spelled], axis=-1), lengths=lengths
        )
        logits: ts.Tensor = self.head(self.dropout(y))
        return logits


def train(run: common.Run, words: Words, data: Sequence[Sentence], bidirectional: bool) -> Tagger:
    ts.seed(run.seed)
    rng = np.random.default_rng(run.seed)
    tagger = Tagger(words, bidirectional)
    adam = optim.Adam(tagger.parameters(), lr=LR)
    buckets = text.Buckets([len(s.words) for s in data], BATCH, seed=run.seed)
    for step in run.steps(STEPS, "two directions" if bidirectional else "one direction"):
        epoch, i = divmod(step, len(buckets))
        batch = [data[j] for j in buckets.epoch(epoch)[i]]
        x, lengths = words.encode(batch)
        labels, _ = text.padded([s.labels for s in batch], UNSURE)
        adam.lr = LR * (1 + math.cos(math.pi * step / STEPS)) / 2
        adam.zero_grad()
        # Words that it knows, forgotten now and then, teach it what to do with those it does not.
        logits = tagger(x, lengths, rng.random(x.shape) < UNKNOWN)
        functional.cross_entropy(logits, labels, ignore_index=UNSURE).backward()
        optim.clip_grad_norm(tagger.parameters(), 1.0)
        adam.step()
    return tagger


def probabilities(tagger: Tagger, data: Sequence[Sentence]) -> list[np.ndarray]:
    """For each sentence, how likely each of its words is a person, (T,)."""
    found: dict[int, np.ndarray] = {}
    with nn.evaluation(tagger):
        for at in text.Buckets([len(s.words) for s in data], 256):
            x, lengths = tagger.words.encode([data[i] for i in at])
            p = functional.softmax(tagger(x, lengths, np.zeros(x.shape, bool))).numpy()
            found |= {int(i): p[: lengths[b], b, PERSON] for b, i in enumerate(at)}
    return [found[i] for i in range(len(data))]


def dictionary(training: Sequence[Sentence]) -> Callable[[str], float]:
    """How often a word was a person in training; a word that never came was none."""
    persons: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for sentence in training:
        for word, label in zip(sentence.words, sentence.labels, strict=True):
            if label != UNSURE:
                total[word] += 1
                persons[word] += label == PERSON
    return lambda word: persons[word] / max(total[word], 1)


# -- the demo -------------------------------------------------------------------------------------


def f1(guess: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Precision, recall, and their harmonic mean; 0 where there is nothing to divide by."""
    right = int((guess & (labels == PERSON)).sum())
    guessed, there = int(guess.sum()), int((labels == PERSON).sum())
    return {
        "precision": right / max(guessed, 1),
        "recall": right / max(there, 1),
        "f1": 2 * right / max(guessed + there, 1),
    }


def demo(run: common.Run) -> None:
    plays = by_play()
    names = sorted(plays)
    held_out_plays = sorted(names[i] for i in run.rng.permutation(len(names))[:HELD_OUT])
    training = [s for play in names if play not in held_out_plays for s in plays[play]]
    held_out = [s for play in held_out_plays for s in plays[play]]
    words = Words(training, held_out)

    all_words = np.array([word for s in held_out for word in s.words])
    labels = np.concatenate([s.labels for s in held_out])
    counted = labels != UNSURE
    share = dictionary(training)
    seen = {word for s in training for word in s.words}
    ambiguous_words = ambiguous(training)
    kinds = {
        "all words": counted,
        "new words": counted & np.array([word not in seen for word in all_words]),
        "either": counted & np.array([word in ambiguous_words for word in all_words]),
    }
    run.say(
        f"held out: {', '.join(held_out_plays)}\n"
        f"{sum(len(s.words) for s in training):,d} words to train on; of {len(labels):,d} held out "
        f"{int((labels == PERSON).sum()):,d} are persons, and {int((~counted).sum())} do not count"
    )

    taggers = [train(run, words, training, bidirectional) for bidirectional in (False, True)]
    one, two = (probabilities(tagger, held_out) for tagger in taggers)
    persons = {
        "dictionary": np.array([share(word) for word in all_words]),
        "one direction": np.concatenate(one),
        "two directions": np.concatenate(two),
    }
    scores = {
        name: {kind: f1(p[at] > 0.5, labels[at]) for kind, at in kinds.items()}
        for name, p in persons.items()
    }
    run.say(
        "\nF1 in the plays held out: of all words, of those that never came in training, and of"
    )
    run.say("those that were there a person at times, and at times none")
    run.say(" " * 15 + "".join(f"{kind:>12}" for kind in kinds) + "   precision   recall")
    for name, of_kind in scores.items():
        row = "".join(f"{of_kind[kind]['f1']:12.1%}" for kind in kinds)
        overall = of_kind["all words"]
        run.say(f"{name:>14} {row}{overall['precision']:12.1%}{overall['recall']:9.1%}")

    guess = persons["two directions"] > 0.5
    wrong = {
        "missed": all_words[counted & ~guess & (labels == PERSON)],
        "taken for persons": all_words[counted & guess & (labels == 0)],
    }
    run.say("\nwhat two directions still get wrong, most of all:")
    for what, where in wrong.items():
        most = ", ".join(f"{word} ({n})" for word, n in Counter(where.tolist()).most_common(8))
        run.say(f"  {what}: {most}")

    chosen = examples(held_out, one, two, ambiguous_words)
    run.say("\nright from two directions and wrong from one (how sure it is that it is a person):")
    for i, t in chosen:
        marked = [f"[{w}]" if j == t else w for j, w in enumerate(held_out[i].words)]
        run.say(f"  {' '.join(marked)}\n      one {one[i][t]:.0%}, two {two[i][t]:.0%}")

    parameters = [sum(p.size for p in tagger.parameters()) for tagger in taggers]
    run.write_numbers(
        {
            "held_out": held_out_plays,
            "parameters": dict(zip(list(persons)[1:], parameters, strict=True)),
            "words": {kind: int(at.sum()) for kind, at in kinds.items()},
            "persons": {kind: int((labels[at] == PERSON).sum()) for kind, at in kinds.items()},
            "scores": scores,
        }
    )
    run.write_figure(draw(scores, [(held_out[i].words, one[i], two[i]) for i, _ in chosen[:2]]))


def ambiguous(data: Sequence[Sentence]) -> set[str]:
    """The words that are a person at times, and at times none: as "ford", or "teddy"."""
    labels: dict[str, set[int]] = {}
    for sentence in data:
        for word, label in zip(sentence.words, sentence.labels, strict=True):
            labels.setdefault(word, set()).add(int(label))
    return {word for word, found in labels.items() if {0, PERSON} <= found}


def examples(
    data: Sequence[Sentence],
    one: list[np.ndarray],
    two: list[np.ndarray],
    ambiguous_words: set[str],
) -> list[tuple[int, int]]:
    """Places (sentence, word) where two directions are right and one is wrong: each word once,
    those first that may be either, then those where the two differ most.
    """
    places = []
    for i, sentence in enumerate(data):
        label = sentence.labels
        better = ((one[i] > 0.5) != (label == PERSON)) & ((two[i] > 0.5) == (label == PERSON))
        for t in np.flatnonzero(better & (label != UNSURE)):
            if 4 < len(sentence.words) < 16:
                word = sentence.words[t]
                places.append(
                    (word not in ambiguous_words, -abs(two[i][t] - one[i][t]), word, i, int(t))
                )
    first = {word: (i, t) for _, _, word, i, t in sorted(places, reverse=True)}
    return [first[word] for word in dict.fromkeys(place[2] for place in sorted(places))][:8]


def draw(
    scores: dict[str, dict[str, dict[str, float]]],
    sentences: list[tuple[list[str], np.ndarray, np.ndarray]],
) -> Figure:
    """F1 as bars, and beside them what is said of each word of two sentences."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.2))
    bars = figure.add_subplot(grid[:, 0])
    colours = {"dictionary": "C7", "one direction": "C0", "two directions": "C1"}
    for shift, (name, of_kind) in enumerate(scores.items()):
        places = np.arange(len(of_kind)) + 0.27 * (shift - 1)
        values = [score["f1"] for score in of_kind.values()]
        container = bars.bar(places, values, 0.25, label=name, color=colours[name])
        bars.bar_label(container, [f"{value:.0%}" for value in values], fontsize="small")
    bars.set_xticks(
        range(3), ["all words", "words not seen\nin training", "words that are\neither"]
    )
    bars.set_ylabel("F1")
    bars.set_ylim(0, 1.1)
    bars.set_title("Persons found in plays held out")
    bars.legend()
    for row, (words, one, two) in enumerate(sentences):
        axes = figure.add_subplot(grid[row, 1])
        axes.plot(one, "o--", color=colours["one direction"], label="one direction")
        axes.plot(two, "o-", color=colours["two directions"], label="two directions")
        axes.axhline(0.5, color="grey", linestyle=":")
        axes.set_xticks(range(len(words)), words, rotation=45, ha="right")
        axes.set_ylim(-0.05, 1.05)
        axes.set_ylabel("is it a person?")
    return figure


def main(arguments: list[str] | None = None) -> int:
    return common.run_demo(demo, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
