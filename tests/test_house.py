"""The house: files import each other in one direction, but for one small circle around Tensor.

Who may import whom is a contract in pyproject.toml, which `lint-imports` checks.
"""

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import grimp
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def imports(tmp_path, monkeypatch) -> grimp.ImportGraph:
    """Who imports whom, also inside functions, but not for type checkers alone."""
    tree = tmp_path / "tinyseq"  # as it is installed: grimp finds the files of a package by folder
    shutil.copytree(ROOT / "tinyseq", tree)
    shutil.copytree(ROOT / "viz", tree / "viz")
    house = ModuleType("tinyseq")
    house.__spec__ = importlib.util.spec_from_file_location(
        "tinyseq", tree / "__init__.py", submodule_search_locations=[str(tree)]
    )
    monkeypatch.setitem(sys.modules, "tinyseq", house)
    return grimp.build_graph("tinyseq", exclude_type_checking_imports=True, cache_dir=None)


def circles(graph: grimp.ImportGraph) -> set[frozenset[str]]:
    """The largest sets of files in which each imports each other, by whatever way round."""
    found = set()
    for file in graph.modules:
        others = graph.find_upstream_modules(file) & graph.find_downstream_modules(file)
        if others:
            found.add(frozenset({file, *others}))
    return found


def test_one_circle_at_most_and_a_small_one(imports):
    assert {"tinyseq.tensor", "tinyseq.viz.page", "tinyseq.viz.gallery.index"} <= imports.modules
    found = circles(imports)
    assert len(found) <= 1, [sorted(circle) for circle in found]
    assert all(len(circle) <= 8 for circle in found), [sorted(circle) for circle in found]


def test_circles_are_found():
    graph = grimp.ImportGraph()
    for importer, imported in ("ab", "bc", "ca", "cd", "de", "ed", "ef"):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == {frozenset("abc"), frozenset("de")}
