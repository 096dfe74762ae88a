"""Several threads, and forked processes: what is a thread's own, what is shared, and what holds."""

import copy
import json
import multiprocessing
import os
import queue
import re
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import functional, graph, locks, nn, optim, text
from tinyseq.compiler import runtime
from tinyseq.errors import CompileError

LIBRARY = Path(ts.__file__).parent


def in_a_thread(work, *arguments):
    """What the work gives, done in another thread."""
    found = queue.Queue()
    worker = threading.Thread(target=lambda: found.put(work(*arguments)), daemon=True)
    worker.start()
    return found.get(timeout=60)


in_a_thread.__module__ = "numpy"  # where a step calls it, it is not the step's own code


def draw(n=3):
    return ts.random.generator().random(n).tolist()


# -- streams of random numbers --------------------------------------------------------------------


def test_no_thread_draws_from_the_stream_of_another():
    ts.seed(3)
    alone = draw(9)
    ts.seed(3)
    drawn = draw(3)
    others = [in_a_thread(draw, 3) for _ in range(4)]
    drawn += draw(3)
    in_a_thread(ts.seed, 3)
    in_a_thread(lambda: ts.random.set_state(ts.random.get_state()))
    assert drawn + draw(3) == alone
    assert len({tuple(numbers) for numbers in [*others, alone[:3]]}) == 5


def test_streams_of_threads_follow_from_the_seed():
    def drawn(seed):
        ts.seed(seed)
        return [in_a_thread(draw) for _ in range(3)]

    assert drawn(3) == drawn(3) != drawn(4)

    def seeded():
        ts.seed(3)
        return draw()

    ts.seed(3)
    assert in_a_thread(seeded) == draw()


def test_generators_that_are_spawned():
    ts.seed(5)
    first, second = ts.random.spawn(3), ts.random.spawn(3)
    drawn = [tuple(rng.random(4)) for rng in [*first, *second, ts.random.generator()]]
    assert len(set(drawn)) == 7
    ts.seed(5)
    assert [tuple(rng.random(4)) for rng in ts.random.spawn(3)] == drawn[:3]
    assert ts.random.spawn(0) == []


def test_a_stream_goes_on_as_one_that_was_spawned():
    rngs = ts.random.spawn(2)
    ts.seed(copy.deepcopy(rngs[1]))
    assert draw() == rngs[1].random(3).tolist()
    state = json.loads(json.dumps(ts.random.get_state()))
    drawn = draw()
    ts.random.set_state(state)
    assert draw() == drawn


# -- evaluation -----------------------------------------------------------------------------------


def test_an_evaluation_does_not_rewind_what_other_threads_draw():
    go, stop = threading.Event(), threading.Event()
    drawn = []

    def work():
        drawn.append(draw())
        go.set()
        stop.wait(60)
        drawn.append(draw())

    model = nn.Dropout(0.5)
    worker = threading.Thread(target=work, daemon=True)
    with nn.evaluation(model):
        worker.start()
        go.wait(60)
    stop.set()
    worker.join(60)
    assert drawn[0] != drawn[1]
    assert draw() not in drawn


class Carrying(nn.Module):
    def __init__(self, part, own):
        self.part, self.own = part, own
        self.dropout = nn.Dropout(0.5, rng=np.random.default_rng(1))
        self.state = None


def everything(models):
    """All that an evaluation puts back."""
    return [(m.state, m.dropout.rng.bit_generator.state) for m in models], [
        (m.training, m.part.training, m.own.training, m.dropout.training) for m in models
    ]


@given(st.lists(st.integers(0, 5), max_size=12), st.booleans(), st.booleans())
def test_evaluations_that_overlap_in_any_order(moves, frozen, nested):
    """Three models that share a part, each evaluated up to twice at once: in evaluation mode as
    long as one runs, and in the end as before.
    """
    shared = nn.RNNCell(2, 2)
    models = [Carrying(shared, nn.Linear(2, 2)) for _ in range(3)]
    models[0].own.train(not frozen)
    models[1].state = (ts.tensor(1.0),)
    if nested:
        models[2].inner = models[0]
    before, running = everything(models), {}
    for move in moves:
        if move in running:
            running.pop(move).close()
        else:
            running[move] = ExitStack()
            running[move].enter_context(nn.evaluation(models[move % 3]))
            models[move % 3].state = (ts.tensor(float(move)),)
            models[move % 3].dropout.rng.random(1 + move)
        for move in running:
            assert not any(m.training for _, m in models[move % 3].named_modules())
    for stack in running.values():
        stack.close()
    graph.recording.enabled = True  # a thread's own: threads would each have ended with theirs
    assert everything(models) == before


def test_evaluations_in_two_threads_leave_a_model_in_training():
    model, order = nn.Stacked(nn.RNNCell(2, 3), dropout=0.5), threading.Barrier(2, timeout=60)

    def first():
        with nn.evaluation(model):
            order.wait()
            order.wait()  # the second has begun
        order.wait()

    def second():
        order.wait()
        with nn.evaluation(model):
            order.wait()
            order.wait()  # the first has ended
            seen.append(any(m.training for _, m in model.named_modules()))

    seen = []
    workers = [threading.Thread(target=work, daemon=True) for work in (first, second)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert seen == [False]
    assert all(m.training for _, m in model.named_modules())


# -- compiling beside other threads ---------------------------------------------------------------


class Disturbed(nn.RNNCell):
    """In whose step another thread does something, as it may at any moment."""

    meanwhile = staticmethod(lambda cell: None)

    def forward(self, x, state):
        in_a_thread(type(self).meanwhile, self)
        return super().forward(x, state)


def once(work):
    left = [work]
    return lambda cell: left.pop()(cell) if left else None


DISTURBING = {
    "draws": lambda: lambda cell: draw(),
    "seeds": lambda: lambda cell: ts.seed(1),
    "ends an evaluation": lambda: once(lambda cell: cell.train()),
    "begins an evaluation": lambda: once(lambda cell: cell.eval()),
    "names it": lambda: once(lambda cell: setattr(cell, "title", "mine")),
}


@pytest.mark.parametrize("name", DISTURBING)
def test_what_other_threads_do_refuses_no_layer(name, monkeypatch):
    cell = Disturbed(2, 3)
    if name == "ends an evaluation":
        cell.eval()
    layer, x = nn.Recurrent(cell, mode="compiled"), np.ones((4, 2, 2), np.float32)
    expected = nn.Recurrent(cell, mode="unroll")(x)[0].numpy()
    state = ts.random.get_state()
    monkeypatch.setattr(Disturbed, "meanwhile", staticmethod(DISTURBING[name]()))
    np.testing.assert_allclose(layer(x)[0].numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer(x)[0].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert ts.random.get_state() == state
    if "evaluation" in name:
        assert cell.training is (name == "ends an evaluation")


def test_a_step_that_draws_is_refused_all_the_same(monkeypatch):
    class Drawing(nn.RNNCell):
        def forward(self, x, state):
            return super().forward(x * float(ts.random.generator().random()), state)

    layer = nn.Recurrent(Drawing(2, 3), mode="compiled")
    for _ in range(2):
        with pytest.raises(CompileError, match=r"random numbers|changes from call to call"):
            layer(np.ones((4, 2, 2), np.float32))


def test_the_cell_is_whole_at_every_moment_of_its_compiling():
    """Another thread calls the layer, and its hooks, while it is compiled."""
    cells = [nn.LSTMCell(2, 3) for _ in range(20)]
    stop, failed, counted = threading.Event(), [], []

    def call():
        while not stop.is_set():
            for cell in cells:
                try:
                    cell(ts.tensor(np.ones((1, 2), np.float32)), cell.initial_state(1))
                    assert cell.w_x.hooks is not None
                except BaseException as error:
                    failed.append(error)
                    return

    interval = sys.getswitchinterval()
    for cell in cells:
        cell.w_x.register_hook(lambda g: counted.append(1))
    caller = threading.Thread(target=call, daemon=True)
    sys.setswitchinterval(1e-5)
    try:
        caller.start()
        for cell in cells:
            nn.Recurrent(cell, mode="compiled")(np.ones((3, 2, 2), np.float32))
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        caller.join(60)
    assert not failed
    assert not counted


@pytest.mark.parametrize("every", [1, 3])
def test_a_training_step_whose_number_of_threads_keeps_changing(every, monkeypatch):
    """Also between its two recordings, and in the middle of one: it is played back later."""
    monkeypatch.setattr(runtime, "_WORTH_SHARING", 0.0)
    layer, before = nn.LSTM(3, 4, mode="compiled"), ts.get_num_threads()
    changing, calls = [True], [0]

    def disturb():  # after the number was looked at
        calls[0] += 1
        if changing[0] and calls[0] % every == 0:
            ts.set_num_threads(1 + calls[0] % 4)

    disturb.__module__ = "numpy"  # not the step's own: nobody looks into it

    def loss(x):
        disturb()
        return (layer(x)[0] ** 2).mean()

    x = np.ones((4, 5, 3), np.float32)
    step = nn.TrainingStep(loss, optim.SGD(layer.parameters(), lr=0.0), mode="compiled")
    try:
        losses = [float(step(x)) for _ in range(40)]
        changing[0] = False
        for _ in range(3):
            losses.append(float(step(x)))
        done = calls[0]
        losses.append(float(step(x)))
    finally:
        ts.set_num_threads(before)
    assert calls[0] == done  # played back
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


# -- forked processes -----------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
has_threads = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def in_a_fork(work, *arguments):
    """What the work gives, done in a forked child."""
    context = multiprocessing.get_context("fork")
    found = context.Queue()

    def run():
        found.put(work(*arguments))

    child = context.Process(target=run, daemon=True)
    child.start()
    try:
        return found.get(timeout=60)
    finally:
        child.kill()
        child.join()


def trained(seed, steps=4):
    rng = np.random.default_rng(seed)
    layer = nn.LSTM(3, 8, rng=rng, mode="compiled")
    step = nn.TrainingStep(lambda x: (layer(x)[0] ** 2).mean(), optim.Adam(layer.parameters()))
    return [float(step(rng.standard_normal((5, 4, 3)).astype(np.float32))) for _ in range(steps)]


@needs_fork
@has_threads
def test_every_lock_is_free_in_a_child():
    """Whoever holds them in the parent."""
    expected = trained(1)
    layer = nn.Linear(2, 2)
    step = nn.TrainingStep(lambda x: layer(x).sum(), optim.SGD(layer.parameters(), lr=0.1))
    step(np.ones((1, 2), np.float32))
    step, copied = copy.deepcopy(step), step
    held, go = threading.Event(), threading.Event()

    def hold():
        with ExitStack() as stack:
            for owner, (name, _) in list(locks._held.items()):
                stack.enter_context(getattr(owner, name))
            held.set()
            go.wait(60)

    def work():
        with nn.evaluation(layer):
            pass
        ts.set_num_threads(2)
        x = np.ones((1, 2), np.float32)
        return trained(1), [float(s(x)) for s in (step, copied)]

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert held.wait(60)
    try:
        losses, _ = in_a_fork(work)
    finally:
        go.set()
        holder.join(60)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_every_lock_is_made_in_one_place():
    """So that the test above knows them all; those of a team die with its threads."""
    made = [
        f"{path.relative_to(LIBRARY)}: {line.strip()}"
        for path in LIBRARY.rglob("*.py")
        if path.name != "locks.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"threading\.(Lock|RLock|Condition|Semaphore)\(", line)
    ]
    assert [line.split(":")[0] for line in made] == ["kernels/threads.py"], made
    assert "Semaphore" in made[0]


@needs_fork
@has_threads
def test_a_child_forked_inside_a_lock_leaves_it():
    class Owner:
        pass

    owner = Owner()
    owner.lock = locks.new_lock(owner, "lock")

    def work():
        with owner.lock:
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(0 if owner.lock.acquire(blocking=False) else 1)

    assert work() == 0


@needs_fork
@has_threads
def test_children_of_a_program_that_compiles_and_draws():
    """Each child does what the parent does, whatever the other threads are in the middle of."""
    expected, stop = trained(7), threading.Event()

    def keep_working(n):
        while not stop.is_set():
            n += 1
            nn.Recurrent(nn.RNNCell(1 + n % 5, 2), mode="compiled")(
                np.ones((2, 1, 1 + n % 5), np.float32)
            )
            nn.Dropout(0.5)(ts.tensor(np.ones(1 << 20, np.float32)))

    workers = [threading.Thread(target=keep_working, args=(n,), daemon=True) for n in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(5):
            time.sleep(0.05)
            np.testing.assert_allclose(in_a_fork(trained, 7), expected, rtol=1e-5)
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)


@needs_fork
@has_threads
def test_workers_draw_the_same_numbers_unless_each_has_a_stream():
    def both():
        return draw(), in_a_thread(draw)

    ts.seed(2)
    assert in_a_fork(both) == in_a_fork(both)
    rngs = ts.random.spawn(3)

    def worker(i):
        ts.seed(rngs[i])
        return both()

    drawn = [numbers for i in range(3) for numbers in in_a_fork(worker, i)]
    assert len({tuple(numbers) for numbers in [*drawn, draw()]}) == 7
    assert in_a_fork(worker, 1) == (drawn[2], drawn[3])


# -- all at once ----------------------------------------------------------------------------------

#: Seconds; ``TINYSEQ_STRESS=60 pytest tests/test_threads.py`` for the patient.
STRESS = float(os.environ.get("TINYSEQ_STRESS", "4"))


def life(seed):
    """What a program does with a model: train, evaluate, go on, write; in numbers and text."""
    rng = np.random.default_rng(seed)
    ts.seed(seed)
    model = text.LanguageModel(6, 8 + seed % 3, cell="gru", dropout=0.2, mode="compiled")
    vocabulary = text.Vocabulary(list("abcdef"))
    x = rng.integers(0, 6, (2, 7, 40))

    def loss(inputs, targets):
        return functional.cross_entropy(model(inputs)[0], targets)

    step, losses = nn.TrainingStep(loss, optim.Adam(model.parameters(), lr=0.01)), []
    for _ in range(4):
        losses.append(float(step(*x)))
        with nn.evaluation(model):
            losses.append(float(loss(*x)))
    written = text.generate_batch(model, vocabulary, ["ab"] * 3, 5, rng=rng)
    return losses, draw(), written


@needs_fork
@has_threads
def test_the_numbers_of_a_life_among_others_are_those_of_one_alone(monkeypatch):
    """Threads that train, evaluate, write, draw, compile, change the number of threads, and fork,
    all at once. Losses may differ by rounding: other numbers of threads add in another order.
    """
    monkeypatch.setattr(runtime, "_WORTH_SHARING", 0.0)  # all of them want the helpers
    alone = [life(seed) for seed in range(3)]
    before, until, failed = ts.get_num_threads(), time.monotonic() + STRESS, []

    def check(found, expected):
        np.testing.assert_allclose(found[0], expected[0], rtol=2e-4)
        assert found[1:] == expected[1:]

    def repeat(work):
        def run():
            try:
                while time.monotonic() < until and not failed:
                    work()
            except BaseException as error:
                failed.append(error)

        return threading.Thread(target=run, daemon=True)

    def change():
        ts.set_num_threads(1 + time.monotonic_ns() % 4)
        time.sleep(1e-3)

    def fork():
        check(in_a_fork(life, 0), alone[0])
        time.sleep(0.2)

    work = [lambda seed=seed: check(life(seed), alone[seed]) for seed in range(3)]
    workers = [repeat(w) for w in [*work, change, fork]]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(STRESS + 120)
            assert not worker.is_alive(), "it hangs"
    finally:
        ts.set_num_threads(before)
    if failed:
        raise failed[0]
