"""Truncated back-propagation: the carried state is cut off, and evaluation leaves no trace."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import functional, nn, optim
from tinyseq.errors import GraphError, ShapeError

LAYERS = {
    "rnn": lambda: nn.RNN(2, 3, rng=np.random.default_rng(0)).double(),
    "gru": lambda: nn.GRU(2, 3, 2, rng=np.random.default_rng(0)).double(),
    "lstm": lambda: nn.LSTM(2, 3, 2, rng=np.random.default_rng(0)).double(),
    "cell": lambda: nn.Recurrent(nn.LSTMCell(2, 3, rng=np.random.default_rng(0))).double(),
}


def random(*shape, seed=0, requires_grad=False):
    rng = np.random.default_rng([seed, *shape])
    return ts.tensor(rng.standard_normal(shape), requires_grad=requires_grad)


def flat(state):
    return [state] if isinstance(state, ts.Tensor) else [t for part in state for t in flat(part)]


def gradients(layer):
    out = [p.grad.numpy() for p in layer.parameters()]
    layer.zero_grad()
    return out


# -- the chunks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("k", [6, 7, None])
def test_with_k_of_at_least_T_the_gradient_is_the_whole(kind, k):
    layer = LAYERS[kind]()
    x, targets = random(6, 2, 2), random(6, 2, 3, seed=1)
    y, end = layer(x)
    ((y - targets) * (y - targets)).sum().backward()
    whole = gradients(layer)
    chunks = nn.tbptt(layer, (x, targets), k)
    for y, t in chunks:
        ((y - t) * (y - t)).sum().backward()
    for a, b in zip(gradients(layer), whole, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(flat(chunks.state), flat(end), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("kind", LAYERS)
@given(k=st.integers(1, 7), T=st.integers(1, 7))
def test_a_chunk_is_the_layer_from_a_state_that_is_cut_off(kind, k, T):
    """Outputs are the whole sequence's; gradients those of chunks that start from constants."""
    layer = LAYERS[kind]()
    x = random(T, 2, 2)
    whole, _ = layer(x)
    outputs = []
    for y in nn.tbptt(layer, x, k):
        assert y.shape[0] <= k
        outputs.append(y.numpy())
        (y * y).sum().backward()
    np.testing.assert_allclose(np.concatenate(outputs), whole.numpy(), atol=1e-12)
    truncated = gradients(layer)
    state = None
    for start in range(0, T, k):
        y, state = layer(x[start : start + k], state)
        (y * y).sum().backward()
        state = cut_by_hand(state)
    for a, b in zip(truncated, gradients(layer), strict=True):
        np.testing.assert_array_equal(a, b)


def cut_by_hand(state):
    """New leaves with the same numbers, without using anything of the library's own cutting."""
    if isinstance(state, ts.Tensor):
        return ts.tensor(state.numpy())
    return tuple(cut_by_hand(part) for part in state)


def test_truncation_does_truncate():
    """The gradient misses what reaches back over a chunk's start, and only that."""
    layer = LAYERS["rnn"]()
    x = random(4, 1, 2, requires_grad=True)
    chunks = nn.tbptt(layer, x, 2)
    next(chunks)
    y = next(chunks)
    y.sum().backward()
    assert not x.grad.numpy()[:2].any()
    assert x.grad.numpy()[2:].all()


def test_the_state_is_cut_off_at_any_time():
    x = random(4, 2, 2)
    chunks = nn.tbptt(LAYERS["lstm"](), x, 2)
    assert chunks.state is None
    for _ in chunks:
        assert len(flat(chunks.state)) == 4
        assert all(s.node is None and not s.requires_grad for s in flat(chunks.state))


def test_losses_of_several_chunks_may_be_walked_together():
    layer, x = LAYERS["gru"](), random(6, 2, 2)
    total = sum((y.sum() for y in nn.tbptt(layer, x, 2)), start=ts.tensor(0.0))
    total.backward()
    together = gradients(layer)
    for y in nn.tbptt(layer, x, 2):
        y.sum().backward()
    for a, b in zip(together, gradients(layer), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_state_given_is_cut_off_and_what_was_left_goes_on():
    layer, x = LAYERS["lstm"](), random(6, 2, 2)
    _, end = layer(x)
    _, live = layer(x[:2])
    sum(((s * s).sum() for s in flat(live)), start=ts.tensor(0.0)).backward()  # frees it
    layer.zero_grad()
    first = nn.tbptt(layer, x[2:4], 2, state=live)
    for y in first:
        y.sum().backward()
    second = nn.tbptt(layer, x[4:], 2, state=first.state)
    for _ in second:
        pass
    for a, b in zip(flat(second.state), flat(end), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-12)


class LearnedStart(nn.Module):
    def __init__(self):
        self.cell = nn.RNNCell(2, 3)
        self.input_size, self.hidden_size = 2, 3
        self.start = nn.Parameter(np.full((1, 3), 0.3))
        self.double()

    def __call__(self, x, state):
        return self.cell(x, state)

    def initial_state(self, batch_size, dtype=np.float32):
        return (ts.broadcast_to(self.start, (batch_size, 3)),)


def test_a_learned_start_gets_the_gradient_of_the_first_chunk_alone():
    layer = nn.Recurrent(LearnedStart())
    chunks = nn.tbptt(layer, random(4, 2, 2), 2)
    next(chunks).sum().backward()
    first = layer.cell.start.grad.numpy()
    assert first.all()
    next(chunks).sum().backward()
    np.testing.assert_array_equal(layer.cell.start.grad.numpy(), first)


# -- streams --------------------------------------------------------------------------------------


def test_a_stream_of_chunks_goes_on_where_it_was():
    layer, x = LAYERS["gru"](), random(9, 2, 2)
    whole, _ = layer(x)
    pieces = [x[:2], x[2:7], x[7:]]
    for k, sizes in ((None, [2, 5, 2]), (3, [2, 3, 2, 2])):
        outputs = [y.numpy() for y in nn.tbptt(layer, iter(pieces), k)]
        assert [len(y) for y in outputs] == sizes
        np.testing.assert_allclose(np.concatenate(outputs), whole.numpy(), atol=1e-12)


def test_a_stream_may_be_endless_and_hold_arrays_of_any_kind():
    class Model(nn.Module):
        def __init__(self):
            self.embedding = nn.Embedding(5, 2)
            self.recurrent = nn.GRU(2, 3)

        def forward(self, symbols, state=None):
            return self.recurrent(self.embedding(symbols), state)

    read = []

    def endless():
        for i in itertools.count():
            read.append(i)
            yield np.full((4, 2), i % 5), np.full((4, 2), i), np.full(4, i)

    for y, targets, at in itertools.islice(nn.tbptt(Model(), endless(), 2), 5):
        assert (y.shape, targets.shape, at.shape) == ((2, 2, 3), (2, 2), (2,))
    assert read == [0, 1, 2]  # nothing is read ahead of its turn
    assert at.tolist() == [2, 2]


def test_batch_first_is_cut_along_its_time():
    layer = nn.GRU(2, 3, batch_first=True).double()
    x = random(2, 5, 2)
    whole, _ = layer(x)
    pieces = list(nn.tbptt(layer, (x, x), 2))
    assert [y.shape[1] for y, _ in pieces] == [2, 2, 1]
    assert [t.shape for _, t in pieces] == [(2, 2, 2), (2, 2, 2), (2, 1, 2)]
    np.testing.assert_allclose(ts.concat([y for y, _ in pieces], axis=1).numpy(), whole.numpy())


# -- forgetting it --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_forgetting_to_detach_says_so(kind):
    layer, x = LAYERS[kind](), random(4, 2, 2)
    y, state = layer(x[:2])
    y.sum().backward()
    y, state = layer(x[2:], state)
    layer.zero_grad()
    with pytest.raises(
        GraphError,
        match=r"of shape \(.*\) was freed .* carried on from an earlier chunk, it was not cut "
        r"off: detach\(\) the state before the next chunk, nn.detach\(state\) .*nn.tbptt",
    ):
        y.sum().backward()
    assert all(p.grad is None for p in layer.parameters())  # nothing is left half-written


@pytest.mark.parametrize("kind", LAYERS)
def test_detach_is_the_remedy(kind):
    layer, x = LAYERS[kind](), random(4, 2, 2)
    y, state = layer(x[:2])
    y.sum().backward()
    cut = nn.detach(state)
    layer(x[2:], cut)[0].sum().backward()
    for a, b in zip(flat(cut), flat(state), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert nn.detach(None) is None


# -- evaluation leaves no trace -------------------------------------------------------------------


class Writer(nn.Module):
    def __init__(self):
        self.recurrent = nn.LSTM(3, 6, 2, dropout=0.3)  # draws from the library's stream
        self.dropout = nn.Dropout(0.2, rng=np.random.default_rng(8))  # and from one of its own
        self.head = nn.Linear(6, 3)

    def forward(self, x, state=None):
        y, state = self.recurrent(x, state)
        return self.head(self.dropout(y)), state


def train_writer(evaluate):
    ts.seed(4)
    model = Writer()
    rng = np.random.default_rng(1)
    x, targets = rng.standard_normal((12, 2, 3)), rng.integers(0, 3, (12, 2))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        for logits, t in nn.tbptt(model, (x.astype(np.float32), targets), 4):
            optimizer.zero_grad()
            functional.cross_entropy(logits, t).backward()
            if evaluate:
                evaluate(model)
            optimizer.step()
    return model.state_dict()


def test_a_run_with_evaluations_is_the_run_without():
    scores = []

    def evaluate(model):
        x = np.random.default_rng(2).standard_normal((9, 5, 3)).astype(np.float32)
        with nn.evaluation(model):
            for logits in nn.tbptt(model, x, 3):
                assert not logits.requires_grad
                scores.append(logits.numpy())
            ts.random.generator().random(7)  # sampling draws
            model.dropout.rng.random(7)

    alone, evaluated = train_writer(None), train_writer(evaluate)
    assert len(scores) == 18
    for name, value in alone.items():
        np.testing.assert_array_equal(evaluated[name], value)


def test_without_it_a_run_is_disturbed():
    """So that the test above cannot pass by a model that no evaluation touches."""
    drawn = train_writer(lambda model: ts.random.generator().random(7))
    own = train_writer(lambda model: model.dropout.rng.random(7))
    switched = train_writer(lambda model: model.eval())
    alone = train_writer(None)
    for disturbed in (drawn, own, switched):
        assert not np.array_equal(disturbed["head.weight"], alone["head.weight"])


class Stateful(nn.Module):
    """Carries its state between calls by itself."""

    def __init__(self):
        self.recurrent = nn.LSTM(2, 3)
        self.state = None

    def forward(self, x):
        y, self.state = self.recurrent(x, self.state)
        self.last = y
        return y


def test_evaluation_gives_everything_back_however_it_ends():
    model = nn.Stacked(nn.RNNCell(2, 3), dropout=0.5)
    model.dropout.eval()  # frozen by hand, and so it should stay
    before = ts.random.get_state()

    def fail():
        assert not any(m.training for _, m in model.named_modules())
        ts.seed(99)
        raise KeyError

    with pytest.raises(KeyError), nn.evaluation(model):
        fail()
    assert model.training
    assert not model.dropout.training
    assert ts.random.get_state() == before
    assert model(random(2, 1, 2).astype(np.float32))[0].requires_grad


@pytest.mark.parametrize("started", [False, True])
def test_states_that_modules_carry_are_given_back(started):
    model, x = Stateful(), ts.tensor(np.ones((2, 1, 2), np.float32))
    if started:
        model(x)
    state, last = model.state, getattr(model, "last", None)
    with nn.evaluation(model):
        model.state = None
        model(x)
        model.note = "kept"
        assert model.state is not state
    assert model.state is state
    assert getattr(model, "last", None) is last
    assert model.note == "kept"


# -- errors ---------------------------------------------------------------------------------------

X = np.ones((4, 2, 3), np.float32)
GRU = nn.GRU(3, 2)

ERRORS = [
    (lambda: nn.tbptt(GRU, X, 0), ValueError, r"k=0 must be a whole number, at least 1"),
    (lambda: nn.tbptt(GRU, 5, 2), TypeError, r"stream is a Tensor.*not int"),
    (lambda: nn.tbptt(GRU, "text", 2), TypeError, r"not str"),
    (
        lambda: next(nn.tbptt(GRU, X.tolist(), 2)),
        TypeError,
        r"a chunk of the stream is a Tensor or an array .* here is \[\[",
    ),
    (lambda: next(nn.tbptt(GRU, np.array(1.0), 2)), TypeError, r"here is <array of shape \(\), f"),
    (lambda: next(nn.tbptt(GRU, (X, X[:3]), 2)), ShapeError, r"same T ≥ 1, got T=\[4, 3\]"),
    (lambda: next(nn.tbptt(GRU, X[:0], 2)), ShapeError, r"got T=\[0\]"),
    (lambda: next(nn.tbptt(GRU, (), 2)), ShapeError, r"got T=\[\]"),
    (
        lambda: nn.tbptt(nn.GRU(3, 2, bidirectional=True), X, 2),
        ValueError,
        r"layers.0 \(Bidirectional\) reads from the end",
    ),
    (
        lambda: nn.tbptt(nn.Recurrent(nn.RNNCell(3, 2), reverse=True), X, 2),
        ValueError,
        r"the layer \(Recurrent\) reads from the end",
    ),
    (lambda: nn.tbptt(nn.Reversed(GRU), X, 2), ValueError, r"\(Reversed\) reads from the end"),
    (
        lambda: next(nn.tbptt(lambda x, state: x, X, 2)),
        TypeError,
        r"must return \(y, state\), two values, got ndarray",
    ),
    (lambda: next(nn.tbptt(lambda x, s: (x, s, s), X, 2)), TypeError, r"two values, got 3"),
    (lambda: nn.detach(3), TypeError, r"nested tuples of Tensors, not int"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_errors_teach(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
