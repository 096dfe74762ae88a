"""Mutants: does the suite notice when the code is wrong? For the patient.

    python tests/mutants learn                      which test reaches what (once; the whole suite)
    python tests/mutants make --seed 1 --count 100  draw small wrong edits of the library
    python tests/mutants run                        which of them does a test notice?
    python tests/mutants show 17                    the edit, and what the tests said
    python tests/mutants judge 17 "why"             it changes nothing: it is equivalent
    python tests/mutants report                     in numbers, and who was left unnoticed

Everything happens in a copy of the tree, in ``--state`` (a folder; by default runs/mutants, which
git ignores), with caches of its own. `learn` and `run`, when they were stopped, go on from there. A
mutant runs the tests that reach its block of code, likeliest and quickest first, until one fails; a
hang is noticed, too. Who reaches a kernel or the top of a file is guessed: then the tests that
reach the file at all come last. ``run --again`` shows those that went unnoticed to new tests
(`learn` them first).

Why not a tool: mutmut puts a dispatcher into every function, which numba cannot compile;
cosmic-ray runs one command for every mutant, here for minutes.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mutations
import reach
import trials

ROOT = Path(__file__).resolve().parents[2]
#: Runs in a process of its own in the suite, as one test; here its tests are run one by one.
_PLAIN = "tests/compiler_laws.py"
_ALL_OF_PLAIN = "tests/test_compiler.py::test_the_laws_hold_for_hundreds_of_cells"
_SIGNATURES = "tests/test_interface.py"  # looks at every function, and calls none
_STAGES = (8, 40, 100_000)  # seconds of tests that are collected and run in one go


class State:
    """What is known, in two JSON files: who reaches what, and the mutants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
        self.learnt = self._read("learnt.json", {})  # by file: hash, tests
        self.mutants: list[dict[str, Any]] = self._read("mutants.json", [])

    def _read(self, name: str, default: Any) -> Any:
        file = self.folder / name
        return json.loads(file.read_text()) if file.exists() else default

    def _write(self, name: str, what: Any) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(json.dumps(what, indent=0, ensure_ascii=False))
        new.replace(self.folder / name)

    def save_learnt(self) -> None:
        self._write("learnt.json", self.learnt)

    def save(self) -> None:
        self._write("mutants.json", self.mutants)

    def tests(self) -> dict[str, dict[str, Any]]:
        """By name: seconds, and the places it marks. Those alone that pass on the tree itself."""
        return {
            name: test
            for file in self.learnt.values()
            for name, test in file["tests"].items()
            if test["passed"] and name != _ALL_OF_PLAIN
        }

    def log(self, k: int) -> Path:
        return self.folder / "logs" / f"{k}.txt"


# -- learn ----------------------------------------------------------------------------------------


class _Marks:
    """A plugin of pytest: what each test marks, in a file by file."""

    def __init__(self, marks: Any, out: Path) -> None:
        self.marks, self.out, self.found = marks, out, dict[str, Any]()
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.marks[:] = bytes(reach.ROOM)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed or report.skipped:
            self.failed.add(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        places = [i for i, mark in enumerate(self.marks[:]) if mark]
        self.found[nodeid] = {
            "seconds": round(self.seconds[nodeid], 3),
            "passed": nodeid not in self.failed,
            "places": places,
        }

    def pytest_sessionfinish(self) -> None:
        self.out.write_text(json.dumps(self.found))


def learn(state: State, only: list[str]) -> None:
    """Run the files of tests that are new or have changed, and keep what each test reaches."""
    copy = trials.Copy(ROOT, state.folder)
    trials.warm(copy)
    shared, out = state.folder / "shared", state.folder / "found.json"
    shared.write_bytes(bytes(reach.ROOM))
    copy.started_with(shared)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    files = [ROOT / _PLAIN, *sorted((ROOT / "tests").glob("test_*.py"))]
    asked = [f for part in only for f in files if part in f.name] if only else files
    for file in asked:
        name, digest = f"tests/{file.name}", hashlib.sha256(file.read_bytes()).hexdigest()
        if state.learnt.get(name, {}).get("digest") == digest:
            continue

        def prepare() -> list[Any]:
            marks = reach.install(str(copy.tree), str(shared))
            reach.watch_compiled(marks)
            return [_Marks(marks, out)]

        out.unlink(missing_ok=True)
        copy.clean()
        log = state.folder / "logs" / f"{file.stem}.txt"
        log.unlink(missing_ok=True)
        plain = name == _PLAIN
        result = trials.run(
            copy, [name], lambda _: 1200, log, whole_files=True, plain=plain, prepare=prepare
        )
        copy.keep_cache()
        if not out.exists() or result.noticed == "import":
            sys.exit(f"{name} could not be run: see {log}")
        found = json.loads(out.read_text())
        state.learnt[name] = {"digest": digest, "tests": found}
        state.save_learnt()
        failed = [n for n, t in found.items() if not t["passed"]]
        few = failed[:3] + ["…"] * (len(failed) > 3)
        print(f"{name}: {len(found)} tests in {result.seconds:.0f} s", end="", flush=True)
        print(f"; {len(failed)} not used: {few}" if failed else "", flush=True)


# -- run ------------------------------------------------------------------------------------------


def mentioning(names: set[str]) -> set[str]:
    """The files of tests that speak of one of these kernels."""
    out = set()
    for file in (ROOT / "tests").glob("test_*.py"):
        text = file.read_text()
        if "kernels" in text and names & set(re.findall(r"\w+", text)):
            out.add(f"tests/{file.name}")
    return out


def order(
    state: State, mutant: mutations.Mutant, places: set[int], files: Iterable[str] = ()
) -> list[str]:
    """The tests that mark one of the places, or are in one of the files: likeliest and quickest
    first.
    """
    killers = Counter(
        m["noticed"].split("::")[0]
        for m in state.mutants
        if m.get("noticed") and m["path"] == mutant.path
    )
    stem = Path(mutant.path).stem
    tests = {
        n: t
        for n, t in state.tests().items()
        if n.split("::")[0] in (_SIGNATURES, *files) or not places.isdisjoint(t["places"])
    }
    variants: dict[str, int] = defaultdict(int)
    scores = {}
    for name in sorted(tests, key=lambda n: tests[n]["seconds"]):
        function = name.split("[")[0]
        score = 0.05 + tests[name]["seconds"] + 0.3 * variants[function]
        variants[function] += 1
        file = name.split("::")[0]
        score /= 1 + min(2, killers[file]) + 2 * (stem in file)
        scores[name] = score
    return sorted(scores, key=scores.__getitem__)


def try_one(state: State, copy: trials.Copy, blocks: reach.Map, k: int, patience: float) -> None:
    """Run the tests that reach a mutant, and write down what came of it."""
    entry = state.mutants[k]
    mutant = mutations.Mutant(*(entry[f] for f in ("path", "start", "old", "new", "kind")))
    text = (ROOT / mutant.path).read_text()
    line = mutant.line(text)
    affected = blocks.affected(mutant.path, line)
    tests = state.tests()
    places, certain = blocks.reaching(mutant.path, line)
    near = order(state, mutant, places, mentioning(affected))
    all_of_file = set() if certain else blocks.of_file(mutant.path)
    far = [t for t in order(state, mutant, all_of_file) if t not in set(near)]
    done = set(entry.get("passed", []))
    queue = [t for t in [*near, *far] if t not in done]
    slow = 10 if mutant.path.startswith(("tinyseq/kernels", "tinyseq/compiler")) else 1

    def limit(name: str) -> float:
        return slow * 60 + 10 * tests[name]["seconds"] if name else slow * 120

    entry["tests"] = len(near) + len(far)
    state.log(k).unlink(missing_ok=True)
    spent = sum(tests[t]["seconds"] for t in done if t in tests)
    for stage in _STAGES:
        group: list[str] = []
        total = 0.0
        while queue and total < stage and spent + total < patience:
            group.append(queue.pop(0))
            total += tests[group[-1]]["seconds"]
        if not group:
            break
        spent += total
        laws = [t for t in group if t.startswith(_PLAIN)]
        result = trials.Result()
        with copy.changed(mutant.path, mutant.apply(text)):
            for part in ([t for t in group if t not in laws], laws):
                if part and not result.noticed:
                    copy.clean()
                    plain = part is laws
                    result = trials.run(copy, part, limit, state.log(k), affected, plain=plain)
                    entry["seconds"] = round(entry.get("seconds", 0) + result.seconds, 1)
                    done |= set(result.passed)
        if result.noticed:
            entry.update(noticed=result.noticed, why=result.why, passed=[])
            break
    entry["done"] = True
    if not entry.get("noticed"):
        entry["passed"] = sorted(done)


def run(state: State, patience: float, again: bool, which: list[int]) -> None:
    copy = trials.Copy(ROOT, state.folder)
    blocks = reach.Map(ROOT, [p for paths in mutations.files(ROOT).values() for p in paths])
    trials.warm(copy)
    for k, entry in enumerate(state.mutants):
        unnoticed = again and not entry.get("noticed") and not entry.get("equivalent")
        if (which and k not in which) or (entry.get("done") and not (which or unnoticed)):
            continue
        if which:
            for field in ("noticed", "why", "passed", "seconds"):
                entry.pop(field, None)
        try_one(state, copy, blocks, k, patience)
        state.save()
        print(told(k, entry), flush=True)


def told(k: int, entry: dict[str, Any]) -> str:
    end = "not run"
    if entry.get("noticed"):
        end = f"{entry['why']}: {entry['noticed']}"
    elif entry.get("equivalent"):
        end = f"equivalent: {entry['equivalent']}"
    elif entry.get("done"):
        end = f"UNNOTICED by {len(entry['passed'])} of {entry['tests']} tests"
    place = f"{entry['path']}:{entry['line']}"
    return f"{k:4} {place} {entry['kind']}, {entry.get('seconds', 0):.0f} s, {end}"


def show(state: State, k: int) -> str:
    entry = state.mutants[k]
    mutant = mutations.Mutant(*(entry[f] for f in ("path", "start", "old", "new", "kind")))
    text = (ROOT / mutant.path).read_text()
    diff = difflib.unified_diff(
        text.splitlines(), mutant.apply(text).splitlines(), n=2, lineterm=""
    )
    said = state.log(k).read_text()[-3000:] if state.log(k).exists() else ""
    return "\n".join([told(k, entry), *list(diff)[2:], said if entry.get("noticed") else ""])


def report(state: State) -> str:
    """Noticed of those that are not equivalent, by folder; who noticed; who is left."""
    lines, counts = [], defaultdict(Counter)  # type: ignore[var-annotated]
    for entry in state.mutants:
        if entry.get("done"):
            how = "noticed" if entry.get("noticed") else "same" if entry.get("equivalent") else "un"
            for folder in (str(Path(entry["path"]).parent), "all"):
                counts[folder][how] += 1
    for folder, c in sorted(counts.items()):
        real = c["noticed"] + c["un"]
        share = f"{c['noticed'] / real:.0%}" if real else "-"
        lines.append(
            f"{folder:22} {c['noticed']:4} of {real:4} noticed ({share}), {c['same']} equivalent"
        )
    first = Counter(e["noticed"].split("::")[0] for e in state.mutants if e.get("noticed"))
    lines.append("\nfile of tests: seconds, mutants that it was the first to notice")
    for file, learnt in sorted(state.learnt.items()):
        seconds = sum(t["seconds"] for t in learnt["tests"].values())
        lines.append(f"{file:36} {seconds:6.1f} s {first[file]:4}")
    lines.append("")
    lines += [
        told(k, e) for k, e in enumerate(state.mutants) if e.get("done") and not e.get("noticed")
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state", type=Path, default=ROOT / "runs" / "mutants")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("learn")
    one.add_argument("only", nargs="*", help="parts of the names of files of tests")
    one = commands.add_parser("make")
    one.add_argument("--seed", type=int, required=True)
    one.add_argument("--count", type=int, default=100)
    one.add_argument("--only", default="", help="part of the paths of files, as tinyseq/compiler")
    one = commands.add_parser("run")
    one.add_argument("which", type=int, nargs="*", help="these, whatever is known of them")
    one.add_argument("--patience", type=float, default=1e9, help="seconds of tests for a mutant")
    one.add_argument("--again", action="store_true", help="new tests on those that went unnoticed")
    commands.add_parser("show").add_argument("which", type=int)
    one = commands.add_parser("judge")
    one.add_argument("which", type=int)
    one.add_argument("why")
    commands.add_parser("report")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    state = State(given.state.resolve())
    if given.command == "learn":
        learn(state, given.only)
    elif given.command == "make":
        for mutant in mutations.draw(ROOT, given.seed, given.count, given.only):
            line = mutant.line((ROOT / mutant.path).read_text())
            state.mutants.append({**asdict(mutant), "line": line, "seed": given.seed})
        state.save()
    elif given.command == "run":
        run(state, given.patience, given.again, given.which)
    elif given.command == "show":
        print(show(state, given.which))
    elif given.command == "judge":
        state.mutants[given.which]["equivalent"] = given.why
        state.save()
    else:
        print(report(state))


if __name__ == "__main__":
    main()
