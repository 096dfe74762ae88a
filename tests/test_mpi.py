"""One training on several processes, under mpiexec."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from any_machine import PATIENCE

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
