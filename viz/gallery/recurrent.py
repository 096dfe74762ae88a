"""The recurrent network: its cell, its passes forwards and backwards, its shapes, its depth."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinyseq as ts
from tinyseq import functional, graph, nn, ops, text, viz

from .figures import figure

notes = {"h": "a", "y": "ŷ"}
weights = {
    "w_x": "W_ax", "w_h": "W_aa", "b": "b_a", "head.weight": "W_ya", "head.bias": "b_y",
}  # fmt: skip
SECTION = "The recurrent network"


@figure(SECTION, "A recurrent network, unrolled")
def unrolled() -> Any:
    """Each word of a sentence, as a one-hot vector, changes the state a⟨t⟩, from which ŷ⟨t⟩ is
    read: is the word part of a name? The same weights serve at every step.
    """
    words = ["Harry", "Potter", "and", "Hermione", "Granger", "invented", "a", "new", "spell"]
    x = functional.one_hot(np.arange(len(words))[:, None], len(words))  # (T, B, V)
    rnn, head = nn.RNN(len(words), 5), nn.Linear(5, 1)
    a, _ = rnn(x)
    y = ops.sigmoid(head(a))
    modules = {"rnn": rnn, "head": head}
    return viz.draw_unrolled(y, params=modules, names=notes | weights)


@figure(SECTION, "The same network, rolled up")
def rolled() -> Any:
    """One box a layer; the state goes round, once a step."""
    rnn, head = nn.RNN(9, 5), nn.Linear(5, 1)
    a, _ = rnn(ts.tensor(np.ones((9, 1, 9)), np.float32))
    y = ops.sigmoid(head(a))
    modules = {"rnn": rnn, "head": head}
    return viz.draw_unrolled(y, params=modules, level="layer", names=notes | weights)


@figure(SECTION, "The basic cell")
def rnn_cell() -> Any:
    """a⟨t⟩ = tanh(x⟨t⟩ W_ax + a⟨t−1⟩ W_aa + b_a): every operation that one step records, with a
    gold edge where a parameter takes part. Vectors are rows here, and the matrices, at their right,
    the transposes of the notes'.
    """
    names = {"h": "a", "y": "a", "w_x": "W_ax", "w_h": "W_aa", "b": "b_a"}
    return viz.draw_unrolled(nn.RNNCell(3, 4), steps=1, level="op", names=names)


@figure(SECTION, "The notes' simplified notation")
def stacked_weights() -> Any:
    """W_a = [W_aa | W_ax], applied to a⟨t−1⟩ and x⟨t⟩ joined into one vector: the same numbers
    with one product in place of two.
    """

    class Cell(nn.Cell):
        def __init__(self, D: int, H: int) -> None:
            super().__init__(D, H)
            self.W_a = nn.Parameter(nn.init.glorot_uniform((H + D, H)))
            self.b_a = nn.Parameter(nn.init.zeros((H,)))

        def forward(self, x: ts.Tensor, state: nn.State) -> nn.State:
            (a,) = state
            return (ops.tanh(ops.concat([a, x], axis=-1) @ self.W_a + self.b_a),)

    return viz.draw_unrolled(Cell(3, 4), steps=1, level="op", names={"h": "a", "y": "a"})


# -- forwards and backwards -----------------------------------------------------------------------

SECTION = "Forwards and backwards through time"


@figure(SECTION, "The forward pass, and the loss of every step")
def forward_pass() -> Any:
    """L⟨t⟩ = −y⟨t⟩ log ŷ⟨t⟩ − (1 − y⟨t⟩) log (1 − ŷ⟨t⟩) is computed at every step, and L is their
    sum.
    """
    rnn, head = nn.RNN(3, 5), nn.Linear(5, 1)
    x = ts.tensor(np.random.default_rng(0).normal(size=(4, 1, 3)), np.float32)
    y = np.array([1, 1, 0, 1], np.float32).reshape(4, 1, 1)
    a, _ = rnn(x)
    with graph.scope("σ"):
        said = ops.sigmoid(head(a))
    loss = -(y * ops.log(said) + (1 - y) * ops.log(1 - said)).sum()
    modules = {"rnn": rnn, "head": head}
    return viz.draw_unrolled(loss, params=modules, names=notes | weights)


@figure(SECTION, "The backward pass")
def backward_pass() -> Any:
    """Back-propagation through time goes against every arrow. Here is how much comes back along
    each, ‖∂L/∂a⟨t⟩‖, the sum of what all later losses send. The numbers are in the tooltips.
    """
    rnn, head = nn.RNN(3, 5), nn.Linear(5, 1)
    data = np.random.default_rng(0).normal(size=(4, 1, 3))
    x = ts.tensor(data, np.float32, requires_grad=True)
    y = np.array([1, 1, 0, 1], np.float32).reshape(4, 1, 1)
    a, _ = rnn(x)
    with graph.scope("σ"):
        said = ops.sigmoid(head(a))
    loss = -(y * ops.log(said) + (1 - y) * ops.log(1 - said)).sum()
    modules = {"rnn": rnn, "head": head}
    return viz.draw_unrolled(loss, params=modules, names=notes | weights, flow="gradient")


@figure(SECTION, "A gradient that vanishes, one that does not, and one that explodes")
def vanishing() -> Any:
    """The last of 30 steps asks what the first one said. Through a plain network next to nothing
    of the gradient arrives there; along the LSTM's c, whose forget gates are open, it does. With
    ReLU and recurrent weights 1.8 times as large it grows on its way back, a thousandfold and more:
    it explodes.
    """
    plain, gated = nn.RNN(3, 8), nn.LSTM(3, 8, forget_bias=3.0)
    large = nn.RNN(3, 8, nonlinearity="relu")
    dict(large.named_parameters())["layers.0.cell.w_h"].data *= 1.8
    pictures = []
    for layer in (plain, gated, large):
        data = np.random.default_rng(0).normal(size=(30, 1, 3))
        x = ts.tensor(data, np.float32, requires_grad=True)
        y, _ = layer(x)
        loss = y[-1].sum()
        drawn = viz.draw_unrolled(
            loss, params=layer, flow="gradient", scale=(1e-4, 1e4), columns=(2, 1), names=notes
        )
        pictures.append(drawn)
    return pictures


# -- shapes ---------------------------------------------------------------------------------------

SECTION = "Shapes: what goes in, what comes out"


@figure(SECTION, "One to one")
def one_to_one() -> Any:
    """A network without a sequence: x → ŷ, drawn operation by operation as it was recorded."""

    class Network(nn.Module):
        def __init__(self) -> None:
            self.inner = nn.Linear(3, 5)
            self.outer = nn.Linear(5, 1)

        def forward(self, x: ts.Tensor) -> ts.Tensor:
            return ops.sigmoid(self.outer(ops.tanh(self.inner(x))))

    network = Network()
    x = ts.tensor(np.ones((1, 3)), np.float32, name="x")
    return viz.draw(network(x), network)


@figure(SECTION, "One to many")
def one_to_many() -> Any:
    """Music from a genre: x = ŷ⟨0⟩ is the first input, and each note ŷ⟨t⟩ is the next step's."""

    class Composer(nn.Module):
        def __init__(self) -> None:
            self.cell = nn.RNNCell(3, 5)
            self.head = nn.Linear(5, 3)

        def forward(self, x: ts.Tensor, steps: int) -> ts.Tensor:
            (a,) = self.cell.initial_state(len(x))
            note, melody = x, []
            for t in range(steps):
                with graph.scope(f"t={t}"):
                    (a,) = self.cell(note, (a,))
                    note = self.head(a)
                melody.append(note)
            return ops.stack(melody)

    composer = Composer()
    x = ts.tensor(np.ones((1, 3)), np.float32, name="y0")
    return viz.draw_unrolled(composer(x, 4), params=composer, names=notes | weights)


@figure(SECTION, "Many to one")
def many_to_one() -> Any:
    """The stars of a film review: every word is read, and only the last state is asked."""

    review = ["there", "is", "nothing", "to", "like"]
    vocabulary = text.Vocabulary.from_counts(review)
    embedding = nn.Embedding(len(vocabulary), 3)
    rnn, head = nn.RNN(3, 5), nn.Linear(5, 5)
    a, _ = rnn(embedding(vocabulary.encode(review)[:, None]))
    stars = head(a[-1])
    modules = {"embedding": embedding, "rnn": rnn, "head": head}
    return viz.draw_unrolled(stars, params=modules, names=notes | weights)


@figure(SECTION, "Many to many, of equal length")
def many_to_many() -> Any:
    """A yes or no for each input, as in finding names: ŷ⟨t⟩ at every step."""
    x = ts.tensor(np.random.default_rng(0).normal(size=(5, 1, 3)), np.float32)
    rnn, head = nn.GRU(3, 5), nn.Linear(5, 2)
    a, _ = rnn(x)
    return viz.draw_unrolled(head(a), params={"rnn": rnn, "head": head}, names=notes)


@figure(SECTION, "Many to many, of different length: encoder and decoder")
def encoder_decoder() -> Any:
    """The encoder reads two words; its last state is all that the decoder, which writes three,
    knows of them. In training the decoder is told the word before, y⟨t−1⟩, and ŷ⟨1⟩ … ŷ⟨T_y⟩ are
    its own.
    """

    class Encoder(nn.RNNCell):
        pass

    class Decoder(nn.Module):
        def __init__(self) -> None:
            self.cell = nn.RNNCell(3, 5)
            self.head = nn.Linear(5, 6)

        def forward(self, x: ts.Tensor, state: nn.State) -> tuple[nn.State, ts.Tensor]:
            state = self.cell(x, state)
            return state, self.head(state[0])

    encoder, decoder = Encoder(3, 5), Decoder()
    x = ts.tensor(np.ones((5, 1, 3)), np.float32, requires_grad=True, name="x")
    state, written = encoder.initial_state(1), []
    for t in range(5):
        with graph.scope(f"t={t}"):
            if t < 2:
                state = encoder(x[t], state)
            else:
                state, y = decoder(x[t], state)
                written.append(y)
    modules = {"Encoder": encoder, "Decoder": decoder}
    return viz.draw_unrolled(ops.stack(written), params=modules, names=notes)


@figure(SECTION, "Attention")
def attention() -> Any:
    """How a decoder looks at all that the encoder wrote: its state, the query, is multiplied with
    each of the five memories, and softmax makes weights of that for their mean, the context.
    """
    rng = np.random.default_rng(0)
    query, memory = (
        ts.tensor(rng.normal(size=(n, 1, 4)), np.float32, requires_grad=True, name=name)
        for n, name in ((1, "query"), (5, "memory"))
    )
    context, _ = nn.DotAttention(4, 4)(query, memory)
    context.name = "context"
    return viz.draw(context)


# -- directions and depth -------------------------------------------------------------------------

SECTION = "Both directions, and depth"


@figure(SECTION, "Bidirectional")
def bidirectional() -> Any:
    """One layer reads from each end, and ŷ⟨t⟩ is read from both states, →a⟨t⟩ and ←a⟨t⟩: “He said,
    Teddy …” is understood from what follows.
    """

    rnn, head = nn.RNN(3, 4, bidirectional=True), nn.Linear(8, 1)
    a, _ = rnn(ts.tensor(np.ones((4, 1, 3)), np.float32))
    modules = {"rnn": rnn, "head": head}
    return viz.draw_unrolled(head(a), params=modules, names=notes | weights)


@figure(SECTION, "Deep")
def deep() -> Any:
    """Three layers: a[l]⟨t⟩ is computed from the layer's own a[l]⟨t−1⟩ and from a[l−1]⟨t⟩, the
    layer below.
    """
    names = {"h": "a", "y": "a[3]"}
    return viz.draw_unrolled(nn.RNN(3, 5, num_layers=3), steps=4, names=names)


@figure(SECTION, "Deep, with dense layers above")
def deep_dense() -> Any:
    """Few recurrent layers, and on top of them layers that are not tied over time."""

    class Hybrid(nn.Module):
        def __init__(self) -> None:
            self.rnn = nn.RNN(3, 5, num_layers=2)
            self.dense, self.head = nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x: ts.Tensor) -> ts.Tensor:
            a, _ = self.rnn(x)
            scores: ts.Tensor = self.head(ops.relu(self.dense(a)))
            return scores

    return viz.draw_unrolled(Hybrid(), x=np.ones((3, 1, 3), np.float32), names=notes)


@figure(SECTION, "Deep and bidirectional")
def deep_bidirectional() -> Any:
    """Each layer reads in both directions what the layer below says about each step."""
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    return viz.draw_unrolled(lstm, steps=3, names={"h": "a", "y": "a[2]"})
