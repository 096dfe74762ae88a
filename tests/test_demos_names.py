"""The demo about names: what it trains on, what it measures, and that it learns."""

import importlib.metadata
import json

import names as demo
import numpy as np
import pytest
from any_machine import but_for_compiling
from hypothesis import given
from hypothesis import strategies as st

from tinyseq import functional, nn

KINDS = ["female", "male", "last"]


def small():
    """Kinds that differ in the order of the last letters alone; a few names are of two kinds."""
    rng = np.random.default_rng(0)
    lists = {
        kind: ["".join(rng.choice(list("mnrt"), 3)) + end for _ in range(60)]
        for kind, end in zip(KINDS, ("aok", "oka", "kao"), strict=True)
    }
    lists["male"] += lists["last"][:5]
    return {kind: list(dict.fromkeys(its)) for kind, its in lists.items()}


def names_of(lists, seed=0):
    return demo.Names.of(lists, np.random.default_rng(seed))


@given(
    st.dictionaries(st.sampled_from(KINDS), st.lists(st.text("abc", min_size=1), unique=True)),
    st.integers(0, 99),
)
def test_each_name_is_on_one_side_with_all_of_its_kinds(lists, seed):
    names = names_of(lists, seed)
    everything = {name for its in lists.values() for name in its}
    assert sorted(names.training + names.held_out) == sorted(everything)
    assert len(names.held_out) == round(demo.HELD_OUT * len(everything))
    pairs = names.pairs(names.training) + names.pairs(names.held_out)
    assert sorted(pairs) == sorted(
        (name, kind) for kind, its in enumerate(lists.values()) for name in its
    )


def test_any_kind_of_a_name_is_right():
    names = demo.Names(KINDS, {"leslie": [0, 1, 2], "ruth": [0], "page": [2]}, [], [])
    names = names._replace(held_out=list(names.known))
    assert names.share_right([1, 0, 0]) == pytest.approx(2 / 3)
    assert names.share_right(np.array([2, 1, 2])) == pytest.approx(2 / 3)


@given(st.lists(st.text("abc", max_size=4)))
def test_letters_come_back(names):
    letters = demo.Letters(["abc"])
    symbols = np.concatenate([[], *(letters.encode(name) for name in names)]).astype(int)
    assert letters.decode(symbols) == names
    more = letters.encode("ab")[:-1]  # a name that does not end is none
    assert letters.decode(np.concatenate([symbols, more])) == names


def test_ngrams_tell_by_bayes_rule():
    pairs = [("ana", 0), ("eva", 0), ("ivo", 1), ("eva", 1), ("ana", 0)]
    letters = demo.Letters([name for name, _ in pairs])
    ngrams = demo.NGrams(2, letters, pairs, 2)
    assert ngrams.prior.tolist() == [0.6, 0.4]
    joint = ngrams.prior * np.exp(ngrams.log_probabilities("iva"))
    assert ngrams.guess(["ana", "ivo", "iva"]).tolist() == [0, 1, joint.argmax()]
    # As the product of what follows each letter, from the end of another name on.
    model, symbols = ngrams.models[1], [letters.end, *letters.encode("eva")]
    nats = [model.log_probabilities(symbols[i - 1 : i])[symbols[i]] for i in range(1, 5)]
    assert ngrams.log_probabilities("eva")[1] == pytest.approx(sum(nats))
    assert ngrams.nats_per_letter([("eva", 1)]) == pytest.approx(-sum(nats) / 4)
    written = ngrams.write(0, 2000, np.random.default_rng(0))
    assert len(written) == 2000
    p = np.exp(ngrams.models[0].log_probabilities([letters.end]))[letters.encode("e")[0]]
    assert np.mean([name.startswith("e") for name in written]) == pytest.approx(p, abs=0.05)


def test_the_writers_loss_is_of_each_letter_given_those_before(monkeypatch):
    monkeypatch.setattr(demo, "HIDDEN", 4)
    letters = demo.Letters(["ana", "bo"])
    writer = demo.Writer(letters, 2)
    pairs = [("ana", 0), ("bo", 1), ("b", 0)]
    nats, count = 0.0, 0
    with nn.evaluation(writer):
        for name, kind in pairs:
            state, before = writer.state([kind]), letters.end
            for symbol in letters.encode(name):
                logits, state = writer.model(np.array([[before]]), state)
                nats -= functional.log_softmax(logits).numpy()[0, 0, symbol]
                before, count = symbol, count + 1
    assert count == 9
    assert writer.nats_per_letter(pairs) == pytest.approx(nats / count, rel=1e-5)


def test_the_writer_writes_what_its_model_says(monkeypatch):
    monkeypatch.setattr(demo, "HIDDEN", 4)
    letters = demo.Letters(["ab"])
    writer = demo.Writer(letters, 2)
    rng = np.random.default_rng(0)
    first = [name[:1] for name in writer.write(1, 4000, rng)]
    with nn.evaluation(writer):
        logits, _ = writer.model(np.array([[letters.end]]), writer.state([1]))
        p = functional.softmax(logits).numpy()[0, 0]
    for letter in ("a", "b"):
        share = first.count(letter) / len(first)
        assert share == pytest.approx(p[letters.encode(letter)[0]], abs=0.04)
    writer.model.head.bias._data[letters.end] = -100  # never an end
    assert {len(name) for name in writer.write(0, 5, rng)} == {demo.MAX_LETTERS}


def test_what_is_made_up_is_judged():
    names = demo.Names(KINDS, {"ana": [0], "ivo": [1]}, ["ana", "ivo"], [])

    class Reader:
        def guess(self, names):
            return np.array([0 if name.endswith("a") else 1 for name in names])

    drawn = [("ana", 0), ("eva", 0), ("ivo", 0), ("ina", 1)]
    assert demo.judge(drawn, names, Reader(), [{"eva"}, {"ivo"}, set()]) == {
        "new": 0.75,  # ivo is new as a woman's name
        "as_asked": pytest.approx(1 / 3),
        "in_census": pytest.approx(1 / 3),
    }
    none_new = demo.judge([("ana", 0)], names, Reader(), [{"eva"}, {"ivo"}, set()])
    assert none_new == {"new": 0.0, "as_asked": 0.0, "in_census": 0.0}


@pytest.fixture
def smaller(monkeypatch):
    """Seconds for minutes: few names, small networks, nothing worth compiling."""
    monkeypatch.setattr("tinyseq.nn.recurrent.COMPILED_FROM", 10**9)
    monkeypatch.setattr(demo.text, "names", small)
    for name, value in {"HIDDEN": 16, "EMBEDDING": 8, "BATCH": 16, "GENERATED": 50}.items():
        monkeypatch.setattr(demo, name, value)


def test_it_learns_and_leaves_its_files(smaller, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "LR", 0.02)
    out = tmp_path / "run"
    assert demo.main(["--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert but_for_compiling(printed.err) == ""
    assert sorted(path.name for path in out.iterdir()) == ["figure.png", "numbers.json"]
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((out / "numbers.json").read_text(encoding="utf-8"))
    told = numbers["told_right"]
    assert told["network"] > 0.9
    assert told["network"] > told["1-gram"] + 0.2
    assert f"network      {told['network']:6.1%}" in printed.out
    made = numbers["made"]["network"]
    assert made["as_asked"] > 0.5  # a third by chance
    assert f"{made['new']:6.1%}" in printed.out
    assert numbers["nats"]["network"] < numbers["nats"]["1-gram"] - 0.2


def test_a_few_steps(smaller, tmp_path, capsys):
    assert demo.main(["--steps", "1", "--seed", "1", "--out", str(tmp_path / "run")]) == 0
    assert "Cut short by --steps 1" in capsys.readouterr().out


def test_a_missing_package_is_named(tmp_path, capsys, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    assert demo.main(["--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "names" in error
    assert "tinyseq[demo]" in error
