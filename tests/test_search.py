"""The search: trials that many processes share, any of which may die, and what it leaves."""

import contextlib
import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from any_machine import PATIENCE

import tinyseq as ts

optuna = pytest.importorskip("optuna", reason="needs optuna: pip install 'tinyseq[search]'")

import search  # noqa: E402
import trials  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

LINES = "ROMEO:\nBut, soft! what light through yonder window breaks?\n\nJULIET:\nAy me!\n\n"
SMALL = "--hidden 4 --layers 1 --seq-len 4 --batch-size 4 --mode unroll".split()  # noqa: SIM905
SPACE = {"lr": search.SPACE["lr"], "cell": search.SPACE["cell"]}
posix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture
def lines(tmp_path) -> str:
    path = tmp_path / "lines.txt"
    path.write_text(LINES * 30)
    return str(path)


@contextlib.contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, search.__file__, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def study(out: Path) -> trials.Trials:
    return trials.Trials(out, SPACE, most=0)


def wait_for_running(out: Path) -> tuple[int, int]:
    """The number of a trial that runs, and the process that runs it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if (out / "journal.log").exists():
            for trial in study(out).all(TrialState.RUNNING):
                if "parameters" in trial.user_attrs:
                    return trial.number, int(trial.user_attrs["worker"].rpartition(":")[2])
        time.sleep(0.02)
    raise AssertionError("no trial was started")


# -- the command ----------------------------------------------------------------------------------


@posix
def test_a_search_survives_the_death_of_a_worker(lines, tmp_path, capfd):
    out = tmp_path / "search"
    arguments = ["--text", lines, *SMALL, "--validations", "2", "--steps", "8", "--out", str(out)]
    with started(*arguments, "--trials", 20, "--workers", 2, "--grace", 5) as process:
        while True:
            lost, worker = wait_for_running(out)
            os.kill(worker, signal.SIGSTOP)  # is it still in that trial, and holds no lock?
            of_it = study(out).study.trials[lost]
            if of_it.state == TrialState.RUNNING and not list(out.glob("*.lock")):
                os.kill(worker, signal.SIGKILL)
                break
            os.kill(worker, signal.SIGCONT)
        printed, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")

    every = study(out)
    assert len(every.all(TrialState.COMPLETE, TrialState.PRUNED)) == len(every.all()) == 20
    (again,) = (t for t in every.all() if t.user_attrs.get("repeats") == lost)
    of_it = every.study.trials[lost]
    assert of_it.state == TrialState.FAIL
    assert (again.params, again.user_attrs["seed"]) == (of_it.params, of_it.user_attrs["seed"])
    assert sorted(trial.user_attrs["seed"] for trial in every.all()) == list(range(20))

    table = (out / "search.md").read_text()
    assert table in printed
    best = every.study.best_trial
    first = table.splitlines()[2].split(" | ")
    assert first[:2] == [f"| {best.number}", best.params["cell"]]
    assert f"{best.value:.4f}" in first
    for name in ("history", "importances", "slices", "timeline", "validations"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    # The last line trains the best one again.
    python, program, *words = shlex.split(printed.splitlines()[-1])
    assert (python, Path(program).name) == ("python", "shakespeare.py")
    assert search.shakespeare.main([*words, "--quiet"]) == 0
    numbers = json.loads((out / "best" / "numbers.json").read_text())
    found = numbers["validation"]["best_nats"]  # on another number of threads sums round otherwise
    assert found == pytest.approx(best.value, rel=1e-5)

    # The same command with more trials resumes it, whatever was left half written.
    with open(out / "journal.log", "a") as file:
        file.write('{"op_code": 4, "wor')
    capfd.readouterr()
    assert search.main([*arguments, "--trials", "21", "--workers", "1"]) == 0
    assert len(study(out).all(TrialState.COMPLETE, TrialState.PRUNED)) == 21
    assert capfd.readouterr().out.count("\ntrial ") == 1
    assert search.main([*arguments, "--trials", "22", "--steps", "9"]) == 1
    assert "has another --steps: 8, not 9. Give the same" in capfd.readouterr().err


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_search_that_is_stopped_puts_its_trials_back(lines, tmp_path, number):
    out = tmp_path / "search"
    arguments = ["--text", lines, *SMALL, "--steps", 10**6, "--workers", 1, "--out", out]
    with started(*arguments) as process:
        first, _ = wait_for_running(out)
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)  # its worker's end, too, closes stderr
    (back,) = study(out).all()
    assert (back.state, back.user_attrs["repeats"]) == (TrialState.WAITING, first)
    assert back.user_attrs["deaths"] == 0
    assert errors.startswith("stopped; its trial is put back\n")
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert errors.endswith("interrupted; the same command resumes the search\n")


def test_a_search_of_which_all_trials_fail(lines, tmp_path, monkeypatch, capsys):
    def run_here(workers, work, plan):
        work(plan, lambda: False)

    monkeypatch.setattr(search, "run_workers", run_here)
    monkeypatch.setattr(ts, "set_num_threads", lambda n: None)
    monkeypatch.setitem(search.SPACE, "lr", optuna.distributions.FloatDistribution(1e30, 1e38))
    given = ["--cell", "rnn", "--text", lines, *SMALL, "--steps", "20", "--trials", "2"]
    assert search.main([*given, "--out", str(tmp_path / "s")]) == 1
    printed = capsys.readouterr()
    assert printed.err == "error: no trial was completed\n"
    table = (tmp_path / "s" / "search.md").read_text()
    assert table.startswith(
        "| trial | lr | dropout | parameters |"
    )  # what is given is not searched
    assert "\n2 fail. " in table
    assert "- trial 1 failed: ValueError: the training has diverged" in table
    assert list((tmp_path / "s" / "trials").iterdir()) == []


def test_the_text_is_read_before_anything_is_started(tmp_path, capsys):
    assert search.main(["--text", str(tmp_path / "none"), "--out", str(tmp_path / "s")]) == 2
    assert "cannot read the text" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_optuna_is_named_with_its_extra(tmp_path):
    (tmp_path / "optuna.py").write_text("raise ModuleNotFoundError('No', name='optuna')")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    result = subprocess.run(
        [sys.executable, search.__file__],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == "error: optuna is not installed: pip install 'tinyseq[search]'\n"


# -- trials that are shared -----------------------------------------------------------------------


def never() -> bool:
    return False


def test_there_are_never_more_trials_than_asked_for(tmp_path):
    sharing = [trials.Trials(tmp_path, SPACE, most=5) for _ in range(3)]
    found = [one.next() for one in itertools.islice(itertools.cycle(sharing), 9)]
    assert [trial and trial.number for trial in found] == [0, 1, 2, 3, 4, None, None, None, None]
    assert not sharing[0].finished()


def test_the_first_trials_do_not_depend_on_the_number_of_workers(tmp_path):
    found = []
    for workers in (1, 3):
        (tmp_path / str(workers)).mkdir()
        sharing = [trials.Trials(tmp_path / str(workers), SPACE, most=9) for _ in range(workers)]
        for one in itertools.islice(itertools.cycle(sharing), 9):
            trial = one.next()
            assert trial is not None
            one.run(trial, lambda trial, out: len(found) + 1.0)
        found.append([(t.params, t.user_attrs["seed"]) for t in sharing[0].all()])
    assert found[0] == found[1]
    assert len({params["lr"] for params, _ in found[0]}) == 9


def test_what_fails_says_why_and_the_search_goes_on(tmp_path, capsys):
    def objective(trial, out):
        assert out.is_dir()
        if trial.number == 0:
            raise MemoryError("3 GB")
        if trial.number == 1:
            trial.report(2.5, 1)
            raise optuna.TrialPruned
        (out / "kept").touch()
        return 2.0

    one = trials.Trials(tmp_path, SPACE, most=3)
    one.work(objective, never)
    ends = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert ends == ["3 GB", "pruned at 2.5000", "2.0000"]
    states = [trial.state for trial in one.all()]
    assert states == [TrialState.FAIL, TrialState.PRUNED, TrialState.COMPLETE]
    assert trials.outcome(one.all()[0]) == "MemoryError: 3 GB"
    assert [path.name for path in (tmp_path / "trials").iterdir()] == ["0002"]  # no empty ones


def test_a_trial_that_kills_its_workers_is_given_up(tmp_path):
    one = trials.Trials(tmp_path, SPACE, most=1)
    for deaths in range(trials.DEATHS):
        trial = one.next()
        assert trial is not None
        assert (trial.number, trial.user_attrs.get("deaths", 0)) == (deaths, deaths)
        os.utime(one.folder(trial), (0, 0))  # and nothing more is heard of it
    assert one.next() is None
    (end,) = one.all()
    assert (end.state, trials.outcome(end)) == (TrialState.FAIL, trials.SILENT)


def test_a_worker_that_was_only_silent_loses_its_trial(tmp_path):
    slow, other = (trials.Trials(tmp_path, SPACE, most=1) for _ in range(2))
    trial = slow.next()
    assert trial is not None

    def objective(trial, out):
        os.utime(out, (0, 0))
        again = other.next()
        assert again is not None
        other.run(again, lambda trial, out: 1.0)
        trial.report(5.0, 1)
        return 5.0

    assert trials.outcome(slow.run(trial, objective)) == trials.SILENT
    (end,) = slow.all()
    assert (end.value, end.params, end.user_attrs["seed"]) == (1.0, trial.params, 0)


def test_a_worker_shows_that_it_is_alive(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "BEAT", 0.001)
    os.utime(tmp_path, (0, 0))
    with trials.alive(tmp_path):
        while tmp_path.stat().st_mtime == 0:
            time.sleep(0.001)
