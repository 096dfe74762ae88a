"""`nn.TrainingStep`: played back it does what the same lines do that it stands for."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import threading
import warnings
import weakref

import numpy as np
import pytest
from compiler_cells import BINARY, UNARY
from compiler_cells import ROWS as BY_ROW
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import functional, nn, optim
from tinyseq.compiler.playback import Playback
from tinyseq.compiler.trace import OF_STEP, StepTape, compare, step_taped
from tinyseq.errors import CompileError
from tinyseq.kernels import load
from tinyseq.text import LanguageModel

T, B, D, H, V = 5, 3, 4, 6, 7
MOST = with_settings.get_profile(with_settings.get_current_profile_name()).max_examples


def regression(layer, x, target, **options):
    y, _ = layer(x, **options)
    return functional.mse_loss(y, target)


def sequences(rng, dtype=np.float32):
    return rng.standard_normal((T, B, D)).astype(dtype), rng.standard_normal((T, B, H)).astype(
        dtype
    )


def by_hand(loss, optimizer, max_norm, calls, norm_type=2.0):
    """What a `TrainingStep` stands for."""
    losses = []
    for arguments in calls:
        value = loss(*map(as_tensor, arguments))
        optimizer.zero_grad()
        value.backward()
        if max_norm is not None:
            optim.clip_grad_norm(optimizer.params, max_norm, norm_type)
        optimizer.step()
        losses.append(value.item())
    return losses


def as_tensor(argument):
    return ts.tensor(argument) if isinstance(argument, np.ndarray) else argument


def both(
    make,
    calls,
    max_norm=None,
    optimizer=lambda p: optim.Adam(p, 1e-2),
    tolerance=1e-6,
    norm_type=2.0,
):
    """Train twice from the same start; the same losses and parameters come out, played back."""
    found = []
    for played in (False, True):
        ts.random.seed(3)
        model, loss = make()
        opt = optimizer(list(model.parameters()))
        if played:
            step = nn.TrainingStep(loss, opt, max_norm, "compiled", norm_type)
            losses = [step(*arguments).item() for arguments in calls]
            assert is_played_back(step)
        else:
            losses = by_hand(loss, opt, max_norm, calls, norm_type)
        found.append((losses, model.state_dict()))
    (losses, state), (again, other) = found
    np.testing.assert_allclose(again, losses, rtol=tolerance, atol=tolerance)
    for name, a in state.items():
        np.testing.assert_allclose(other[name], a, rtol=tolerance, atol=tolerance, err_msg=name)


def is_played_back(step):
    return all(kind.recorded is not None and kind.recorded.ready for kind in step._kinds.values())


def recordings(step):
    return [kind.recordings for kind in step._kinds.values()]


MODELS = {
    "RNN": lambda: nn.RNN(D, H),
    "GRU": lambda: nn.GRU(D, H, mode="unroll"),
    "LSTM": lambda: nn.LSTM(D, H, 2),
    "dropout": lambda: nn.LSTM(D, H, 2, dropout=0.4),
    "bidirectional": lambda: nn.Bidirectional(nn.RNNCell(D, H - 2), nn.RNNCell(D, 2)),
    "noise": lambda: nn.Recurrent(
        nn.Zoneout(nn.VariationalDropout(nn.RNNCell(D, H), 0.3, 0.3), 0.2)
    ),
    "noise, unrolled": lambda: nn.Recurrent(
        nn.LearnedState(nn.Zoneout(nn.RNNCell(D, H), 0.2)), mode="unroll"
    ),
    "layer-normed": lambda: nn.LSTM(D, H, layer_norm=True, mode="unroll"),
}


@pytest.mark.parametrize("name", MODELS)
def test_same_as_the_lines_it_stands_for(name):
    rng = np.random.default_rng(0)

    def make():
        model = MODELS[name]()
        return model, lambda x, target: regression(model, x, target)

    both(make, [sequences(rng) for _ in range(6)], max_norm=0.1)


def test_what_is_composed_is_played_back():
    """The new ops and losses, with an inf-norm: as the lines it stands for."""
    rng = np.random.default_rng(0)

    def make():
        model = nn.RNN(D, H)

        def loss(x, target):
            y, _ = model(x)
            y = ts.silu(y) + ts.elu(y) * ts.leaky_relu(y) + ts.tan(y) - ts.round(y, 1) * (y % 0.3)
            y = y + ts.cumprod(y, 0) + ts.roll(y, 1, axis=(0, 2)) + ts.topk(y, 1).values
            y = ts.masked_fill(y, ts.isnan(y) | (target > 1), 0.5) + ts.norm(y, axis=-1)[..., None]
            y = ts.vstack([y[:1], ts.repeat(y[1:2], 2, 0), y[3:]]) + ts.tril(y) + ts.take(y, [0], 2)
            F = ts.functional
            p, q = ts.sigmoid(y), ts.sigmoid(target)
            return (
                F.huber_loss(y, target)
                + F.l1_loss(y, target)
                + F.binary_cross_entropy(p, q)
                + F.kl_div(F.log_softmax(y), F.softmax(target), "batchmean")
                + ts.tensordot(y, target, 3) / ts.outer(y, target).size
            )

        return model, loss

    both(make, [sequences(rng) for _ in range(6)], max_norm=0.01, norm_type=np.inf)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: optim.SGD(p, 0.1),
        lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        lambda p: optim.RMSprop(p, 1e-2),
        lambda p: optim.Adagrad(p, 1e-2),
        lambda p: optim.Adam(p, 1e-2, weight_decay=0.1),
        lambda p: optim.AdamW(p, 1e-2),
        lambda p: optim.AdamW(p, 1e-2, amsgrad=True),
        lambda p: optim.NAdam(p, 1e-2),
        lambda p: optim.NAdam(p, 1e-2, weight_decay=0.1, decoupled_weight_decay=True),
    ],
    ids=[
        *["SGD", "Nesterov", "RMSprop", "Adagrad", "Adam with decay", "AdamW", "AMSGrad"],
        *["NAdam", "NAdam with decay"],
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_with_every_optimiser(optimizer, dtype):
    rng = np.random.default_rng(1)

    def make():
        model = nn.RNN(D, H, mode="unroll").astype(dtype)
        return model, lambda x, target: regression(model, x, target)

    calls = [sequences(rng, dtype) for _ in range(5)]
    both(make, calls, 0.2, optimizer, 1e-6 if dtype == np.float32 else 1e-12)


def test_lengths_are_arguments():
    rng = np.random.default_rng(2)

    def make():
        model = nn.RNN(D, H)
        return model, lambda x, target, n: regression(model, x, target, lengths=n)

    calls = [(*sequences(rng), np.array(n)) for n in ([5, 2, 3], [1, 5, 4], [2, 2, 5], [3, 1, 1])]
    both(make, calls)


def test_a_language_model():
    rng = np.random.default_rng(3)

    def make():
        model = LanguageModel(V, H, 1, "rnn")
        return model, lambda i, t: functional.cross_entropy(model(i)[0], t)

    both(make, [tuple(rng.integers(0, V, (2, T, B), dtype=np.int32)) for _ in range(5)])


def test_what_comes_later_is_recorded_then():
    """Padding, and the start of sentences, that the first calls had none of."""
    rng = np.random.default_rng(4)

    def make():
        model = LanguageModel(V, H, 1, "rnn")
        return model, lambda i, t: functional.cross_entropy(model(i)[0], t)

    calls = [tuple(rng.integers(0, V, (2, T, B))) for _ in range(10)]
    for n, (inputs, targets) in enumerate(calls[3:], 3):
        inputs[0] = -1
        targets[T - 1 - n % 3 :, 1] = -100
    both(make, calls)
    model, loss = make()
    step = nn.TrainingStep(loss, optim.Adam(model.parameters()), mode="compiled")
    for c in calls:
        step(*c)
    assert recordings(step) == [1]


def test_weights_and_smoothing_of_classes():
    rng = np.random.default_rng(5)
    weight = np.arange(1, V + 1)

    def make():
        model = nn.Linear(D, V)

        def loss(x, t):
            return functional.cross_entropy(model(x), t, weight=weight, label_smoothing=0.1)

        return model, loss

    calls = [(rng.standard_normal((B, D)), rng.integers(0, V, B)) for _ in range(5)]
    for _, targets in calls:
        targets[0] = -100
    both(make, calls, tolerance=1e-5)


def test_an_encoder_and_a_decoder():
    rng = np.random.default_rng(6)

    def make():
        model = nn.EncoderDecoder(
            nn.GRU(D, H, mode="unroll"), nn.GRU(D + H, H, mode="unroll"), V, V,
            bos=0, eos=1, attention="additive", dropout=0.1,
        )  # fmt: skip
        return model, model.loss

    calls = [
        (
            rng.integers(0, V, (4, B)),
            rng.integers(2, V, (3, B)),
            np.array([4, n, 2]),
            np.array([1, 3, n % 3 + 1]),
        )
        for n in (1, 2, 3, 4, 1)
    ]
    both(make, calls, tolerance=1e-5)


# -- what goes in and comes out -------------------------------------------------------------------


def make_step(mode="compiled", max_norm=None, **options):
    ts.random.seed(0)
    model = nn.RNN(D, H, mode="unroll", **options)
    opt = optim.Adam(model.parameters(), 1e-2)
    return model, nn.TrainingStep(
        lambda x, target: regression(model, x, target), opt, max_norm, mode
    )


def test_a_state_goes_on_from_call_to_call():
    rng = np.random.default_rng(0)
    calls = [sequences(rng) for _ in range(6)]
    ends = []
    for mode in ("unroll", "compiled"):
        ts.random.seed(0)
        model = nn.LSTM(D, H, mode="unroll")

        def loss(x, target, state, model=model):
            y, state = model(x, state)
            return functional.mse_loss(y, target), state, y

        step = nn.TrainingStep(loss, optim.Adam(model.parameters(), 1e-2), mode=mode)
        state = None
        kept = []
        for x, target in calls:
            value, state, y = step(x, target, state)
            assert value.node is None
            assert not value.requires_grad
            assert isinstance(state, tuple)
            assert isinstance(state[0], tuple)
            kept.append(y)
        ends.append((value.item(), [h.numpy() for h in state[0]], [y.numpy() for y in kept]))
    (a, state, ys), (b, other, zs) = ends
    assert a == pytest.approx(b, rel=1e-6)
    np.testing.assert_allclose(other, state, rtol=1e-5)
    np.testing.assert_allclose(zs, ys, rtol=1e-4, atol=1e-6)  # nothing was written over


def test_the_norm_is_the_one_before_clipping():
    rng = np.random.default_rng(0)
    norms = []
    calls = [sequences(rng) for _ in range(5)]
    for mode in ("unroll", "compiled"):
        _, step = make_step(mode, max_norm=1e-3)
        norms.append([step(*c).item() and step.norm for c in calls])
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-5)
    assert min(norms[0]) > 1e-3
    _, step = make_step()
    step(*calls[0])
    assert step.norm is None


def test_gradients_are_gone_after_a_step():
    model, step = make_step()
    for _ in range(4):
        step(*sequences(np.random.default_rng(0)))
        assert all(p.grad is None for p in model.parameters())


def test_each_shape_is_recorded_by_itself():
    _, step = make_step()
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 2, 1, 3, 3, 2, 1):
        x, target = sequences(rng)
        step(x[:n], target[:n])
    assert len(step._kinds) == 3
    assert is_played_back(step)


def test_plain_values_and_lists():
    ts.random.seed(0)
    model = nn.Linear(D, 1)

    def loss(x, scale, name, nothing, targets):
        assert nothing is None
        assert isinstance(targets, ts.Tensor)
        factor = {"twice": 2, "once": 1}[name]
        return (model(x[0])[:, 0] * scale * factor - targets).sum()

    step = nn.TrainingStep(loss, optim.SGD(model.parameters(), 0.0), mode="compiled")
    x = np.ones((2, D), np.float32)
    once = [step((x,), 1.5, "once", None, [0.0, 0.0]).item() for _ in range(4)]
    twice = [step((x,), 1.5, "twice", None, [0.0, 0.0]).item() for _ in range(4)]
    np.testing.assert_allclose(twice, 2 * np.array(once), rtol=1e-6)
    with pytest.raises(TypeError, match="an argument is a dict"):
        step({})


def test_two_parameters_with_the_same_gradient():
    def make():
        model = nn.Module()
        model.a, model.b = (nn.Parameter(np.ones(3, np.float32)) for _ in range(2))
        return model, lambda x: ((model.a + model.b) * x).sum()

    both(make, [(np.arange(3, dtype=np.float32),) for _ in range(5)], max_norm=0.5)


def test_a_parameter_that_is_not_used_is_left_alone():
    def make():
        model = nn.Module()
        model.used, model.idle = (nn.Parameter(np.ones(3, np.float32)) for _ in range(2))
        return model, lambda x: (model.used * x).sum()

    calls = [(np.arange(3, dtype=np.float32),) for _ in range(5)]
    both(make, calls, optimizer=lambda p: optim.AdamW(p, 0.1))
    model, loss = make()
    step = nn.TrainingStep(loss, optim.AdamW(model.parameters(), 0.1))
    for c in calls:
        step(*c)
    assert (model.idle.numpy() == 1).all()


def test_places_are_used_again():
    """A long chain of ops needs a few arrays, not one for each."""
    w = nn.Parameter(np.ones(1000, np.float32))

    def loss(x):
        for _ in range(50):
            x = ts.tanh(x * w)
        return (x * x).sum()

    step = nn.TrainingStep(loss, optim.SGD([w], 0.1), mode="compiled")
    for _ in range(3):
        step(np.ones(1000, np.float32))
    (kind,) = step._kinds.values()
    memory = kind.recorded._playback._memory
    places = sum(map(len, memory._free.values())) + len(memory._until)
    assert 50 <= places < 60  # what the rules read, 50, and little more; all there is: 400


def test_nothing_is_held_once_the_step_is_gone():
    _, step = make_step()
    for _ in range(4):
        step(*sequences(np.random.default_rng(0)))
    alive = weakref.ref(next(iter(step._kinds.values())).recorded)
    assert alive() is not None
    del step
    gc.collect()
    assert alive() is None


# -- what changes around it -----------------------------------------------------------------------


def trained(step, calls):
    return [step(*c).item() for c in calls]


@pytest.mark.parametrize("what", ["eval", "p", "data", "threads", "closure", "rate"])
def test_what_changes_around_a_step_is_seen(what):
    """Also after it was recorded; and what is changed back needs no new recording."""
    ends = []
    for mode in ("unroll", "compiled"):
        ts.random.seed(0)
        rng = np.random.default_rng(0)
        model = nn.Stacked(nn.RNNCell(D, H), nn.RNNCell(H, H), dropout=0.5)
        for layer in model.layers:
            layer.mode = "unroll"
        opt = optim.Adam(model.parameters(), 1e-2)
        scale = 1.0

        def loss(x, target, model=model):
            return regression(model, x, target) * scale  # noqa: B023  # it is to change

        step = nn.TrainingStep(loss, opt, mode=mode)
        losses = trained(step, [sequences(rng) for _ in range(4)])
        before = recordings(step)
        threads = ts.get_num_threads()
        if what == "eval":
            model.eval()
        elif what == "p":
            model.dropout.p = 0.1
        elif what == "data":
            model.layers[0].cell.w_x.data = np.ones((D, H))
        elif what == "threads":
            ts.set_num_threads(threads + 1)
        elif what == "closure":
            scale = 3.0
        elif what == "rate":
            opt.lr = 0.5
        losses += trained(step, [sequences(rng) for _ in range(4)])
        ts.set_num_threads(threads)
        losses += trained(step, [sequences(rng)])
        ends.append((losses, model.state_dict()))
        if mode == "compiled":
            assert (recordings(step) == before) == (what == "rate")
    np.testing.assert_allclose(ends[1][0], ends[0][0], rtol=1e-4)


def test_evaluation_in_between_needs_no_new_recording():
    model, step = make_step()
    rng = np.random.default_rng(0)
    for _ in range(5):
        step(*sequences(rng))
        with nn.evaluation(model):
            model(sequences(rng)[0])
    assert recordings(step) == [1]


def test_a_hook_that_comes_later_is_called():
    model, step = make_step(mode="auto")
    for _ in range(3):
        step(*sequences(np.random.default_rng(0)))
    seen = []
    next(model.parameters()).register_hook(lambda g: seen.append(g.shape))
    with pytest.warns(RuntimeWarning, match="a hook on tensor"):
        step(*sequences(np.random.default_rng(0)))
    step(*sequences(np.random.default_rng(0)))
    assert len(seen) == 2


def test_anomalies_are_found():
    w = nn.Parameter(np.ones(2, np.float32))
    step = nn.TrainingStep(lambda x: ts.log(w * x).sum(), optim.SGD([w], 0.0), mode="compiled")
    for _ in range(3):
        step(np.ones(2, np.float32))
    with ts.detect_anomaly(), pytest.raises(ts.errors.AnomalyError, match="log"):
        step(np.array([1, -1], np.float32))


# -- what is refused ------------------------------------------------------------------------------


def test_a_bad_index_is_named_and_changes_nothing():
    model = nn.Embedding(V, D)
    opt = optim.Adam(model.parameters(), 0.1)
    step = nn.TrainingStep(lambda i: model(i).sum(), opt, mode="compiled")
    good = np.array([1, 2, 3])
    for _ in range(4):
        step(good)
    before, steps = model.weight.numpy(), opt.steps.copy()
    with pytest.raises(
        IndexError, match=f"Embedding: indices: index {V} is outside of 0 … {V - 1}"
    ):
        step(np.array([1, V, 3]))
    assert (model.weight.numpy() == before).all()
    assert (opt.steps == steps).all()
    step(good)
    step(good)
    step(good)
    assert is_played_back(step)


def test_a_gradient_that_is_not_finite_changes_nothing():
    w = nn.Parameter(np.ones(2, np.float32))
    step = nn.TrainingStep(lambda x: (w * x).sum(), optim.Adam([w]), 1.0, mode="compiled")
    for _ in range(4):
        step(np.ones(2, np.float32))
    before = w.numpy()
    with pytest.raises(ValueError, match="the norm of the gradients is nan"):
        step(np.array([1, np.nan], np.float32))
    assert (w.numpy() == before).all()
    assert w.grad is None


@pytest.mark.parametrize(
    "loss",
    [
        lambda w, x: (w * x).sum() if x.sum().item() > 0 else w.sum(),
        lambda w, x: (w * x.numpy()).sum(),
        lambda w, x: (w * np.asarray(x)).sum(),
    ],
    ids=["item", "numpy", "asarray"],
)
def test_values_are_not_read(loss):
    w = nn.Parameter(np.ones(2, np.float32))
    x = np.ones(2, np.float32)
    with pytest.raises(CompileError, match="reads the value of a tensor"):
        nn.TrainingStep(lambda x: loss(w, x), optim.SGD([w]), mode="compiled")(x)
    step = nn.TrainingStep(lambda x: loss(w, x), optim.SGD([w], 0.1))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            step(x)
    assert len(said) <= 1  # once for each reason, in this process
    np.testing.assert_allclose(w.numpy(), 1 - 3 * 0.1, rtol=1e-6)


def test_random_numbers_of_ones_own_are_refused():
    w = nn.Parameter(np.ones(2, np.float32))
    rng = np.random.default_rng(0)

    def loss(x):
        return (w * x * ts.tensor(rng.random(2, np.float32))).sum()

    step = nn.TrainingStep(loss, optim.SGD([w]), mode="compiled")
    step(np.ones(2, np.float32))
    with pytest.raises(CompileError, match=r"test_training_step.py:\d+: an array of shape \(2,\)"):
        step(np.ones(2, np.float32))


def test_what_hangs_on_how_often_it_was_called_is_refused():
    w = nn.Parameter(np.ones(2, np.float32))
    calls = []

    def loss(x):
        calls.append(1)
        return (w * x).sum() if len(calls) % 2 else (w * x * x).sum()

    step = nn.TrainingStep(loss, optim.SGD([w]), mode="compiled")
    step(np.ones(2, np.float32))
    with pytest.raises(CompileError, match="the function does something else in one call"):
        step(np.ones(2, np.float32))


PARTS = {"tanh": ts.tanh, "exp": ts.exp, "twice": lambda y: y + y, "square": lambda y: y * y}
parts = st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=3)


@given(parts, parts)
def test_two_recordings_are_one_only_if_they_do_the_same(first, second):
    """Also where what one does more comes last, and nothing is made of it."""
    tapes = []
    for names in (first, second):
        x = ts.tensor(np.ones(2, np.float32))
        with step_taped([x]) as tape:
            y = given = x + 1
            for name in names:
                y = PARTS[name](y)
            tape.ends = [tape.value(given)]
        tapes.append(tape)
    if first == second:
        compare(*tapes, OF_STEP)
    else:
        with pytest.raises(CompileError, match="does something else in one call"):
            compare(*tapes, OF_STEP)


def test_calls_that_fail_are_no_recordings():
    """However many: a function that works from then on is recorded, and played back."""
    w, broken = nn.Parameter(np.ones(2, np.float32)), [True]

    def loss(x):
        if broken[0]:
            raise KeyError("my own")
        return (w * x).sum()

    step = nn.TrainingStep(loss, optim.SGD([w], 0.1))
    for _ in range(20):
        with pytest.raises(KeyError, match="my own"):
            step(np.ones(2, np.float32))
    broken[0] = False
    for _ in range(4):
        step(np.ones(2, np.float32))
    assert recordings(step) == [1]
    np.testing.assert_allclose(w.numpy(), 1 - 4 * 0.1, rtol=1e-6)


def test_what_was_read_behind_its_back_is_found():
    """As the library would, if it read a value without saying so."""
    w = nn.Parameter(np.ones(2, np.float32))
    step = nn.TrainingStep(
        lambda x: (w * ts.Tensor.wrap(np.abs(x._data).max(keepdims=True) * 0 + x._data[0])).sum(),
        optim.SGD([w]),
        mode="compiled",
    )
    step(np.array([1, 2], np.float32))
    with pytest.raises(CompileError, match="comes from outside of the step"):
        step(np.array([3, 4], np.float32))


def test_wrong_use_is_named():
    w = nn.Parameter(np.ones(2, np.float32))
    sgd = optim.SGD([w])
    with pytest.raises(ValueError, match="mode='fast' must be 'auto'"):
        nn.TrainingStep(lambda: w.sum(), sgd, mode="fast")
    with pytest.raises(TypeError, match=r"loss=<Tensor of .* must be a function"):
        nn.TrainingStep(w.sum(), sgd)
    with pytest.raises(TypeError, match=r"optimizer=\[.* must be an Optimizer"):
        nn.TrainingStep(lambda: w.sum(), [w])
    with pytest.raises(TypeError, match="in what it gave is a str"):
        nn.TrainingStep(lambda: (w.sum(), "more"), sgd)()
    with pytest.raises(TypeError, match="in what it gave is a NoneType"):
        nn.TrainingStep(lambda: None, sgd)()
    with pytest.raises(ts.errors.GraphError, match="was not recorded"):
        nn.TrainingStep(lambda: ts.tensor(1.0), sgd, mode="compiled")()
    with pytest.raises(ts.errors.ShapeError, match="only defined for one element"):
        nn.TrainingStep(lambda: w * 2, sgd)()
    assert "TrainingStep(" in repr(nn.TrainingStep(lambda: w.sum(), sgd))


def test_a_step_within_a_step_is_refused():
    w = nn.Parameter(np.ones(2, np.float32))
    inner = nn.TrainingStep(lambda: w.sum(), optim.SGD([w]), mode="compiled")
    outer = nn.TrainingStep(lambda: inner() + w.sum(), optim.SGD([w]), mode="compiled")
    with pytest.raises(CompileError, match="within another one"):
        outer()


def test_too_many_kinds_are_said():
    w = nn.Parameter(np.ones(2, np.float32))
    step = nn.TrainingStep(lambda rate: (w * rate).sum(), optim.SGD([w]))
    for n in range(31):
        step(float(n))
    with pytest.warns(RuntimeWarning, match="pass numbers that change as arrays"):
        step(31.0)
    assert len(step._kinds) == 8


def test_ops_that_have_no_place_of_their_own_are_done_all_the_same():
    """Those that no shortcut writes in place, and whole numbers that become floats."""
    rng = np.random.default_rng(0)
    w = nn.Parameter(np.linspace(0.5, 1, 4, dtype=np.float32))

    def loss(x, i):
        y = ts.softplus(w * x) + ts.cumsum(w) / (i + 1) + ts.max(x * w, axis=0, keepdims=True)
        z = ts.concat([y, ts.where(x > 0, y, -y)], axis=0)
        return ts.logsumexp(z, axis=1).mean() + ts.exp(z.T)[i].sum() * 0.1 + ts.sum(z[::2])

    def make():
        model = nn.Module()
        model.w = w
        w.data = np.linspace(0.5, 1, 4)
        return model, loss

    calls = [
        (rng.standard_normal((3, 4)).astype(np.float32), rng.integers(0, 4, 4)) for _ in range(5)
    ]
    both(make, calls, tolerance=1e-5)


def test_an_array_that_is_gone_gives_its_identity_to_another_one():
    """What a tape knows of arrays ends with them."""
    tape = StepTape([])
    tensor = ts.Tensor.wrap(np.ones(3))
    value = tape.given("made", tensor)
    assert tape.value(tensor) is value
    key = id(tensor._data)
    del tensor
    assert key not in tape._known
    assert value.data is None


def test_a_playback_by_itself():
    """The pieces: a tape, its playback, and other numbers through it."""
    x = ts.tensor([1.0, 2.0])
    with step_taped([x]) as tape:
        y = (x * 3).sum()
    tape.ends = [tape.equations[-1].output]
    playback = Playback(tape, [x._data])
    assert playback.results[0] == y.item() == 9
    playback([np.array([2, 5], np.float32)])
    assert playback.results[0] == 21


# -- what a stranger did to it --------------------------------------------------------------------


def linear(seed=0):
    ts.random.seed(seed)
    return nn.Linear(D, 3)


ROWS = np.random.default_rng(0).standard_normal((6, D)).astype(np.float32)


def alike(loss, calls, change=lambda model, opt: None, at=4, make=linear, **options):
    """Eager and played back give the same, also after something has changed; or the same error."""
    found = []
    for mode in ("unroll", "compiled"):
        model = make()
        opt = optim.Adam(model.parameters(), 1e-2)
        step = nn.TrainingStep(loss(model), opt, mode=mode, **options)
        losses = []
        for n, arguments in enumerate(calls):
            if n == at:
                change(model, opt)
            try:
                losses.append(step(*arguments).item())
            except (ValueError, TypeError, IndexError) as error:
                losses.append(str(error))
        found.append(losses)
    for a, b in zip(*found, strict=True):
        assert a == b if isinstance(a, str) else a == pytest.approx(b, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "first", "later"),
    [
        (lambda m: lambda x, i: (m(x) * functional.one_hot(i, 3)).sum(), [0, 1, 2] * 2, [2, 1] * 3),
        (lambda m: lambda x, i: m(x)[i].sum(), 1, 4),
        (lambda m: lambda x, i: m(x)[:, i].sum(), 1, 2),
        (lambda m: lambda x, i: (m(x) * ts.tensor(i)).sum(), [[1.0]], [[2.0]]),
        (lambda m: lambda x, i: m(x)[i.astype(int)].sum(), [1.0, 2.0], [1.5, 2.0]),
        (lambda m: lambda x, i: m(x)[i].sum(), True, False),
    ],
    ids=["one-hot", "a number", "a column", "copied", "fractions", "truth"],
)
def test_what_is_made_of_an_argument_is_made_anew(loss, first, later):
    """Also where the first calls gave no hint that it would change."""
    later = np.asarray(later, np.asarray(first).dtype)
    alike(loss, [(ROWS, np.asarray(first))] * 4 + [(ROWS, later)] * 2)


@pytest.mark.parametrize(
    "loss",
    [
        lambda m: lambda x, i: (ts.sort(m(x) * i[:, None], axis=0) * ROWS[:, :3]).sum(),
        lambda m: lambda x, i: ts.gather(m(x), 0, i[:, None]).sum(),
        lambda m: lambda x, i: (ts.take_along_axis(m(x), i[:, None], 0) * ROWS[:, :3]).sum(),
        lambda m: lambda x, i: (m(x)[ts.argsort(i)] * ROWS[:, :3]).sum(),
        lambda m: lambda x, i: m(x)[i, ts.where(i > 2, 0, i)].sum(),
        lambda m: (
            lambda x, i: functional.cross_entropy(m(x), ts.where(i > 2, 0, i), weight=i[:3] + 0.5)
        ),
        lambda m: (
            lambda x, i: ts.logsumexp(ts.where(i[:, None] == 3, np.inf, m(x)), axis=1)[i != 3].sum()
        ),
    ],
    ids=["sort", "gather", "take_along_axis", "argsort", "pairs", "weights of classes", "infinite"],
)
def test_places_are_found_anew(loss):
    """What was in another order, at another place or infinite in the calls that were recorded."""
    rng = np.random.default_rng(0)
    alike(loss, [(ROWS[rng.permutation(6)], rng.permutation(6)) for _ in range(8)])


# -- drawn steps ----------------------------------------------------------------------------------
#
# A drawn loss is a list of instructions over values (N, W), and of whole numbers: i (N), from −N to
# N − 1, and c (N), from 0 to W − 1. In each call the numbers are other ones, and the playback makes
# of them what the step as it is written makes.

PLACES = {  # (N, W) → (N, W), by whole numbers
    "rows": lambda a, i, c, p: a[i],
    "pairs": lambda a, i, c, p: a * a[np.arange(a.shape[0]), c][:, None],
    "rows of a parameter": lambda a, i, c, p: a + p["table"][i],
    "numbers of a parameter": lambda a, i, c, p: a * p["b"][c][:, None],
    "along an axis": lambda a, i, c, p: a + ts.take_along_axis(a, i[:, None], 0),
    "one row": lambda a, i, c, p: a * a[i[0]],
    "one hot": lambda a, i, c, p: a * functional.one_hot(c, a.shape[1]),
    "masked": lambda a, i, c, p: ts.where((i > 0)[:, None], a, -a),
    "in order": lambda a, i, c, p: a[ts.argsort(i)],
    "loss": lambda a, i, c, p: a * functional.cross_entropy(a, c, "none")[:, None],
    "loss of some": lambda a, i, c, p: (
        a * functional.cross_entropy(a, ts.where(i < 0, -100, c), "sum")
    ),
}
WHOLE = {  # (N, W) → (N, W), by way of all rows
    "product": lambda a, p: ts.tanh(a @ p["w"]),
    "transposed product": lambda a, p: ts.tanh(a @ p["w"].T),
    "turned product": lambda a, p: ts.tanh((p["w"] @ a.T).T),
    "gram": lambda a, p: ts.tanh(a @ (a.T @ a) / a.shape[0]),
    "bias": lambda a, p: a + p["b"],
    "scale": lambda a, p: a * p["b"],
    "number": lambda a, p: a * p["number"],
    "column": lambda a, p: a * p["table"][:, :1],
    "reshaped": lambda a, p: a.reshape(-1)[::-1].reshape(a.shape),
    "two by two": lambda a, p: (a.T.reshape(a.shape) + a) * 0.5,
    "over rows": lambda a, p: a - a.mean(0) + ts.max(a, axis=0, keepdims=True),
    "summed up": lambda a, p: ts.tanh(ts.cumsum(a, axis=0)),
    "sorted": lambda a, p: ts.sort(a, axis=0) * p["b"],
    "slices": lambda a, p: ts.concat([a[-1:], a[:-1]], axis=0)[::-1],
    "einsum": lambda a, p: ts.tanh(ts.einsum("nw,wv->nv", a, p["w"])),
    "detached": lambda a, p: a * a.detach(),
    "three axes": lambda a, p: (a[:, None, :] * p["b"]).sum(axis=1),
    "stacked": lambda a, p: ts.stack([a, a * p["number"]], axis=0).sum(axis=0),
}


KINDS = {"unary": UNARY, "binary": BINARY, "by row": BY_ROW, "places": PLACES, "whole": WHOLE}


@st.composite
def drawn_losses(draw):
    """(N, W, instructions): large enough for the kernels, or small."""
    size = draw(st.sampled_from([(1, 1), (3, 2), (5, 4), (4, 5), (64, 128), (65, 64)]))
    value = st.integers(0, 20)
    one = [
        st.tuples(st.just(name), st.sampled_from(sorted(kinds)), value, value)
        for name, kinds in KINDS.items()
    ]
    often = st.tuples(st.just("whole"), st.sampled_from(["bias", "product"]), value, value)
    return *size, draw(st.lists(st.one_of(*one, often), min_size=1, max_size=6))


class Drawn(nn.Module):
    def __init__(self, N, W, instructions):
        rng = np.random.default_rng(0)
        self.instructions = instructions
        for name, shape in {"w": (W, W), "b": (W,), "table": (N, W), "number": ()}.items():
            numbers = rng.standard_normal(shape) / np.sqrt(W)
            setattr(self, name, nn.Parameter(numbers.astype(np.float32)))

    def forward(self, x, i, c):
        parameters = dict(self.named_parameters())
        values = [x, x * self.w[0]]
        for name, kind, m, n in self.instructions:
            a, b = values[-1 - m % len(values)], values[-1 - n % len(values)]
            more = {"binary": [b], "places": [i, c, parameters], "whole": [parameters]}
            values.append(KINDS[name][kind](a, *more.get(name, [])))
        return ((ts.tanh(values[-1]) + 0.1 * ts.tanh(values[-2])) * self.b).sum() / x.size


@with_settings(max_examples=2 * MOST)
@given(drawn_losses(), st.integers(0, 99))
def test_drawn_steps(drawn, seed):
    """Five calls with other numbers, the weights among them; both ways give the same."""
    N, W, instructions = drawn
    load.load_kernels()
    found = []
    for mode in ("unroll", "compiled"):
        rng = np.random.default_rng(seed)
        model = Drawn(N, W, instructions)
        step = nn.TrainingStep(model, optim.SGD(model.parameters(), 0.1), mode=mode)
        made = []
        for _ in range(5):
            x = rng.standard_normal((N, W)).astype(np.float32)
            made.append(step(x, rng.integers(-N, N, N), rng.integers(0, W, N)).item())
        found.append([np.array(made), *(p.numpy() for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-4, atol=2e-5)


def test_noise_that_a_cell_of_ones_own_draws_with_numpy():
    class Noisy(nn.RNNCell):
        rng: np.random.Generator

        def noise(self, x, state):
            T, B, _ = x.shape
            return self.rng.random((T, B, 1), np.float32), (None, self.rng.random((T, B, H)) < 0.5)

        def forward(self, x, state, noise):
            scale, (_, keep) = noise
            (h,) = super().forward(x * scale, state)
            return (ts.where(keep, state[0], h),)

    for layer_mode in ("unroll", "compiled"):

        def make(layer_mode=layer_mode):
            ts.random.seed(0)
            cell = Noisy(D, H)
            cell.rng = np.random.default_rng(1)
            return nn.Recurrent(cell, mode=layer_mode)

        calls = [sequences(np.random.default_rng(n)) for n in range(6)]
        alike(lambda m: lambda x, t: regression(m, x, t), calls, make=make)


def test_all_targets_may_be_ignored_in_no_call():
    targets = [np.array([n % 3, -100, 1, -100, n % 2, -100]) for n in range(5)]
    calls = [(ROWS, t) for t in (*targets, np.full(6, -100), targets[0])]
    alike(lambda m: lambda x, t: functional.cross_entropy(m(x), t), calls)
    alike(lambda m: lambda x, t: functional.nll_loss(functional.log_softmax(m(x)), t), calls)


def test_a_mask_for_nobody_is_no_mask_for_all():
    """Played back, one number is not spread over the places of many."""
    many, one = np.arange(6) < 3, np.arange(6) == 5
    calls = [(ROWS, many)] * 3 + [(ROWS, one)] * 3
    alike(lambda m: lambda x, k: m(x).sum() * x[k].sum(), calls)


def test_what_is_drawn_may_come_out_the_same_twice():
    """Neither a wrapper that is called by itself nor teacher forcing stays with its first draw."""
    for seed in range(5):
        drawn = []
        for mode in ("unroll", "compiled"):
            ts.random.seed(seed)
            cell = nn.Zoneout(nn.RNNCell(D, 1), 0.5)
            step = nn.TrainingStep(
                lambda x, h, cell=cell: (cell(x, (h,))[0] ** 2).sum(),
                optim.SGD(cell.parameters(), 0.0),
                mode=mode,
            )
            h = np.full((1, 1), 0.3, np.float32)
            drawn.append([step(ROWS[:1], h).item() for _ in range(8)])
        np.testing.assert_allclose(drawn[1], drawn[0], rtol=1e-5)
        model = nn.EncoderDecoder(nn.RNN(D, H), nn.RNN(D, H), V, V, bos=0, eos=1)
        step = nn.TrainingStep(
            lambda s, t, model=model: model.loss(s, t, teacher_forcing=0.9),
            optim.SGD(model.parameters()),
            mode="compiled",
        )
        with pytest.raises(CompileError, match="Feeding back its own outputs"):
            step(np.array([[2]]), np.array([[2]]))


class Settings:
    scale = 1.0
    slots: object


class Slots:
    __slots__ = ("scale",)


class Scaled(nn.Module):
    factor = 1.0

    def __init__(self):
        self.linear = nn.Linear(D, 3)
        self._private = 1.0
        self.array, self.list = np.ones(3), [1.0]

    def forward(self, x):
        y = self.linear(x) * self._private * self.array * self.list[0] * self.factor
        return y * GLOBAL["scale"]


GLOBAL = {"scale": 1.0}
settings = Settings()


def scaled(seed=0):
    ts.random.seed(seed)
    GLOBAL["scale"] = Scaled.factor = Settings.scale = 1.0
    vars(settings).clear()
    settings.slots = Slots()
    settings.slots.scale = 1.0
    settings.array, settings.nothing = np.ones(3), None
    return Scaled()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "_private", 3.0),
        lambda model: model.array.fill(3.0),
        lambda model: model.list.__setitem__(0, 3.0),
        lambda model: setattr(Scaled, "factor", 3.0),
        lambda model: setattr(model, "factor", 3.0),
        lambda model: GLOBAL.update(scale=3.0),
        lambda model: setattr(settings, "scale", 3.0),
        lambda model: setattr(Settings, "scale", 3.0),
        lambda model: setattr(settings.slots, "scale", 3.0),
        lambda model: settings.array.fill(3.0),
        lambda model: setattr(settings, "nothing", 3.0),
        lambda model: setattr(settings, "by_name", 3.0),
    ],
    ids=[
        "private", "array", "list", "class of module", "hidden", "global", "object", "class",
        "slots", "array of object", "nothing before", "by name",
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["closure", "default", "partial"])
def test_whatever_is_read_may_change(change, how):
    def computed(model, settings, x):
        y = model(x) * settings.scale * settings.slots.scale * settings.array
        y = y * getattr(settings, "by_name", 1.0)
        return (y if settings.nothing is None else y * settings.nothing).sum()

    def loss(model):
        if how == "closure":
            return lambda x: computed(model, settings, x)
        if how == "default":
            return lambda x, of=settings: computed(model, of, x)
        return functools.partial(computed, model, settings)

    alike(loss, [(ROWS,)] * 6, lambda model, opt: change(model), make=scaled)


def test_arrays_around_it_that_are_filled_anew():
    batch, targets = np.ones((6, D)), np.zeros(6, int)

    def change(model, opt):
        batch[:], targets[:] = ROWS, 2

    def loss(model):
        batch[:], targets[:] = 1, 0
        return lambda: functional.cross_entropy(model(batch), targets)

    alike(loss, [()] * 6, change)


def test_what_a_compiled_cell_reads_from_around_it():
    around = {"scale": 1.0}
    constant = ts.tensor(np.ones(H, np.float32))

    class Cell(nn.RNNCell):
        def forward(self, x, state):
            (h,) = super().forward(x, state)
            return (h * around["scale"] * constant,)

    def make():
        ts.random.seed(0)
        around["scale"] = 1.0
        constant.data[:] = 1
        return nn.Recurrent(Cell(D, H), mode="compiled")

    def loss(model):
        return lambda x: (model(x)[0] ** 2).sum()

    x = sequences(np.random.default_rng(0))[0]
    alike(loss, [(x,)] * 6, lambda model, opt: around.update(scale=3.0), make=make)
    alike(loss, [(x,)] * 6, lambda model, opt: constant.data.fill(3), make=make)


def test_tensors_that_share_an_array_are_told_apart():
    def loss(model):
        weight = model.weight.detach()
        return lambda x: (weight * 0).sum() + model(x).sum()

    alike(
        loss,
        [(ROWS,)] * 6,
        lambda model, opt: setattr(model.weight, "data", np.ones((D, 3))),
    )


def test_an_optimiser_that_is_given_other_arrays():
    def emptied(model, opt):
        opt.buffers["mean"][0] = np.ones((D, 3), np.float32)

    alike(lambda m: lambda x: (m(x) ** 2).sum(), [(ROWS,)] * 7, emptied)

    class Keeps(optim.SGD):
        last: np.ndarray | float = 0.0

        def update(self, p, g, t, *buffers):
            if p.ndim == 2:
                p -= self.lr * (g - 0.5 * self.last)
                self.last = g

    ends = []
    for mode in ("unroll", "compiled"):
        model = linear()
        opt = Keeps(list(model.parameters()), 0.01)
        step = nn.TrainingStep(lambda x, model=model: (model(x) ** 2).sum(), opt, mode=mode)
        for n in range(6):
            step(ROWS * n)
        ends.append(model.weight.numpy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-4, atol=1e-6)


def test_what_changes_between_the_two_recordings():
    model = scaled()
    step = nn.TrainingStep(
        lambda x: (model(x) ** 2).sum(), optim.SGD(model.parameters(), 0.1), mode="compiled"
    )
    step(ROWS)
    step.optimizer = optim.SGD(model.parameters(), 0.0)
    model.array = 0.0
    for _ in range(4):
        assert step(ROWS).item() == 0
    assert recordings(step) == [2]


def test_its_own_parts_may_be_exchanged():
    model = linear()
    step = nn.TrainingStep(
        lambda x: (model(x) ** 2).sum(), optim.SGD(model.parameters(), 0.1), mode="compiled"
    )
    for _ in range(4):
        step(ROWS)
    step.optimizer = optim.SGD(model.parameters(), 0.0)
    before = model.weight.numpy()
    step(ROWS)
    assert (model.weight.numpy() == before).all()
    step.loss = lambda x: (model(x) * 0).sum() + 7
    assert step(ROWS).item() == 7


def test_a_copy_works_on_its_own():
    class Model(nn.Module):
        def __init__(self):
            self.linear = linear()

        def loss(self, x):
            return (self.linear(x) ** 2).sum()

    model = Model()
    step = nn.TrainingStep(model.loss, optim.Adam(model.parameters(), 0.1), mode="compiled")
    for _ in range(4):
        step(ROWS)
    other, theirs = copy.deepcopy((model, step))
    for _ in range(4):
        theirs(ROWS)
    assert step(ROWS).item() > theirs(ROWS).item()
    assert (other.linear.weight.numpy() != model.linear.weight.numpy()).any()


def test_without_gradients_there_is_no_step():
    _, step = make_step()
    for _ in range(4):
        step(*sequences(np.random.default_rng(0)))
    with ts.no_grad(), pytest.raises(ts.errors.GraphError, match="was not recorded"):
        step(*sequences(np.random.default_rng(0)))
    step(*sequences(np.random.default_rng(0)))
    assert recordings(step) == [1]


def test_a_parameter_is_no_argument():
    model = linear()
    step = nn.TrainingStep(lambda x, w: (x @ w).sum(), optim.SGD(model.parameters()))
    with pytest.raises(TypeError, match="an argument is a Tensor that requires a gradient"):
        step(ROWS, model.weight)


def test_minus_zero_is_a_number_of_its_own():
    calls = [(ROWS, 0.0)] * 4 + [(ROWS, -0.0)] * 2
    alike(lambda m: lambda x, n: m(x).sum() * float(np.copysign(1, n)), calls)


def test_what_it_gives_may_not_alternate():
    w = nn.Parameter(np.ones(2, np.float32))
    calls = []

    def loss(x):
        calls.append(1)
        a, b = x * 2, x * 3
        return (w * x).sum(), a if len(calls) % 2 else b

    step = nn.TrainingStep(loss, optim.SGD([w]), mode="compiled")
    step(np.ones(2, np.float32))
    with pytest.raises(CompileError, match="gives something else in one call"):
        step(np.ones(2, np.float32))


def test_padding_may_come_and_go_from_the_start():
    """The way with padding serves both; it is recorded once there was any."""
    rng = np.random.default_rng(4)

    def make():
        model = LanguageModel(V, H, 1, "rnn")
        return model, lambda i, t: functional.cross_entropy(model(i)[0], t)

    calls = [tuple(rng.integers(0, V, (2, T, B))) for _ in range(8)]
    for inputs, targets in calls[1::2]:
        inputs[0] = -1
        targets[T - 1, 1] = -100
    both(make, calls)


def test_noise_is_the_same_where_a_call_is_done_once_more():
    """Played back in vain, and then as it is written: what was drawn is drawn once."""
    rng = np.random.default_rng(4)

    def make():
        model = LanguageModel(V, H, 2, "rnn", dropout=0.5)
        return model, lambda i, t: functional.cross_entropy(model(i)[0], t)

    calls = [tuple(rng.integers(0, V, (2, T, B))) for _ in range(8)]
    for _, targets in calls[4:]:
        targets[T - 1, 1] = -100
    both(make, calls)


def test_what_changes_now_and_then_is_recorded_each_time():
    model = linear()
    step = nn.TrainingStep(lambda x: model(x).sum(), optim.SGD(model.parameters()), mode="compiled")
    for n in range(12):
        model.note = n
        for _ in range(12):
            step(ROWS)
    for n in range(8):
        model.note = -n - 1
        step(ROWS)
        step(ROWS)
    model.note = 100
    with pytest.raises(CompileError, match="keeps changing"):
        step(ROWS)


def test_what_would_be_done_once_is_refused():
    class Keeps(nn.Module):
        def __init__(self):
            self.linear, self.last = linear(), ts.tensor(0.0)

        def forward(self, x, how):
            y = self.linear(x)
            if how == "attribute":
                self.last = y.detach()
            elif how == "data":
                self.last.data = 1.0
            else:
                other.step()
            return y

    model = Keeps()
    other = optim.SGD(model.parameters())
    for how in ("attribute", "data", "step"):
        step = nn.TrainingStep(
            lambda x, how=how: model(x, how).sum(), optim.SGD(model.parameters()), mode="compiled"
        )
        with pytest.raises(CompileError, match="and never again"):
            step(ROWS)


def test_one_step_in_two_threads():
    ts.random.seed(0)
    model = nn.LSTM(D, H)
    step = nn.TrainingStep(
        lambda x: (model(x)[0] ** 2).mean(), optim.SGD(model.parameters(), 0.0), mode="compiled"
    )
    rng = np.random.default_rng(0)
    xs = [sequences(rng)[0] for _ in range(2)]
    wanted = [[step(x).item() for _ in range(3)][-1] for x in xs]
    found: list[list[float]] = [[], []]

    def work(n):
        found[n] += [step(xs[n]).item() for _ in range(200)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values, value in zip(found, wanted, strict=True):
        np.testing.assert_allclose(values, value, rtol=1e-6)


def test_what_a_call_that_cannot_be_played_back_drew_is_drawn_again():
    calls = [[0, 1], [1, 2], [2, 0], [9, 0], [0, 1], [-7, 1], [1, 1]]  # 9, -7: no such row
    found = {}
    for mode in ("unroll", "auto"):
        ts.seed(0)
        table, dropout = nn.Parameter(np.ones((3, 4), np.float32)), nn.Dropout(0.5)
        step = nn.TrainingStep(
            lambda i, table=table, dropout=dropout: (dropout(table)[i] ** 2).sum(),
            optim.SGD([table], 0.1),
            mode=mode,
        )
        losses = []
        for i in calls:
            with contextlib.suppress(IndexError):
                losses.append(step(np.array(i)).item())
        found[mode] = losses, ts.random.generator().random()
    assert len(found["auto"][0]) == len(calls) - 2
    np.testing.assert_allclose(found["auto"][0], found["unroll"][0], rtol=1e-6)
    assert found["auto"][1] == found["unroll"][1]


@pytest.mark.parametrize("make", [optim.SGD, optim.RMSprop, optim.Adagrad, optim.Adam, optim.AdamW])
def test_what_was_recorded_before_a_step_notices_the_step(make):
    """As written, recorded and played back."""
    p = nn.Parameter(np.ones(3, np.float32))
    step = nn.TrainingStep(lambda x: ((p * x) ** 2).sum(), make([p], 0.1), mode="compiled")
    for n in range(5):
        before = (p * p).sum()
        step(np.full(3, n + 1.0, np.float32))
        with pytest.raises(ts.errors.GraphError, match="changed in place"):
            before.backward()


@pytest.mark.parametrize("mode", ["unroll", "compiled"])
def test_what_comes_with_the_loss_is_as_it_was_before_the_update(mode):
    p = nn.Parameter(np.ones(3, np.float32))
    step = nn.TrainingStep(lambda x: ((p * x).sum(), (p, p[:2])), optim.SGD([p], 0.5), mode=mode)
    for _ in range(4):
        before = p.numpy().copy()
        _, (whole, part) = step(np.ones(3, np.float32))
        np.testing.assert_array_equal(whole.numpy(), before)
        np.testing.assert_array_equal(part.numpy(), before[:2])
        assert (p.numpy() == before - 0.5).all()
