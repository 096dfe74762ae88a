"""What a run of demos/shakespeare.py reports: its words, and numbers.json."""

from __future__ import annotations

import math
import os
import platform
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from runs import BEST, HELD_OUT

import tinyseq as ts
from tinyseq.text import Vocabulary
from tinyseq.text.corpus import TINY_SHA256

if TYPE_CHECKING:
    from shakespeare import Run

# What others report on tinyshakespeare's last tenth, in nats, estimated on random blocks of it.
PUBLISHED = {
    "nanoGPT on a GPU, 10.6 million parameters": 1.4697,
    "nanoGPT on a CPU, 0.8 million parameters": 1.88,
}


PRIME = "ROMEO:"  # what a sample goes on from, where the vocabulary has it
LONGEST_PRIME = 20  # characters of the one that is proposed otherwise


def figures(nats: float) -> str:
    """A loss in the three ways in which it is quoted."""
    bits, perplexity = nats / math.log(2), math.exp(min(nats, 700))
    return f"{nats:.4f} nats, {bits:.4f} bits per character, perplexity {perplexity:.2f}"


def describe(run: Run) -> str:
    """What is trained on what, said at the start."""
    settings = run.settings
    held_out = len(run.validation) - 1
    several = f", on {run.ranks.size} ranks" if run.ranks.size > 1 else ""
    return (
        f"{settings.network}, {run.parameters:,d} parameters, "
        f"{'compiled' if run.mode == 'compiled' else 'unrolled'}{several}, in {run.out}\n"
        f"text {settings.text}: {run.characters:,d} characters, {len(run.vocabulary)} different; "
        f"the last {held_out:,d} ({HELD_OUT:.0%}) are for validation\n"
        f"{settings.batch_size} tracks × {settings.seq_len} steps a chunk, "
        f"{len(run.chunks):,d} chunks a pass"
    )


def summary(run: Run, baseline: dict[str, float]) -> str:
    """What came out, beside what counting and others reach."""
    progress = run.progress
    assert progress.best is not None
    last = progress.validations[-1][1]
    best = "" if last == progress.best else f"\n  best   {figures(progress.best)}"
    published = ""
    if run.digest == TINY_SHA256:
        figures_of_others = (f"{nats} {name}" for name, nats in PUBLISHED.items())
        published = f"  published: {'; '.join(figures_of_others)}\n"
    counted = ""
    if "counted" in baseline:
        counted = f", counted in the last {baseline['counted']:,d} characters before"
    return (
        f"{progress.step:,d} steps in {progress.seconds:.0f} s. Validation, on the last "
        f"{HELD_OUT:.0%} of the text, each character predicted once, state carried along:\n"
        f"  final  {figures(last)}{best}\n"
        f"  {baseline['n']}-gram {figures(baseline['nats'])}{counted}\n{published}"
        "Figures on other splits or other texts do not compare with it.\n"
        f"Let it write: {command_line('sample', checkpoint=run.out / BEST, **prime(run))}"
    )


def command_line(*words: str, **options: str | Path) -> str:
    """This program with these arguments, as a shell takes it in the folder it was started in."""
    program = os.path.relpath(Path(__file__).with_name("shakespeare.py"))
    given: list[str] = []
    for name, value in options.items():
        if str(value).startswith("-"):  # apart, it would be read as another option
            given.append(f"--{name}={value}")
        else:
            given += f"--{name}", str(value)
    return shlex.join(["python", program, *words, *given])


def opening(vocabulary: Vocabulary, *wanted: str) -> str:
    """What a text may go on from: the first of those wanted that the vocabulary can spell."""
    symbols = set(vocabulary.symbols)
    return next((prime for prime in wanted if symbols.issuperset(prime)), vocabulary.symbols[0])


def prime(run: Run) -> dict[str, str]:
    """The option for a prime out of the text, where the usual one is in characters it lacks."""
    if opening(run.vocabulary, PRIME) == PRIME:
        return {}
    words = run.vocabulary.decode(run.validation[:1000]).split()
    shown = [word for word in words if word.isprintable()]  # in a terminal, too
    return {"prime": shown[0][:LONGEST_PRIME]} if shown else {}


def indented(lines: str) -> str:
    return "\n".join(["", *(f"    {line}".rstrip() for line in lines.strip().splitlines()), ""])


def numbers(run: Run, baseline: dict[str, float]) -> dict[str, Any]:
    """What numbers.json holds."""
    settings, progress = asdict(run.settings), run.progress
    del settings["text"]  # a path on this machine
    last = progress.validations[-1][1]
    return {
        "text": {
            "name": Path(run.settings.text).name,
            "sha256": run.digest,
            "characters": run.characters,
            "held_out": len(run.validation) - 1,
            "symbols": len(run.vocabulary),
        },
        "settings": settings,
        "limit": asdict(run.limit),
        "parameters": run.parameters,
        "steps": progress.step,
        "characters_read": progress.step * run.settings.chunk,
        "seconds": progress.seconds,
        "chars_per_second": progress.chars_per_second,
        "ranks": run.ranks.size,
        "threads": ts.get_num_threads() if run.mode == "compiled" else 1,  # of each rank
        "validation": {"nats": last, "bits": last / math.log(2), "best_nats": progress.best},
        "ngram": baseline,
        "losses": progress.losses,
        "validations": progress.validations,
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """What a result may depend on besides its settings."""
    numba = sys.modules.get("numba")  # loaded if anything was compiled
    return {
        "tinyseq": ts.__version__,
        "numpy": np.__version__,
        "numba": getattr(numba, "__version__", None),
        "python": platform.python_version(),
        "processor": processor(),
    }


def processor() -> str:
    """Its name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
