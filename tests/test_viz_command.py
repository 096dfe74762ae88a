"""The command line of tinyseq.viz: one command for each kind of picture."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn, saving, text, viz
from tinyseq.viz import render, saved
from tinyseq.viz.__main__ import main

QUOTE = 'To be, or not to be: "that" is the question.\n' * 20
CELLS = sorted(text.language_model.CELLS)


@pytest.fixture
def any_renderer():
    if render.find_renderer() is None:
        pytest.skip("no renderer here")


@pytest.fixture
def charts():
    pytest.importorskip("matplotlib")


def save_model(path, cell="gru", **more):
    ts.seed(0)
    vocabulary = text.Vocabulary(QUOTE)
    model = text.LanguageModel(len(vocabulary), 8, 2, cell, embedding_size=5)
    tree = {"model": model.state_dict(), "vocabulary": list(vocabulary.symbols), **more}
    saving.save(path, tree)
    return model


@pytest.fixture
def trained(tmp_path):
    save_model(tmp_path / "model.safetensors")
    return f"--checkpoint {tmp_path / 'model.safetensors'} --text tobe".split()


# -- layers ----------------------------------------------------------------------------------------


def test_draw_may_be_left_out(capsys):
    for words in ("draw lstm --level layer", "lstm --level layer"):
        assert main(words.split()) == 0
        assert capsys.readouterr().out == viz.draw_unrolled(nn.LSTM(3, 4), level="layer").dot


@pytest.mark.parametrize("flow", ["gradient", "value"])
def test_draw_what_flows(capsys, flow):
    assert main(f"draw rnn --steps 3 --flow {flow}".split()) == 0
    dot = capsys.readouterr().out
    assert ("flowed back" in dot) == (flow == "gradient")
    assert dot != viz.draw_unrolled(nn.RNN(3, 4), 3).dot


def test_a_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as nobody:
        run = subprocess.run(
            [sys.executable, "-m", "tinyseq.viz", "rnn"], stdout=nobody, stderr=subprocess.PIPE
        )
    assert (run.returncode, run.stderr) == (0, b"")


def test_page(any_renderer, tmp_path):
    out = tmp_path / "gru.html"
    assert main(f"page gru --steps 4 --layers 2 -o {out}".split()) == 0
    assert out.read_text(encoding="utf-8").lower().startswith("<!doctype html>")


# -- charts ----------------------------------------------------------------------------------------


def test_flow(charts, tmp_path):
    out = tmp_path / "flow.png"
    assert main(f"flow rnn lstm --steps 5 --hidden 4 -o {out}".split()) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_training(charts, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        losses = {"losses": [[1, 3.0], [2, 2.0]], "validations": [[0, 4.0], [2, 2.5]]}
        (tmp_path / name / "numbers.json").write_text(json.dumps(losses))
    out = tmp_path / "curves.svg"
    assert main(f"training {tmp_path / 'a'} {tmp_path / 'b'} -o {out}".split()) == 0
    assert "<svg" in out.read_text(encoding="utf-8")


# -- language models -------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_a_language_model_comes_back_whole(tmp_path, cell):
    model = save_model(tmp_path / "m.safetensors", cell, settings={"cell": cell})
    found, vocabulary = saved.language_model(tmp_path / "m.safetensors")
    assert vocabulary == text.Vocabulary(QUOTE)
    indices = vocabulary.encode("to be or")[:, None]
    assert np.array_equal(found(indices)[0].numpy(), model(indices)[0].numpy())


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"losses": [1.0]}, "holds no language model.*demos/shakespeare.py"),
        ({"model": {"w": np.ones(3)}, "vocabulary": ["a"]}, "no state of a text.LanguageModel"),
        ({"model": {}, "vocabulary": ["a"]}, "no state of a text.LanguageModel"),
    ],
)
def test_what_is_no_language_model_is_refused(tmp_path, tree, message):
    saving.save(tmp_path / "m.safetensors", tree)
    with pytest.raises(saving.CheckpointError, match=message):
        saved.language_model(tmp_path / "m.safetensors")


def test_another_number_or_kind_of_symbols_is_refused(tmp_path):
    save_model(tmp_path / "m.safetensors", vocabulary=["a", "b"])
    with pytest.raises(saving.CheckpointError, match="over 2 characters"):
        saved.language_model(tmp_path / "m.safetensors")
    words = [f"word{i}" for i in range(len(text.Vocabulary(QUOTE)))]
    save_model(tmp_path / "m.safetensors", vocabulary=words)
    with pytest.raises(saving.CheckpointError, match="single characters"):
        saved.language_model(tmp_path / "m.safetensors")


def test_colour(trained, tmp_path, capsys):
    assert main(["colour", *trained, "--unit", "3"]) == 0
    assert "tobe" in re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    out = tmp_path / "coloured.html"
    words = f"--unit 3 --layer 0 --name update -o {out}".split()
    assert main(["colour", *trained, *words]) == 0
    assert "update of unit 3, recurrent.layers.0" in out.read_text(encoding="utf-8")


def test_heatmap_of_a_file(charts, trained, tmp_path):
    (tmp_path / "quote.txt").write_text(QUOTE)
    out = tmp_path / "heat.svg"
    words = f"--file {tmp_path / 'quote.txt'} --first 20 --layer recurrent.layers.0 -o {out}"
    assert main(["heatmap", *trained[:2], *words.split()]) == 0
    assert "<svg" in out.read_text(encoding="utf-8")


def test_units(trained, tmp_path, capsys):
    (tmp_path / "quote.txt").write_text(QUOTE)
    words = f"--file {tmp_path / 'quote.txt'} --property quotation --top 2"
    assert main(["units", *trained[:2], *words.split()]) == 0
    assert "quotation" in capsys.readouterr().out


# -- the rest --------------------------------------------------------------------------------------


def test_gallery(any_renderer, tmp_path, capsys):
    assert main(f"gallery --only rolled --out {tmp_path}".split()) == 0
    assert (tmp_path / "index.html").exists()
    with pytest.raises(SystemExit):
        main(["gallery", "--only", "nothing"])
    assert "python -m tinyseq.viz gallery" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"to be\xff\xfe", b"\x89PNG\r\n\x1a\n", b"to be\0\0"])
def test_a_file_that_is_no_text(trained, tmp_path, capsys, content):
    file = tmp_path / "picture.png"
    file.write_bytes(content)
    words = ["colour", "--checkpoint", str(tmp_path / "model.safetensors"), "--unit", "0"]
    assert main([*words, "--file", str(file)]) == 1
    printed = capsys.readouterr().err
    assert f"--file {file} is no UTF-8 text: see its byte " in printed
    assert "iconv" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        "draw",
        "page lstm",
        "flow -o f.png",
        "flow elman -o f.png",
        "training -o f.png",
        "colour --checkpoint m --text a",
        "colour --checkpoint m --unit 1",
        "heatmap --checkpoint m --text a --file b -o f.png",
        "units --checkpoint m --text a",
    ],
)
def test_what_is_missing_or_too_much_is_said(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("page lstm -o {}/page.svg", ".html"),
        ("flow rnn -o {}/flow.gif", ".png"),
        ("training {}/none -o {}/f.png", "none"),
        ("colour --checkpoint {}/none --text a --unit 0", "none"),
        ("colour --checkpoint {}/model.safetensors --text tobe --unit 99", "H=8"),
        ("colour --checkpoint {}/model.safetensors --text tobe --unit 0 --layer up", "no layer"),
        ("colour --checkpoint {}/model.safetensors --text é --unit 0", "é"),
        ("colour --checkpoint {}/model.safetensors --file {}/none --unit 0", "none"),
        ("heatmap --checkpoint {}/model.safetensors --text tobe -o {}/no/f.png", "no/f.png"),
        ("units --checkpoint {}/model.safetensors --text tobe --property capital", "400"),
    ],
)
def test_a_problem_is_one_clear_message(charts, words, message, tmp_path, capsys):
    save_model(tmp_path / "model.safetensors")
    assert main(words.replace("{}", str(tmp_path)).split()) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
