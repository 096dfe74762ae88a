"""Search for the best character model: many short runs of demos/shakespeare.py, led by Optuna.

    python demos/search.py                              # 20 trials, as many at once as cores
    python demos/search.py --cell gru --trials 100 --out runs/gru-search
    python demos/search.py --text tiny --minutes 10 --out runs/tiny-search

Cell, units, layers, learning rate and dropout are searched, except those that are given. A trial is
a run on one thread. It is pruned when a validation is worse than the median of the other trials'
at that point. Limit trials by --steps: with --minutes, fast machines train more.

The same command joins a search that runs, or resumes one, on any machine with the same --out. When
a worker dies, only its trial is lost, and repeated by another. Every trial has its own seeds; what
is tried later depends on what is known by then, and so on the number of workers.

In --out are search.md with the best trials, Optuna's pictures and journal, and the loss.png of each
trial. No model is kept: the command that trains the best one is printed at the end.
Exit codes: 0 done, 1 an error, 2 wrong arguments, 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

import argparse
import collections
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import common  # before NumPy, whose threads it sets
import matplotlib
import numpy as np
import options
import shakespeare
from console import exit_code, say
from options import positive, whole
from reading import read_text
from results import command_line
from runs import Limit
from trials import Trials, outcome, run_workers, short

import tinyseq as ts
from tinyseq import saving

# isort: split
import optuna  # `trials` says what to do where it is missing
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

SPACE: dict[str, CategoricalDistribution | IntDistribution | FloatDistribution] = {
    "cell": CategoricalDistribution(tuple(shakespeare.CELLS)),
    "hidden": IntDistribution(64, 512, step=64),  # few sizes: each is compiled once
    "layers": IntDistribution(1, 3),
    "lr": FloatDistribution(3e-4, 3e-2, log=True),
    "dropout": FloatDistribution(0.0, 0.5, step=0.05),
}
STEPS = 2000  # of a trial
SHOWN = 10  # trials in the table
DEFAULT_OUT = Path("runs/search")


@dataclass(frozen=True)
class Plan:
    """What is searched, as the command line says it."""

    given: dict[str, Any]  # of shakespeare.Settings: not searched
    limit: Limit  # of a trial
    most: int
    grace: int
    out: Path

    def trials(self) -> Trials:
        space = {name: SPACE[name] for name in SPACE if name not in self.given}
        return Trials(self.out, space, self.most, self.given.get("seed", 0), self.grace)

    def settings(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> shakespeare.Settings:
        seed = {"seed": trial.user_attrs["seed"]}
        return shakespeare.Settings(**{**self.given, **trial.params, **seed})


class Run(shakespeare.Run):
    """A run that is a trial: it reports what it validates, may be pruned there, and is not kept."""

    def __init__(
        self, plan: Plan, trial: optuna.Trial, out: Path, stopped: Callable[[], bool]
    ) -> None:
        super().__init__(plan.settings(trial), plan.limit, out)
        self.trial, self.stopped = trial, stopped

    def train_step(self, lr: float) -> float:
        if self.stopped():
            raise KeyboardInterrupt
        return super().train_step(lr)

    def validate(self) -> float:
        nats = super().validate()
        if self.progress.step:
            self.trial.report(nats, len(self.progress.validations) - 1)
            if self.limit.share(self.progress) < 1 and self.trial.should_prune():
                raise optuna.TrialPruned
        return nats

    def save(self, name: str) -> None:
        pass


def work(plan: Plan, stopped: Callable[[], bool]) -> None:
    """A worker process: trials, on one thread."""

    def objective(trial: optuna.Trial, out: Path) -> float:
        run = Run(plan, trial, out, stopped)
        trial.set_user_attr("parameters", run.parameters)
        if not shakespeare.train(run, quiet=True):
            raise KeyboardInterrupt
        assert run.progress.best is not None
        return run.progress.best

    ts.set_num_threads(1)
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges says so itself
        plan.trials().work(objective, stopped)


# -- what came out --------------------------------------------------------------------------------


def markdown(trials: Trials) -> str:
    """The best trials, how many of each kind there are, and why some failed."""
    heads = ["trial", *trials.space, "parameters", "nats per character", "bits", "minutes"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --: |' * len(heads)}"]
    for trial in sorted(trials.all(TrialState.COMPLETE), key=lambda t: t.value or 0.0)[:SHOWN]:
        assert trial.value is not None
        assert trial.duration is not None
        cells = [str(trial.number), *(short(trial.params[name]) for name in trials.space)]
        cells += [f"{trial.user_attrs['parameters']:,d}", f"{trial.value:.4f}"]
        cells += [f"{trial.value / math.log(2):.4f}", f"{trial.duration.total_seconds() / 60:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    kinds = collections.Counter(trial.state.name.lower() for trial in trials.all())
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    lines += ["", f"{counts}. Nats: the least of all validations of the trial.", ""]
    failed = trials.all(TrialState.FAIL)
    return "\n".join(lines + [f"- trial {t.number} failed: {outcome(t)}" for t in failed])


def draw(trials: Trials) -> None:
    """Optuna's own pictures."""
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as pictures

    plots: dict[str, Callable[..., Any]] = {
        "history": pictures.plot_optimization_history,
        "validations": pictures.plot_intermediate_values,
        "timeline": pictures.plot_timeline,
    }
    if trials.space:
        plots["slices"] = pictures.plot_slice
        if len(trials.all(TrialState.COMPLETE)) > 1:
            plots["importances"] = pictures.plot_param_importances
    for name, plot in plots.items():
        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            figure = np.ravel(plot(trials.study))[0].figure
            figure.set_layout_engine("constrained")  # or labels are cut off
        common.write_figure(trials.out / f"{name}.png", figure)
        pyplot.close(figure)


def best_command(plan: Plan, trials: Trials) -> str:
    """What trains the best trial again, and keeps it."""
    usual = asdict(shakespeare.Settings())
    found = asdict(plan.settings(trials.study.best_trial))
    given = {name: value for name, value in found.items() if value != usual[name]}
    given |= {name: value for name, value in asdict(plan.limit).items() if value is not None}
    words = {name.replace("_", "-"): str(value) for name, value in given.items()}
    return command_line(**words, out=plan.out / "best")


# -- the command line -----------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    result = options.parser("search.py", __doc__)
    add = result.add_argument
    for setting in fields(shakespeare.Settings):
        how = dict(setting.metadata)
        if space := SPACE.get(setting.name):
            if isinstance(space, CategoricalDistribution):
                among = ", ".join(map(str, space.choices))
            else:
                among = f"{space.low} … {space.high}"
            how["help"] = f"{how['help'].rpartition(' [')[0]} [searched: {among}]"
        add(f"--{setting.name.replace('_', '-')}", **how)
    add("--steps", type=whole(1), help=f"end a trial after so many [{STEPS}, unless --minutes]")
    add("--minutes", type=positive, help="end a trial after so much time")
    add("--trials", type=whole(1), default=20, help="of all workers together [%(default)s]")
    add("--workers", type=whole(1), help="trials at once on this machine [one a core]")
    silence = "seconds of silence after which a worker counts as dead [%(default)s]"
    add("--grace", type=whole(5), default=60, help=silence)
    add("--out", type=Path, default=DEFAULT_OUT, help="the search's folder [%(default)s]")
    return result


def search(args: argparse.Namespace) -> int:
    given = options.given(args, shakespeare.Settings)
    limit = Limit(**options.given(args, Limit) or {"steps": STEPS})
    source = read_text(shakespeare.Settings(**given).text)
    plan = Plan(given, limit, args.trials, args.grace, args.out)
    with common.folder(plan.out):
        trials = plan.trials()
        trials.check_same({**given, **asdict(limit), "text": source.sha256})
        workers = args.workers or ts.get_num_threads()
        searched = ", ".join(trials.space) or "nothing but seeds"
        say(f"{plan.most} trials, {workers} at once, in {plan.out}; searched: {searched}")
        run_workers(workers, work, plan)
        if not trials.finished():
            raise ChildProcessError("all workers died. The same command resumes the search")
        table = markdown(trials)
        saving.write_atomically(plan.out / "search.md", table.encode())
        say(table)
        if not trials.all(TrialState.COMPLETE):
            raise ValueError("no trial was completed")
        draw(trials)
    say(f"search.md and the pictures are in {plan.out}. Train the best network again with:")
    say(best_command(plan, trials))
    return 0


def main(arguments: list[str] | None = None) -> int:
    return exit_code(
        lambda: search(options.parse(parser(), arguments)),
        interrupted="interrupted; the same command resumes the search",
    )


if __name__ == "__main__":
    sys.exit(main())
