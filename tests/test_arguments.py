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
import re
import warnings

import numpy as np
import pytest
from calls import CALLS, LEFT_OUT

import tinyseq as ts
from tinyseq import arguments, functional, nn, optim, text, viz

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
SPACES = {"ts": ts, "nn": nn, "optim": optim, "text": text, "viz": viz, "functional": functional}
SPACES |= {"random": ts.random, "init": nn.init, "interop": nn.interop, "onnx": nn.onnx}
SPACES |= {"notes": nn.notes}


def public():
    """The names of all that a user may call: functions, constructors, methods."""
    seen, names = set(), []
    for space, module in SPACES.items():
        for name in getattr(module, "__all__", dir(module)):
            found = getattr(module, name)
            home = str(getattr(found, "__module__", ""))
            ours = home.startswith("tinyseq" if hasattr(module, "__all__") else module.__name__)
            if not callable(found) or id(found) in seen or name.startswith("_") or not ours:
                continue
            seen.add(id(found))
            names.append(f"{space}.{name}")
            if isinstance(found, type) and not issubclass(found, Exception):
                names += [
                    f"{space}.{name}()" if method == "forward" else f"{space}.{name}.{method}"
                    for method, f in vars(found).items()
                    if not method.startswith("_")
                    and callable(getattr(found, method))
                    and not isinstance(f, type)
                    and len(inspect.signature(getattr(found, method)).parameters) > 1
                ]
    return names


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
