"""Every public callable with wrong arguments: a right result, or an error that names the argument.

The right calls stand in tests/calls. Each argument in turn is replaced by each of `WRONG`. What the
annotation refuses must be refused; what it accepts may be right, or be refused. No error comes from
deep inside ("'NoneType' object has no attribute 'shape'"), and after all of them the right call
still works.
"""

import contextlib
import datetime
import functools
import inspect
import io
import math
import re
import warnings
from typing import Annotated

import numpy as np
import pytest
from calls import CALLS, LEFT_OUT, public

import tinyseq as ts
from tinyseq import arguments, nn

WRONG = {
    "None": lambda: None,
    "True": lambda: True,
    "a string": lambda: "three",
    "bytes": lambda: b"three",
    "1.5": lambda: 1.5,
    "-1": lambda: -1,
    "0": lambda: 0,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "10**30": lambda: 10**30,
    "1j": lambda: 1j,
    "[]": list,
    "[None]": lambda: [None],
    "a ragged list": lambda: [[1.0], [1.0, 2.0]],
    "a dictionary": lambda: {"a": None},
    "an object": object,
    "a class": lambda: int,
    "an array of strings": lambda: np.array(["a", "b"]),
    "an array of dates": lambda: np.array([datetime.date(2020, 1, 1)], "datetime64[D]"),
    "an empty array": lambda: np.zeros((0,), np.float32),
    "an array of another shape": lambda: np.zeros((7, 1, 5, 2), np.float32),
    "a complex array": lambda: np.zeros((2, 3), np.complex64),
    "a tensor of NaN": lambda: ts.tensor([float("nan")]),
}
# How Python and NumPy speak of what they were not told.
OBSCURE = re.compile(
    r"has no attribute|unsupported operand|object is not (?!supported)|out of range$|unpack"
    r"|subscriptable|could not be broadcast|ufunc|invalid literal|only integer|ambiguous"
    r"|^'?[\w.]*'?$|not supported between|can't convert|cannot convert|cannot be interpreted"
    r"|has no len"
)
REFUSALS = (TypeError, ValueError, LookupError, ts.errors.GraphError, ts.errors.CompileError)


def test_every_public_callable_has_a_right_call():
    names = public()
    assert not [n for n in names if n not in CALLS and n not in LEFT_OUT]
    assert not [n for n in LEFT_OUT if n not in names]


def run(call, given):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        out = call(**given)
        if inspect.isgenerator(out):  # its arguments may be looked at when it starts
            next(out, None)


def rules(call):
    """The annotations that a call is held to: those of the constructor or of the forward."""
    call = call.func if isinstance(call, functools.partial) else call
    if isinstance(call, type):
        return arguments.rules_of(call.__init__)
    if isinstance(call, nn.Module):
        return arguments.rules_of(type(call).forward)
    return arguments.rules_of(getattr(call, "__func__", call))


def verdict(call, given, name, value, rule):
    """What is wrong with how the call took the value, or None."""
    try:
        run(call, {**given, name: value})
    except REFUSALS as error:
        said = str(error)
        if OBSCURE.search(said):
            return f"obscure {type(error).__name__}: {said[:150]}"
        if not re.search(rf"\b{re.escape(name)}\b", said):
            return f"{name} is not named: {said[:150]}"
        return None
    except (ImportError, FileNotFoundError):
        return None  # a package or file that is not there is said before anything else
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    if rule is not None and not rule.accepts(value):
        return f"taken, though it is not {rule.words}"
    return None


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, given = CALLS[name]()
    run(call, given)
    held = rules(call)
    found = []
    for argument in given:
        for what, wrong in WRONG.items():
            wrong_way = verdict(call, given, argument, wrong(), held.get(argument))
            if wrong_way is not None:
                found.append(f"{argument} = {what}: {wrong_way}")
    assert not found, "\n".join([name, *found])
    run(call, given)  # nothing is poisoned


CONSTRUCTORS = [
    name
    for name, make in CALLS.items()
    if name.startswith(("nn.", "optim.")) and isinstance(make()[0], type)
]


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_what_a_constructor_refuses_no_attribute_takes(name):
    """``layer.p = 7`` is refused as ``Dropout(7)`` is, and the old value stays."""
    kind, given = CALLS[name]()
    owner = kind(**given)
    kept = {a: v for a, v in getattr(owner, "__dict__", {}).items() if a in given and is_plain(v)}
    held = rules(kind)
    for argument, before in kept.items():
        for what, wrong in WRONG.items():
            value = wrong()
            if not held[argument].accepts(value):
                with pytest.raises(REFUSALS, match=rf"\b{argument}\b"):
                    setattr(owner, argument, value)
                assert getattr(owner, argument) is before, what


def is_plain(value):
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | np.random.Generator)


NUMPYS = {int: np.int64, float: np.float32, bool: np.bool_}


@pytest.mark.parametrize("name", CALLS)
def test_numbers_of_numpy_are_as_good_as_those_of_python(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, given = CALLS[name]()
    run(call, {n: NUMPYS.get(type(v), lambda x: x)(v) for n, v in given.items()})


@pytest.mark.parametrize("name", CALLS)
def test_a_misspelt_argument_is_named(name):
    call, given = CALLS[name]()
    with pytest.raises(TypeError, match="arguments_"):
        run(call, {**given, "arguments_": 1})


@pytest.mark.parametrize("name", CALLS)
def test_what_can_be_read_once_is_taken_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, given = CALLS[name]()
    for key, value in given.items():
        if isinstance(value, list | tuple):
            wrong_way = verdict(call, given, key, iter(value), None)
            assert wrong_way is None, f"{key}: {wrong_way}"


RULES = [  # annotation, how it is called, what it takes, what it refuses
    (int, "a whole number", [0, -3, np.int64(2)], [1.0, True, "1", None]),
    (float, "a real number", [0.5, 3, np.float32(1), math.inf], [True, 1j, "1", None]),
    (bool, "True or False", [True, np.False_], [0, 1, "True", None]),
    (str, "a string", ["", "a"], [b"a", ["a"], None]),
    (arguments.Size, "a whole number, at least 1", [1, 10**9], [0, -1, 1.0, True]),
    (arguments.Count, "a whole number, at least 0", [0, 1], [-1, 0.0, False]),
    (arguments.Finite, "a real number, finite", [-1e300, 0], [math.nan, math.inf, -math.inf]),
    (arguments.Positive, "a real number, above 0 and finite", [1e-300, 7], [0, -1.0, math.inf]),
    (arguments.NotNegative, "a real number, at least 0 and finite", [0, 0.1], [-1e-9, math.inf]),
    (arguments.Fraction, "a real number, at least 0 and less than 1", [0, 0.99], [1, -0.1]),
    (arguments.Rate, "a real number, from 0 to 1", [0, 1.0], [1.01, -0.01, math.nan]),
    (arguments.Share, "a real number, above 0, at most 1", [1e-9, 1], [0, 1.01]),
    (Annotated[str, arguments.one_of("a", "b")], "'a' or 'b'", ["a", "b"], ["c", "", 0]),
    (tuple[int, int], "2 whole numbers", [(1, 2), [1, 2]], [(1,), (1, 2, 3), (1, 2.0), 1]),
    (tuple[int, str], "(a whole number, a string)", [(1, "a")], [("a", 1), (1, "a", "b")]),
    (tuple[int, ...], "a tuple of whole numbers", [(), (1, 2)], [(1, "a"), 3]),
    (list[str], "a list of strings", [[], ["a"]], [["a", 1], 3]),
    (dict[str, int], "a dictionary of whole numbers", [{}, {"a": 1}], [{"a": "b"}, [1]]),
    (int | None, "a whole number or None", [None, 1], [1.0, "None"]),
    (str | list[str], "a string or a list of strings", ["a", ["a"]], [["a", 1], 1, None]),
]


@pytest.mark.parametrize(("annotation", "words", "right", "wrong"), RULES)
def test_annotations_are_rules_that_are_called_by_name(annotation, words, right, wrong):
    rule = arguments.rule_of(annotation)
    assert rule.words == words
    assert [value for value in right if not rule.accepts(value)] == []
    assert [value for value in wrong if rule.accepts(value)] == []
