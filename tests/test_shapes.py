"""The five input-output shapes: each learns, on data that it is not trained on."""

import importlib.util
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "demos" / "shapes.py"
spec = importlib.util.spec_from_file_location("demo_shapes", PROGRAM)
assert spec is not None
assert spec.loader is not None
demo = importlib.util.module_from_spec(spec)
sys.modules["demo_shapes"] = demo
spec.loader.exec_module(demo)

# Steps (None: as many as the demo takes) and the share that has to be right: far above what a
# model that has learnt nothing gets, and below what this one gets.
LEARNS = {
    "one-to-one": (None, 0.95),
    "one-to-many": (200, 0.7),
    "many-to-one": (None, 0.9),
    "many-to-many-equal": (50, 0.6),
    "many-to-many-different": (120, 0.7),
}


@pytest.mark.parametrize("shape", LEARNS)
def test_each_shape_learns(shape, capsys):
    steps, enough = LEARNS[shape]
    reached = demo.SHAPES[shape](**({} if steps is None else {"steps": steps}))
    assert reached > enough
    assert f"{reached:.1%}" in capsys.readouterr().out
    assert demo.SHAPES[shape](steps=1) < enough


def test_the_command_line(capsys, monkeypatch):
    asked = []
    for name in demo.SHAPES:
        monkeypatch.setitem(demo.SHAPES, name, lambda name=name: asked.append(name) or 0.0)
    assert demo.main(["many-to-one", "one-to-one"]) == 0
    assert asked == ["many-to-one", "one-to-one"]
    assert demo.main([]) == 0
    assert asked[2:] == list(demo.SHAPES)
    with pytest.raises(SystemExit):
        demo.main(["two-to-two"])
    assert "'two-to-two' is no shape. Use one-to-one," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n", "letters"), [(4, "IV"), (1994, "MCMXCIV"), (3888, "MMMDCCCLXXXVIII"), (900, "CM")]
)
def test_roman(n, letters):
    assert demo.roman(n) == letters


@pytest.mark.parametrize(
    ("n", "in_english", "in_french"),
    [
        (0, "zero", "zéro"),
        (21, "twenty one", "vingt et un"),
        (71, "seventy one", "soixante et onze"),
        (80, "eighty", "quatre vingts"),
        (81, "eighty one", "quatre vingt un"),
        (91, "ninety one", "quatre vingt onze"),
        (100, "one hundred", "cent"),
        (200, "two hundred", "deux cents"),
        (280, "two hundred and eighty", "deux cent quatre vingts"),
        (517, "five hundred and seventeen", "cinq cent dix sept"),
        (999, "nine hundred and ninety nine", "neuf cent quatre vingt dix neuf"),
    ],
)
def test_names_of_numbers(n, in_english, in_french):
    assert " ".join(demo.english(n)) == in_english
    assert " ".join(demo.french(n)) == in_french


def test_prose_marks_the_ends_of_words():
    letters, ends = demo.prose()
    assert len(letters) == len(ends) > 200_000
    text = "".join(chr(97 + i) + " " * e for i, e in zip(letters[:2000], ends[:2000], strict=True))
    assert len(text.split()) > 250
    assert {"the", "assert", "statement"} <= set(text.split())
