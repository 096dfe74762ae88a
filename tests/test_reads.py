"""What code reads from around it, in whatever way, may change: a compiled cell and a training step
then give the numbers of the code as it is written.
"""

import dataclasses
import gc
import sys
import types
import weakref

import numpy as np
import pytest

import tinyseq as ts
from tinyseq import nn, optim
from tinyseq.compiler.content import changed
from tinyseq.compiler.reads import watch


@dataclasses.dataclass
class Settings:
    scale: float = 1.0


@dataclasses.dataclass(slots=True)
class Slotted:
    scale: float = 1.0


class Far:
    """Something behind an attribute, with attributes of its own."""

    scale = 1.0

    def __init__(self):
        self.table, self.inner, self.list = {"beta": 1.0}, Settings(), [Settings()]

    @property
    def inside(self):
        return self.inner.scale

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__dict__["table"][name]

    def method(self):
        return helper()


GAIN = 1.0


def helper():
    return GAIN


class Cell(nn.Module):
    input_size = hidden_size = 2
    factor = 1.0

    def __init__(self):
        self.settings, self.far, self.slotted = Settings(), Far(), Slotted()
        self.w = nn.Parameter(np.eye(2, dtype=np.float32))

    @property
    def scale(self):
        return self.settings.scale

    def forward(self, x, state):
        import tinyseq_test_settings as imported

        far, late = self.far, getattr(self.settings, "late", 1.0)
        h = x @ self.w * self.scale + state[0] * self.factor * imported.gain * late
        h = h * self.slotted.scale
        return (h * far.scale * far.inside * far.beta * far.method() * far.list[0].scale,)

    def initial_state(self, batch_size, dtype=np.float32):
        return (ts.tensor(np.ones((batch_size, 2), dtype)),)


class Another(Cell):
    def forward(self, x, state):
        return (Cell.forward(self, x, state)[0] * 2.0,)


def fivefold(cell, x, state):
    return (x @ cell.w * 5.0,)


CHANGES = {
    "its class": lambda cell, m: setattr(cell, "__class__", Another),
    "its forward": lambda cell, m: m.setattr(Cell, "forward", fivefold),
    "an attribute of an object": lambda cell, m: setattr(cell.settings, "scale", 2.0),
    "one that it had not": lambda cell, m: setattr(cell.settings, "late", 2.0),
    "a slot": lambda cell, m: setattr(cell.slotted, "scale", 2.0),
    "the class": lambda cell, m: m.setattr(Cell, "factor", 2.0),
    "hidden by the instance": lambda cell, m: setattr(cell, "factor", 2.0),
    "the class of an object": lambda cell, m: m.setattr(Far, "scale", 2.0),
    "hidden by an object": lambda cell, m: setattr(cell.far, "scale", 2.0),
    "behind a property": lambda cell, m: setattr(cell.far.inner, "scale", 2.0),
    "the property": lambda cell, m: m.setattr(Far, "inside", property(lambda self: 2.0)),
    "behind __getattr__": lambda cell, m: cell.far.table.update(beta=2.0),
    "an object in a list": lambda cell, m: setattr(cell.far.list[0], "scale", 2.0),
    "a global of a method": lambda cell, m: m.setitem(globals(), "GAIN", 2.0),
    "a helper": lambda cell, m: m.setitem(globals(), "helper", lambda: 2.0),
    "a method": lambda cell, m: m.setattr(Far, "method", lambda self: 2.0),
    "imported within": lambda cell, m: setattr(sys.modules["tinyseq_test_settings"], "gain", 2.0),
}
X = np.ones((3, 2, 2), np.float32)


@pytest.fixture(autouse=True)
def imported(monkeypatch):
    module = types.ModuleType("tinyseq_test_settings")
    module.gain = 1.0
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize("change", CHANGES)
def test_a_compiled_cell_sees_it(change, monkeypatch):
    cell = Cell()
    compiled, unrolled = (nn.Recurrent(cell, mode=mode) for mode in ("compiled", "unroll"))
    before = compiled(X)[0].numpy()
    np.testing.assert_allclose(before, unrolled(X)[0].numpy())
    CHANGES[change](cell, monkeypatch)
    after = compiled(X)[0].numpy()
    assert not np.allclose(after, before)
    np.testing.assert_allclose(after, unrolled(X)[0].numpy())


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", ["compiled", "unroll"])
def test_a_training_step_sees_it(change, mode, monkeypatch):
    cell = Cell()
    layer = nn.Recurrent(cell, mode=mode)
    step = nn.TrainingStep(lambda x: layer(x)[0].sum(), optim.SGD([cell.w], 0.0), mode="compiled")
    before = [step(X).item() for _ in range(4)][-1]
    CHANGES[change](cell, monkeypatch)
    expected = nn.Recurrent(cell, mode="unroll")(X)[0].sum().item()
    assert expected != before
    for _ in range(3):
        assert step(X).item() == pytest.approx(expected)


def test_what_has_changed_is_named():
    cell = Cell()
    reads = watch((), [cell], baked=True).reads
    assert changed(reads) is None
    cell.settings.scale = 1.0  # as it was
    assert changed(reads) is None
    cell.settings.scale = -0.0
    assert changed(reads) == "settings.scale"
    cell.settings.scale = 1.0
    cell.far.list.append(None)
    assert changed(reads) == "far.list"


def test_a_cell_that_was_compiled_may_go():
    """What is known of it holds everything that it reads, but not the cell."""
    cell = Cell()
    nn.Recurrent(cell, mode="compiled")(X)
    alive = weakref.ref(cell)
    del cell
    gc.collect()
    assert alive() is None
