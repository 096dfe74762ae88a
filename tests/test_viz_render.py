"""Renderers: a time limit, nothing left behind, a broken `dot`, and letters that a font lacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import ops, viz
from tinyseq.viz import render

posix = pytest.mark.skipif(os.name != "posix", reason="the programs are shell scripts")
pytestmark = posix


@pytest.fixture(autouse=True)
def fresh():
    """What was found out about programs belongs to one test."""
    render._broken.cache_clear()
    render._warn_of.cache_clear()
    yield
    render._broken.cache_clear()
    render._warn_of.cache_clear()


@pytest.fixture
def picture():
    return viz.draw(ops.tanh(ts.tensor(1.0, requires_grad=True)))


def program(folder: Path, text: str, name: str = "dot") -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def pure() -> str:
    found = render._pure_executable()
    if found is None:
        pytest.skip("graphviz-pure is not installed")
    return found


def use_dot(monkeypatch, path: str) -> None:
    which = render.shutil.which
    monkeypatch.setattr(render.shutil, "which", lambda n: path if n == "dot" else which(n))
    monkeypatch.setattr(render, "_installed", lambda package: True)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


BROKEN = {
    "status": "#!/bin/sh\nexit 3\n",
    "no program": "\x7fnot a program",
    "no interpreter": "#!/no/such/interpreter\n",
    "draws nothing": '#!/bin/sh\n[ "$1" = -V ] && exit 0\ncat > /dev/null; echo no >&2; exit 1\n',
    "hangs at once": "#!/bin/sh\nexec sleep 60\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_dot_is_replaced_with_one_warning(kind, picture, tmp_path, monkeypatch):
    pure()
    use_dot(monkeypatch, program(tmp_path, BROKEN[kind]))
    monkeypatch.setattr(render, "_PROBE", 0.3)
    with pytest.warns(UserWarning, match="graphviz-pure draws instead of .*dot") as caught:
        svg = picture.svg()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture.svg() == svg


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_dot_alone_is_an_error(kind, picture, tmp_path, monkeypatch):
    use_dot(monkeypatch, program(tmp_path, BROKEN[kind]))
    monkeypatch.setattr(render, "_PROBE", 0.3)
    monkeypatch.setattr(render, "_pure_executable", lambda: None)
    with pytest.raises(viz.RenderError, match="Graphviz could not make a svg file"):
        picture.svg()


HANGS = '#!/bin/sh\n[ "$1" = -V ] && exit 0\necho $$ > "{0}"\nexec sleep 60\n'


@pytest.mark.parametrize("which", ["dot", "graphviz-pure"])
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_picture_that_takes_too_long_is_an_error_that_says_what_to_do(
    which, by, picture, tmp_path, monkeypatch
):
    pid = tmp_path / "pid"
    path = program(tmp_path, HANGS.format(pid), which)
    if which == "dot":
        use_dot(monkeypatch, path)
    else:
        monkeypatch.setattr(render, "find_renderer", lambda: render._graphviz_pure)
        monkeypatch.setattr(render, "_pure_executable", lambda: path)
    if by == "environment":
        monkeypatch.setenv("TINYSEQ_RENDER_SECONDS", "1")
    began = time.monotonic()
    with pytest.raises(viz.RenderError) as caught:
        picture.save(tmp_path / "p.svg", **({"seconds": 1} if by == "argument" else {}))
    assert time.monotonic() - began < 20
    for word in (which, "1 s", "2 boxes", "1 arrows", "fewer steps", "level='layer'", "max_nodes"):
        assert word in str(caught.value)
    assert not (tmp_path / "p.svg").exists()
    assert until(lambda: not alive(int(pid.read_text())))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "soon", True])
def test_a_limit_that_is_none_is_refused(seconds, picture, monkeypatch):
    with pytest.raises((TypeError, ValueError), match=r"seconds=.* above 0"):
        picture.svg(seconds)
    monkeypatch.setenv("TINYSEQ_RENDER_SECONDS", str(seconds))
    if seconds is not True:
        with pytest.raises(ValueError, match="TINYSEQ_RENDER_SECONDS"):
            picture.svg()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end the renderer")
def test_no_renderer_is_left_behind_by_a_killed_process(tmp_path):
    pid = tmp_path / "pid"
    path = program(tmp_path, HANGS.format(pid), "graphviz-pure")
    code = (
        "from tinyseq.viz import render\n"
        f"render._pure_executable = lambda: {path!r}\n"
        "render._graphviz_pure(b'digraph {}', 'svg', 60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert until(lambda: pid.exists() and pid.read_text().strip(), 60)
        renderer = int(pid.read_text())
        assert alive(renderer)
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        assert until(lambda: not alive(renderer))
    finally:
        parent.kill()


def test_graphviz_pure_shows_letters_that_its_fonts_have(tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    path = program(tmp_path, f'#!/bin/sh\ncat > "{seen}"\n', "graphviz-pure")
    monkeypatch.setattr(render, "_pure_executable", lambda: path)
    monkeypatch.setattr(render, "find_renderer", lambda: render._graphviz_pure)
    drawn = viz.Picture('digraph { "h" [label="h⟨3⟩"]; }')
    drawn.png()
    assert "h‹3›" in seen.read_text()
    drawn.svg()  # there it is up to the browser, which has them
    assert "h⟨3⟩" in seen.read_text()


def test_a_parameter_of_many_steps_is_drawn_in_seconds():
    pure()
    h = ts.tensor(np.ones((1, 1)), requires_grad=True)
    w = ts.tensor(np.ones((1, 1)), requires_grad=True)
    for _ in range(100):
        h = ops.tanh(h @ w)
    drawn = viz.draw(h.sum(), max_nodes=300)
    began = time.monotonic()
    drawn.svg()
    assert time.monotonic() - began < 30
