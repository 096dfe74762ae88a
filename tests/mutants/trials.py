"""Running tests on a copy of the tree, in children of a process that has imported the rest already.

A child imports the library as it then is, runs the tests it is given in the order given, says which
one it begins and how each ends, and stops at the first failure. One that takes far longer than it
did when it was learnt is killed, with all it has started.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reach
from numba.core import config as numba_config

#: Imported once: nothing of the library, and nothing that starts threads.
_FIRST = ["hypothesis", "numba", "numpy", "pytest", "matplotlib.pyplot", "torch", "onnx"]
#: What all compiled code depends on: with one of these changed, nothing of it is taken as it is.
_OF_ALL = {"_Kept", "jit", "SUMS", "EXACT", "folder", "_fingerprint"}


@dataclass
class Result:
    """How the tests ended: ``noticed`` by which, or None; ``why``: "failed", "time", "crash"."""

    noticed: str | None = None
    why: str = ""
    seconds: float = 0.0
    passed: list[str] = field(default_factory=list)


class Copy:
    """A copy of the tree as it is installed, with viz/ in its place, and caches of its own."""

    def __init__(self, source: Path, home: Path) -> None:
        self.source, self.home, self.tree = source, home, home / "tree"
        self.cache = home / "cache"
        self._mutations = 0
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=source, capture_output=True, text=True, check=True,
        )  # fmt: skip
        shutil.rmtree(self.tree, ignore_errors=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (source / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, self.tree / name)
        (self.tree / "tinyseq" / "viz").symlink_to("../viz")
        kernels = sorted((self.tree / "tinyseq" / "kernels").glob("*.py"))
        sources = hashlib.sha256(b"".join(file.read_bytes() for file in kernels)).hexdigest()
        self.kept = home / f"kept-{sources[:16]}"  # what was compiled from these kernels
        self.kept.mkdir(exist_ok=True)
        self.started_with()
        self.clean()

    def started_with(self, shared: Path | None = None) -> None:
        """Have programs that tests start take this tree, and mark what they reach in a file."""
        lines = [
            "import importlib.util",
            f"spec = importlib.util.spec_from_file_location('_reach', {reach.__file__!r})",
            "reach = importlib.util.module_from_spec(spec)",
            "spec.loader.exec_module(reach)",
            f"reach.prefer({str(self.tree)!r})",
        ]
        if shared is not None:
            lines.append(f"reach.install({str(self.tree)!r}, {str(shared)!r})")
        (self.home / "site").mkdir(exist_ok=True)
        (self.home / "site" / "sitecustomize.py").write_text("\n".join(lines))

    def clean(self) -> None:
        """Empty caches and folders for temporary files."""
        for folder in (self.cache, self.home / "tmp"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def fill_cache(self, affected: set[str]) -> None:
        """What was compiled before, but for what calls one of these kernels: for a child, which
        finds the cache of the kernels as they are now.
        """
        from tinyseq.kernels import jit

        folder = jit.folder()
        if folder is None or not folder.is_relative_to(self.cache) or affected & _OF_ALL:
            return
        for file in self.kept.iterdir():
            own = set(file.name.partition("-")[0].split("."))
            if affected and not affected & own:
                text = file.read_bytes()  # names the functions that it calls
                own |= {n for n in affected if f"({n}:".encode() in text}
                own |= {n for n in affected if f"<function {n} at ".encode() in text}
            if not affected & own and not (affected and ".tiles_" in file.name):
                shutil.copyfile(file, folder / file.name)

    def keep_cache(self) -> None:
        """Keep what was compiled from the tree as it is."""
        for file in self.cache.rglob("*.code"):
            shutil.copyfile(file, self.kept / file.name)

    @contextlib.contextmanager
    def changed(self, path: str, text: str) -> Any:
        """The tree with this file changed."""
        file = self.tree / path
        before, self._mutations = file.read_bytes(), self._mutations + 1
        try:
            file.write_text(text)
            os.utime(file, (self._mutations * 10, self._mutations * 10))  # else bytecode is taken
            yield
        finally:
            file.write_bytes(before)
            os.utime(file, (self._mutations * 10 + 5, self._mutations * 10 + 5))

    def environment(self) -> dict[str, str]:
        """What differs for the tests and all that they start."""
        return {
            "PYTHONPATH": f"{self.home / 'site'}{os.pathsep}{self.tree}",
            "TINYSEQ_CACHE_DIR": str(self.cache),
            "TMPDIR": str(self.home / "tmp"),
            "OPENBLAS_NUM_THREADS": "1",
        }


def warm(copy: Copy) -> None:
    """Import what is the same for all mutants."""
    os.environ.update(copy.environment())
    os.environ["MPLBACKEND"] = "Agg"
    import tempfile

    tempfile.tempdir = None
    for name in _FIRST:
        with contextlib.suppress(ImportError):
            __import__(name)
    own = str(Path(__file__).parent)
    sys.path[:] = [str(copy.tree), *(p for p in sys.path if p != own)]
    reach.prefer(str(copy.tree))
    assert not any(name.split(".")[0] == "tinyseq" for name in sys.modules)


class _Told:
    """A plugin of pytest: picks and orders the tests, and says what goes on."""

    def __init__(self, wanted: list[str] | None, say: Callable[[str], None]) -> None:
        self.place = {name: i for i, name in enumerate(wanted or [])}
        self.say, self.all = say, wanted is None

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if not self.all:
            items[:] = [i for i in items if i.nodeid in self.place]
            items.sort(key=lambda item: self.place[item.nodeid])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.say(f"failed {report.nodeid}")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.say(f"begin {nodeid}")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.say(f"failed {report.nodeid}")
        elif report.when == "teardown":
            self.say(f"passed {report.nodeid}")


def run(
    copy: Copy,
    tests: list[str],
    limit: Callable[[str], float],
    log: Path,
    affected: set[str] = frozenset(),  # type: ignore[assignment]
    whole_files: bool = False,
    plain: bool = False,
    prepare: Callable[[], list[Any]] = list,
) -> Result:
    """Run tests in a child, in this order. ``limit``: seconds a test may take ("": to begin with).

    ``whole_files``: the tests are files, all of which is run, whatever fails. ``plain``: kernels
    are Python, as under ``NUMBA_DISABLE_JIT=1``. ``prepare`` is called in the child and returns
    further plugins.
    """
    reader, writer = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(copy, tests, log, affected, whole_files, plain, prepare, writer)
    os.close(writer)
    result, current, rest = Result(), "", b""
    failed: list[str] = []
    until = time.monotonic() + limit("")
    ended = False
    try:
        while True:
            ready, _, _ = select.select([reader], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                result.noticed, result.why = current or "import", "time"
                break
            if not (some := os.read(reader, 1 << 16)):
                break
            *lines, rest = (rest + some).split(b"\n")
            for line in lines:
                what, _, name = line.decode().partition(" ")
                if what == "begin":
                    current, until = name, time.monotonic() + limit(name)
                elif what == "passed" and name not in failed:
                    result.passed.append(name)
                elif what == "failed":
                    failed.append(name)
                elif what == "end":
                    ended = True
                    if name not in ("0", "1", "5") and not failed:
                        result.noticed, result.why = "import", "failed"
                    until = time.monotonic() + 30
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if failed:
        result.noticed, result.why = failed[0], "failed"
    elif not ended and result.noticed is None:
        result.noticed, result.why = current or "import", "crash"
    result.seconds = time.monotonic() - began
    return result


def _child(
    copy: Copy, tests: list[str], log: Path, affected: set[str], whole_files: bool, plain: bool,
    prepare: Callable[[], list[Any]], writer: int,
) -> None:  # fmt: skip
    code: Any = 3
    try:
        os.setsid()
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((nothing, 0), (out, 1), (out, 2)):
            os.dup2(old, new)
        os.chdir(copy.tree)
        import pytest

        if plain:
            os.environ["NUMBA_DISABLE_JIT"] = "1"
            numba_config.reload_config()

        def say(what: str) -> None:
            os.write(writer, f"{what}\n".encode())

        plugins = [*prepare(), _Told(None if whole_files else tests, say)]
        copy.fill_cache(affected)
        files = list(dict.fromkeys(name.split("::")[0] for name in tests))
        options = ["-n0", "-p", "no:cacheprovider", "-q", "--tb=short", "--assert=plain"]
        options += [] if whole_files else ["-x"]
        code = int(pytest.main([*options, *files], plugins=plugins))
        say(f"end {code}")
    except BaseException:
        import traceback

        traceback.print_exc()
        with contextlib.suppress(OSError):
            os.write(writer, b"end 3\n")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
