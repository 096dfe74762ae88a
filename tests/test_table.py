"""The results table: its runs, going on with them, and what it writes."""

import functools
import importlib.util
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from any_machine import PATIENCE

from tinyseq import saving

DEMOS = Path(__file__).parent.parent / "demos"
LINES = "ROMEO:\nBut, soft! what light through yonder window breaks?\n\nJULIET:\nAy me!\n\n"


@pytest.fixture(scope="module")
def demo():
    """The program, with a table of two rows that takes seconds: nothing is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DEMOS)
        spec = importlib.util.spec_from_file_location("demo_table", DEMOS / "table.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "demo_table", module)  # where dataclasses look
        spec.loader.exec_module(module)
        patch.setattr(module, "CELLS", ("rnn",))
        patch.setattr(module, "HIDDEN", (5,))
        patch.setattr(module, "FURTHER", (module.Row("peephole", 6, 2, 2, 0.1, seeds=1),))
        patch.setattr(module, "SPEED_SECONDS", 0.01)
        patch.setattr(module.shakespeare, "layer_mode", lambda mode: "unroll")
        # The runs are programs of their own. Here kernels may be compiled already, and stay so.
        environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
        start = functools.partial(subprocess.Popen, env=environment)
        patch.setattr(module, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": start}))
        yield module


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text(LINES * 40)
    return path


@pytest.fixture(scope="module")
def made(demo, source, tmp_path_factory) -> Path:
    """The folder of a table with two seeds of one row and one of the other."""
    out = tmp_path_factory.mktemp("runs") / "table"
    assert demo.main(arguments(source, out)) == 0
    return out


def arguments(source: Path, out: Path, *more: str) -> list[str]:
    return ["--text", str(source), "--out", str(out), "--passes", "1", "--seeds", "2", *more]


def numbers(folder: Path) -> dict:
    return json.loads((folder / "numbers.json").read_text())


RUNS = (
    "peephole-2x6-1passes-seed0",
    "rnn-1x5-1passes-seed0",
    "rnn-1x5-1passes-seed1",
)
FILES = ("speed.json", "table.json", "table.md", "table.png")


def test_the_table_is_what_its_runs_gave(demo, made):
    assert sorted(path.name for path in made.iterdir()) == [*RUNS, *FILES]
    assert (made / "table.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((made / "table.json").read_text())
    assert [row["network"] for row in table["rows"]] == ["1×5 RNN", "2×6 peephole LSTM"]

    chunks = (round(len(LINES) * 40 * 0.9) - 1) // 16 // 64  # of 16 tracks × 64 characters
    for row, folders in zip(table["rows"], (RUNS[1:], RUNS[:1]), strict=True):
        runs = [numbers(made / folder) for folder in folders]
        assert [run["steps"] for run in runs] == [chunks * row["passes"]] * len(runs)
        assert [run["settings"]["seed"] for run in runs] == list(range(len(runs)))
        assert {run["threads"] for run in runs} == {1}
        assert row["nats"] == [run["validations"][-1][1] for run in runs]
        assert row["mean_nats"] == pytest.approx(statistics.fmean(row["nats"]))
        assert row["parameters"] == runs[0]["parameters"]
        read = chunks * row["passes"] * 16 * 64
        assert row["minutes"] == pytest.approx(read / row["chars_per_second"] / 60)
    assert table["rows"][0]["nats"][0] != table["rows"][0]["nats"][1]
    assert table["rows"][0]["spread_nats"] == pytest.approx(
        abs(table["rows"][0]["nats"][0] - table["rows"][0]["nats"][1]) / math.sqrt(2)
    )
    assert table["rows"][1]["spread_nats"] is None


def test_the_markdown(demo, made, source):
    table = json.loads((made / "table.json").read_text())
    page = (made / "table.md").read_text()
    rnn, peephole = table["rows"]
    lines = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert {len(line) for line in cells} == {7}
    first, second, counted = cells[2:]
    mean, spread = rnn["mean_nats"], rnn["spread_nats"]
    assert first[:3] == ["1×5 RNN", f"{rnn['parameters']:,d}", "1"]
    assert first[3].strip("*") == f"{mean:.3f} ± {spread:.3f}"
    assert first[4] == f"{mean / math.log(2):.3f}"
    assert second[0] == "2×6 peephole LSTM, dropout 0.1"
    assert second[3].strip("*") == f"{peephole['mean_nats']:.3f}"
    assert counted[0] == "7-gram, Kneser–Ney"
    assert page.count("**") == 2  # the best row
    assert "`python demos/table.py --text lines.txt --passes 1 --seeds 2`" in page
    for name in ("table.md", "table.json"):  # they can be shown to others
        assert str(source.parent) not in (made / name).read_text()


def test_what_is_published_stands_below_tinyshakespeare(demo, made, source, monkeypatch):
    summary = json.loads((made / "table.json").read_text())
    assert "published" not in demo.markdown(summary, "")
    monkeypatch.setattr(demo, "TINY_SHA256", summary["text"]["sha256"])
    page = demo.markdown(summary, "")
    assert "| published: nanoGPT on a GPU, 10.6 million parameters | | | 1.4697 | 2.120 |" in page
    assert "90 % of tinyshakespeare (" in page
    labels = demo.draw(summary).axes[0].get_legend_handles_labels()[1]
    assert labels[-1] == "nanoGPT on a GPU: 1.4697"
    assert demo.Text(str(source), demo.TINY_SHA256, 1, 1, {}).name == "tiny"


def test_finished_runs_are_not_repeated_and_unfinished_ones_go_on(demo, made, source, capsys):
    """To the same numbers, bit by bit."""
    kept = numbers(made / RUNS[1])
    finished, unfinished = (made / run / "numbers.json" for run in RUNS[1:])
    before = json.loads(unfinished.read_text())
    unfinished.unlink()
    stamp = finished.stat().st_mtime_ns
    assert demo.main(arguments(source, made, "--jobs", "1")) == 0
    assert finished.stat().st_mtime_ns == stamp
    assert numbers(made / RUNS[1]) == kept
    assert numbers(made / RUNS[2])["validations"] == before["validations"]
    assert "1×5 RNN, seed 1: " in capsys.readouterr().out


def test_speeds_are_kept_until_they_are_asked_for_again(demo, made, source, monkeypatch):
    monkeypatch.setattr(demo.Table, "speed", lambda self, row: 1234.5)
    assert demo.main(arguments(source, made)) == 0
    assert "1,230" not in (made / "table.md").read_text()
    assert demo.main(arguments(source, made, "--speed")) == 0
    assert (made / "table.md").read_text().count("| 1,230 |") == 2


def test_runs_of_another_text_are_refused(demo, made, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text(LINES * 41)
    assert demo.main(arguments(other, made)) == 1
    assert "has other settings, or another text. Choose another --out" in capsys.readouterr().err


def test_a_run_that_fails_ends_the_table(demo, source, tmp_path, monkeypatch, capsys):
    out = tmp_path / "table"
    (out / RUNS[1]).mkdir(parents=True)
    (out / RUNS[1] / "last.safetensors").write_text("not a checkpoint")
    monkeypatch.setattr(demo, "FURTHER", ())
    assert demo.main(arguments(source, out)) == 1
    assert f"the run in {out / RUNS[1]} ended with 1:\nerror: " in capsys.readouterr().err
    assert not (out / "table.md").exists()


def test_no_text(demo, tmp_path, capsys):
    assert demo.main(arguments(tmp_path / "none", tmp_path / "out")) == 2
    assert "cannot read the text" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_ctrl_c_ends_the_runs_too(demo, source, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text(LINES * 20_000)  # its first save but one is many steps away
    out = tmp_path / "out"
    command = [sys.executable, DEMOS / "table.py", "--text", long, "--out", out, "--jobs", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None and not list(out.glob("*/last.safetensors")):
                time.sleep(0.01)
            (run,) = out.glob("*/last.safetensors")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors.endswith("interrupted; the same command goes on\n")
    assert saving.load(run)["progress"]["step"] == 0  # and nobody trains it any further
