"""The team: a call returns when all parts are done, whatever was called before, and by whom."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyseq.kernels import activations, gemm, losses, threads
from tinyseq.kernels.threads import begin, end, get_num_threads, parallel, set_num_threads, shared


@pytest.fixture(params=[2, 3])
def team(request):
    before = get_num_threads()
    set_num_threads(request.param)
    yield request.param
    set_num_threads(before)


def test_a_helper_that_comes_late_from_a_shared_task(team):
    """The next call waits for its own parts, not for the end of the last one's."""

    def late(part, counts):
        begin(counts, part)
        done[part] = True
        end(counts, part)
        if part:
            time.sleep(0.02)  # as if its core was given to another process

    def slow(part):
        time.sleep(0.005 * part)
        done[part] = True

    for _ in range(5):
        for call, task in ((shared, late), (parallel, slow), (parallel, slow)):
            done = [False] * team
            call(task, team)
            assert all(done), call.__name__


def test_calls_of_both_kinds_from_several_threads(team):
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(500):
            parts = int(rng.integers(1, 2 * team))
            done = np.zeros(parts, int)

            def put(part, done=done):
                done[part] += 1

            def put_shared(part, counts, done=done):
                begin(counts, part)
                done[part] += 1
                end(counts, part)

            if rng.random() < 0.5:
                parallel(put, parts)
            else:
                shared(put_shared, parts)
            wrong.extend(done[done != 1])

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_a_part_is_raised_when_all_have_ended(failing, team):
    def task(part, counts=None):
        if counts is not None:
            begin(counts, part)
        if part == failing:
            raise KeyError("my own")
        time.sleep(0.01)
        done.append(part)
        if counts is not None:
            end(counts, part)

    for call in (parallel, shared, parallel):
        done = []
        with pytest.raises(KeyError, match="my own"):
            call(task, team)
        others = [part for part in range(team) if part != failing]
        assert sorted(done) == others or threads._PLAIN, call.__name__


@given(st.integers(0, 50), st.integers(1, 9))
def test_cuts_are_even_and_leave_nothing_out(n, parts):
    made = threads.cuts(n, parts)
    assert [i for cut in made for i in range(cut.start, cut.stop)] == list(range(n))
    sizes = [cut.stop - cut.start for cut in made]
    assert len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(0, 40), st.integers(1, 3), st.booleans())
def test_kernels_over_arrays_in_slices_or_not(n, rows, shared):
    """Every element once, with the options; in one piece below ``many`` elements."""
    x, out, pieces = np.arange(n * rows).reshape(n, rows), np.zeros((n, rows), int), []

    def kernel(x, out, factor, more):
        pieces.append(x.size)
        out += factor * x + more

    before = get_num_threads()
    set_num_threads(3)
    try:
        threads.over(kernel, (x, out), x.size + (0 if shared else 1), (2, 5))
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(out, 2 * x + 5)
    assert len(pieces) == (3 if shared else 1)


def test_two_threads_that_are_the_first_make_one_team(monkeypatch):
    """Both ask for the helpers before there are any: the one gets them, the other works alone."""
    made, makes = [], threads._Team

    class Slow(makes):
        def __init__(self, helpers):
            time.sleep(0.1)  # the other thread comes while it is being made
            made.append(helpers)
            super().__init__(helpers)

    before, start = get_num_threads(), threading.Barrier(2)
    set_num_threads(before + 1)  # the old team, if any, is gone
    monkeypatch.setattr(threads, "_Team", Slow)
    done = np.zeros((2, 40), int)

    def work(i):
        def put(part):
            done[i, part] += 1
            time.sleep(0.001)

        start.wait()
        parallel(put, 40)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    try:
        assert (done == 1).all()
        assert made == ([] if threads._PLAIN else [before])
        assert threads._PLAIN or not threads._team.busy
    finally:
        set_num_threads(before)


def test_the_team_is_used_by_one_call_at_a_time(team):
    """A call beside it has its own thread alone, and the team is free when its call has ended."""
    of, inside, go = {"inner": set(), "outer": set()}, threading.Event(), threading.Event()

    def outer(part):
        of["outer"].add(threading.get_ident())
        inside.set()
        go.wait(20)

    def inner(part):
        of["inner"].add(threading.get_ident())
        time.sleep(0.001)

    busy = threading.Thread(target=parallel, args=(outer, team))
    busy.start()
    inside.wait(20)
    parallel(inner, 20)
    assert of["inner"] == {threading.get_ident()}
    go.set()
    busy.join()
    if not threads._PLAIN:
        assert len(of["outer"]) == team
        of["inner"].clear()
        parallel(inner, 20 * team)
        assert len(of["inner"]) == team


# -- the number of threads changes, at any moment -------------------------------------------------


@pytest.mark.parametrize("now", [1, 2, 5])
@pytest.mark.parametrize("parts", [2, 3, 4, 7])
def test_all_parts_are_done_whatever_team_is_got(now, parts, monkeypatch):
    """The number changes between the call, which cut its work into parts, and its team."""
    taken, before = threads._taken, get_num_threads()

    def changed():
        set_num_threads(now)
        return taken()

    def put(part, counts=None):
        if counts is not None:
            begin(counts, part)
        done[part] += 1
        if counts is not None:
            end(counts, part)

    try:
        for call in (shared, parallel):
            set_num_threads(4)
            done = np.zeros(parts, int)
            with monkeypatch.context() as patch:
                patch.setattr(threads, "_taken", changed)
                call(put, parts)
            assert (done == 1).all(), call.__name__
    finally:
        set_num_threads(before)


def within(seconds, work):
    """Fail, and do not hang, when the work takes longer."""
    failed = []

    def run():
        try:
            work()
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    worker.join(seconds)
    assert not worker.is_alive(), "it hangs"
    if failed:
        raise failed[0]


def test_the_number_changes_while_a_part_has_parts_of_its_own(team):
    inner, changing = np.zeros(4, int), []

    def nested(part):
        inner[part] += 1

    def task(part):
        if part == 0:
            changing.append(threading.Thread(target=set_num_threads, args=(team + 1,), daemon=True))
            changing[0].start()
            time.sleep(0.1)  # the other thread now waits for the team, where it waits at all
            parallel(nested, 4)

    within(20, lambda: parallel(task, 2))
    changing[0].join(20)
    assert (inner == 1).all()
    assert get_num_threads() == team + 1


def test_a_part_changes_the_number(team):
    within(20, lambda: parallel(lambda part: set_num_threads(team + 1 + part), 2))
    done = []
    within(20, lambda: parallel(done.append, 5))
    assert sorted(done) == list(range(5))


@pytest.mark.skipif(threads._PLAIN, reason="there is no team")
def test_the_helpers_of_a_team_that_was_replaced_are_gone(team):
    """Also of one that was at work when the number changed."""

    def alive():
        return sum(thread.name == "tinyseq" for thread in threading.enumerate())

    parallel(lambda part: set_num_threads(team + 1), 2)
    parallel(lambda part: None, 2)  # with the new team
    until = time.monotonic() + 60
    while alive() > team and time.monotonic() < until:
        time.sleep(0.01)
    assert alive() == team


def test_a_number_that_was_set_is_not_set_back_by_who_asks_first(monkeypatch):
    """The default is looked up, and another thread sets a number meanwhile."""
    before, setting = get_num_threads(), []

    def cores():
        setting.append(threading.Thread(target=set_num_threads, args=(7,), daemon=True))
        setting[0].start()
        setting[0].join(0.1)
        return 3

    monkeypatch.delenv("TINYSEQ_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(cores()), raising=False)
    monkeypatch.setattr(threads, "_threads", 0)
    try:
        get_num_threads()
        setting[0].join(20)
        assert get_num_threads() == 7
    finally:
        monkeypatch.undo()
        set_num_threads(before)


def test_kernels_beside_a_thread_that_keeps_changing_the_number():
    """Every row of every result is computed, with the bits of one of the numbers alone."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((300, 300)).astype(np.float32) for _ in range(2))
    logits = rng.standard_normal((2000, 50)).astype(np.float32)
    classes = rng.integers(0, 50, 2000)
    big = rng.standard_normal(1 << 20).astype(np.float32)

    def results():
        out = [np.full_like(big, np.nan), np.full_like(big, np.nan)]
        activations.apply_tanh(big, out[0])
        gemm.add_shared(big, big, out[1])
        packed = np.full(gemm.panels_shape(300, 300, a.dtype), np.nan, a.dtype)
        gemm.pack_shared(a, packed)
        total = gemm.product(big.reshape(-1, 64).T, big.reshape(-1, 64))  # a sum over the rows
        return [*out, packed, gemm.product(a, b), total, losses.softmax_loss(logits, classes)]

    before, stop, seen = get_num_threads(), threading.Event(), []
    try:
        for n in (1, 2, 3, 4):
            set_num_threads(n)
            seen.append([r.tobytes() for r in results()])

        def change():
            n = 0
            while not stop.is_set():
                n += 1
                set_num_threads(1 + n % 4)
                time.sleep(1e-4 * (n % 3))

        changing = threading.Thread(target=change, daemon=True)
        changing.start()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for i, r in enumerate(results()):
                assert any(r.tobytes() == known[i] for known in seen), f"result {i}"
    finally:
        stop.set()
        changing.join(20)
        set_num_threads(before)
