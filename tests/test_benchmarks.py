"""The benchmark's NumPy loop computes what tinyseq computes, and its tables what they say."""

from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


@pytest.mark.parametrize("cell", ["rnn", "gru", "gru_before", "lstm"])
def test_the_numpy_loop_trains_as_tinyseq_does(cell):
    import peers_numpy
    import peers_tinyseq
    import task

    point = task.Point(cell, H=5, layers=2, T=4, B=3)
    weights = {n: w.astype(np.float64) for n, w in task.weights(point).items()}
    loop, ours = peers_numpy.Training(point, weights), peers_tinyseq.Training(point, weights)
    assert tuple(task.CELLS | task.CUSTOM_CELLS) == peers_tinyseq.CELLS

    drawn = task.draw(np.random.default_rng(0), point)
    loss, gradients = loop.gradients(*drawn)
    expected, expected_gradients = ours.gradients(*drawn)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert gradients.keys() == expected_gradients.keys()
    for name, g in gradients.items():
        np.testing.assert_allclose(g, expected_gradients[name], rtol=1e-9, atol=1e-12)

    loop.run(3)  # both draw the same inputs: clipping and Adam agree as well
    ours.run(3)
    for name, p in loop.p.items():
        np.testing.assert_allclose(p, ours.named[name].numpy(), rtol=1e-9, atol=1e-12)


def test_ratios_are_taken_turn_by_turn(tmp_path):
    pytest.importorskip("matplotlib")
    import report
    import task
    from sections import LSTM, SGEMM, Row

    point = task.Point("own", H=64, layers=1, T=10, B=2)
    row = Row(
        str(point),
        point,
        {
            "tinyseq": [30e3, 60e3, 90e3],  # the machine drifts threefold, the ratios do not
            "torch": [10e3, 20e3, 45e3],
            "jax": [15e3, 30e3, 45e3],
            LSTM: [15e3, 30e3, 45e3],
            SGEMM + "NumPy": [1e9, 2e9, 3e9],
        },
    )
    assert report.ratio(row, "torch") == pytest.approx(3)
    assert (report.best(row), report.ratio(row, "jax")) == ("jax", pytest.approx(2))
    # three times forward, per symbol: w_x and w_h (64, 128), the head (64, 65)
    flops = 3 * 2 * (2 * 64 * 128 + 64 * 65)
    assert report.share(row) == pytest.approx(flops * 30e3 / 1e9)
    lstm_flops = 3 * 2 * (2 * 64 * 256 + 64 * 65)
    assert report.per_flop(row) == pytest.approx(2 * flops / lstm_flops)

    about = {"machine": "one", "threads": 2, "turns": 3, "load": 0.0, "versions": {"torch": "x"}}
    text = report.write(tmp_path, about, {"custom": [row]})
    assert "| 60 | 20 | 30 | 3.00 | 2.00 | **2.00** JAX |" in text
    assert {p.name for p in tmp_path.iterdir()} == {
        f"benchmarks.{e}" for e in ("md", "json", "png")
    }
