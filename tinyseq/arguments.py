"""What a public function takes is said in its annotations; `checked` holds every call to them.

>>> @checked
... def repeat(text: str, times: Size = 1) -> str:
...     return text * times
>>> repeat("ha", 0)
Traceback (most recent call last):
ValueError: repeat: times=0 must be a whole number, at least 1.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tinyseq import errors

F = TypeVar("F", bound=Callable[..., Any])


class Rule(NamedTuple):
    """``accepts`` tells whether a value is right, ``words`` what is: "a whole number", and ``many``
    of it: "whole numbers". Every value of the types ``exact`` is: a long list of them need not be
    looked through.
    """

    accepts: Callable[[Any], bool]
    words: str
    many: str
    exact: frozenset[type] = frozenset()
    cast: Callable[[Any], Any] | None = None  # to Python's own kind of number


class Within(NamedTuple):
    """The limits of a number, for `Annotated`: NaN is in none, and an infinity in none that does
    not allow it.
    """

    accepts: Callable[[Any], bool]
    words: str


class OneOf(NamedTuple):
    """The words to choose from, for `Annotated`."""

    choices: tuple[str, ...]


def one_of(*choices: str) -> OneOf:
    return OneOf(choices)


Size = Annotated[int, Within(lambda n: n >= 1, "at least 1")]
Count = Annotated[int, Within(lambda n: n >= 0, "at least 0")]
Finite = Annotated[float, Within(math.isfinite, "finite")]
Positive = Annotated[float, Within(lambda x: 0 < x < math.inf, "above 0 and finite")]
NotNegative = Annotated[float, Within(lambda x: 0 <= x < math.inf, "at least 0 and finite")]
Fraction = Annotated[float, Within(lambda p: 0 <= p < 1, "at least 0 and less than 1")]
Rate = Annotated[float, Within(lambda p: 0 <= p <= 1, "from 0 to 1")]
Share = Annotated[float, Within(lambda p: 0 < p <= 1, "above 0, at most 1")]
FloatDtype = Annotated[
    npt.DTypeLike,
    Within(lambda d: np.dtype(d) in (np.float32, np.float64), "float32 or float64"),
]
#: Of a function: a layer's class in place of a layer can be called, too.
no_class = Within(lambda f: not isinstance(f, type), "not a class")


def checked(function: F) -> F:
    """``function``, which first looks whether every argument is what its annotation says; a number
    of NumPy becomes one of Python, which does not overflow.

    ``int`` is a whole number of Python or NumPy, and no truth value; ``float`` a real number, and
    not NaN; ``bool`` a truth value; `npt.ArrayLike` what NumPy makes an array of numbers of.
    `Annotated` adds limits: `Size`, `Positive`, `one_of`. The elements of lists, tuples and
    dictionaries are looked at, those of an iterator are not.

    Raises `TypeError` where an argument is of another kind, `ValueError` where it is a number
    beyond its limits or an unknown word; both name the function, the argument and what was given.
    """
    code = inspect.unwrap(function).__code__
    names = code.co_varnames[: code.co_argcount]  # those that may be given by their place
    rules: dict[str, Rule | None] = {}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not rules:  # at the first call: by then the names in the annotations are there
            rules.update(rules_of(function))
        for i, (name, value) in enumerate(zip(names, args, strict=False)):
            _look(function, name, value, rules[name])
            if isinstance(value, np.generic):
                args = (*args[:i], _cast(value, rules[name]), *args[i + 1 :])
        for value in args[len(names) :] if "*" in rules else ():
            _look(function, "*", value, rules["*"])
        for name, value in kwargs.items():
            _look(function, name, value, rules.get(name))
            if isinstance(value, np.generic):
                kwargs = {**kwargs, name: _cast(value, rules.get(name))}
        return function(*args, **kwargs)

    return typing.cast(F, call)


def explain(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """After a call that failed: raises where an argument was not what the function takes.

    A layer's ``forward`` runs many times a second: its arguments are looked at when something went
    wrong. What a user's own annotations mean is left to the user.
    """
    if not function.__module__.startswith("tinyseq."):
        return
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError as cause:
        raise TypeError(f"{_title(function)}: {cause}.") from None
    rules = rules_of(function)
    for name, value in given.items():
        _look(function, name, value, rules.get(name))


def assigned(owner: object, name: str, value: Any) -> Any:
    """What an attribute becomes when it is set: a number of NumPy one of Python. Raises where it is
    not what the library's own classes annotate.
    """
    kind: Any = type(owner)
    rule = _attributes(kind).get(name)
    _look(kind, name, value, rule)
    return _cast(value, rule)


def _cast(value: Any, rule: Rule | None) -> Any:
    if rule is None or rule.cast is None or value is None:
        return value
    return rule.cast(value)


@functools.cache
def _attributes(kind: type) -> dict[str, Rule | None]:
    rules: dict[str, Rule | None] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("tinyseq."):
            space = vars(sys.modules[base.__module__])
            for name, hint in inspect.get_annotations(base).items():
                rules[name] = rule_of(_meant(hint, space))
    return rules


def _meant(hint: Any, space: dict[str, Any]) -> Any:
    return eval(hint, dict(space), _Later()) if isinstance(hint, str) else hint


def rules_of(function: Callable[..., Any]) -> dict[str, Rule | None]:
    """The rule of each parameter by its name, that of ``*args`` under "*"; `None`: anything."""
    function = inspect.unwrap(function)
    space = getattr(function, "__globals__", {})  # an op has its annotations as they are
    rules: dict[str, Rule | None] = {}
    for p in inspect.signature(function).parameters.values():
        hint = _meant(p.annotation, space)
        rule = None if hint is p.empty else rule_of(hint)
        if p.kind is not p.VAR_KEYWORD:
            rules["*" if p.kind is p.VAR_POSITIONAL else p.name] = rule
    return rules


class _Later(dict[str, Any]):
    """Names that a file imports for its annotations alone."""

    def __missing__(self, name: str) -> Any:
        for package in ("tinyseq", "tinyseq.nn", "tinyseq.text", "tinyseq.optim", "tinyseq.viz"):
            found = getattr(sys.modules.get(package), name, None)
            if found is not None:
                return found
        raise KeyError(name)


def _look(function: Callable[..., Any], name: str, value: Any, rule: Rule | None) -> None:
    if not _fits(rule, value):
        assert rule is not None
        raise refusal(function, name, value, rule)


def refusal(function: Callable[..., Any], name: str, value: Any, rule: Rule) -> Exception:
    """The error for an argument that breaks its rule."""
    if name == "*":
        name = next(
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.kind is p.VAR_POSITIONAL
        )
    many = value if isinstance(value, tuple | list) and value else [value]
    number = all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in many)
    if rule.words.startswith(_DTYPE.words):
        return errors.DtypeError(f"{_title(function)}: {name}={shown(value)} must be {rule.words}.")
    beyond = (number and "number" in rule.words) or (isinstance(value, str) and "'" in rule.words)
    kind = ValueError if beyond else TypeError
    return kind(f"{_title(function)}: {name}={shown(value)} must be {rule.words}.")


def _title(function: Callable[..., Any]) -> str:
    """``LSTMCell`` for its constructor and its forward, ``Adam.step``, ``softmax``."""
    owner, _, name = function.__qualname__.rpartition(".")
    owner = owner.removesuffix("<locals>").rpartition(".")[2] if owner else ""
    return (
        owner
        if owner and name in ("__init__", "forward", "__call__")
        else (f"{owner}.{name}" if owner else name)
    )


def shown(value: Any) -> str:
    """A value in a message: short, an array by its shape."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic):
        kind = "array" if isinstance(value, np.ndarray) else type(value).__name__
        return f"<{kind} of shape {errors.describe(value.shape)}, {value.dtype}>"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"<{value.__qualname__}>"
    try:
        text = repr(value)
    except Exception:  # somebody else's repr: a message must come all the same
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}…"


# -- from annotations to rules ------------------------------------------------------------------


def _is_whole(value: Any) -> bool:
    # No size, index or seed has more than 64 bits: NumPy would say so in words of its own.
    return (
        isinstance(value, int | np.integer)
        and not isinstance(value, bool)
        and bool(-(2**63) <= value < 2**63)
    )


def _is_real(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and not (isinstance(value, int) and value.bit_length() > 1000)  # more than a float holds
        and not math.isnan(float(value))
    )


def _is_array(value: Any) -> bool:
    if type(value) is np.ndarray:  # as a loss is given its targets
        return value.dtype.kind in "biuf"
    if isinstance(value, str | bytes | Mapping | set | frozenset) or value is None:
        return False
    try:
        dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    except Exception:  # a ragged list, or what cannot be looked at: no array
        return False
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"


def _is_dtype(value: Any) -> bool:
    try:
        return np.dtype(value).kind in "biuf" and value is not None
    except TypeError:
        return False


def _kind(types: Any, words: str, many: str, *exact: type) -> Rule:
    return Rule(lambda value: isinstance(value, types), words, many, frozenset(exact))


_ARRAY = Rule(_is_array, "an array of real numbers", "arrays of real numbers")
_DTYPE = Rule(_is_dtype, "a dtype", "dtypes")
_PLAIN: dict[Any, Rule] = {
    int: Rule(_is_whole, "a whole number", "whole numbers", cast=int),  # not every int: 64 bits
    float: Rule(_is_real, "a real number", "real numbers", cast=float),
    bool: Rule(
        lambda v: isinstance(v, bool | np.bool_),
        "True or False",
        "truth values",
        frozenset({bool}),
        bool,
    ),
    str: _kind(str, "a string", "strings", str),
    bytes: _kind(bytes, "bytes", "bytes", bytes),
    type(None): _kind(type(None), "None", "None", type(None)),
    np.ndarray: _kind(np.ndarray, "a NumPy array: np.asarray(…)", "NumPy arrays", np.ndarray),
}
_ARRAYS = frozenset(typing.get_args(npt.ArrayLike))
_DTYPES = frozenset(typing.get_args(npt.DTypeLike))


@functools.cache
def rule_of(hint: Any) -> Rule | None:
    """What an annotation accepts, or `None` for anything."""
    hint = type(None) if hint is None else hint
    if hint is Any:
        return None
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    plain = _PLAIN.get(origin or hint)
    if plain is not None:
        return plain
    if origin is Annotated:
        return _limited(parts)
    if origin in (typing.Union, types.UnionType):
        return _either(parts)
    outer = origin or hint
    if outer is Callable:
        return Rule(callable, "a function", "functions")
    if outer is type:
        return _kind(type, "a class", "classes")
    if not isinstance(outer, type) or outer is object:
        return None
    return _container(outer, parts) if parts else _instance(outer)


def _limited(parts: tuple[Any, ...]) -> Rule | None:
    rule = rule_of(parts[0])
    for extra in parts[1:]:
        if isinstance(extra, Rule):
            rule = extra
        elif isinstance(extra, OneOf):
            words = " or ".join(map(repr, extra.choices))
            rule = Rule(partial(_is_among, extra.choices), words, words)
        elif isinstance(extra, Within) and rule is not None:
            rule = Rule(
                partial(_is_within, rule, extra),
                f"{rule.words}, {extra.words}",
                f"{rule.many}, {extra.words}",
                cast=rule.cast,
            )
    return rule


def _is_among(choices: tuple[str, ...], value: Any) -> bool:
    return isinstance(value, str) and value in choices


def _is_within(kind: Rule, limits: Within, value: Any) -> bool:
    return kind.accepts(value) and limits.accepts(value)


def _either(parts: tuple[Any, ...]) -> Rule | None:
    left = set(parts)
    rules: list[Rule | None] = []
    for union, rule in ((_ARRAYS, _ARRAY), (_DTYPES, _DTYPE)):
        if union <= left:  # NumPy's own unions, spread out among the others
            left -= union
            rules.append(rule)
    rules = [rule_of(part) for part in parts if part in left and part is not type(None)] + rules
    if type(None) in left:
        rules.append(_PLAIN[type(None)])
    some = [rule for rule in rules if rule is not None]
    if len(some) < len(rules):
        return None
    casts = {rule.cast for rule in some if rule.cast is not None}
    tried = some[::-1]  # arrays and None before series, whose elements are looked at one by one
    return Rule(
        partial(_is_one_of, tried),
        " or ".join(dict.fromkeys(rule.words for rule in some)),
        " or ".join(dict.fromkeys(rule.many for rule in some)),
        frozenset().union(*(rule.exact for rule in some)),
        next(iter(casts)) if len(casts) == 1 and len(left - {type(None)}) == 1 else None,
    )


def _is_one_of(rules: list[Rule], value: Any) -> bool:
    for rule in rules:  # noqa: SIM110  # a generator would cost more than the look itself
        if rule.accepts(value):
            return True
    return False


def _instance(kind: type) -> Rule:
    if f"{kind.__module__}.{kind.__name__}" == "numpy.random._generator.Generator":  # lazy
        return _kind(kind, "a generator, such as np.random.default_rng(0)", "generators")
    if getattr(kind, "_is_protocol", False):
        methods = [name for name in vars(kind) if not name.startswith("_")]
        words = f"with {' and '.join(methods)}"
        return Rule(
            lambda v: not isinstance(v, type) and all(hasattr(v, name) for name in methods),
            f"an object {words}",
            f"objects {words}",
        )
    name = {"PathLike": "path", "Pattern": "pattern"}.get(kind.__name__, kind.__name__)
    article = "an" if name[0] in "AEIO" else "a"
    return _kind(kind, f"{article} {name}", f"{name}s", kind)


def _container(kind: type, parts: tuple[Any, ...]) -> Rule:
    """A list, a tuple, a dictionary or an iterable, and what is in it."""
    if issubclass(kind, tuple) and parts[-1] is not ...:
        each = [rule_of(part) for part in parts]
        first = each[0]
        if first is not None and len(set(parts)) == 1:
            words = f"{len(each)} {first.many}"
        else:
            words = f"({', '.join('…' if rule is None else rule.words for rule in each)})"
        return Rule(
            lambda v: (
                isinstance(v, tuple | list) and len(v) == len(each) and all(map(_fits, each, v))
            ),
            words,
            words,
        )
    if issubclass(kind, Mapping):
        keys, values = map(rule_of, parts)
        of = "" if values is None else f" of {values.many}"
        return Rule(
            lambda v: isinstance(v, kind) and _all(keys, v) and _all(values, v.values()),
            f"a dictionary{of}",
            f"dictionaries{of}",
        )
    if not issubclass(kind, Iterable):
        return _instance(kind)
    inner = rule_of(parts[0])
    of = "" if inner is None else f" of {inner.many}"
    series = Sequence if issubclass(kind, list | tuple) else kind
    one, many = ("a list", "lists") if series is Sequence else ("a series", "series")
    if issubclass(kind, tuple):
        one, many = "a tuple", "tuples"
    return Rule(partial(_is_series, series, inner), one + of, many + of)


def _is_series(kind: type, inner: Rule | None, value: Any) -> bool:
    if isinstance(value, str):
        return issubclass(kind, Iterable) and inner is _PLAIN[str]
    if isinstance(value, bytes | Mapping) or hasattr(value, "requires_grad"):
        return False  # not what is meant, though they can be iterated: a single Tensor is no list
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and _all(inner, value)
    if not isinstance(value, kind):
        return False
    return not isinstance(value, Sequence | set | frozenset) or _all(inner, value)


def _fits(rule: Rule | None, value: Any) -> bool:
    return rule is None or rule.accepts(value)


def _all(rule: Rule | None, values: Iterable[Any]) -> bool:
    return rule is None or set(map(type, values)) <= rule.exact or all(map(rule.accepts, values))
