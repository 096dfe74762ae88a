"""Each demo runs for a few steps and leaves its files; what the demos share ends as it should."""

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import common
import numpy as np
import pytest
from any_machine import PATIENCE
from matplotlib.figure import Figure

from tinyseq import nn, text

DEMOS = Path(common.__file__).parent

# Demo, and what it has to print and to measure. A demo that comes to the folder gets a line here.
PRINTS_AND_MEASURES: dict[str, tuple[list[str], list[str]]] = {
    "characters": (["dictionary", "one direction", "two directions"], ["scores", "parameters"]),
    "memory": (["adding: mean squared error", "echo state"], ["scores", "gradient_by_lag"]),
}

# What makes it smaller than --steps alone does.
SMALLER: dict[str, dict[str, object]] = {
    "characters": {"HELD_OUT": 1, "speeches": lambda: text.speeches()[::150]},
    "memory": {"LAGS": (4, 8), "FAR": 12, "TRAINED_LAG": 8, "ECHO_FITTED": 200},
}


@pytest.mark.parametrize("name", PRINTS_AND_MEASURES)
def test_a_demo_runs_for_a_few_steps(name, tmp_path, capsys, monkeypatch):
    # So few steps are not worth compiling anything for, and a training step would compile layers.
    monkeypatch.setattr("tinyseq.nn.recurrent.COMPILED_FROM", 10**9)
    monkeypatch.setattr(nn, "Recurrent", functools.partial(nn.Recurrent, mode="unroll"))
    demo = importlib.import_module(name)
    for constant, value in SMALLER.get(name, {}).items():
        monkeypatch.setattr(demo, constant, value)
    prints, measures = PRINTS_AND_MEASURES[name]
    assert demo.main(["--steps", "2", "--seed", "1", "--out", str(tmp_path / name)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""  # no bar where there is no terminal
    for part in [*prints, "Cut short by --steps 2"]:
        assert part in printed.out
    numbers = json.loads((tmp_path / name / "numbers.json").read_text(encoding="utf-8"))
    assert numbers["seed"] == 1
    for key in measures:
        assert key in numbers
    files = sorted(path.name for path in (tmp_path / name).iterdir())
    assert files == ["figure.png", "numbers.json"]
    assert (tmp_path / name / "figure.png").read_bytes().startswith(b"\x89PNG")


# -- what they share ------------------------------------------------------------------------------


def run(demo, *arguments: object) -> int:
    return common.run_demo(demo, "A demo.", [str(a) for a in arguments])


def test_a_run_leaves_numbers_and_figure(tmp_path, capsys):
    def demo(run):
        steps = list(run.steps(5, "training"))
        run.write_numbers({"steps_made": len(steps), "μ": np.float32(0.5), "all": np.arange(2)})
        run.write_figure(Figure(figsize=(1, 1)))
        run.say(f"drawn: {run.rng.integers(10**9)}")

    drawn = []
    for seed in (3, 3, 4):  # into the same folder: the last one stays
        assert run(demo, "--out", tmp_path / "a" / "b", "--seed", seed) == 0
        drawn.append(capsys.readouterr().out.splitlines()[0])
    assert drawn[0] == drawn[1] != drawn[2]
    numbers = json.loads((tmp_path / "a" / "b" / "numbers.json").read_text(encoding="utf-8"))
    assert numbers.pop("seconds") >= 0
    assert numbers == {"seed": 4, "steps": None, "steps_made": 5, "μ": 0.5, "all": [0, 1]}
    assert (tmp_path / "a" / "b" / "figure.png").read_bytes().startswith(b"\x89PNG")

    assert run(demo, "--out", tmp_path, "--steps", 2) == 0
    assert json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))["steps_made"] == 2
    assert "Cut short by --steps 2" in capsys.readouterr().out


def test_the_default_folder_has_the_name_of_the_demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(lambda run: run.write_numbers({})) == 0
    assert (tmp_path / "runs" / "test_demos" / "numbers.json").exists()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("no sense in it"), 1, "error: no sense in it\n"),
        (ModuleNotFoundError("not there: pip install"), 1, "error: not there: pip install\n"),
        (OSError("disk full"), 1, "error: disk full\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_how_a_run_ends_that_fails(tmp_path, capsys, error, code, message):
    def demo(run):
        raise error

    assert run(demo, "--out", tmp_path / "a" / "b") == code
    assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []  # no empty folders either


def test_a_folder_that_cannot_be_written_to_is_said_at_once(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    started = []
    assert run(lambda run: started.append(run), "--out", tmp_path / "file" / "run") == 1
    assert started == []
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot write to the folder {tmp_path / 'file' / 'run'}: ")
    assert error.endswith("Choose another --out\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "'-1' is not a whole number, at least 0"),
        (["--steps", "0"], "'0' is not a whole number, at least 1"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        run(lambda run: None, *arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


SLEEPER = """
import sys, time
import common
def demo(run):
    run.say("started")
    for i in range(100_000):
        if sys.argv[1] == "talk":
            run.say(str(i))
        else:
            time.sleep(0.01)
    run.write_numbers({"reached": i})
sys.exit(common.run_demo(demo, None, ["--out", sys.argv[2]]))
"""


def start(action: str, out: Path) -> subprocess.Popen[str]:
    script = out.with_name("sleeper.py")
    script.write_text(SLEEPER)
    python = [sys.executable, str(script), action, str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(DEMOS), *sys.path])}
    return subprocess.Popen(
        python, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c(tmp_path):
    with start("sleep", tmp_path / "run") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(2)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors == "interrupted\n"
    assert not (tmp_path / "run").exists()


def test_it_goes_on_in_silence_when_its_reader_has_gone(tmp_path):
    with start("talk", tmp_path / "run") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.stdout.close()
        assert process.wait(timeout=PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert (tmp_path / "run" / "numbers.json").exists()


def test_a_missing_package_is_named_with_the_extra(tmp_path):
    (tmp_path / "tqdm.py").write_text("raise ModuleNotFoundError('No', name='tqdm')")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(DEMOS), *sys.path])
    }
    result = subprocess.run(
        [sys.executable, "-c", "import common"],
        capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == "error: tqdm is not installed: pip install 'tinyseq[demo]'\n"
