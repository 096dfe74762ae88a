"""What surrounds a compiled layer works as it does around an unrolled one: checkpointing, the
search for a NaN, evaluation in a training run, and an import that loads none of the compiler.
"""

import subprocess
import sys

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn, text
from tinyseq.compiler import pool, runtime, scan
from tinyseq.errors import AnomalyError
from tinyseq.nn import recurrent

X = np.random.default_rng(0).standard_normal((4, 3, 3)).astype(np.float32)


def gradients(mode, *, checkpointed, order=1):
    ts.seed(1)
    layer = nn.RNN(3, 4, 2, mode=mode, dropout=0.3)
    x = ts.tensor(X, requires_grad=True)
    y, _ = nn.checkpoint(layer, x) if checkpointed else layer(x)
    loss = (y * y).sum()
    if order == 2:
        g = ts.grad(loss, x, create_graph=True)
        loss = (g * g).sum()
    loss.backward()
    return [t.grad.numpy() for t in (x, *layer.parameters())]


@pytest.mark.parametrize("order", [1, 2])
def test_a_compiled_layer_in_a_checkpoint(order):
    expected = gradients("unroll", checkpointed=False, order=order)
    for a, b in zip(gradients("compiled", checkpointed=True, order=order), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_is_computed_again_as_it_was_though_the_layer_is_compiled_by_then(monkeypatch):
    """Else the bits would differ, and the checkpoint would refuse them."""
    monkeypatch.setattr(recurrent, "COMPILED_FROM", X.shape[0] * X.shape[1] + 1)
    expected = gradients("unroll", checkpointed=False)
    for a, b in zip(gradients(None, checkpointed=True), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_checkpoints_in_checkpoints_are_computed_again_as_they_were(monkeypatch):
    monkeypatch.setattr(recurrent, "COMPILED_FROM", 2 * X.shape[0] * X.shape[1])
    found = []
    for mode in ("unroll", None):
        ts.seed(1)
        layer = nn.RNN(3, 3, mode=mode)
        x = ts.tensor(X, requires_grad=True)

        def twice(x, layer=layer):
            return layer(nn.checkpoint(layer, x)[0])[0]  # unrolled, then compiled

        y = layer(nn.checkpoint(twice, x))[0]
        (y * y).sum().backward()
        found.append([t.grad.numpy() for t in (x, *layer.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


class Memories(nn.Module):
    """States (B, 3), (B) and, where it is not to be compiled, (B, 3, 3)."""

    input_size = hidden_size = 3

    def __init__(self, matrix):
        self.matrix = matrix

    def forward(self, x, state):
        h, count, *memory = state
        new = [ts.tanh(h * 0.5 + x + count[:, None]), count * 0.5 + x[:, 0]]
        if self.matrix:
            new.append(memory[0] * 0.5 + x[:, :, None] * new[0][:, None, :])
            new[0] = new[0] + memory[0].sum(axis=2)
        return tuple(new)

    def initial_state(self, batch_size, dtype):
        shapes = [(3,), (), (3, 3)][: 3 if self.matrix else 2]
        return tuple(ts.tensor(np.zeros((batch_size, *s), dtype)) for s in shapes)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("mode", "matrix"), [("unroll", True), ("unroll", False), ("compiled", False)]
)
def test_a_sequence_in_a_batch_is_as_it_is_alone_whatever_the_states(mode, matrix, reverse):
    """Also where there are as many sequences as a state has rows."""
    layer, lengths = nn.Recurrent(Memories(matrix), reverse, mode), [4, 2, 1]
    x = ts.tensor(X.copy(), requires_grad=True)
    y, state = layer(x, lengths=lengths)
    sum((t * t).sum() for t in (y, *state)).backward()
    for b, n in enumerate(lengths):
        alone = ts.tensor(X[:n, b : b + 1].copy(), requires_grad=True)
        y_alone, state_alone = layer(alone)
        sum((t * t).sum() for t in (y_alone, *state_alone)).backward()
        pairs = [(y[:n, b : b + 1], y_alone), (x.grad[:n, b : b + 1], alone.grad)]
        pairs += [(s[b : b + 1], one) for s, one in zip(state, state_alone, strict=True)]
        for together, one in pairs:
            assert together.shape == one.shape
            np.testing.assert_allclose(together.numpy(), one.numpy(), rtol=1e-5, atol=1e-6)
        assert not x.grad.numpy()[n:, b].any()


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_a_text_that_has_ended_may_become_nan(mode):
    """Nothing reads its logits any more; those of the others go on as if it was not there."""
    vocabulary = text.Vocabulary.from_counts("abc", pad="<PAD>")
    ts.seed(0)
    model = text.LanguageModel(len(vocabulary), 5, 1, "rnn")
    primes = ["a", "b", "c", "ab"] * 3
    before = text.generate_batch(
        model, vocabulary, primes, 40, mode=mode, rng=np.random.default_rng(1)
    )
    assert min(map(len, before)) < 40  # some end …
    assert len(set(map(len, before))) > 1  # … before others
    model.embedding.weight.data[vocabulary.eos] = np.nan  # what a text reads that has ended
    after = text.generate_batch(
        model, vocabulary, primes, 40, mode=mode, rng=np.random.default_rng(1)
    )
    assert after == before


class Root(nn.Module):
    """A square root, whose gradient at 0 is infinite."""

    input_size = hidden_size = 3

    def initial_state(self, batch_size, dtype):
        return (ts.tensor(np.zeros((batch_size, 3)), dtype),)

    def forward(self, x, state):
        return (ts.sqrt(ts.relu(x)) + state[0],)


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_the_first_nan_of_a_backward_pass_is_named_with_its_step(mode):
    x = np.ones((3, 1, 3), np.float32)
    x[1] = 0
    y, _ = nn.Recurrent(Root(), mode=mode)(ts.tensor(x, requires_grad=True))
    with (
        pytest.raises(AnomalyError, match="div in grad/Recurrent/t=1/cell made the first inf"),
        ts.detect_anomaly(),
    ):
        y.sum().backward()


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_the_search_for_a_nan_changes_no_gradient(kind):
    """Nor does it go on into what x and each of the states were made of."""
    found = []
    for mode in ("unroll", "compiled"):
        ts.seed(0)
        layer, x = kind(3, 4, mode=mode), ts.tensor(X, requires_grad=True)
        given = [ts.tensor(s.numpy(), requires_grad=True) for s in layer(x)[1][0]]
        y, (state,) = layer(x * 2, (tuple(s * 3 for s in given),))
        with ts.detect_anomaly():
            ((y * y).sum() + sum((s * s).sum() for s in state)).backward()
        found.append([t.grad.numpy() for t in (x, *given, *layer.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_evaluation_does_not_decide_when_a_layer_is_compiled(monkeypatch):
    monkeypatch.setattr(recurrent, "COMPILED_FROM", 3 * X.shape[0] * X.shape[1])
    layer = nn.RNN(3, 4)

    def compiled():
        y, _ = layer(X)
        return y.node.op.name == "piece"

    assert not compiled()
    with nn.evaluation(layer):
        for _ in range(5):
            layer(X)
    assert not compiled()
    assert compiled()


def test_a_single_step_runs_unrolled_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(recurrent, "COMPILED_FROM", 1)
    for mode, steps, op in ((None, 1, "concat"), (None, 2, "piece"), ("compiled", 1, "piece")):
        y, _ = nn.RNN(3, 4, mode=mode)(X[:steps])
        assert y.node.op.name == op


def test_memory_is_seven_numbers_a_unit_of_an_lstm(monkeypatch):
    """h, c, three gates, the candidate and tanh(c), and in the end the gradient of x."""
    T, B, D, H = 20, 256, 1, 8

    def held(T, requires_grad):
        monkeypatch.setattr(runtime, "pool", pool.Pool())
        layer = nn.LSTM(D, H, mode="compiled")
        x = ts.tensor(np.ones((T, B, D), np.float32), requires_grad=requires_grad)
        y, _ = layer(x)
        y.sum().backward()
        (((_, known),),) = scan._known[layer.layers[0].cell].values()
        memories = [m for compiled in known.compiled.values() for m in compiled.memories]
        return sum(m.nbytes() for m in memories) + runtime.pool.nbytes()

    for requires_grad in (False, True):
        grown = held(2 * T, requires_grad) - held(T, requires_grad)
        assert grown == 4 * T * B * (7 * H + D * requires_grad)


def test_importing_the_library_loads_no_compiler():
    """Nor does a small run of a layer, or its picture."""
    code = """
import sys
import numpy as np
import tinyseq as ts
from tinyseq import nn, optim, text, viz

def nothing_loaded():
    loaded = [m for m in sys.modules if m.split(".")[0] in ("numba", "llvmlite")]
    loaded += [m for m in sys.modules if m.startswith(("tinyseq.compiler", "tinyseq.kernels."))]
    loaded = [m for m in loaded if m != "tinyseq.kernels.load"]
    assert not loaded, loaded

nothing_loaded()
layer = nn.LSTM(3, 4)
y, _ = layer(np.ones((2, 1, 3), np.float32))
viz.draw(y)
viz.draw_unrolled(layer)
y.sum().backward()
optim.Adam(layer.parameters()).step()
nothing_loaded()
ts.get_num_threads()
assert "numba" in sys.modules
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
