"""One training on several processes, under mpiexec."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import shakespeare
from any_machine import PATIENCE

from tinyseq import saving

TESTS = Path(__file__).parent
# Where pip puts it, or else the machine's own
MPIEXEC = shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")
with_mpi = pytest.mark.skipif(
    MPIEXEC is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpi4py and mpiexec: pip install mpi4py mpich",
)


def started(ranks, *arguments, **options):
    """A program on so many ranks, one thread each; ``options`` as of `subprocess.Popen`."""
    paths = os.pathsep.join(map(str, (TESTS, TESTS.parent / "demos", *sys.path)))
    environment = {**os.environ, "PYTHONPATH": paths, "TINYSEQ_NUM_THREADS": "1"}
    command = [str(a) for a in (MPIEXEC, "-n", ranks, sys.executable, *arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes, **options)


def ended(process):
    """Its exit status, and what it printed."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, out, err


@with_mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_training_on_several_ranks_is_training_on_one(ranks):
    code, out, err = ended(started(ranks, TESTS / "mpi_cases.py"))
    assert code == 0, err
    assert out.startswith(f"{ranks} ranks, ")


# -- the main job ---------------------------------------------------------------------------------

DEMO = TESTS.parent / "demos" / "shakespeare.py"
LINES = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind\n" * 40
SMALL = ["--cell", "rnn", "--hidden", 8, "--layers", 2, "--dropout", 0.2, "--mode", "unroll"]
SMALL += ["--seq-len", 4, "--batch-size", 5, "--steps", 200, "--validations", 4]


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text(LINES)
    return path


def rank_of(process, rank):
    """The process of a rank, as the system's list shows it."""
    children = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children[int(status.parent.name)] = int(
                status.read_text().rpartition(")")[2].split()[1]
            )
    for pid, parent in children.items():
        if children.get(parent) == process.pid:
            with contextlib.suppress(OSError):
                if f"PMI_RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0"):
                    return pid
    raise AssertionError(f"no rank {rank} among {children}")


def read_until(process, part):
    for line in process.stdout:
        if part in line:
            return
    raise AssertionError(f"it ended without {part!r}: {process.communicate()}")


@with_mpi
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a rank in /proc")
def test_a_killed_rank_ends_all_and_the_run_goes_on_from_its_checkpoint(lines, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, out, err = ended(started(2, DEMO, "--text", lines, *SMALL, "--out", whole))
    assert code == 0, err
    assert ", unrolled, on 2 ranks, in " in out

    process = started(2, DEMO, "--text", lines, *SMALL, "--out", killed)
    read_until(process, " 25%  step 50")
    os.kill(rank_of(process, 1), signal.SIGKILL)
    process.wait(timeout=60)  # within 10 s, where nothing else runs
    assert process.returncode != 0
    process.communicate()
    assert saving.load(killed / "last.safetensors")["progress"]["step"] >= 50

    code, out, err = ended(started(2, DEMO, "--resume", "--out", killed))
    assert code == 0, err
    assert "the bits will differ" not in out
    for name in ("model", "optimiser", "random", "state"):
        same(
            saving.load(whole / "last.safetensors")[name],
            saving.load(killed / "last.safetensors")[name],
        )

    again = ["--resume", "--out", whole, "--steps", 210]
    code, out, err = ended(started(3, DEMO, *again))
    assert code == 0, err
    assert "going on from step 200, now on 3 ranks, before on 2: the bits will differ" in out
    assert json.loads((whole / "numbers.json").read_text())["ranks"] == 3
    assert shakespeare.main([*map(str, again[:-1]), "215"]) == 0  # and on one


def same(a, b):
    """Two nested values of a checkpoint, to the bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), list(b.values())
    if isinstance(a, list):
        for left, right in zip(a, b, strict=True):
            same(left, right)
    else:
        np.testing.assert_array_equal(a, b)


FAILING = """
import sys, ranks, shakespeare
step = shakespeare.Run.train_step
def fails_on_rank_1(run, lr):
    if run.ranks.rank == 1 and run.progress.step == 3:
        raise {error}("broken")
    return step(run, lr)
shakespeare.Run.train_step = fails_on_rank_1
sys.exit(shakespeare.main())
"""


@with_mpi
@pytest.mark.parametrize("error", ["ValueError", "AssertionError"])  # a message, and a traceback
def test_a_rank_that_fails_ends_all_and_is_named(error, lines, tmp_path):
    code = FAILING.format(error=error)
    options = ["--text", lines, *SMALL, "--out", tmp_path / "run"]
    status, _, err = ended(started(2, "-c", code, *options))
    assert status == 1
    assert re.search(r"rank 1: (error: broken|(.|\n)*AssertionError: broken)", err), err
    assert "rank 0" not in err.replace("rank 0 in comm 0", "")


@with_mpi
def test_what_all_ranks_say_is_said_once(tmp_path):
    status, out, err = ended(started(2, DEMO, "--hidden", "none"))
    assert (status, out, err.count("argument --hidden: 'none' is not")) == (2, "", 1)


# -- without others -------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", ["PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"])
def test_without_mpi4py_several_ranks_are_an_error_and_one_is_none(
    rank, lines, tmp_path, monkeypatch, capsys
):
    size = {"SLURM_PROCID": "SLURM_STEP_NUM_TASKS"}.get(rank, rank.replace("RANK", "SIZE"))
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # its import fails
    monkeypatch.setenv(rank, "1")
    monkeypatch.setenv(size, "2")
    arguments = ["--text", lines, *SMALL, "--steps", 2, "--out", tmp_path / "run"]
    arguments = [str(a) for a in arguments]
    assert shakespeare.main(arguments) == 1
    assert re.search(
        r"rank 1: error: 2 processes .* pip install 'tinyseq\[mpi\]'", capsys.readouterr().err
    )
    monkeypatch.setenv(rank, "0")
    monkeypatch.setenv(size, "1")
    assert shakespeare.main(arguments) == 0


def test_an_mpi_that_is_not_the_launcher_s_is_an_error(monkeypatch, capsys):
    world = types.SimpleNamespace(Get_size=lambda: 1, Abort=sys.exit)
    monkeypatch.setitem(
        sys.modules, "mpi4py", types.SimpleNamespace(MPI=types.SimpleNamespace(COMM_WORLD=world))
    )
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(SystemExit, match="1"):  # what ends all ranks
        shakespeare.main([])
    assert "2 processes were started, but they find 1" in capsys.readouterr().err
