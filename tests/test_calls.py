"""Each call of a layer is checked as the unrolled step checks it, in whichever mode the layer runs
and whatever was called before; and a call that fails leaves nothing behind.
"""

import importlib
import signal
import sys
import warnings

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import errors, nn, optim
from tinyseq.errors import CompileError
from tinyseq.kernels import load
from tinyseq.nested import leaves, mapped
from tinyseq.nn import recurrent, training_step

T, B, D, H = 4, 3, 2, 5


class Decay(nn.Module):
    """A cell of one's own, which checks nothing, and whose state broadcasts."""

    input_size, hidden_size = D, H

    def __init__(self):
        self.w = nn.Parameter(np.full((D, H), 0.3, np.float32))

    def forward(self, x, state):
        return (ts.tanh(x @ self.w + 0.5 * state[0]),)

    def initial_state(self, batch_size, dtype=np.float32):
        return (ts.tensor(np.zeros((batch_size, H), dtype)),)


class Noisy(Decay):
    """Whose noise may have one row for all sequences, or too many steps."""

    def __init__(self, rows=lambda T, B: (T, B)):
        super().__init__()
        self.rows = rows

    def noise(self, x, state):
        T, B = self.rows(*x.shape[:2])
        return np.linspace(0.5, 1.5, T * B * H, dtype=np.float32).reshape(T, B, H)

    def forward(self, x, state, noise):
        (h,) = super().forward(x, state)
        return (h * noise,)


LAYERS = {
    "RNN": lambda mode: nn.RNN(D, H, mode=mode),
    "LSTM": lambda mode: nn.LSTM(D, H, mode=mode),
    "two layers": lambda mode: nn.RNN(D, H, 2, mode=mode),
    "bidirectional": lambda mode: nn.RNN(D, H, bidirectional=True, mode=mode),
    "batch first": lambda mode: nn.RNN(D, H, batch_first=True, mode=mode),
    "reversed": lambda mode: nn.Recurrent(nn.RNNCell(D, H), reverse=True, mode=mode),
    "turned": lambda mode: nn.Bidirectional(nn.RNN(D, H, mode=mode), nn.RNN(D, H, mode=mode)),
    "learned state": lambda mode: nn.Recurrent(nn.LearnedState(nn.RNNCell(D, H)), mode=mode),
    "zoneout": lambda mode: nn.Recurrent(nn.Zoneout(nn.RNNCell(D, H), 0.5), mode=mode),
    "one's own": lambda mode: nn.Recurrent(Decay(), mode=mode),
    "one's own, with noise": lambda mode: nn.Recurrent(Noisy(), mode=mode),
}


def of_state(make):
    """x as it should be, with this state."""
    return lambda layer, x: ((x, make(layer)), {})


def of_parts(change):
    """With each tensor of the first state changed."""
    return of_state(lambda layer: mapped(change, layer.initial_state(B)))


def of_array(shape, dtype=np.float32):
    return lambda layer, x: ((np.ones(shape, dtype),), {})


def of_lengths(lengths):
    return lambda layer, x: ((x,), {"lengths": lengths})


WRONG = {
    "a state for seven": of_state(lambda layer: layer.initial_state(7)),
    "a state for one": of_state(lambda layer: layer.initial_state(1)),
    "a state for none": of_state(lambda layer: layer.initial_state(0)),
    "a state of another width": of_parts(lambda s: ts.concat([s, s], axis=1)),
    "a state of one unit": of_parts(lambda s: s[:, :1]),
    "a state of more axes": of_parts(lambda s: s[:, :, None]),
    "a state of fewer axes": of_parts(lambda s: s[0]),
    "a tensor for a state": of_state(lambda layer: next(leaves(layer.initial_state(B)))),
    "an empty state": of_state(lambda layer: ()),
    "a state that is nested once more": of_state(lambda layer: (layer.initial_state(B),)),
    "a state twice": of_state(lambda layer: (*layer.initial_state(B), *layer.initial_state(B))),
    "a state of float64": of_state(lambda layer: layer.initial_state(B, np.float64)),
    "a state of arrays": of_parts(lambda s: s.numpy()),
    "a state in lists": of_state(lambda layer: listed(layer.initial_state(B))),
    "a state of zeros that is whole": of_parts(lambda s: s.numpy().astype(int)),
    "x of another width": of_array((T, B, D + 1)),
    "x of no width": of_array((T, B, 0)),
    "x of two axes": of_array((T, D)),
    "x of four axes": of_array((T, B, D, 1)),
    "x of float64": of_array((T, B, D), np.float64),
    "x of whole numbers": of_array((T, B, D), int),
    "x of booleans": of_array((T, B, D), bool),
    "no sequences": of_array((T, 0, D)),
    "no steps": of_array((0, B, D)),
    "neither": of_array((0, 0, D)),
    "too few lengths": of_lengths([1, 2]),
    "too many lengths": of_lengths([1, 2, 3, 4]),
    "lengths that are too long": of_lengths([1, 2, 9]),
    "lengths of nothing": of_lengths([1, 2, 0]),
    "lengths that are fractions": of_lengths([1, 2, 2.5]),
    "lengths in another shape": of_lengths([[1, 2, 3]]),
}


def listed(state):
    return [listed(s) if isinstance(s, tuple) else s for s in state]


def made(name, mode):
    ts.seed(1)
    return LAYERS[name](mode)


def outcome(layer, arguments, gradients=False):
    """The values and gradients of a call, or its error in words."""
    ts.seed(2)
    x = np.random.default_rng(0).standard_normal((T, B, D)).astype(np.float32)
    if getattr(layer, "batch_first", False):
        x = x.swapaxes(0, 1)
    (x, *rest), named = arguments(layer, x)
    if gradients:
        x = ts.tensor(x, requires_grad=True)
    try:
        y, state = layer(x, *rest, **named)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    found = [y, *leaves(state)]
    if gradients:
        for p in layer.parameters():
            p.grad = None
        sum((part * part).sum() for part in found).backward()
        found += [t.grad for t in (x, *layer.parameters())]
    return [None if t is None else t.numpy() for t in found]


def assert_same(found, expected):
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected
        return
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def right(layer, x):
    return (x,), {}


def check(layer, name):
    """The right call gives the right numbers, and runs compiled."""
    assert_same(outcome(layer, right, True), outcome(made(name, "unroll"), right, True))
    for _, one in layer.named_modules():
        if isinstance(one, nn.Recurrent):
            assert one(np.ones((T, B, one.input_size), np.float32))[0].node.op.name == "piece"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(recurrent, "COMPILED_FROM", 0)
    monkeypatch.setattr(errors, "_said", set())


@pytest.mark.filterwarnings("ignore:.*It runs unrolled:RuntimeWarning")
@pytest.mark.parametrize("mode", ["auto", "compiled"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_wrong_call_is_the_unrolled_one(name, mode):
    """As the first call of a layer, between right ones, and once more."""
    later = made(name, mode)
    check(later, name)
    for arguments in WRONG.values():
        expected = outcome(made(name, "unroll"), arguments)
        for layer in (made(name, mode), later, later):
            found = outcome(layer, arguments)
            if mode == "compiled" and isinstance(expected, list) and isinstance(found, str):
                assert found.startswith("CompileError: ")
            else:
                assert_same(found, expected)
    check(layer, name)


@pytest.mark.filterwarnings("ignore:.*It runs unrolled:RuntimeWarning")
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", ["RNN", "one's own"])
def test_a_layer_whose_first_call_was_wrong(name, wrong):
    for mode in ("auto", "compiled"):
        layer = made(name, mode)
        outcome(layer, WRONG[wrong])
        check(layer, name)


@pytest.mark.parametrize("mode", ["auto", "compiled"])
@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_has_gradients(name, mode):
    """Those of parameters are 0; and so it is when it comes after other calls."""
    empty = of_array((0, T, D) if name == "batch first" else (T, 0, D))
    layer, expected = made(name, mode), outcome(made(name, "unroll"), empty, True)
    assert any(a is not None and a.size and not a.any() for a in expected)
    for _ in range(2):
        assert_same(outcome(layer, empty, True), expected)
        check(layer, name)


@pytest.mark.filterwarnings("ignore:.*It runs unrolled:RuntimeWarning")
@pytest.mark.parametrize(
    "rows",
    [
        lambda T, B: (T, 1),
        lambda T, B: (1, B),
        lambda T, B: (2 * T, B),
        lambda T, B: (T, 2 * B),
        lambda T, B: (T // 2, 2 * B),
        lambda T, B: (B, T),
    ],
    ids=["one for all", "one step", "too many steps", "too many rows", "turned", "swapped"],
)
def test_noise_of_other_sizes(rows):
    """As many numbers as there should be are not enough."""
    layers = [nn.Recurrent(Noisy(), mode=mode) for mode in ("unroll", "auto", "compiled")]
    for _ in range(2):
        for layer in layers:
            layer.cell.rows = rows
        expected, auto, compiled = (outcome(layer, right) for layer in layers)
        assert_same(auto, expected)
        if isinstance(expected, str):
            assert compiled == expected
        else:
            assert "noise(x, state) gives an array of shape" in compiled
        for layer in layers[1:]:
            layer.cell.rows = lambda T, B: (T, B)
            check(layer, "one's own, with noise")


# -- what the code of the step raises, or a signal handler while it runs --------------------------


class Stop(Exception):
    """Such as a time-out of one's own."""


RAISED = [Stop, TimeoutError, MemoryError, RecursionError, ValueError, RuntimeError, KeyError]


class Interrupted(nn.RNNCell):
    """In whose step a signal arrives, now and then."""

    signals = 0

    def forward(self, x, state):
        interrupt(type(self))
        return super().forward(x, state)


class InterruptedNoise(nn.RNNCell):
    signals = 0

    def noise(self, x, state):
        interrupt(type(self))
        return np.ones((*x.shape[:2], 1), x.dtype)

    def forward(self, x, state, noise):
        return super().forward(x * noise, state)


def interrupt(kind):
    if kind.signals:
        kind.signals -= 1
        signal.raise_signal(signal.SIGINT)


interrupt.__module__ = "numpy"  # nobody looks into it, as signals come from nowhere


@pytest.fixture
def handled(request):
    """What a handler raises for a signal."""

    def handler(number, frame):
        raise request.param("too late")

    before = signal.signal(signal.SIGINT, handler)
    yield request.param
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("handled", RAISED, indirect=True)
@pytest.mark.parametrize("mode", ["auto", "compiled"])
def test_what_a_signal_handler_raises_while_a_step_is_traced(mode, handled, monkeypatch):
    cell = Interrupted(D, H)
    layer, x = nn.Recurrent(cell, mode=mode), np.ones((T, B, D), np.float32)
    monkeypatch.setattr(Interrupted, "signals", 1)
    with pytest.raises(handled, match="too late"):
        layer(x)
    y, _ = layer(x)
    assert y.node.op.name == "piece"
    np.testing.assert_allclose(
        y.numpy(), nn.Recurrent(cell, mode="unroll")(x)[0].numpy(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("handled", RAISED, indirect=True)
@pytest.mark.parametrize("cell", [Interrupted, InterruptedNoise])
def test_what_a_signal_handler_raises_in_a_training_step(cell, handled, monkeypatch):
    """While it is recorded for the first time, the second time, and played back."""
    losses = []
    for interrupted in (False, True):
        ts.seed(0)
        layer = nn.Recurrent(cell(D, H), mode="unroll")
        step = nn.TrainingStep(
            lambda x, layer=layer: (layer(x)[0] ** 2).mean(),
            optim.Adam(layer.parameters(), 0.1),
            mode="compiled",
        )
        losses.append([])
        for n in range(8):
            x = np.full((T, B, D), n, np.float32)
            if interrupted:
                cell.signals = 1
                played = cell is Interrupted and n > 1  # no code of the cell runs
                if not played:
                    with pytest.raises(handled, match="too late"):
                        step(x)
                cell.signals = 0
            losses[-1].append(step(x).item())
        (kind,) = step._kinds.values()
        assert kind.recorded.plays == 6
        assert kind.recordings == 1
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_errors_that_come_of_the_trace_are_not_those_of_the_step():
    """A step that takes one batch size alone runs unrolled; and what it raises for others is its
    own.
    """

    class Picky(nn.RNNCell):
        def forward(self, x, state):
            if len(x) != B:
                raise ValueError(f"{len(x)} sequences")
            return super().forward(x, state)

    layer = nn.Recurrent(Picky(D, H))
    with pytest.warns(RuntimeWarning, match="run for 2 sequences, fails: ValueError: 2 sequences"):
        layer(np.ones((T, B, D), np.float32))
    with pytest.raises(ValueError, match="5 sequences"):
        layer(np.ones((T, 5, D), np.float32))
    layer.mode = "compiled"
    with pytest.raises(CompileError, match="run for 2 sequences, fails"):
        layer(np.ones((T, B, D), np.float32))


def test_a_call_deep_in_the_stack_refuses_no_later_one():
    layer, x = nn.Recurrent(nn.RNNCell(D, H), mode="compiled"), np.ones((T, B, D), np.float32)

    def deep(n):
        return layer(x) if n == 0 else deep(n - 1)

    limit, depth = sys.getrecursionlimit(), 0
    frame = sys._getframe()
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    failed = 0
    sys.setrecursionlimit(depth + 300)
    try:
        for n in range(300, 0, -4):  # from too deep for the call to deep enough for its trace
            try:
                deep(n)
            except RecursionError:
                failed += 1
    finally:
        sys.setrecursionlimit(limit)
    assert 5 < failed < 75
    assert layer(x)[0].node.op.name == "piece"


@pytest.mark.parametrize("error", [Stop, TimeoutError, MemoryError])
def test_an_import_that_was_interrupted_is_tried_again(error, monkeypatch):
    def interrupted(name):
        raise error("too late")

    real = importlib.import_module
    monkeypatch.setattr(load, "kernels", None)
    monkeypatch.setattr(importlib, "import_module", interrupted)
    with pytest.raises(error):
        load.load_kernels()
    monkeypatch.setattr(importlib, "import_module", real)
    load.load_kernels()
    assert load.kernels is not None or not load._failed


# -- a training step calls its function once ------------------------------------------------------


class Holder(nn.Module):
    def __init__(self):
        self.w = nn.Parameter(np.ones(2, np.float32))
        self.rng = np.random.default_rng(3)
        self.other = optim.SGD([nn.Parameter(np.ones(2, np.float32))])
        self.inner = nn.TrainingStep(lambda: (self.other.params[0] ** 2).sum(), self.other)
        self.batches = iter([np.full(2, n, np.float32) for n in range(100)])
        self.same = iter([np.ones(2, np.float32)] * 100)
        self.dropout = nn.Dropout(0.5)
        self.seen, self.count = [], {"calls": 0}
        self.drawing = np.random.default_rng(4)


def reads_a_value(model, x):
    return float(x.sum()) + 1.0


def sets_an_attribute(model, x):
    model.last = 2.0
    return 1.0


def steps_another_optimizer(model, x):
    model.other.step()
    return model.other.params[0].sum().detach()


def steps_within(model, x):
    return model.inner()


def has_a_hook(model, x):
    y = model.w * 1.0
    y.register_hook(lambda g: 2 * g)
    return y.sum()


def takes_a_batch(model, x):
    return ts.tensor(next(model.batches))


def takes_the_same_batch(model, x):
    return ts.tensor(next(model.same))


def counts(model, x):
    model.count["calls"] += 1
    return 1.0


def keeps_what_it_saw(model, x):
    model.seen.append(x)
    return 1.0


def counts_and_uses_it(model, x):
    model.count["calls"] += 1
    return float(model.count["calls"])


def draws_from_the_stream(model, x):
    return 1.0 + int(ts.random.generator().integers(2) // 2)


def draws_from_its_own(model, x):
    return 1.0 + int(model.rng.integers(2) // 2)


def draws_behind_a_layer(model, x):
    return model.dropout(x).sum() + int(ts.random.generator().integers(2) // 2)


def draws_before_a_layer(model, x):
    return int(ts.random.generator().integers(2) // 2) + model.dropout(x).sum()


def makes_a_layer(model, x):
    return nn.Dropout(0.5)(x).sum()


def draws_with_numpy(model, x):
    return 1.0 + int(np.random.randint(2) // 2)  # noqa: NPY002  # as people do


OUTSIDE = np.random.default_rng(5)


def draws_from_a_global(model, x):
    return 1.0 + int(OUTSIDE.integers(2) // 2)


NOT_PLAYED = [
    reads_a_value, sets_an_attribute, steps_another_optimizer, steps_within, has_a_hook,
    takes_a_batch, takes_the_same_batch, counts, keeps_what_it_saw, counts_and_uses_it,
    draws_from_the_stream, draws_from_its_own, draws_behind_a_layer,
    draws_before_a_layer, makes_a_layer, draws_with_numpy, draws_from_a_global,
]  # fmt: skip


class Drawing(nn.RNNCell):
    def __init__(self, draw, rng):
        super().__init__(D, H)
        self.draw, self.rng = draw, rng

    def forward(self, x, state):
        return super().forward(x * self.draw(self, x), state)


@pytest.mark.parametrize(
    "draws",
    [draws_from_the_stream, draws_from_its_own, draws_with_numpy, draws_from_a_global],
    ids=lambda f: f.__name__,
)
def test_a_cell_that_draws_a_number_that_makes_no_difference_yet(draws):
    x = np.ones((T, B, D), np.float32)
    states = []
    for mode in ("unroll", "auto"):
        ts.seed(0)
        np.random.seed(0)  # noqa: NPY002
        OUTSIDE.bit_generator.state = np.random.default_rng(5).bit_generator.state
        cell = Drawing(draws, np.random.default_rng(3))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            nn.Recurrent(cell, mode=mode)(x)
        assert len(said) == (mode == "auto")
        states.append([g.bit_generator.state for g in (cell.rng, OUTSIDE, ts.random.generator())])
    assert states[0] == states[1]
    with pytest.raises(CompileError):
        nn.Recurrent(cell, mode="compiled")(x)


@pytest.mark.parametrize("what", NOT_PLAYED, ids=lambda f: f.__name__)
def test_a_step_that_cannot_be_played_back_calls_its_function_once(what, monkeypatch):
    """In each call, and all that it does by the way is done as often as the step is called."""
    calls, real = [], training_step._Kind._function

    def counted(self, tensors):
        calls.append(self.step)
        return real(self, tensors)

    monkeypatch.setattr(training_step._Kind, "_function", counted)
    ends = []
    for mode in ("unroll", "auto"):
        ts.seed(0)
        np.random.seed(0)  # noqa: NPY002
        OUTSIDE.bit_generator.state = np.random.default_rng(5).bit_generator.state
        model = Holder()
        step = nn.TrainingStep(
            lambda x, model=model: (model.w * x * what(model, x)).sum(),
            optim.SGD([model.w], 0.1),
            mode=mode,
        )
        calls.clear()
        losses = []
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for n in range(30):
                losses.append(step(np.full(2, n % 3, np.float32)).item())
        assert calls.count(step) == 30
        assert len(said) == (mode == "auto"), [str(w.message) for w in said]
        ends.append((losses, model.w.numpy(), model.count, len(model.seen)))
    (losses, w, count, seen), (again, other, *rest) = ends
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    np.testing.assert_allclose(other, w, rtol=1e-6)
    assert rest == [count, seen]


def test_what_a_step_prints_it_prints_while_it_is_recorded(capsys):
    w = nn.Parameter(np.ones(2, np.float32))

    def loss(x):
        print("called")
        return (w * x).sum()

    step = nn.TrainingStep(loss, optim.SGD([w]), mode="compiled")
    for n in range(5):
        step(np.ones(2, np.float32))
        assert capsys.readouterr().out == ("called\n" if n < 2 else "")


def test_wrong_calls_cost_no_recording():
    """Values that fail, and arguments of sizes that fail, as often as one likes."""
    ts.seed(0)
    table, w = nn.Embedding(7, D), nn.Parameter(np.ones(D, np.float32))
    step = nn.TrainingStep(
        lambda i: (table(i) * w).sum(), optim.SGD([w, table.weight], 0.0), mode="compiled"
    )
    good = np.array([1, 2, 3])
    expected = step(good).item()
    for n in range(40):
        with pytest.raises(IndexError, match="index 9 is outside"):
            step(np.array([1, 9, 3]))
        with pytest.raises(IndexError, match="index 7 is outside"):
            step(np.full(n + 4, 7))
        assert step(good).item() == pytest.approx(expected)
    (kind,) = step._kinds.values()
    assert kind.recordings == 1
    assert kind.recorded.plays == 39


@pytest.mark.parametrize("mode", ["auto", "compiled"])
def test_what_kept_changing_and_stays_then_is_played_back(mode):
    """Auto: it runs as it is written for a while, and is tried again."""
    held, w = [0.0], nn.Parameter(np.ones(2, np.float32))
    step = nn.TrainingStep(lambda x: (w * x).sum() * held[0], optim.SGD([w], 0.0), mode=mode)
    x, refused, words = np.ones(2, np.float32), 0, "<lambda>.held"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n in range(20):
            held[0] = float(n)
            try:
                assert step(x).item() == 2 * n
            except CompileError as error:
                words = str(error)
                refused += 1
        assert bool(refused) is (mode == "compiled")
        assert "<lambda>.held" in words
        for _ in range(40):
            assert step(x).item() == 2 * 19
    (kind,) = step._kinds.values()
    assert kind.recorded.plays > 0
