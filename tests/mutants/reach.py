"""Which tests reach which code: learnt once, in one run of the suite.

Every block of the library (the body of a function, of a branch, of a loop …) is told, as it is
compiled to bytecode, to set a byte of a file that all processes of a test share, those that it
starts included. The files themselves are not changed. Python cannot look into kernels: one counts
as reached where a function that mentions it is, or a compiled layer that calls it runs.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib.machinery
import mmap
import os
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

ROOM = 1 << 16  # bytes of the shared file
_COMPILED = {"jit", "overload", "intrinsic", "_on_bits", "_rule"}
_ALL_COMPILED = {"tinyseq/kernels/activations.py"}  # overloads, made by functions


class Block(NamedTuple):
    """``key``: file, function and how many blocks of it come before; lines from 1."""

    key: str
    first: int
    last: int


class _Marker(ast.NodeTransformer):
    """Lists the blocks of a file, and puts a mark at the beginning of each."""

    def __init__(self, path: str) -> None:
        self.path, self.blocks = path, list[Block]()
        self.names: list[str] = []
        self.counts: dict[str, int] = defaultdict(int)
        self.jitted: dict[str, tuple[int, int]] = {}

    def _new(self, first: int, last: int) -> str:
        name = ".".join(self.names)
        key = f"{self.path}:{name}:{self.counts[name]}"
        self.counts[name] += 1
        self.blocks.append(Block(key, first, last))
        return key

    def _mark(self, body: list[Any], first: int | None = None) -> list[Any]:
        key = self._new(first or body[0].lineno, body[-1].end_lineno)
        at = 1 if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) else 0
        at += sum(isinstance(s, ast.ImportFrom) and s.module == "__future__" for s in body[:2])
        inner = [new for s in body for new in _listed(self.visit(s))]
        mark = ast.parse(f"__reached__[{number(key)}] = 1").body[0]
        for node in ast.walk(mark):
            ast.copy_location(node, body[min(at, len(body) - 1)])
        return [*inner[:at], mark, *inner[at:]]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        decorators = {
            n.id for d in node.decorator_list for n in ast.walk(d) if isinstance(n, ast.Name)
        }
        if decorators & _COMPILED or self.path in _ALL_COMPILED:
            self.jitted[".".join([*self.names, node.name])] = (node.lineno, node.end_lineno or 0)
            return node
        node.decorator_list = [self.visit(d) for d in node.decorator_list]
        node.args = self.visit(node.args)
        self.names.append(node.name)
        node.body = self._mark(node.body, node.lineno)
        self.names.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        self.names.append(node.name)
        node.body = [new for s in node.body for new in _listed(self.visit(s))]
        self.names.pop()
        return node

    def visit_Lambda(self, node: ast.Lambda) -> Any:
        if self.path in _ALL_COMPILED:
            return node
        self.names.append("lambda")
        key = self._new(node.lineno, node.end_lineno or 0)
        node.body = self.visit(node.body)
        said = f"[__reached__.__setitem__({number(key)}, 1)] and 0"
        mark = ast.parse(said, mode="eval").body
        for n in ast.walk(mark):
            ast.copy_location(n, node.body)
        node.body = ast.copy_location(ast.BoolOp(ast.Or(), [mark, node.body]), node.body)
        self.names.pop()
        return node

    def generic_visit(self, node: ast.AST) -> Any:
        in_function = bool(self.names)
        for name, old in ast.iter_fields(node):
            is_body = name in ("body", "orelse", "finalbody") and isinstance(old, list) and old
            if is_body and in_function and isinstance(node, ast.stmt | ast.ExceptHandler):
                setattr(node, name, self._mark(old))
            elif isinstance(old, list):
                new = [
                    v
                    for o in old
                    for v in (_listed(self.visit(o)) if isinstance(o, ast.AST) else [o])
                ]
                setattr(node, name, new)
            elif isinstance(old, ast.AST):
                setattr(node, name, self.visit(old))
        return node


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


@functools.cache
def number(key: str) -> int:
    """A place in the shared file. Two blocks may share one: then too many tests are run."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % ROOM


# -- while tests run ------------------------------------------------------------------------------


class _First:
    """A finder that takes the library from one tree, wherever it is installed."""

    def __init__(self, tree: str) -> None:
        self.tree = tree

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "tinyseq":
            inside = name.startswith("tinyseq.") and path
            return importlib.machinery.PathFinder.find_spec(name, path) if inside else None
        return importlib.machinery.PathFinder.find_spec(name, [self.tree])


def prefer(tree: str) -> None:
    """From now on the library is that of this tree, in this process."""
    sys.meta_path.insert(0, _First(tree))


def install(tree: str, shared: str) -> mmap.mmap:
    """From now on the library's files in ``tree`` mark what is reached in the file ``shared``."""
    with open(shared, "r+b") as f:
        marks = mmap.mmap(f.fileno(), ROOM)
    builtins.__reached__ = marks  # type: ignore[attr-defined]
    given = importlib.machinery.SourceFileLoader.source_to_code

    def source_to_code(self: Any, data: Any, path: Any, **options: Any) -> Any:
        inside = os.path.realpath(path)
        if inside.startswith((f"{tree}/tinyseq/", f"{tree}/viz/")):
            marker = _Marker(os.path.relpath(inside, tree))
            marked = marker.visit(ast.parse(data))
            return compile(marked, path, "exec", dont_inherit=True)
        return given(self, data, path, **options)

    importlib.machinery.SourceFileLoader.source_to_code = source_to_code  # type: ignore
    return marks


def watch_compiled(marks: mmap.mmap) -> None:
    """Mark the kernels that compiled layers call, as they run."""
    from tinyseq.compiler.runtime import Run

    def call(self: Any, function: Any, arrays: Any, given: Any = Run._call) -> None:
        for place in _places(self.compiled.source.text):
            marks[place] = 1
        given(self, function, arrays)

    Run._call = call  # type: ignore[method-assign]


@functools.cache
def _places(text: str) -> list[int]:
    body = text.split('"""', 2)[2]
    return [number(f"kernel:{name}") for name in set(re.findall(r"\b([a-z_0-9]+)\(", body))]


# -- what a mutant needs --------------------------------------------------------------------------


class Map:
    """The blocks and kernels of a tree."""

    def __init__(self, root: Path, paths: list[str]) -> None:
        self.root = root
        self.blocks: dict[str, list[Block]] = {}
        self.jitted: dict[str, dict[str, tuple[int, int]]] = {}
        self.texts = {path: (root / path).read_text() for path in paths}
        for path, text in self.texts.items():
            marker = _Marker(path)
            marker.visit(ast.parse(text))
            self.blocks[path], self.jitted[path] = marker.blocks, marker.jitted
        self._users = self._kernel_users()

    def _kernel_users(self) -> dict[str, set[str]]:
        """For each name at the top of a file of kernels/, the names there that mention it."""
        users: dict[str, set[str]] = defaultdict(set)
        for path, text in self.texts.items():
            if path.startswith("tinyseq/kernels/"):
                for names, node in _definitions(ast.parse(text)):
                    for used in _mentioned(node):
                        users[used] |= names
        return users

    def affected(self, path: str, line: int) -> set[str]:
        """The names in kernels/ whose code a change of this line may change; empty elsewhere."""
        if not path.startswith("tinyseq/kernels/"):
            return set()
        names: set[str] = set()
        for defined, node in _definitions(ast.parse(self.texts[path])):
            inside = node.lineno <= line <= (node.end_lineno or 0)
            if inside or path.endswith(
                "/activations.py"
            ):  # there they find each other by overloads
                names |= defined
        todo = list(names)
        while todo:
            new = self._users[todo.pop()] - names
            names |= new
            todo += new
        return names

    def reaching(self, path: str, line: int) -> tuple[set[int], bool]:
        """The places in the shared file of which a test marks one if it reaches the line; whether
        one that marks none of them certainly does not reach it.
        """
        jitted = [
            name for name, (first, last) in self.jitted[path].items() if first <= line <= last
        ]
        inside = [b for b in self.blocks[path] if b.first <= line <= b.last]
        if inside and not jitted:
            smallest = min(b.last - b.first for b in inside)
            return {number(b.key) for b in inside if b.last - b.first == smallest}, True
        doors = self._doors(self.affected(path, line))
        return doors if jitted else doors | self._mentioning(path, line), False

    def _doors(self, names: set[str]) -> set[int]:
        """Of what calls these kernels, from Python or in a compiled layer."""
        out = {number(f"kernel:{name}") for name in names}
        for path, text in self.texts.items():
            if names and ("kernels" in text or "kernels/" in path):
                lines = text.splitlines()
                for b in self.blocks[path]:
                    if b.key.endswith(":0"):
                        body = "\n".join(lines[b.first - 1 : b.last])
                        if names & set(re.findall(r"\w+", body)):
                            out.add(number(b.key))
        return out

    def _mentioning(self, path: str, line: int) -> set[int]:
        """Of functions that mention what a line at the top of the file, or of a class, defines."""
        names: set[str] = set()
        tree = ast.parse(self.texts[path])
        for node in ast.walk(tree):
            if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
                if isinstance(node, ast.Assign | ast.AnnAssign):
                    targets = getattr(node, "targets", None) or [node.target]  # type: ignore
                    for t in targets:
                        names |= {n for n in _mentioned(t) if n != "self"}
                elif isinstance(node, ast.FunctionDef):
                    names.add(node.name)
        out = set()
        lines = self.texts[path].splitlines()
        for b in self.blocks[path]:
            own = b.key.split(":")[1].split(".")
            body = "\n".join(lines[b.first - 1 : b.last])
            if names & {*re.findall(r"\w+", body), *own}:
                out.add(number(b.key))
        return out

    def of_file(self, path: str) -> set[int]:
        """The places of the whole file: of what is in functions."""
        jitted = set(self.jitted[path]) | {n.split(".")[0] for n in self.jitted[path]}
        return {number(b.key) for b in self.blocks[path]} | (
            self._doors(jitted) if jitted else set()
        )


def _definitions(tree: ast.Module) -> list[tuple[set[str], ast.stmt]]:
    """What stands at the top of a file, or in an ``if`` there, with the names it defines."""
    out: list[tuple[set[str], ast.stmt]] = []
    for node in tree.body:
        parts = [*node.body, *node.orelse] if isinstance(node, ast.If) else [node]
        for part in parts:
            if isinstance(part, ast.FunctionDef | ast.ClassDef):
                out.append(({part.name}, part))
            elif isinstance(part, ast.Assign | ast.AnnAssign):
                targets = part.targets if isinstance(part, ast.Assign) else [part.target]
                out.append(({n for t in targets for n in _mentioned(t)}, part))
            elif isinstance(part, ast.Expr):
                out.append((set(), part))
    return out


def _mentioned(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }
