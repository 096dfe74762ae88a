"""What the README shows is what happens: its Python runs, its shell lines and links exist."""

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FORMATS = r"^```{}\n(.*?)^```"


def blocks(language):
    return re.findall(FORMATS.format(language), README, re.DOTALL | re.MULTILINE)


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    pytest.importorskip("graphviz")
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    code = blocks("python")
    assert code
    for block in code:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "lstm.svg").read_text(encoding="utf-8").count("LSTMCell") == 6
    printed = capsys.readouterr().out
    shown = blocks("text")
    assert shown
    for part in "".join(shown).split("…\n"):  # what lies between two ellipses was printed so
        assert part.strip("\n") in printed


def test_viz_lines_run(tmp_path, monkeypatch):
    pytest.importorskip("graphviz")
    from tinyseq.viz.__main__ import main

    monkeypatch.chdir(tmp_path)
    lines = [line for b in blocks("sh") for line in b.splitlines() if "-m tinyseq.viz" in line]
    assert lines
    for line in lines:
        words = shlex.split(line)
        monkeypatch.setattr(sys, "argv", words[2:])
        code = main(words[3:])
        assert not code
        assert Path(words[-1]).stat().st_size > 1000


def test_links_and_files_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
    for name in re.findall(r"\| `([\w/]+\.py)`", README):
        assert (ROOT / name).exists(), name
