"""Whatever holds a number that a step reads, and whenever it changes: a compiled layer and a
training step give what the unrolled step gives. What they cannot watch runs as it is written.
"""

import argparse
import array
import collections
import contextvars
import ctypes
import dataclasses
import enum
import functools
import io
import itertools
import operator
import os
import random
import sys
import threading
import time
import types
import warnings
import weakref

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import errors, nn, optim
from tinyseq.errors import CompileError
from tinyseq.nn import recurrent

X = np.ones((3, 2, 2), np.float32)
HOLDERS = {}  # by name: a function that gives (read, change), where the number is 1 at first
HIDDEN = set()  # those that cannot be watched
GAIN = 1.0


def holder(make):
    HOLDERS[make.__name__] = make


def hidden(make):
    holder(make)
    HIDDEN.add(make.__name__)


# -- what is watched ------------------------------------------------------------------------------


def of_attribute(thing, name="scale"):
    return lambda: thing.scale, lambda value: setattr(thing, name, value)


@holder
def dataclass():
    return of_attribute(dataclasses.make_dataclass("Settings", ["scale"])(1.0))


@holder
def slots():
    return of_attribute(dataclasses.make_dataclass("Settings", ["scale"], slots=True)(1.0))


@holder
def namespace():
    return of_attribute(types.SimpleNamespace(scale=1.0))


@holder
def parsed_arguments():
    return of_attribute(argparse.Namespace(scale=1.0))


@holder
def class_attribute():
    return of_attribute(type("Settings", (), {"scale": 1.0}))


@holder
def class_of_an_object():
    kind = type("Settings", (), {"scale": 1.0})
    thing = kind()
    return lambda: thing.scale, lambda value: setattr(kind, "scale", value)


@holder
def attribute_of_a_metaclass():
    meta = type("Meta", (type,), {"scale": 1.0})
    kind = meta("Settings", (), {})
    return lambda: kind.scale, lambda value: setattr(meta, "scale", value)


@holder
def module_attribute():
    module = types.ModuleType("tinyseq_test_holder")
    module.scale = 1.0
    return of_attribute(module)


@holder
def getattr_of_a_module():
    table = {"scale": 1.0}
    module = types.ModuleType("tinyseq_test_holder")
    module.__getattr__ = lambda name: table[name]
    return lambda: module.scale, lambda value: table.update(scale=value)


@holder
def imported_in_the_step():
    module = sys.modules["tinyseq_test_holder"] = types.ModuleType("tinyseq_test_holder")
    module.scale = 1.0

    def read():
        import tinyseq_test_holder

        return tinyseq_test_holder.scale

    return read, lambda value: setattr(module, "scale", value)


@holder
def a_property():
    class Settings:
        held = 1.0
        scale = property(lambda self: self.held)

    thing = Settings()
    return lambda: thing.scale, lambda value: setattr(thing, "held", value)


@holder
def a_cached_property():
    class Settings:
        held = 1.0

        @functools.cached_property
        def scale(self):
            return self.held

    thing = Settings()

    def change(value):
        thing.held = value
        vars(thing).pop("scale", None)

    return lambda: thing.scale, change


@holder
def a_descriptor():
    class Held:
        value = 1.0

        def __get__(self, thing, kind):
            return self.value

    held = Held()
    thing = type("Settings", (), {"scale": held})()
    return lambda: thing.scale, lambda value: setattr(held, "value", value)


@holder
def dunder_getattr():
    class Settings:
        def __init__(self):
            self.table = {"scale": 1.0}

        def __getattr__(self, name):
            return self.__dict__["table"][name]

    thing = Settings()
    return lambda: thing.scale, lambda value: thing.table.update(scale=value)


@holder
def dunder_getattribute():
    class Settings:
        other = 1.0

        def __getattribute__(self, name):
            return object.__getattribute__(self, "oth" + "er" if name == "scale" else name)

    thing = Settings()
    return lambda: thing.scale, lambda value: setattr(thing, "other", value)


def named(computed, make=lambda: types.SimpleNamespace(scale_1=1.0, scale_2=1.0)):
    """Attributes whose names the code does not have."""
    thing = make()
    return (lambda: computed(thing, 1)), lambda value: setattr(thing, "scale_1", value)


@holder
def getattr_by_a_computed_name():
    return named(lambda thing, n: getattr(thing, f"scale_{n}"))


@holder
def getattr_by_a_computed_name_with_a_default():
    return named(lambda thing, n: getattr(thing, f"scale_{n}", "none"))


@holder
def vars_by_a_computed_name():
    return named(lambda thing, n: vars(thing)[f"scale_{n}"])


@holder
def dict_of_an_object():
    return named(lambda thing, n: thing.__dict__[f"scale_{n}"])


@holder
def getattr_of_a_slot():
    make = dataclasses.make_dataclass("Settings", ["scale_1"], slots=True)
    return named(lambda thing, n: getattr(thing, f"scale_{n}"), lambda: make(1.0))


@hidden
def attrgetter():
    thing, get = types.SimpleNamespace(scale=1.0), operator.attrgetter("sca" + "le")
    return lambda: get(thing), lambda value: setattr(thing, "scale", value)


@holder
def closure():
    scale = 1.0

    def change(value):
        nonlocal scale
        scale = value

    return lambda: scale, change


@holder
def a_global():
    return lambda: GAIN, lambda value: globals().update(GAIN=value)


@hidden
def globals_by_name():
    return lambda: globals()["GA" + "IN"], lambda value: globals().update(GAIN=value)


@holder
def default_argument():
    def read(scale=1.0):
        return scale

    return read, lambda value: setattr(read, "__defaults__", (value,))


@holder
def keyword_default():
    def read(*, scale=1.0):
        return scale

    return read, lambda value: read.__kwdefaults__.update(scale=value)


@holder
def attribute_of_a_function():
    def read():
        return read.scale

    read.scale = 1.0
    return read, lambda value: setattr(read, "scale", value)


@holder
def code_of_a_function():
    def read():
        return 1.0

    return read, lambda value: setattr(read, "__code__", (lambda: 2.0).__code__)


@holder
def partial():
    held = [1.0]
    return functools.partial(lambda held: held[0], held), lambda value: held.insert(0, value)


@holder
def callable_object():
    class Read:
        scale = 1.0

        def __call__(self):
            return self.scale

    read = Read()
    return read, lambda value: setattr(read, "scale", value)


@holder
def bound_method_of_a_dict():
    held = {"scale": 1.0}
    read = held.get
    return lambda: read("scale"), lambda value: held.update(scale=value)


@holder
def cached_helper():
    held = [1.0]
    read = functools.lru_cache(lambda: held[0])

    def change(value):
        held[0] = value
        read.cache_clear()

    return read, change


@holder
def cached_helper_that_is_cleared_later():
    held = [1.0]

    @functools.cache
    def read():
        return held[0]

    def change(value):
        held[0] = value
        if value == 3.0:  # the second change is seen, the first is not
            read.cache_clear()

    return read, change


def of_item(things, key=0):
    return lambda: things[key], lambda value: operator.setitem(things, key, value)


ITEMS = {
    "a list": lambda: [1.0],
    "a dict": lambda: {0: 1.0},
    "a deque": lambda: collections.deque([1.0]),
    "an OrderedDict": lambda: collections.OrderedDict({0: 1.0}),
    "a UserDict": lambda: collections.UserDict({0: 1.0}),
    "a UserList": lambda: collections.UserList([1.0]),
    "a ChainMap": lambda: collections.ChainMap({}, {0: 1.0}),
    "an array of Python's": lambda: array.array("i", [1]),
    "bytes": lambda: bytearray([1]),
    "an array": lambda: np.ones(1),
    "an array of objects": lambda: np.array([1.0, None], object),
    "a masked array": lambda: np.ma.masked_array([1.0], [False]),
    "a kind of dict": lambda: type("Config", (dict,), {})({0: 1.0}),
}
for name, make in ITEMS.items():
    HOLDERS[f"item of {name}"] = lambda make=make: of_item(make())


@holder
def item_behind_items():
    held = {"a": [({"b": [1.0]},)]}
    return lambda: held["a"][0][0]["b"][0], lambda value: held["a"][0][0]["b"].insert(0, value)


@holder
def mask_of_an_array():
    held = np.ma.masked_array([2.0, 1.0], [True, False])

    def change(value):
        held.mask = [value < 2, value > 2]

    return lambda: float(held.sum()), change


@holder
def memory_of_an_array():
    held = np.ones(1)
    seen = memoryview(held)
    return lambda: seen[0], lambda value: held.fill(value)


@holder
def mapping_proxy():
    held = {"scale": 1.0}
    seen = types.MappingProxyType(held)
    return lambda: seen["scale"], lambda value: held.update(scale=value)


@holder
def attribute_of_a_dict():
    class Config(dict):
        scale = 1.0

    return of_attribute(Config())


@holder
def namedtuple():
    held = [collections.namedtuple("Settings", "scale")(1.0)]
    return lambda: held[0].scale, lambda value: held.__setitem__(0, held[0]._replace(scale=value))


@holder
def members_of_a_set():
    held = {1.0}

    def change(value):
        held.clear()
        held.add(value)

    return lambda: sum(held), change


@holder
def value_of_an_enum():
    kind = enum.Enum("Kind", {"SCALE": 1.0})
    return lambda: kind.SCALE.value, lambda value: setattr(kind.SCALE, "_value_", value)


@holder
def object_in_a_list():
    held = [types.SimpleNamespace(scale=1.0)]
    return lambda: held[0].scale, lambda value: setattr(held[0], "scale", value)


@holder
def object_in_an_object_array():
    held = np.array([types.SimpleNamespace(scale=1.0), None], object)
    return lambda: held[0].scale, lambda value: setattr(held[0], "scale", value)


@holder
def weak_reference():
    kind = type("Settings", (), {"scale": 1.0})
    thing = kind()
    seen = weakref.ref(thing)
    keep = [thing]
    return lambda: seen().scale, lambda value: setattr(keep[0], "scale", value)


@holder
def weak_dictionary():
    class Key:
        pass

    key, held = Key(), weakref.WeakKeyDictionary()
    held[key] = 1.0
    return lambda: held[key], lambda value: held.update({key: value})


@holder
def context_variable():
    variable = contextvars.ContextVar("scale", default=1.0)
    return variable.get, variable.set


@holder
def context_variable_by_a_function():
    variable = contextvars.ContextVar("scale", default=1.0)
    return lambda: variable.get(), variable.set


@holder
def tensor():
    held = ts.tensor(1.0)
    return lambda: held, lambda value: setattr(held, "data", value)


@holder
def tensor_in_place():
    held = ts.tensor([1.0])
    return lambda: held, lambda value: held.data.fill(value)


def of_numpy(read):
    """The state of its own generator; a seed changes it."""

    def change(value):
        np.random.seed(value)  # noqa: NPY002

    change(1)
    return lambda: 1.0 + read()["state"]["key"][0] % 7, change


@holder
def state_of_numpy():
    return of_numpy(lambda: np.random.get_state(LEGACY))  # noqa: NPY002


@holder
def state_of_numpy_by_another_name():
    return of_numpy(lambda: DRAWING.get_state(LEGACY))


@holder
def state_of_numpy_by_a_method():
    return of_numpy(lambda: GET_STATE(LEGACY))


@holder
def state_of_numpy_imported_in_the_step():
    def read():
        import numpy

        return numpy.random.get_state(LEGACY)  # noqa: NPY002

    return of_numpy(read)


DRAWING, GET_STATE, LEGACY = np.random, np.random.get_state, False


# -- what is not ----------------------------------------------------------------------------------


@hidden
def environment():
    return lambda: float(os.environ.get("TINYSEQ_TEST", 1)), set_environment


@hidden
def environment_by_getenv():
    return lambda: float(os.getenv("TINYSEQ_TEST", "1")), set_environment


@hidden
def environment_by_a_global_name():
    return lambda: float(os.environ.get(VARIABLE, ONE)), set_environment


@hidden
def environment_imported_in_the_step():
    def read():
        from os import environ

        return float(environ[VARIABLE])

    return read, set_environment


VARIABLE, ONE = "TINYSEQ_TEST", "1"


def set_environment(value):
    os.environ["TINYSEQ_TEST"] = str(value)


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.setattr(recurrent, "COMPILED_FROM", 0)
    monkeypatch.setattr(errors, "_said", set())
    monkeypatch.setattr(sys.modules[__name__], "GAIN", 1.0)
    for name, value in (("TEST", "1"), ("TEST_FILE", str(tmp_path / "number"))):
        monkeypatch.setenv(f"TINYSEQ_{name}", value)
    monkeypatch.setenv("TZ", "UTC")
    yield
    sys.modules.pop("tinyseq_test_holder", None)
    monkeypatch.undo()
    if hasattr(time, "tzset"):
        time.tzset()


@hidden
def local_time():
    def change(hour):
        os.environ["TZ"] = f"XXX-{hour - 1}"
        time.tzset()

    change(1)
    return lambda: time.localtime(0).tm_hour + 1.0, change


@hidden
def generator():
    held = [1.0]

    def numbers():
        while True:
            yield held[0]

    made = numbers()
    return lambda: next(made), lambda value: held.__setitem__(0, value)


@hidden
def endless_iterator():
    held = [1.0]
    made = itertools.starmap(lambda: held[0], itertools.repeat(()))
    return lambda: next(made), lambda value: held.__setitem__(0, value)


@hidden
def a_file():
    held = io.StringIO("1.0")

    def read():
        held.seek(0)
        return float(held.read())

    def change(value):
        held.seek(0)
        held.write(str(value))

    return read, change


@hidden
def opened_in_the_step():
    path = os.environ["TINYSEQ_TEST_FILE"]

    def read():
        with open(path) as file:
            return float(file.read())

    def change(value):
        with open(path, "w") as file:
            file.write(str(value))

    change(1)
    return read, change


@hidden
def memory_of_c():
    held = ctypes.c_double(1.0)
    return lambda: held.value, lambda value: setattr(held, "value", value)


@hidden
def array_in_an_opaque_object():
    held = np.ones(1)
    seen = held.flat
    return lambda: seen[0], lambda value: held.fill(value)


@hidden
def of_a_thread():
    held = threading.local()
    held.scale = 1.0
    return of_attribute(held)


@hidden
def weak_proxy():
    kind = type("Settings", (), {"scale": 1.0})
    keep = kind()
    seen = weakref.proxy(keep)
    return lambda: seen.scale, lambda value: setattr(keep, "scale", value)


@hidden
def values_of_a_dict():
    held = {"scale": 1.0}
    seen = held.values()
    return lambda: sum(seen), lambda value: held.update(scale=value)


@hidden
def drawn_by_python():
    held = random.Random(0)
    return lambda: held.getstate()[1][1] % 7 + 1.0, held.seed


@hidden
def evaluated():
    return lambda: eval("GAIN"), lambda value: globals().update(GAIN=value)


# -- the matrix -----------------------------------------------------------------------------------


class Cell(nn.Module):
    input_size = hidden_size = 2

    def __init__(self, read):
        self.read = read
        self.w = nn.Parameter(np.eye(2, dtype=np.float32))

    def forward(self, x, state):
        return ((x @ self.w + state[0]) * self.read(),)

    def initial_state(self, batch_size, dtype=np.float32):
        return (ts.tensor(np.ones((batch_size, 2), dtype)),)


def layer_of(read):
    cell = Cell(read)
    auto, unrolled = (nn.Recurrent(cell, mode=mode) for mode in ("auto", "unroll"))
    return lambda: auto(X)[0].numpy(), lambda: unrolled(X)[0].numpy(), auto


def step_of(read):
    w = nn.Parameter(np.ones(2, np.float32))
    played, written = (
        nn.TrainingStep(lambda x: (w * x * read()).sum(), optim.SGD([w], 0.0), mode=mode)
        for mode in ("auto", "unroll")
    )
    return lambda: played(X).item(), lambda: written(X).item(), played


def step_of_a_layer(read):
    layer = nn.Recurrent(Cell(read), mode="auto")
    step = nn.TrainingStep(lambda x: layer(x)[0].sum(), optim.SGD(layer.parameters(), 0.0))
    unrolled = nn.Recurrent(layer.cell, mode="unroll")
    return lambda: step(X).item(), lambda: unrolled(X)[0].sum().item(), layer


@pytest.mark.filterwarnings("always::RuntimeWarning")
@pytest.mark.parametrize("user", [layer_of, step_of, step_of_a_layer])
@pytest.mark.parametrize("name", HOLDERS)
def test_a_number_that_changes(name, user):
    if name == "local_time" and not hasattr(time, "tzset"):
        pytest.skip("no time zones")
    read, change = HOLDERS[name]()
    fast, written, layer = user(read)
    seen = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for value in (None, 2, 3):
            if value is not None:
                change(value)
            for _ in range(4):
                np.testing.assert_allclose(fast(), written(), rtol=1e-6)
            seen.append(written())
    assert not np.array_equal(seen[0], seen[2])
    reasons = {str(warning.message).partition(": a change")[0] for warning in said}
    assert len(said) == len(reasons)
    assert bool(reasons) is (name in HIDDEN), reasons
    if name in HIDDEN:
        layer.mode = "compiled"
        with pytest.raises(CompileError, match="could not be seen"):
            fast()


def test_a_step_that_is_installed(monkeypatch, tmp_path):
    """What pip installed is taken to stay as it is, but not that of which the step is a part."""
    (tmp_path / "site-packages" / "tinyseq_test_holder").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    (tmp_path / "site-packages" / "tinyseq_test_holder" / "settings.py").write_text("scale = 1.0")
    (tmp_path / "site-packages" / "tinyseq_test_holder" / "__init__.py").write_text(
        "from tinyseq_test_holder import settings\n"
        "def loss(w, x):\n    return (w * x * settings.scale).sum()\n"
        "class Loss:\n    def __call__(self, x):\n        return loss(self.w, x)\n"
        "    def method(self, x):\n        return loss(self.w, x)\n"
    )
    import tinyseq_test_holder as package

    package.settings.scale = 1.0
    w = nn.Parameter(np.ones(2, np.float32))
    holder = package.Loss()
    holder.w = w
    for loss in (functools.partial(package.loss, w), holder, holder.method):
        step = nn.TrainingStep(loss, optim.SGD([w], 0.0), mode="compiled")
        for scale in (1.0, 2.0, 3.0):
            package.settings.scale = scale
            for _ in range(3):
                assert step(X[0, 0]).item() == 2 * scale
    sys.modules.pop("tinyseq_test_holder.settings")
