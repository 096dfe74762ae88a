"""How cells and layers may be called: one sequence, nothing to read, no state, a state without its
tuple. Each is the ordinary call in other clothes.
"""

import numpy as np
import pytest
from compiler_cells import BUILT_IN, in_mode, leaves

import tinyseq as ts
from tinyseq import functional, nn, optim, viz
from tinyseq.nested import mapped

T, B, D, H = 5, 3, 2, 4
MODES = ["unroll", "compiled"]
LAYERS = {
    "recurrent": lambda: nn.Recurrent(nn.LSTMCell(D, H)),
    "reverse": lambda: nn.Recurrent(nn.Zoneout(nn.GRUCell(D, H), 0.2).eval(), reverse=True),
    "bidirectional": lambda: nn.Bidirectional(nn.LSTMCell(D, H), nn.GRUCell(D, 3)),
    "reversed": lambda: nn.Reversed(nn.GRU(D, H, 2)),
    "stacked": lambda: nn.LSTM(D, H, 2, bidirectional=True),
    "batch first": lambda: nn.RNN(D, H, batch_first=True),
    "learned": lambda: nn.Stacked(nn.LearnedState(nn.GRUCell(D, H, "reset_before"))),
    "echo": lambda: nn.EchoState(D, H, 3, sparsity=0.0),
}


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def both(layer, T=T, B=B):
    """x (T, B, D) and its state, random."""
    state = iter(range(99))
    made = mapped(lambda s: ts.tensor(random(*s.shape, seed=next(state))), layer.initial_state(B))
    return random(T, B, D), made


@pytest.mark.parametrize(("length", "with_state"), [(None, False), (0, True), (3, True)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_one_sequence_is_a_batch_of_one(name, mode, length, with_state):
    layer = LAYERS[name]().double()
    x, state = both(layer, B=1)
    state = state if with_state else None
    axis = 0 if getattr(layer, "batch_first", False) else 1
    lengths = None if length is None else [length]
    one = mapped(lambda s: s[0], state)
    with in_mode(layer, mode):
        y, last = layer(np.moveaxis(x, 1, axis), state, lengths)
        y_one, last_one = layer(x[:, 0], one, length)
    assert y_one.shape == (T, layer.hidden_size)
    np.testing.assert_array_equal(y_one.numpy(), np.take(y.numpy(), 0, axis))
    for a, b in zip(leaves(last_one), leaves(last), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy()[0])


@pytest.mark.parametrize("level", ["cell", "op"])
@pytest.mark.parametrize("name", ["bidirectional", "batch first"])
def test_the_picture_of_one_sequence_is_that_of_a_batch_of_one(name, level):
    layer = LAYERS[name]()
    x, state = both(layer, B=1)
    x, state = x.astype(np.float32), mapped(lambda s: s.astype(np.float32), state)
    one = viz.draw_unrolled(layer, x=x[:, 0], state=mapped(lambda s: s[0], state), level=level)
    batch = x.swapaxes(0, 1) if name == "batch first" else x
    assert one.dot == viz.draw_unrolled(layer, x=batch, state=state, level=level).dot


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_one_sequence(mode):
    layer = nn.LSTM(D, H, bidirectional=True, mode=mode).double()
    x = random(T, D)
    found = []
    for one in (True, False):
        given = ts.tensor(x if one else x[:, None], requires_grad=True)
        layer.zero_grad()
        y, _ = layer(given)
        (y * y).sum().backward()
        found.append([given.grad.numpy().reshape(T, D)])
        found[-1] += [p.grad.numpy() for p in layer.parameters()]
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_sequence_is_cut_in_chunks_of_steps():
    layer = nn.GRU(D, H, batch_first=True).double()
    x = random(T, D)
    ys = [y.numpy() for y in nn.tbptt(layer, x, k=2)]
    assert [len(y) for y in ys] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate(ys), layer(x)[0].numpy(), rtol=1e-12)


def test_one_sequence_in_a_training_step():
    layer = nn.GRU(D, H)
    sgd = optim.SGD(layer.parameters(), 0.0)
    x = random(T, D).astype(np.float32)
    step = nn.TrainingStep(lambda x: (layer(x)[0] ** 2).mean(), sgd, mode="compiled")
    losses = [step(x * n).item() for n in (1, 1, 2)]
    expected = [(layer(x * n)[0] ** 2).mean().item() for n in (1, 1, 2)]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LAYERS)
def test_nothing_to_read_leaves_the_state_as_it_was(name, mode):
    layer = LAYERS[name]().double()
    x, state = both(layer)
    if getattr(layer, "batch_first", False):
        x = x.swapaxes(0, 1)
    with in_mode(layer, mode):
        y, last = layer(x, state, [0, T, 0])
        alone, _ = layer(x, state, [T, T, T])
    for before, after in zip(leaves(state), leaves(last), strict=True):
        np.testing.assert_array_equal(after.numpy()[[0, 2]], before.numpy()[[0, 2]])
    y, alone = (a.numpy().reshape(T, B, -1) for a in (y, alone))
    if getattr(layer, "batch_first", False):
        y, alone = (a.reshape(B, T, -1).swapaxes(0, 1) for a in (y, alone))
    assert not y[:, [0, 2]].any()
    np.testing.assert_array_equal(y[:, 1], alone[:, 1])


@pytest.mark.parametrize("lengths", [None, []])
@pytest.mark.parametrize("mode", ["auto", *MODES])
@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch(name, mode, lengths):
    layer = LAYERS[name]().double()
    x = ts.tensor(np.zeros((T, 0, D)), requires_grad=True)
    turned = getattr(layer, "batch_first", False)
    with in_mode(layer, mode):
        y, last = layer(x.swapaxes(0, 1) if turned else x, None, lengths)
    assert y.shape == ((0, T, layer.hidden_size) if turned else (T, 0, layer.hidden_size))
    assert all(s.shape[0] == 0 for s in leaves(last))
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert not any(p.grad.numpy().any() for p in layer.parameters() if p.grad is not None)


def test_an_empty_batch_in_a_training_step():
    layer = nn.LSTM(D, H)
    before = layer.state_dict()
    step = nn.TrainingStep(
        lambda x: layer(x)[0].sum(), optim.SGD(layer.parameters(), 0.1), mode="compiled"
    )
    for _ in range(3):
        assert step(np.zeros((T, 0, D), np.float32)).item() == 0
    for name, a in layer.state_dict().items():
        np.testing.assert_array_equal(a, before[name])


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_cell_without_a_state_starts_from_its_own(name):
    cell = BUILT_IN[name](D, H).double()
    x = ts.tensor(random(B, D))
    wrapped = nn.Zoneout(nn.LearnedState(cell), 0.1).double().eval()
    wrapped.cell.h0._data[...] = 0.5
    for one in (cell, wrapped):
        given = one.initial_state(B, np.float64)
        for a, b in zip(one(x), one(x, given), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("make", [
    lambda: nn.RNNCell(D, H), lambda: nn.GRUCell(D, H), lambda: nn.LayerNormGRUCell(D, H),
    lambda: nn.EchoCell(D, H, sparsity=0.0), lambda: nn.Zoneout(nn.GRUCell(D, H)).eval(),
])  # fmt: skip
@pytest.mark.parametrize("of", [ts.tensor, np.asarray])
def test_a_state_of_one_tensor_without_its_tuple(make, of):
    cell, x, h = make().double(), ts.tensor(random(T, B, D)), random(B, H)
    np.testing.assert_array_equal(
        cell(x[0], of(h))[0].numpy(), cell(x[0], (ts.tensor(h),))[0].numpy()
    )
    for layer, state in ((nn.Recurrent(cell), of(h)), (nn.Stacked(cell), (of(h),))):
        y, last = layer(x, state)
        expected, _ = nn.Recurrent(cell)(x, (ts.tensor(h),))
        np.testing.assert_array_equal(y.numpy(), expected.numpy())
        assert [s.shape for s in leaves(last)] == [(B, H)]
        assert isinstance(last, tuple)


@pytest.mark.parametrize("attention", [None, "additive", "dot"])
def test_a_source_of_no_symbols(attention):
    """Whatever stands in its place, the decoder starts from the encoder's own start and sees 0."""
    ts.seed(0)
    decoder = nn.GRU(3 + H if attention == "additive" else 3, H)
    model = nn.EncoderDecoder(nn.GRU(3, H), decoder, 5, 6, bos=0, eos=1, attention=attention)
    target = np.array([[2, 3], [1, 4]])
    logits = model(np.array([[1, 2], [3, 4]]), target, [0, 2])
    other = model(np.array([[4, 2], [0, 4]]), target, [0, 2])
    np.testing.assert_array_equal(logits.numpy(), other.numpy())
    assert np.isfinite(model.loss(target, target, [0, 2], [2, 0]).item())
    if attention is not None:
        weights = model.alignment(target, target, [0, 2])
        assert not weights[:, 0].any()
        np.testing.assert_allclose(weights[:, 1].sum(axis=-1), 1, rtol=1e-6)
    assert len(model.beam_search(target, [0, 1], width=2, max_steps=3)) == 2


def test_ctc_of_no_steps_spells_nothing():
    log_probs = functional.log_softmax(ts.tensor(random(T, 2, 3)))
    losses = functional.ctc_loss(log_probs, [[1], [1]], [0, 0], [0, 1], reduction="none")
    assert losses.tolist() == [0, np.inf]
