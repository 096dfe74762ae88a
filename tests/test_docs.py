"""Everything public says what it is, and files that a page names are there."""

import inspect
import re
import types
from pathlib import Path

import pytest

import tinyseq as ts
from tinyseq import nn, optim, text, viz

ROOT = Path(__file__).parent.parent
PUBLIC = [
    (f"{module.__name__}.{name}", getattr(module, name))
    for module in (ts, nn, nn.init, nn.interop, nn.notes, nn.onnx, optim, text, viz, ts.functional)
    for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")])
    if getattr(getattr(module, name), "__module__", "tinyseq").startswith("tinyseq")
    and not isinstance(getattr(module, name), str | types.ModuleType)
]


@pytest.mark.parametrize(("name", "thing"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_it_is_documented(name, thing):
    assert (getattr(thing, "__doc__", None) or "").strip()
    if not inspect.isclass(thing):
        return
    for method_name, method in vars(thing).items():
        method = getattr(method, "__func__", method)
        public = not method_name.startswith("_")
        if public and inspect.isfunction(method) and method_name not in ("forward", "update"):
            assert method.__doc__ or documented_above(thing, method_name), method_name


def documented_above(thing, method_name):
    """A method that is written anew means what it means in the class it comes from."""
    above = (getattr(base, method_name, None) for base in thing.__mro__[1:-1])
    return any(method is not None and method.__doc__ for method in above)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_are_there(page):
    written = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:toml|md))`", written)
    named += re.findall(r"\]\(([^)#:]+)\)", written)
    named = [name for name in named if not name.startswith("runs/")]  # which programs write
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.stem)
def test_code_on_a_page_runs(page):
    names = {"__name__": page.stem}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.M):
        exec(compile(block, page.name, "exec"), names)


def test_the_map_of_symbols_is_the_same_on_its_page():
    page = (ROOT / "docs" / "notation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^(?!=|the notes)(\S.*?) {2,}\S", nn.notes.__doc__, re.M)
    assert len(rows) > 10
    there = re.findall(r"^\| (.*?) \| ", page.replace("\\|", "¦"), re.M)[2:]
    assert [row.replace("|", "¦") for row in rows] == there
