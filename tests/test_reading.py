"""The text of --text: read in pieces, whatever its characters, in a few times its own memory."""

import dataclasses
import hashlib
import tracemalloc

import numpy as np
import pytest
import reading
import runs
import shakespeare as demo
from hypothesis import given
from hypothesis import strategies as st

from tinyseq import text

LINE = "But, soft! what light through yonder window breaks? It is the east, and Juliet\n"
TEXTS = {
    "ASCII": LINE,
    "with some that are wide": LINE * 20 + "“’Tis” 🌞 ",  # as one str: four times its bytes
    "Hindi": "हिन्दी भाषा में क्या है\n",
    "Chinese": "".join(map(chr, range(0x4E00, 0x4E00 + 600))) + "\n",  # more than 256 of them
}


def read(contents: bytes) -> list[str]:
    return list(reading.Text(contents))


@given(st.text(st.characters(codec="utf-8"), max_size=50), st.integers(1, 70_000), st.booleans())
def test_pieces_make_up_the_text(sample, times, mark):
    whole = sample * (times if len(sample) * times < 200_000 else 1)
    expected = whole.replace("\r\n", "\n").replace("\r", "\n")
    if expected.startswith("\ufeff") and not mark:
        expected = expected[1:]
    contents = (b"\xef\xbb\xbf" if mark else b"") + whole.encode()
    found = reading.Text(contents)
    for _ in range(2):  # as often as one asks
        assert "".join(found) == expected
        assert all(0 < len(piece) <= reading.PIECE for piece in found)
    assert found.characters == len(expected)
    assert found.sha256 == hashlib.sha256(expected.encode()).hexdigest()


@pytest.mark.parametrize("kind", TEXTS)
def test_a_run_takes_at_most_four_times_the_text(kind, tmp_path):
    """Read, numbered, split and cut; in the end, a character takes a byte where that will do."""
    size = 1_200_000
    line = TEXTS[kind].encode()
    path = tmp_path / "text.txt"
    path.write_bytes(line * (size // len(line)))
    settings = demo.Settings(text=str(path), hidden=2, cell="rnn", mode="unroll")
    small = tmp_path / "small.txt"
    small.write_bytes(line * 300)
    small_settings = dataclasses.replace(settings, text=str(small))
    demo.Run(small_settings, runs.Limit(steps=1), tmp_path)  # what is made once is there from now
    tracemalloc.start()
    run = demo.Run(settings, runs.Limit(steps=1), tmp_path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * size
    assert kept < 2 * size
    whole = (line * (size // len(line))).decode()
    assert run.vocabulary == text.Vocabulary(whole)
    indices = run.vocabulary.encode(whole)
    assert run.characters == len(whole)
    np.testing.assert_array_equal(np.append(run.training, run.validation[1:]), indices)
    inputs, targets = run.chunks[1]
    length = (len(run.training) - 1) // 16
    for b in range(16):
        start = b * length + 64
        np.testing.assert_array_equal(inputs[:, b], indices[start : start + 64])
        np.testing.assert_array_equal(targets[:, b], indices[start + 1 : start + 65])


def test_the_baseline_counts_no_more_than_it_says(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text("".join(np.random.default_rng(0).choice(list("ab cd"), 3000)))
    settings = demo.Settings(text=str(path), hidden=2, cell="rnn", mode="unroll")

    def counted():
        return demo.Run(settings, runs.Limit(steps=1), tmp_path).count()

    training = demo.Run(settings, runs.Limit(steps=1), tmp_path).training
    for most in (len(training), len(training) + 1):
        monkeypatch.setattr(demo, "COUNTED", most)
        assert counted().keys() == {"n", "nats"}
    monkeypatch.setattr(demo, "COUNTED", 500)
    run = demo.Run(settings, runs.Limit(steps=1), tmp_path)
    model = text.NGram(7, len(run.vocabulary)).fit(training[-500:])
    expected = model.score(run.validation, training[-7:-1])
    assert run.count() == {"n": 7, "nats": expected, "counted": 500}
