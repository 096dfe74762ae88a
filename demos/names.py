"""Tell what kind of name a name is, and make up names: many-to-one and one-to-many.

    python demos/names.py

Many-to-one: a network reads a name letter by letter, from both ends, and what it remembers at the
last letter says whether that is a woman's first name, a man's, or a last name. One-to-many, the
other way round: all that goes in is the kind of name, as the state that a network starts from; it
writes a letter, reads it, and writes the next. Both stand beside n-gram models, one for each kind,
which count what followed the last n − 1 letters: for the first task by Bayes' rule, for the second
as what to draw from.

The names are those of the United States' census of 1990 (the PyPI package names), of the last names
the commonest 5,000, so that no kind outweighs the others by far. A fifth of all is held out. Some
names are of several kinds, as Leslie is: in training such a name comes once as each of them, and
when it is held out each of them is a right answer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import common  # before NumPy, whose threads it sets
import numpy as np
from matplotlib.figure import Figure

import tinyseq as ts
from tinyseq import functional, nn, optim, text

LAST_NAMES = 5000
HELD_OUT = 0.2
ORDERS = (1, 2, 3, 4, 5)  # n of the n-gram models
HIDDEN, EMBEDDING, DROPOUT = 128, 32, 0.3
EPOCHS, BATCH, LR = 15, 64, 6e-3
GENERATED = 1000  # names made up of each kind
MAX_LETTERS = 15  # letters of a name that is made up
PADDING = -1  # the target behind the end of a name

Pair = tuple[str, int]  # a name and its kind


class Names(NamedTuple):
    """Which kinds there are, which of them each name is, and names to train on and held out."""

    kinds: list[str]
    known: dict[str, list[int]]
    training: list[str]
    held_out: list[str]

    @staticmethod
    def of(lists: dict[str, list[str]], rng: np.random.Generator) -> Names:
        known: dict[str, list[int]] = {}
        for kind, names in enumerate(lists.values()):
            for name in names:
                known.setdefault(name, []).append(kind)
        names = list(known)
        names = [names[i] for i in rng.permutation(len(names))]
        n = round(HELD_OUT * len(names))
        return Names(list(lists), known, names[n:], names[:n])

    def pairs(self, names: Sequence[str]) -> list[Pair]:
        """Each name with each of its kinds."""
        return [(name, kind) for name in names for kind in self.known[name]]

    def share_right(self, guesses: Sequence[int] | np.ndarray) -> float:
        """Of the names held out: how many have the kind that was guessed, or have it too."""
        pairs = zip(guesses, self.held_out, strict=True)
        return float(np.mean([guess in self.known[name] for guess, name in pairs]))


class Letters:
    """Names as numbers: one a letter, and one for the end."""

    def __init__(self, names: Sequence[str]) -> None:
        self.vocabulary = text.Vocabulary.from_counts("".join(names), unk=None)
        assert self.vocabulary.eos is not None
        self.end = self.vocabulary.eos

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, name: str) -> np.ndarray:
        return self.vocabulary.encode([*name, "<EOS>"])

    def decode(self, symbols: np.ndarray) -> list[str]:
        """The names in a row of symbols, each up to its end; what comes behind the last is none."""
        ends = np.flatnonzero(symbols == self.end)
        return [
            "".join(self.vocabulary.symbols[i] for i in part if i != self.end)
            for part in np.split(symbols, ends + 1)[:-1]
        ]


# -- many to one ----------------------------------------------------------------------------------


class Reader(nn.Module):
    """A name → its kind: the letters are read from both ends, and the last states are asked."""

    def __init__(self, letters: Letters, kinds: int) -> None:
        self.letters = letters
        self.embedding = nn.Embedding(len(letters), EMBEDDING)
        self.recurrent = nn.GRU(EMBEDDING, HIDDEN, bidirectional=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(2 * HIDDEN, kinds)

    def forward(self, names: Sequence[str]) -> ts.Tensor:
        """Logits (B, kinds)."""
        x, lengths = text.padded([self.letters.encode(name) for name in names])
        _, (((ahead,), (back,)),) = self.recurrent(self.embedding(x), lengths=lengths)
        logits: ts.Tensor = self.head(self.dropout(ts.concat([ahead, back], axis=-1)))
        return logits

    def loss(self, pairs: Sequence[Pair]) -> ts.Tensor:
        """Nats per name."""
        names, kinds = zip(*pairs, strict=True)
        return functional.cross_entropy(self(names), kinds)

    def probabilities(self, names: Sequence[str]) -> np.ndarray:
        """P(kind | name): (B, kinds)."""
        with nn.evaluation(self):
            p: np.ndarray = functional.softmax(self(names)).numpy()
        return p

    def guess(self, names: Sequence[str]) -> np.ndarray:
        """The likeliest kind of each name (B)."""
        kinds: np.ndarray = self.probabilities(names).argmax(axis=-1)
        return kinds


# -- one to many ----------------------------------------------------------------------------------


class Writer(nn.Module):
    """A kind → a name: a language model of letters whose first state is made of the kind."""

    def __init__(self, letters: Letters, kinds: int) -> None:
        self.letters = letters
        self.start = nn.Embedding(kinds, HIDDEN)
        self.model = text.LanguageModel(
            len(letters), HIDDEN, 1, "gru", embedding_size=EMBEDDING, dropout=DROPOUT
        )

    def state(self, kinds: Sequence[int] | np.ndarray) -> Any:
        return ((ts.tanh(self.start(np.asarray(kinds))),),)

    def loss(self, pairs: Sequence[Pair]) -> ts.Tensor:
        """Mean −ln P(letter | kind, letters before it), in nats; the end counts as a letter."""
        names, kinds = zip(*pairs, strict=True)
        encoded = [self.letters.encode(name) for name in names]
        x, _ = text.padded([np.roll(name, 1) for name in encoded])  # the end stands in front
        y, _ = text.padded(encoded, PADDING)
        logits, _ = self.model(x, self.state(kinds))
        return functional.cross_entropy(logits, y, ignore_index=PADDING)

    def nats_per_letter(self, pairs: Sequence[Pair]) -> float:
        with nn.evaluation(self):
            return float(self.loss(pairs).item())

    def write(self, kind: int, count: int, rng: np.random.Generator) -> list[str]:
        """Names of a kind: each letter is drawn from what the model says, and read next."""
        symbols = np.full((1, count), self.letters.end)
        written = np.full((MAX_LETTERS + 1, count), self.letters.end)
        with nn.evaluation(self):
            state = self.state(np.full(count, kind))
            for t in range(MAX_LETTERS):
                logits, state = self.model(symbols, state)
                # The largest of logits + Gumbel noise is a draw from their softmax.
                symbols = (logits.numpy() + rng.gumbel(size=logits.shape)).argmax(axis=-1)
                written[t] = symbols[0]
        return [self.letters.decode(column)[0] for column in written.T]


# -- n-grams --------------------------------------------------------------------------------------


class NGrams:
    """One n-gram model for each kind of name, and how common the kinds are."""

    def __init__(self, n: int, letters: Letters, pairs: Sequence[Pair], kinds: int) -> None:
        self.letters = letters
        self.models = []
        for kind in range(kinds):
            names = [letters.encode(name) for name, its_kind in pairs if its_kind == kind]
            both_ends = np.concatenate([[letters.end], *names])
            self.models.append(text.NGram(n, len(letters)).fit(both_ends))
        self.prior = np.bincount([kind for _, kind in pairs], minlength=kinds) / len(pairs)

    def log_probabilities(self, name: str) -> np.ndarray:
        """ln P(name | kind), of each kind."""
        symbols, end = self.letters.encode(name), [self.letters.end]
        return np.array([model.log_probability(symbols, context=end) for model in self.models])

    def guess(self, names: Sequence[str]) -> np.ndarray:
        """The likeliest kind by Bayes' rule: P(kind | name) ∝ P(name | kind) · P(kind)."""
        nats = np.array([self.log_probabilities(name) for name in names])
        kinds: np.ndarray = (nats + np.log(self.prior)).argmax(axis=-1)
        return kinds

    def nats_per_letter(self, pairs: Sequence[Pair]) -> float:
        nats = -sum(self.log_probabilities(name)[kind] for name, kind in pairs)
        return float(nats / sum(len(self.letters.encode(name)) for name, _ in pairs))

    def write(self, kind: int, count: int, rng: np.random.Generator) -> list[str]:
        """Names of a kind, drawn letter by letter."""
        written: list[str] = []
        while len(written) < count:
            symbols = self.models[kind].sample(count, prime=[self.letters.end], rng=rng)
            written += self.letters.decode(symbols)
        return written[:count]


# -- training and measuring -----------------------------------------------------------------------


def train(run: common.Run, label: str, model: Reader | Writer, pairs: Sequence[Pair]) -> None:
    """Adam, with a learning rate that goes up and comes down again."""
    buckets = text.Buckets([len(name) for name, _ in pairs], BATCH, seed=run.seed)
    steps = EPOCHS * len(buckets)
    adam = optim.Adam(model.parameters(), lr=LR)
    rate = optim.CosineLR(adam, steps, warmup_steps=steps // 50)
    for step in run.steps(steps, label):
        epoch, i = divmod(step, len(buckets))
        loss = model.loss([pairs[j] for j in buckets.epoch(epoch)[i]])
        adam.zero_grad()
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        adam.step()
        rate.step()


def prefixes(name: str) -> list[str]:
    return [name[:end] for end in range(1, len(name) + 1)]


def most_changed(reader: Reader, names: Names, count: int = 3) -> dict[str, np.ndarray]:
    """P(kind) after each letter, of names held out: those that are told right in the end, and
    about which the network changed its mind most often.
    """
    parts = [part for name in names.held_out for part in prefixes(name)]
    read = iter(reader.probabilities(parts))
    changes, beliefs = {}, {}
    for name in names.held_out:
        beliefs[name] = np.array([next(read) for _ in name])
        guesses = beliefs[name].argmax(axis=-1)
        if guesses[-1] in names.known[name]:
            changes[name] = np.count_nonzero(np.diff(guesses))
    chosen = sorted(changes, key=lambda name: -changes[name])[:count]
    return {name: beliefs[name] for name in chosen}


def draw(
    accuracy: dict[str, float], kinds: Sequence[str], beliefs: dict[str, np.ndarray]
) -> Figure:
    """How many names each model tells right, and what the network thinks, letter by letter."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    rows = [f"thought {i}" for i in range(max(1, len(beliefs)))]
    panels = figure.subplot_mosaic([["told", row] for row in rows])
    axes = panels["told"]
    bars = axes.barh(list(accuracy), [100 * share for share in accuracy.values()])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="names held out that are told right, %")
    for row, (name, p) in zip(rows, beliefs.items(), strict=False):
        axes = panels[row]
        axes.stackplot(range(len(name)), p.T, labels=kinds, alpha=0.8)
        axes.set_xticks(range(len(name)), list(name.capitalize()))
        axes.set(xlim=(0, len(name) - 1), ylim=(0, 1), ylabel="P(kind)")
    if beliefs:
        axes.set_xlabel("what the network takes it for, read up to here")
        panels[rows[0]].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(kinds))
    return figure


def judge(
    generated: Sequence[Pair], names: Names, reader: Reader, census: Sequence[set[str]]
) -> dict[str, float]:
    """Of names that were made up: the share that is new, and of the new ones the shares that the
    network takes for what they should be, and that the census has as what they should be.
    """
    shown = set(names.pairs(names.training))
    new = [(name, kind) for name, kind in generated if (name, kind) not in shown]
    if not new:
        return {"new": 0.0, "as_asked": 0.0, "in_census": 0.0}
    guesses = reader.guess([name for name, _ in new])
    return {
        "new": len(new) / len(generated),
        "as_asked": float(np.mean([g == kind for g, (_, kind) in zip(guesses, new, strict=True)])),
        "in_census": float(np.mean([name in census[kind] for name, kind in new])),
    }


# -- the demo -------------------------------------------------------------------------------------


def demo(run: common.Run) -> None:
    census = {kind: [name.lower() for name in listed] for kind, listed in text.names().items()}
    names = Names.of({kind: listed[:LAST_NAMES] for kind, listed in census.items()}, run.rng)
    letters, kinds = Letters(list(names.known)), names.kinds
    pairs, held_out = names.pairs(names.training), names.pairs(names.held_out)
    of_kind = np.bincount([kind for _, kind in pairs], minlength=len(kinds))
    several = sum(len(its_kinds) > 1 for its_kinds in names.known.values())
    run.say(
        f"{len(names.known):,d} names, {several:,d} of them of several kinds; "
        f"{len(names.held_out):,d} are held out.\nTo train on: "
        + ", ".join(f"{n:,d} {kind}" for kind, n in zip(kinds, of_kind, strict=True))
    )
    ts.seed(run.seed)
    ngrams = {f"{n}-gram": NGrams(n, letters, pairs, len(kinds)) for n in ORDERS}
    reader, writer = Reader(letters, len(kinds)), Writer(letters, len(kinds))
    train(run, "many to one", reader, pairs)
    train(run, "one to many", writer, pairs)

    commonest = int(of_kind.argmax())
    accuracy = {f"always {kinds[commonest]}": names.share_right([commonest] * len(names.held_out))}
    models: dict[str, NGrams | Reader] = {**ngrams, "network": reader}
    for name, model in models.items():
        accuracy[name] = names.share_right(model.guess(names.held_out))
    run.say("\nMany to one: names held out of which the kind is told right")
    for name, share in accuracy.items():
        run.say(f"  {name:12} {share:6.1%}")

    nats = {name: model.nats_per_letter(held_out) for name, model in ngrams.items()}
    best = min(nats, key=lambda name: nats[name])
    nats["network"] = writer.nats_per_letter(held_out)
    run.say(
        f"\nOne to many: {GENERATED:,d} names made up of each kind. "
        "New: not among those to train on.\n"
        "Of the new ones, as asked: of the kind asked for, as the network above tells them; real:\n"
        "of that kind in the whole census. Nats: per letter of the names held out\n"
        f"  {'':12}  nats    new  as asked   real"
    )
    generated, made = {}, {}
    for name, maker in ((best, ngrams[best]), ("network", writer)):
        written = [(w, k) for k in range(len(kinds)) for w in maker.write(k, GENERATED, run.rng)]
        generated[name] = [(word, k) for word, k in written if word]
        made[name] = m = judge(generated[name], names, reader, list(map(set, census.values())))
        run.say(
            f"  {name:12} {nats[name]:5.3f} {m['new']:6.1%}    {m['as_asked']:6.1%} "
            f"{m['in_census']:6.1%}"
        )
    run.say("\nNew names, made up by the network:")
    for k, kind in enumerate(kinds):
        new = [w for w, asked in generated["network"] if asked == k and w not in names.known]
        run.say(f"  {kind:7} {', '.join(w.capitalize() for w in new[:9])}")
    run.write_figure(draw(accuracy, kinds, most_changed(reader, names)))
    run.write_numbers(
        {"names": len(names.known), "told_right": accuracy, "nats": nats, "made": made}
    )


def main(arguments: list[str] | None = None) -> int:
    return common.run_demo(demo, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
