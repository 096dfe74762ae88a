"""The tasks of the lecture notes: each is short, and learns what it is not trained on."""

import inspect

import numpy as np
import pytest
import tasks as demo

import tinyseq as ts

# Fewer steps than most of them take, and the share that has to be right: far above
# what a model that has learnt nothing gets, and below what this one gets.
LEARNS = {
    "entities": (50, 0.95),
    "sentiment": (200, 0.9),
    "music": (150, 0.5),
    "dna": (120, 0.8),
    "translation": (100, 0.8),
    "video": (200, 0.7),
}


@pytest.mark.parametrize("task", LEARNS)
def test_each_task_is_learnt(task, capsys):
    steps, enough = LEARNS[task]
    ts.seed(0)
    assert demo.TASKS[task](steps) > enough
    assert "%" in capsys.readouterr().out
    ts.seed(0)
    assert demo.TASKS[task](1) < enough


def test_gates_remember_the_subject_and_a_plain_network_does_not(capsys):
    ts.seed(0)
    found = demo.agreement(300)
    assert min(*found["GRU"], *found["LSTM"]) > 0.9
    assert np.mean(found["RNN"][2:]) < 0.7  # ten words and more between
    assert "LSTM" in capsys.readouterr().out


@pytest.mark.parametrize("task", demo.TASKS)
def test_no_task_takes_more_than_20_lines(task):
    lines = inspect.getsource(demo.TASKS[task]).splitlines()
    assert len([line for line in lines if line.strip()]) <= 20 + 1  # and its docstring


def test_what_is_made_up_is_right():
    rng = np.random.default_rng(0)
    assert all(demo.quavers(bar) == 8 for bar in demo.tune(rng)[:-1].split("|")[:-1])
    for _ in range(50):
        words, labels = demo.news(rng)
        named = [word for word, label in zip(words, labels, strict=True) if label]
        assert named[1::2] == [word for word in words if word in demo.LAST.split()]
        english, french = demo.pair(rng)
        assert ("not" in english) == ("pas" in french)
    x, were = demo.clause(rng, 7, 5)
    assert x.shape == (9, 5)
    np.testing.assert_array_equal(were, x[0] % 2)


def test_the_command_line(capsys, monkeypatch):
    asked = []
    for name in demo.TASKS:
        monkeypatch.setitem(demo.TASKS, name, lambda name=name: asked.append(name))
    assert demo.main(["dna", "video"]) == 0
    assert demo.main([]) == 0
    assert asked == ["dna", "video", *demo.TASKS]
    with pytest.raises(SystemExit):
        demo.main(["cooking"])
    assert "'cooking' is no task. Use entities," in capsys.readouterr().err
