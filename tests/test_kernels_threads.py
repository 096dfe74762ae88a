"""The team: a call returns when all parts are done, whatever was called before, and by whom."""

import threading
import time

import numpy as np
import pytest

from tinyseq.kernels import threads
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
