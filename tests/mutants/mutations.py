"""What a mutant is: one small wrong edit of one file, made where a node of its syntax tree lies.

The rest of the file stays as it is, to the byte, and its lines keep their numbers: compiled kernels
are found by them. What cannot change what the library computes is left alone: annotations,
docstrings, messages, assertions, the sizes from which something is worth its cost.
"""

from __future__ import annotations

import ast
import bisect
import itertools
import random
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

#: Which part of a drawing goes to which folder: most to where most went unnoticed.
SHARES = {
    "tinyseq/compiler": 0.27,
    "tinyseq/kernels": 0.23,
    "tinyseq": 0.14,  # the core: tensor, primitives, backprop …
    "tinyseq/nn": 0.12,
    "tinyseq/text": 0.08,
    "tinyseq/ops": 0.04,
    "tinyseq/optim": 0.04,
    "tinyseq/functional": 0.04,
    "viz": 0.04,
}

#: How many of those that are found are drawn, of kinds that anything that runs the line notices.
_COARSE = {"swapped": 0.25, "comparison": 0.3, "sign": 0.7}

_COMPARE: dict[type, str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_BINARY: dict[type, str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "%",
    ast.Mod: "//",
    ast.BitAnd: "|",
    ast.BitOr: "&",
}
_NAMES = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "maximum": "minimum",
    "minimum": "maximum",
    "zeros": "empty",
    "zeros_like": "empty_like",
    "ones": "zeros",
    "ceil": "floor",
    "floor": "ceil",
    "float32": "float64",
    "argmax": "argmin",
}
_UNWRAPPED = {"abs", "sorted", "reversed", "ascontiguousarray", "copy"}
_IN_TEXT = [
    (" + ", " - "),
    (" - ", " + "),
    (" * ", " + "),
    (" < ", " <= "),
    (" - 1", ""),
    (" + 1", ""),
]
_UNSEEN = ("strict", "stacklevel", "name", "daemon")  # arguments that change no result
_SILENT = {"warn", "print", "ValueError", "TypeError"}  # calls whose arguments are messages


@dataclass(frozen=True)
class Mutant:
    """``old``, which is at this place of the file, becomes ``new``."""

    path: str
    start: int  # in characters
    old: str
    new: str
    kind: str

    def apply(self, text: str) -> str:
        end = self.start + len(self.old)
        if text[self.start : end] != self.old:
            raise ValueError(f"{self.path} has changed: make the mutants anew.")
        return text[: self.start] + self.new + text[end:]

    def line(self, text: str) -> int:
        return text.count("\n", 0, self.start) + 1


class _Finder(ast.NodeVisitor):
    """All mutants of a file, by the line they are in."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.lines = text.splitlines(keepends=True)
        self.found: dict[int, list[Mutant]] = defaultdict(list)
        self.depth = 0

    # -- places

    def _at(self, line: int, column: int) -> int:
        """Where in the text a place of the tree is; its columns count bytes."""
        before = self.lines[line - 1].encode()[:column].decode()
        return self.starts[line - 1] + len(before)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        start = self._at(node.lineno, node.col_offset)  # type: ignore[attr-defined]
        return start, self._at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def _source(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self.text[start:end]

    def _put(self, kind: str, start: int, end: int, new: str) -> None:
        old = self.text[start:end]
        if missing := old.count("\n") - new.count("\n"):  # the lines behind keep their numbers
            new += "\n" * missing
            if kind not in ("statement", "check", "argument", "swapped"):
                new = f"({new})"
        if old != new:
            line = bisect.bisect_right(self.starts, start)
            self.found[line].append(Mutant(self.path, start, old, new, kind))

    def _replace(self, kind: str, node: ast.AST, new: str) -> None:
        self._put(kind, *self._span(node), new)

    def _between(self, left: ast.AST, right: ast.AST, old: str, new: str, kind: str) -> None:
        """Replace the operator between two nodes."""
        start, end = self._span(left)[1], self._span(right)[0]
        gap = self.text[start:end]
        if gap.count(old) == 1:
            at = start + gap.index(old)
            self._put(kind, at, at + len(old), new)

    # -- what is left alone

    def visit_arg(self, node: ast.arg) -> None:
        pass

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._text_of(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [n.id for t in node.targets for n in _named(t)]
        if "__all__" in names:
            return
        if self.depth == 0 and isinstance(node.value, ast.Constant | ast.BinOp):
            return  # a size from which something is worth while, mostly
        if not names and self.depth:
            self._replace("statement", node, "pass")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        if node.exc is not None:
            self._replace("check", node, "pass")

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if not isinstance(node.test, ast.Compare | ast.BoolOp):
            self._replace("condition", node.test, f"not ({self._source(node.test)})")
        if not node.orelse and isinstance(node.body[-1], ast.Return | ast.Continue):
            self._replace("condition", node.test, "False")  # a special case that is not made
        self.generic_visit(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self.depth += 1
        if isinstance(node, ast.Lambda):
            self.visit(node.body)
        else:
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call):
                    self.visit(decorator)
            for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                self.visit(default)
            for statement in node.body:
                self.visit(statement)
        self.depth -= 1

    visit_FunctionDef = _function
    visit_Lambda = _function

    # -- what is changed

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            kind = "edge" if isinstance(op, _ORDERED) else "comparison"
            self._between(left, right, _sign(op), _COMPARE[type(op)], kind)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        numbers = not isinstance(node.left, ast.Constant) or not isinstance(node.left.value, str)
        if numbers and type(node.op) in _BINARY:
            sign, new = _sign(node.op), _BINARY[type(node.op)]
            self._between(node.left, node.right, sign, new, "operator")
            if isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
                self._replace("term", node, self._source(node.left))
                if isinstance(node.op, ast.Add | ast.Mult):
                    self._replace("term", node, self._source(node.right))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub | ast.Not | ast.Invert):
            self._replace("sign", node, self._source(node.operand))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in itertools.pairwise(node.values):
            self._between(left, right, old, new, "and/or")
        for i in range(len(node.values)):
            rest = [self._source(v) for n, v in enumerate(node.values) if n != i]
            self._replace("condition", node, f" {old} ".join(rest))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace("constant", node, str(not value))
        elif isinstance(value, int) and abs(value) < 1000:
            self._replace("constant", node, str(value + 1))
            if value > 0:
                self._replace("constant", node, str(value - 1))
        elif isinstance(value, float) and value not in (0.0, float("inf")):
            self._replace("constant", node, repr(value * 1.01 if abs(value) < 1 else value + 1))
        elif isinstance(value, str):
            self._text_of(node)

    def _text_of(self, node: ast.AST) -> None:
        """Text that is code: what the compiler prints."""
        if not self.path.startswith("tinyseq/compiler") and self.path != "tinyseq/primitives.py":
            return
        source = self._source(node)
        if "\n" in source or " " not in source:
            return
        for old, new in _IN_TEXT:
            for match in re.finditer(re.escape(old), source):
                at = self._span(node)[0] + match.start()
                self._put("printed code", at, at + len(old), new)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._replace("condition", node, f"({self._source(node.body)})")
        self._replace("condition", node, f"({self._source(node.orelse)})")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        sign = _sign(node.op) + "="
        self._between(node.target, node.value, sign, "=", "assignment")
        if sign in ("+=", "-="):
            self._between(node.target, node.value, sign, "-=" if sign == "+=" else "+=", "operator")
        self._replace("statement", node, "pass")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if self.depth and isinstance(node.value, ast.Call):
            self._replace("statement", node, "pass")
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace("statement", node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace("statement", node, "break")

    def visit_Break(self, node: ast.Break) -> None:
        self._replace("statement", node, "continue")

    def visit_With(self, node: ast.With) -> None:
        if all(item.optional_vars is None for item in node.items):
            start = self._span(node)[0]
            end = self._span(node.items[-1].context_expr)[1]
            if self.text[end] == ":":
                self._put("with", start, end, "if True")
        self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> None:
        for statement in node.finalbody:
            if isinstance(statement, ast.Expr | ast.Assign | ast.AugAssign):
                self._replace("statement", statement, "pass")
        self.generic_visit(node)

    def visit_Slice(self, node: ast.Slice) -> None:
        if node.lower is not None and node.upper is not None:
            self._replace("slice", node.lower, "")
            self._replace("slice", node.upper, "")
        if node.step is not None:
            self._replace("slice", node.step, "1")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in _SILENT or name.endswith("Error"):
            return
        if name in _NAMES:
            end = self._span(node.func)[1]
            self._put("name", end - len(name), end, _NAMES[name])
        if name in _UNWRAPPED and len(node.args) == 1 and not node.keywords:
            self._replace("call", node, self._source(node.args[0]))
        if name == "copy" and not node.args and isinstance(node.func, ast.Attribute):
            self._replace("copy", node, self._source(node.func.value))
        if name == "range" and len(node.args) == 2:
            self._replace("off by one", node.args[0], f"{self._source(node.args[0])} + 1")
        if name == "range":
            last = node.args[min(1, len(node.args) - 1)]
            self._replace("off by one", last, f"{self._source(last)} - 1")
        plain = [
            a for a in node.args[:3] if isinstance(a, ast.Name | ast.Attribute | ast.Subscript)
        ]
        for a, b in itertools.pairwise(plain):
            start, end = self._span(a)[0], self._span(b)[1]
            gap = self.text[self._span(a)[1] : self._span(b)[0]]
            self._put("swapped", start, end, f"{self._source(b)}{gap}{self._source(a)}")
        for i, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, *_UNSEEN) and (i or node.args):
                start = self.text.rindex(",", 0, self._span(keyword)[0])
                self._put("argument", start, self._span(keyword)[1], "")
        node.keywords = [k for k in node.keywords if k.arg not in _UNSEEN]
        self.generic_visit(node)


def _named(target: ast.AST) -> list[ast.Name]:
    """The names that an assignment binds: without it, what follows is a `NameError`."""
    if isinstance(target, ast.Tuple):
        return [name for part in target.elts for name in _named(part)]
    return [target] if isinstance(target, ast.Name) else []


def _sign(op: ast.AST) -> str:
    """How an operator is written."""
    if isinstance(op, ast.cmpop):
        example: ast.expr = ast.Compare(ast.Name("a"), [op], [ast.Name("b")])
    else:
        example = ast.BinOp(ast.Name("a"), op, ast.Name("b"))  # type: ignore[arg-type]
    return ast.unparse(example)[1:-1].strip()


def mutants_of(path: str, text: str) -> dict[int, list[Mutant]]:
    """All mutants of a file, by line."""
    finder = _Finder(path, text)
    finder.visit(ast.parse(text))
    return {line: sorted(set(found), key=repr) for line, found in finder.found.items()}


def files(root: Path) -> dict[str, list[str]]:
    """The files of the library, by the folder of `SHARES` they belong to."""
    out: dict[str, list[str]] = defaultdict(list)
    for place in ("tinyseq", "viz"):
        for file in sorted((root / place).rglob("*.py")):
            path = str(file.relative_to(root))
            if "__pycache__" in path or path.endswith("__init__.py"):
                continue
            folder = str(Path(path).parent)
            out[next(f for f in (folder, "viz") if f in SHARES)].append(path)
    return out


def draw(root: Path, seed: int, count: int, only: str = "") -> list[Mutant]:
    """So many mutants, no two of the same line: folders by `SHARES`, in each any line is as likely
    as any other, and on the line any kind of mutant, of `_COARSE` ones fewer.
    """
    rng = random.Random(seed)
    texts: dict[str, str] = {}
    lines: dict[str, list[list[Mutant]]] = {}
    for folder, paths in files(root).items():
        lines[folder] = []
        for path in paths:
            if only in path:
                texts[path] = (root / path).read_text()
                lines[folder] += mutants_of(path, texts[path]).values()
        rng.shuffle(lines[folder])
    folders = [f for f in SHARES if lines.get(f)]
    drawn: list[Mutant] = []
    while len(drawn) < count and any(lines[f] for f in folders):
        folder = rng.choices(folders, [SHARES[f] for f in folders])[0]
        if lines[folder]:
            by_kind: dict[str, list[Mutant]] = defaultdict(list)
            for mutant in lines[folder].pop():
                by_kind[mutant.kind].append(mutant)
            mutant = rng.choice(by_kind[rng.choice(sorted(by_kind))])
            fine = rng.random() < _COARSE.get(mutant.kind, 1)
            if fine and _is_code(mutant.apply(texts[mutant.path])):
                drawn.append(mutant)
    return drawn


def _is_code(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
