"""One training on many processes: `mpiexec -n 4 python demos/shakespeare.py` starts four ranks.

Rank 0 leads: it alone reads and writes the run's folder, prints, and says what all do next. What
started a program says in environment variables whether there are others; where there are none,
nothing of MPI is imported.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import console

import tinyseq as ts

T = TypeVar("T")

LAUNCHERS = (  # the variables that give the rank and how many there are
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, Microsoft MPI
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),  # MVAPICH
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),  # srun
)
END = None  # what the leader says last


class Ranks:
    """The ranks of a training and what they say to each other: which one this is, and how many."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.comm: Any = None
        self.waiting = False  # whether others wait for what this one does

    @property
    def shard(self) -> tuple[int, int]:
        return self.rank, self.size

    @property
    def words(self) -> str:
        """What an error begins with."""
        return f"rank {self.rank}: " if self.size > 1 else ""

    @property
    def launcher(self) -> str:
        """What starts as many again, in front of a command."""
        return f"mpiexec -n {self.size} " if self.size > 1 else ""

    def connect(self) -> None:
        """Join the others, if there are any."""
        if self.size == 1:
            return
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI to load
            raise ImportError(
                f"{self.size} processes were started under MPI, and mpi4py cannot be loaded "
                f"({error}). Install both: pip install 'tinyseq[mpi]' mpich; or start one process"
            ) from error
        self.comm, self.waiting = MPI.COMM_WORLD, True
        found = self.comm.Get_size()
        if found != self.size:
            raise OSError(
                f"{self.size} processes were started, but they find {found}: mpi4py loads another "
                "MPI than the one of mpiexec. Use the mpiexec that came with it (pip install mpich "
                "puts one beside python), or set MPI4PY_LIBMPI to the library of yours"
            )

    def share_cores(self) -> None:
        """Threads for this rank: its cores, divided by the ranks of this machine that have the same
        ones. Left as they are where a variable says how many.
        """
        if self.comm is None or {"TINYSEQ_NUM_THREADS", "OMP_NUM_THREADS"} & os.environ.keys():
            return
        from mpi4py import MPI

        there = hasattr(os, "sched_getaffinity")
        cores = sorted(os.sched_getaffinity(0)) if there else list(range(os.cpu_count() or 1))
        neighbours = self.comm.Split_type(MPI.COMM_TYPE_SHARED).allgather(cores)
        ts.set_num_threads(max(1, len(cores) // neighbours.count(cores)))

    def tell(self, order: Any) -> Any:
        """What rank 0 says, on every rank."""
        return order if self.comm is None else self.comm.bcast(order)

    def collect(self, value: T) -> list[T]:
        """What every rank gives, in order, on every rank."""
        return [value] if self.comm is None else list(self.comm.allgather(value))

    def order(self, what: Any) -> None:
        """Rank 0 has the others do something, too."""
        if self.rank == 0:
            self.tell(what)
            self.waiting = self.waiting and what is not END

    def follow(self, obey: Callable[[Any], object]) -> None:
        """What any other rank does: what rank 0 says, up to the end. Ctrl-C is for rank 0."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while (order := self.tell(None)) is not END:
            obey(order)
        self.waiting = False

    def exit_code(self, program: Callable[[], int], **how: str) -> int:
        """As `console.exit_code`; a rank that fails while others wait for it ends them all."""
        code = 1
        try:
            code = console.exit_code(program, who=self.words, **how)
        except Exception:
            if not self.words:
                raise
            console.complain(f"{self.words}{traceback.format_exc()}")
        finally:
            if code and self.waiting:
                sys.stdout.flush()
                self.comm.Abort(code)
        return code


def launched() -> Ranks:
    """Which of how many ranks this process was started as."""
    for rank, size in LAUNCHERS:
        numbers = os.environ.get(rank, ""), os.environ.get(size, "")
        if all(number.isdecimal() for number in numbers) and int(numbers[1]) > 1:
            return Ranks(*map(int, numbers))
    return Ranks()


@contextlib.contextmanager
def once(ranks: Ranks) -> Iterator[None]:
    """Only rank 0 prints what all say."""
    if ranks.rank == 0:
        yield
    else:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
