"""Language models: words as vectors, training, sampling."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinyseq as ts
from tinyseq import functional, graph, nn, op, ops, text, viz

from .figures import figure

notes = {"h": "a", "y": "ŷ"}
weights = {
    "w_x": "W_ax", "w_h": "W_aa", "b": "b_a", "head.weight": "W_ya", "head.bias": "b_y",
}  # fmt: skip
SECTION = "Language models"


@figure(SECTION, "Words as one-hot vectors")
def one_hot() -> Any:
    """x⟨t⟩ is as long as the vocabulary and 1 in the place of its word. A word that the vocabulary
    lacks is <UNK>, here a new spell.
    """
    words = ["Harry", "Potter", "and", "Hermione", "Granger", "invented", "a", "new", "spell", "."]
    vocabulary = text.Vocabulary.from_counts(words[:7], eos=".")
    x = functional.one_hot(vocabulary.encode(words), len(vocabulary))  # (T, V)
    return viz.heatmap(x.numpy(), "x", symbols=words, title="row 0 is <UNK>, row 1 the full stop")


@figure(SECTION, "A language model in training")
def training() -> Any:
    """x⟨1⟩ is a vector of zeros and x⟨t⟩ = y⟨t−1⟩, the word before; ŷ⟨t⟩ is the probability of
    every word in that place, and L⟨t⟩ = −log of that of the right one.
    """
    words = ["Cats", "average", "15", "hours", "of", "sleep", "a", "day", "<EOS>"]
    vocabulary = text.Vocabulary.from_counts(words)
    V = len(vocabulary)
    y = vocabulary.encode(words)[:, None]  # (T, B)
    before = functional.one_hot(y[:-1], V)
    x = ops.concat([np.zeros((1, 1, V), np.float32), before])
    rnn, head = nn.RNN(V, 16), nn.Linear(16, V)
    a, _ = rnn(x)
    with graph.scope("softmax"):
        p = functional.softmax(head(a))
    loss = -(functional.one_hot(y, V) * ops.log(p)).sum()
    modules = {"rnn": rnn, "head": head}
    return viz.draw_unrolled(loss, params=modules, names=notes | weights)


@figure(SECTION, "Sampling")
def sampling() -> Any:
    """What is drawn from ŷ⟨t⟩ is the next input. Nothing is told from outside but zeros at the
    start, ŷ⟨0⟩.
    """

    rng = np.random.default_rng(0)

    def drawn(scores: np.ndarray) -> np.ndarray:
        p = functional.softmax(scores).numpy()
        return np.eye(p.shape[-1], dtype=p.dtype)[[rng.choice(len(row), p=row) for row in p]]

    # A draw is no function that a gradient could pass, but recorded like any other op.
    draw = op.Op("draw", drawn, vjp=lambda g, y, s: (None,), reads="", joint={}, emit=None, hint="")

    class Writer(nn.Module):
        def __init__(self, V: int) -> None:
            self.cell = nn.RNNCell(V, 16)
            self.head = nn.Linear(16, V)

        def forward(self, word: ts.Tensor, steps: int) -> ts.Tensor:
            (a,) = self.cell.initial_state(len(word))
            written = []
            for t in range(steps):
                with graph.scope(f"t={t}"):
                    (a,) = self.cell(word, (a,))
                    word = draw(self.head(a))
                written.append(word)
            return ops.stack(written)

    writer = Writer(10)
    start = ts.tensor(np.zeros((1, 10)), np.float32, name="y0")
    words = writer(start, steps=4)
    return [
        viz.draw_unrolled(words, params=writer, names=notes | weights),
        viz.draw_unrolled(words, params=writer, names=notes | weights, level="op", columns=[0, 1]),
    ]


@figure(SECTION, "Words or characters")
def words_or_characters() -> Any:
    """The same sentence is 9 steps for a model of words and 37 for one of characters, whose
    vocabulary is small and knows every word.
    """
    sentence = "Cats average 15 hours of sleep a day."
    pictures = []
    for tokenizer in (text.Words(punctuation=True), text.Characters()):
        tokens = tokenizer.split(sentence)
        vocabulary = text.Vocabulary.from_counts(tokens)
        model = text.LanguageModel(len(vocabulary), 8, num_layers=1, cell="rnn")
        scores, _ = model(vocabulary.encode(tokens)[:, None])
        pictures.append(viz.draw_unrolled(scores, params=model, names=notes | weights))
    return pictures
