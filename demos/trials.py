"""An Optuna study in a folder: processes on any machine that has the folder run its trials.

    def work(out, stopped):
        Trials(out, space, most=20).work(train, stopped)  # train(trial, folder) -> float

    run_workers(2, work, out)  # to the end of all trials

The journal file is the storage. Any process may be killed: its trial is repeated by another, which
finds it by the time of its folder, changed every second as long as its worker lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from console import exit_code, say

try:
    import optuna
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: pip install 'tinyseq[search]'")

from optuna.distributions import BaseDistribution
from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
from optuna.storages import JournalStorage, journal
from optuna.trial import FrozenTrial, TrialState

BEAT = 1.0  # seconds between two signs of life
DEATHS = 3  # of workers, until their trial is taken for the cause
SILENT = "its worker died, or was silent for too long"


class Lock(journal.JournalFileOpenLock):  # type: ignore[misc, unused-ignore]  # without optuna
    """The lock of a journal. A line that a full disk or a dead machine cut short is removed before
    the next one is written: both together could not be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def acquire(self) -> bool:
        super().acquire()
        with open(self.path, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            while end and file.seek(end - 1) >= 0 and file.read(1) != b"\n":
                end -= 1
            file.truncate(end)
        return True


class Trials:
    """The trials in a folder, at most so many, as one of the processes that share it sees them.

    ``grace``: seconds of silence after which a worker is taken for dead.
    """

    def __init__(
        self,
        out: Path,
        space: Mapping[str, BaseDistribution],
        most: int,
        seed: int = 0,
        grace: int = 60,
    ) -> None:
        self.out, self.space, self.most, self.seed, self.grace = out, space, most, seed, grace
        path = out / "journal.log"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(
            storage=JournalStorage(journal.JournalFileBackend(str(path), Lock(path))),
            study_name="search",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        )

    def check_same(self, settings: dict[str, Any]) -> None:
        """Whoever joins has the same settings, or results do not compare."""
        with self.turn():
            known = self.study.user_attrs.get("settings")
            if known is None:
                self.study.set_user_attr("settings", known := settings)
        for name in {**known, **settings}:
            if known.get(name) != settings.get(name):
                raise ValueError(
                    f"the search in {self.out} has another --{name.replace('_', '-')}: "
                    f"{known.get(name)}, not {settings.get(name)}. Give the same to join or resume "
                    "it, or choose another --out"
                )

    def all(self, *states: TrialState) -> list[FrozenTrial]:
        """Those in these states, if any are given; never those that another trial repeats."""
        trials = self.study.get_trials(deepcopy=False)
        repeated = {trial.user_attrs.get("repeats") for trial in trials}
        return [
            trial
            for trial in trials
            if trial.number not in repeated and (not states or trial.state in states)
        ]

    def finished(self) -> bool:
        return not self.all(TrialState.RUNNING, TrialState.WAITING)

    def folder(self, trial: optuna.Trial | FrozenTrial) -> Path:
        return self.out / "trials" / f"{trial.number:04d}"

    # -- a worker ---------------------------------------------------------------------------------

    def work(
        self, objective: Callable[[optuna.Trial, Path], float], stopped: Callable[[], bool]
    ) -> None:
        """Run one trial after the other, until all are finished, by whomever, or it is stopped."""
        while not stopped():
            if trial := self.next():
                params = ", ".join(f"{name} {short(at)}" for name, at in trial.params.items())
                say(f"trial {trial.number}: {params}: {outcome(self.run(trial, objective))}")
            elif self.finished():
                return
            else:  # another worker has the last ones, and may die
                time.sleep(BEAT)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One process at a time decides what is run next."""
        lock = journal.JournalFileOpenLock(str(self.out / "turn"))
        lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def next(self) -> optuna.Trial | None:
        """A trial to run, with a seed of its own; None if all have been started."""
        with self.turn():
            self.repeat_lost()
            started = len(self.all())
            if started >= self.most and not self.all(TrialState.WAITING):
                return None
            seed = self.seed + started
            self.study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32)
            trial = self.study.ask(dict(self.space))
            trial.set_user_attr("seed", trial.user_attrs.get("seed", seed))
            trial.set_user_attr("worker", f"{platform.node()}:{os.getpid()}")
            self.folder(trial).mkdir(parents=True, exist_ok=True)
            os.utime(self.folder(trial))
            return trial

    def repeat_lost(self) -> None:
        """Put back the trials whose workers have been silent for too long."""
        with tempfile.TemporaryFile(dir=self.out) as file:
            now = os.fstat(file.fileno()).st_mtime  # by the folder's clock, the same for all
        for trial in self.all(TrialState.RUNNING):
            folder = self.folder(trial)
            if not folder.exists() or now - folder.stat().st_mtime > self.grace:
                say(f"trial {trial.number}: {SILENT}")
                self.put_back(trial, deaths=1)

    def put_back(self, trial: optuna.Trial | FrozenTrial, deaths: int = 0) -> None:
        """End a trial without a result; the next free worker repeats it."""
        deaths += trial.user_attrs.get("deaths", 0)
        if deaths < DEATHS:
            about = {**trial.user_attrs, "deaths": deaths, "repeats": trial.number}
            self.study.enqueue_trial(trial.params, about)
        self.tell(trial, None, TrialState.FAIL)

    def tell(
        self, trial: optuna.Trial | FrozenTrial, value: float | None, state: TrialState
    ) -> FrozenTrial:
        told = self.study.tell(trial.number, value, state, skip_if_finished=True)
        with contextlib.suppress(OSError):
            self.folder(trial).rmdir()  # if it is empty
        return told

    def run(
        self, trial: optuna.Trial, objective: Callable[[optuna.Trial, Path], float]
    ) -> FrozenTrial:
        """One trial. What goes wrong in it is its outcome; Ctrl-C puts it back."""
        try:
            with alive(self.folder(trial)):
                value = objective(trial, self.folder(trial))
            return self.tell(trial, value, TrialState.COMPLETE)
        except KeyboardInterrupt:
            with self.turn():
                self.put_back(trial)
            raise
        except TrialPruned:
            return self.tell(trial, None, TrialState.PRUNED)
        except Exception as error:
            # It was silent for too long, and another worker has it, if it is finished.
            with contextlib.suppress(UpdateFinishedTrialError):
                trial.set_user_attr("reason", f"{type(error).__name__}: {error}")
            return self.tell(trial, None, TrialState.FAIL)


@contextlib.contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Change the time of a folder as long as this process lives and is inside."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(folder)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def outcome(trial: FrozenTrial) -> str:
    if trial.value is not None:
        return f"{'pruned at ' * (trial.state == TrialState.PRUNED)}{trial.value:.4f}"
    return str(trial.user_attrs.get("reason", SILENT))


# -- processes on this machine --------------------------------------------------------------------


def run_workers(workers: int, work: Callable[..., None], *args: Any) -> None:
    """Call ``work(*args, stopped)`` in so many processes, and wait for their end.

    Ctrl-C asks them to stop, as ``stopped()`` says, and so does the death of this process.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.RawValue(ctypes.c_bool, False)  # no lock: a worker may die while it holds one
    processes = [
        context.Process(target=run_worker, args=(stop, work, *args)) for _ in range(workers)
    ]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the workers, too, leave it to this one
    for process in processes:
        process.start()
    signal.signal(signal.SIGINT, before)
    try:
        for process in processes:
            process.join()
    finally:
        stop.value = True
        for process in processes:
            process.join()


def run_worker(stop: ctypes.c_bool, work: Callable[..., None], *args: Any) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def stopped() -> bool:
        return stop.value or not parent.is_alive()

    def program() -> int:
        work(*args, stopped)
        return 0

    sys.exit(exit_code(program, interrupted="stopped; its trial is put back"))
