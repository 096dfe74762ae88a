"""The gallery: every figure of the notes is there, drawn by the code that stands below it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import tinyseq as ts
from tinyseq import viz
from tinyseq.viz import render
from tinyseq.viz.gallery import index
from tinyseq.viz.gallery.figures import FIGURES, PREAMBLE
from tinyseq.viz.gallery.notes import NOTES

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "viz" / "gallery"


def test_every_figure_of_the_notes_has_an_entry():
    assert all(NOTES.values())
    assert {key for keys in NOTES.values() for key in keys} == set(FIGURES) - {"attention"}


@pytest.mark.parametrize("key", FIGURES)
def test_a_figure_is_what_its_code_draws(key):
    """As a reader would run it: the preamble, then the code, and look at the last value."""
    figure = FIGURES[key]
    assert figure.title
    assert figure.says.endswith((".", "?"))
    assert all(len(line) <= 100 for line in figure.code.splitlines())
    names: dict[str, Any] = {"__name__": "reader"}
    exec(PREAMBLE, names)
    program = ast.parse(figure.code)
    last = program.body.pop()
    assert isinstance(last, ast.Expr)
    ts.seed(0)
    exec(compile(program, key, "exec"), names)
    found = eval(compile(ast.Expression(last.value), key, "eval"), names)
    ts.seed(0)
    expected = figure.draw()
    assert found
    assert shown(found) == shown(expected)


def shown(drawn: Any) -> list[Any]:
    """What can be compared of one picture or several, without rendering them."""
    pictures = drawn if isinstance(drawn, list) else [drawn]
    return [
        p.dot if isinstance(p, viz.Picture) else {name: v.tolist() for name, v in p.data.items()}
        for p in pictures
    ]


def test_what_is_said_of_words_and_characters_is_what_is_drawn():
    figure = FIGURES["words_or_characters"]
    said = re.findall(r"(\d+)(?: steps)? for", figure.says)
    last = [re.findall(r"ŷ⟨(\d+)⟩", picture.dot)[-1] for picture in figure.draw()]
    assert said == last


@pytest.mark.parametrize("key", FIGURES)
def test_a_figure_shows_the_symbols_of_its_caption(key):
    drawn = FIGURES[key].draw()
    pictures = drawn if isinstance(drawn, list) else [drawn]
    text = "".join(getattr(p, "dot", "") or " ".join(p.data) for p in pictures)
    says = re.sub(r"= \[.*?\]", "", FIGURES[key].says)  # what W_a is made of
    said = re.findall(r"[WΓb]_\w+|[→←]?[ac]̃?(?=\[l\]|⟨)|ŷ(?=⟨)|y(?=⟨t)", says)
    assert {symbol for symbol in said if symbol not in text} == set()
    assert not re.search(r"label=[^,]*(concat|\[:)", text)


def test_numbers_and_levels_are_those_of_the_captions():
    decoder = FIGURES["encoder_decoder"].draw().dot
    assert set(re.findall(r"[xyŷ]⟨\d⟩", decoder)) == {
        "x⟨1⟩", "x⟨2⟩", "y⟨0⟩", "y⟨1⟩", "y⟨2⟩", "ŷ⟨1⟩", "ŷ⟨2⟩", "ŷ⟨3⟩",
    }  # fmt: skip
    assert {f"a[{n}]⟨0⟩" for n in (1, 2, 3)} <= set(
        re.findall(r"a\[\d\]⟨0⟩", FIGURES["deep"].draw().dot)
    )


def test_one_gradient_vanishes_one_does_not_and_one_explodes():
    ts.seed(0)  # as the gallery draws it
    first, last = zip(*(
        (p.data["x1--r0t1"]["gradient"], p.data["x30--r0t30"]["gradient"])
        for p in FIGURES["vanishing"].draw()
    ), strict=True)  # fmt: skip
    grows = [a / b for a, b in zip(first, last, strict=True)]
    assert grows[0] < 1e-3
    assert 0.1 < grows[1] < 10
    assert grows[2] > 1e3


@pytest.mark.parametrize("key", FIGURES)
def test_what_is_called_a_prediction_is_one(key):
    """The notes' ŷ is what a layer above the state, or a loss's σ or softmax, says."""
    drawn = FIGURES[key].draw()
    for picture in drawn if isinstance(drawn, list) else [drawn]:
        made_by = re.findall(r'"(r\d+)t\d+(?:_\d+)?" -> "y0t?\d*"', getattr(picture, "dot", ""))
        if "ŷ⟨" in getattr(picture, "dot", "") and made_by:
            assert re.search(r'label="[^"]*(head\.weight|W_ya)', picture.dot), key


class Page(HTMLParser):
    """Collects what a page's structure is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if "id" in found:
            self.ids.append(str(found["id"]))
        if tag == "a" and (found.get("href") or "").startswith("#"):
            self.links.append(str(found["href"])[1:])
        self.outside += [
            str(found[name])
            for name in ("src", "href", "xlink:href")
            if re.match(r"(https?:)?//", found.get(name) or "")
        ]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "img", "link", "br"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_of_all_figures(tmp_path):
    if render.find_renderer() is None:
        pytest.skip("no renderer here")
    state = ts.random.get_state()
    file = index.make(tmp_path / "new" / "gallery")
    assert ts.random.get_state() == state
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert set(FIGURES) <= set(page.ids)
    assert set(page.links) <= set(page.ids)
    assert page.outside == []
    assert "<script" not in text
    for figure in FIGURES.values():
        pictures = sorted(file.parent.glob(f"{figure.key}[0-9.]*"))
        assert pictures, figure.key
        for picture in pictures:
            assert picture.stat().st_size > 1000
            if picture.suffix == ".svg":
                assert ET.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    listed = re.findall(r"<td>([^<]*)</td><td><a ", text)
    assert len(listed) == len(NOTES)


def test_some_of_the_figures(tmp_path, capsys):
    if render.find_renderer() is None:
        pytest.skip("no renderer here")
    assert index.main(["--out", str(tmp_path), "--only", "deep", "rolled"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep.svg", "index.html", "rolled.svg"]
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert set(page.ids) & set(FIGURES) == {"deep", "rolled"}
    assert set(page.links) == {"deep", "rolled"}
    whole = index.make(tmp_path / "again", ["rolled"]).parent / "rolled.svg"
    assert whole.read_bytes() == (tmp_path / "rolled.svg").read_bytes()


def test_bad_wishes(tmp_path, capsys, monkeypatch):
    with pytest.raises(KeyError, match="no figure deeep; there are unrolled"):
        index.make(tmp_path, ["deeep"])
    with pytest.raises(SystemExit):
        index.main(["--only", "deeep"])
    assert "invalid choice" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    if render.find_renderer() is not None:
        assert index.main(["--out", str(tmp_path / "file"), "--only", "rolled"]) == 1
        assert "file: File exists. Choose another --out." in capsys.readouterr().err
    monkeypatch.setattr(render, "find_renderer", lambda: None)
    assert index.main(["--out", str(tmp_path / "none"), "--only", "rolled"]) == 1
    assert "pip install graphviz-pure" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_script_runs():
    run = subprocess.run(
        [sys.executable, GALLERY / "make.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "--out" in run.stdout


def test_the_pictures_that_are_kept_are_those_that_the_readme_shows():
    shown = re.findall(
        r"!\[[^\]]*\]\(viz/gallery/([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")
    )
    kept = [path.name for path in GALLERY.iterdir() if path.suffix in (".svg", ".png")]
    assert sorted(kept) == sorted(set(shown))
    assert {Path(name).stem.rstrip("0123456789") for name in kept} <= set(FIGURES)
