"""A state is restored whole or not at all; options keep their rules after they are set again."""

import contextlib
import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import arguments, nn, optim, saving
from tinyseq.nn import interop
from tinyseq.text import Vocabulary

OPTIMISERS = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.1, momentum=0.5, centered=True),
    "adagrad": lambda ps: optim.Adagrad(ps, lr=0.1),
    "adam": lambda ps: optim.Adam(ps, lr=0.1),
    "amsgrad": lambda ps: optim.Adam(ps, lr=0.1, amsgrad=True),
    "nadam": lambda ps: optim.NAdam(ps, lr=0.1, weight_decay=0.5),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.1, weight_decay=0.5),
}
SCHEDULES = {
    "step": lambda o: optim.StepLR(o, 2, 0.5),
    "cosine": lambda o: optim.CosineLR(o, 9, 3, 0.05),
    "plateau": lambda o: optim.ReduceLROnPlateau(o, patience=1, factor=0.5, cooldown=1),
}


class Mixed(nn.Module):
    def __init__(self):
        self.layers = [nn.Linear(2, 2), {"deep": [nn.Parameter([1.0, 2.0])]}]
        self.table = ts.tensor([3, 4])
        self.flags = ts.tensor([True, False])
        self.fixed = ts.broadcast_to(ts.tensor([1.0]), (3,))  # its memory cannot be written to


def optimiser(kind):
    """One that has made some steps."""
    ps = [nn.Parameter([1.0, -2.0]), nn.Parameter(np.array([[0.5]]))]
    made = OPTIMISERS[kind](ps)
    for p in ps:
        p.grad = ts.tensor(np.full(p.shape, 0.3, p.dtype))
    for _ in range(3):
        made.step()
    return made


def schedule(kind):
    made = SCHEDULES[kind](optim.SGD([nn.Parameter([1.0])], lr=0.8))
    for _ in range(4):
        made.step(*[1.0] * (kind == "plateau"))
    return made


OWNERS = {
    "module": Mixed,
    **{f"optimiser {k}": lambda k=k: optimiser(k) for k in OPTIMISERS},
    **{f"schedule {k}": lambda k=k: schedule(k) for k in SCHEDULES},
}


def bits(state):
    return {
        k: (np.asarray(v).tobytes(), np.shape(v), np.asarray(v).dtype) for k, v in state.items()
    }


#: What no state has, whatever the entry.
NEVER = [
    1j, np.complex64([1, 2]), "text", None, object(), np.datetime64(0, "s"), [[1.0], [2.0, 3.0]],
    np.zeros((7, 7)), np.array(["a", "b"]), np.ma.masked_array([1.0, 2.0], [True, False]),
]  # fmt: skip
#: And of entries that are counts, rates, second moments, whole numbers, float32.
BAD = {
    "steps": [-1, -5, 1.5, math.nan, math.inf, 1 << 60, [3, -1], [0.5, 1], [1 << 63, 0]],
    "lr": [-1.0, math.nan, math.inf],
    "base_lr": [-1.0, math.nan, math.inf],
    "best": [math.nan],
    "bad": [-1, 0.5],
    "cooling": [-1, math.nan],
    "largest.0": [[-1e-9, 1.0]],
    "square.0": [[-1e-9, 1.0]],
    "square.1": [[[-1.0]]],
    "table": [[0.5, 1.0], [math.nan, 1.0], [float(1 << 63), 0.0], np.uint64([1 << 63, 1])],
    "flags": [[2, 0], [0.5, 1.0]],
    "layers.0.bias": [[1e39, 0.0], [-1e300, 1.0]],
    "fixed": [[1e39, 0.0, 1.0]],
}


@pytest.mark.parametrize("kind", OWNERS)
@given(st.data())
def test_a_damaged_state_is_refused_by_name_and_changes_nothing(kind, data):
    owner = OWNERS[kind]()
    before, inside = owner.state_dict(), bits(owner.state_dict())
    state = {k: v + 1 if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v
             for k, v in owner.state_dict().items()}  # fmt: skip
    how = data.draw(st.sampled_from(["value", "missing", "unknown"]))
    name = data.draw(st.sampled_from(sorted(state)))
    if how == "missing":
        del state[name]
    elif how == "unknown":
        state[name := "other"] = 1.0
    else:
        bad = NEVER + BAD.get(name, [])
        state[name] = bad[data.draw(st.integers(0, len(bad) - 1))]
    if kind in ("schedule step", "schedule cosine") and (how, name) == ("missing", "lr"):
        return  # as it was saved earlier
    order = data.draw(st.permutations(sorted(state)))
    with pytest.raises(ValueError, match=rf"does not fit .*\b{name}\b"):
        owner.load_state_dict({k: state[k] for k in order})
    assert bits(owner.state_dict()) == inside
    owner.load_state_dict(before)  # and it takes a right one
    assert bits(owner.state_dict()) == inside


@pytest.mark.parametrize("kind", OWNERS)
def test_its_own_state_and_that_of_a_file_fit(kind, tmp_path):
    owner, other = OWNERS[kind](), OWNERS[kind]()
    saving.save(tmp_path / "c.safetensors", {"state": owner.state_dict()})
    other.load_state_dict(saving.load(tmp_path / "c.safetensors")["state"])
    assert bits(other.state_dict()) == bits(owner.state_dict())
    with pytest.raises(TypeError, match=r"state=\[1.0\] must be a dictionary"):
        owner.load_state_dict([1.0])


def test_entries_may_be_views_of_what_they_are_written_to():
    m = Mixed()
    m.layers.append(nn.Linear(2, 2))
    a, b = m.layers[0].weight, m.layers[2].weight
    before = a.numpy(), b.numpy()
    m.load_state_dict({**dict(m.named_tensors()), "layers.0.weight": b, "layers.2.weight": a})
    np.testing.assert_array_equal(a.numpy(), before[1])
    np.testing.assert_array_equal(b.numpy(), before[0])


def test_a_pytorch_state_is_taken_over_whole_or_not_at_all():
    m = Mixed()
    m.layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    del m.table, m.flags, m.fixed
    state, before = interop.to_torch(m), bits(m.state_dict())
    state["layers.0.bias"] += 1
    state["layers.1.bias"] = np.float64([1e300, 0.0])
    with pytest.raises(ValueError, match=r"does not fit Linear: bias holds 1e\+300, which float32"):
        interop.load_torch(m, state)
    assert bits(m.state_dict()) == before


# -- options --------------------------------------------------------------------------------------

NO_NUMBERS = [1j, "1", None, [0.1, 0.2], object()]
WRONG = {
    "lr": [-1, math.nan, math.inf, 10**400], "weight_decay": [-1, math.nan],
    "momentum": [-1, math.nan], "nesterov": [1, None, "yes"], "centered": [1, None],
    "alpha": [-0.1, 1, math.nan], "eps": [-1, math.inf],
    "betas": [(1, 0), (0, 1), (-1, 0.5), (0.9,), (0.9, 0.9, 0.9), (math.nan, 0.5), 3, (1j, 0.5)],
    "steps": [-1, 0.5, 1 << 60], "base_lr": [-1, math.nan], "step_size": [0, 1.5, True],
    "gamma": [0, -1, math.inf], "total_steps": [0, 3, 2.5], "warmup_steps": [-1, 9, 10],
    "min_lr": [-1, math.nan], "mode": ["least", None], "factor": [0, 1, math.nan],
    "patience": [-1, 0.5], "threshold": [-1, 1, math.nan], "threshold_mode": ["both"],
    "amsgrad": [1, None], "momentum_decay": [-1, math.nan], "decoupled_weight_decay": [1, None],
    "cooldown": [-1, 0.5], "best": [math.nan], "bad": [-1], "cooling": [-1],
}  # fmt: skip
NUMBERS = {"lr", "weight_decay", "momentum", "alpha", "eps", "base_lr", "gamma", "min_lr", "factor"}


@pytest.mark.parametrize("kind", [k for k in OWNERS if k != "module"])
def test_an_option_that_is_set_later_keeps_its_rule(kind):
    owner = OWNERS[kind]()
    options = arguments._attributes(type(owner)).keys() & vars(owner).keys()
    assert options - {"buffers", "optimizer", "params", "buffer_names"} <= WRONG.keys()
    for name in options & WRONG.keys():
        before = copy.copy(getattr(owner, name))
        for value in WRONG[name] + NO_NUMBERS * (name in NUMBERS):
            with pytest.raises((ValueError, TypeError), match=rf"{name}|beta"):
                setattr(owner, name, value)
            assert getattr(owner, name) == before
        setattr(owner, name, before)
        assert getattr(owner, name) == before


def test_what_needs_a_buffer_cannot_be_switched_on_later():
    for made, name, value in (
        (optim.SGD([nn.Parameter([1.0])]), "momentum", 0.9),
        (optim.RMSprop([nn.Parameter([1.0])]), "momentum", 0.9),
        (optim.RMSprop([nn.Parameter([1.0])]), "centered", True),
        (optim.Adam([nn.Parameter([1.0])]), "amsgrad", True),
    ):
        with pytest.raises(ValueError, match=rf"{name}=.* needs a buffer .* Make a new one"):
            setattr(made, name, value)
        made.params[0].grad = ts.tensor([1.0])
        made.step()
    with_momentum = optim.SGD([p := nn.Parameter([1.0])], lr=0.5, momentum=0.9)
    with_momentum.momentum = 0
    p.grad = ts.tensor([1.0])
    with_momentum.step()
    assert p.item() == 0.5


def test_numbers_of_other_libraries_are_numbers():
    sgd = optim.SGD([nn.Parameter([1.0])])
    for value in (np.float32(0.5), np.float64(0.5), np.int64(1), 1):
        sgd.lr = value
        assert type(sgd.lr) is float


# -- schedules ------------------------------------------------------------------------------------

PLANS = {
    "step": lambda o: optim.StepLR(o, 2, 0.5),
    "cosine": lambda o: optim.CosineLR(o, 9, 3, 0.3),  # its warm-up starts below that
    "low cosine": lambda o: optim.CosineLR(o, 5),
    "plateau": lambda o: optim.ReduceLROnPlateau(o, patience=1, factor=0.5, cooldown=1),
    "hasty plateau": lambda o: optim.ReduceLROnPlateau(o, patience=0, factor=0.7),
}


def act(schedules, action):
    which, metric = action
    made = schedules[which % len(schedules)]
    made.step(*[metric] * isinstance(made, optim.ReduceLROnPlateau))
    return made.optimizer.lr


def adam():
    return optim.Adam([nn.Parameter([1.0])], lr=0.8)


def run(plans, actions, cut):
    """The rates from the cut on, and what was saved there."""
    optimizer = adam()
    schedules = [PLANS[plan](optimizer) for plan in plans]
    for action in actions[:cut]:
        act(schedules, action)
    saved = {"optimizer": optimizer.state_dict()}
    saved |= {str(i): s.state_dict() for i, s in enumerate(schedules)}
    return [optimizer.lr, *(act(schedules, action) for action in actions[cut:])], saved


def resumed(plans, actions, cut, saved, pick):
    """The same rates of a run that was restored, each state any time after its owner was made."""
    optimizer, made = adam(), {}
    left = [("load", "optimizer"), *(("make", i) for i in range(len(plans)))]
    while left:
        what, which = left.pop(pick(len(left)))
        if what == "make":
            made[which] = PLANS[plans[which]](optimizer)
            left.append(("load", which))
        else:
            made.get(which, optimizer).load_state_dict(saved[str(which)])
    schedules = [made[i] for i in range(len(plans))]
    return [optimizer.lr, *(act(schedules, action) for action in actions[cut:])]


ACTIONS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([1.0, 2.0, 3.0])), min_size=1, max_size=16
)


@given(st.data())
def test_in_any_order_of_restoring_a_run_goes_on_with_the_same_rates(tmp_path_factory, data):
    first = st.sampled_from([*PLANS])  # the others start from a base that may be below 0.3
    others = st.lists(st.sampled_from([*PLANS.keys() - {"cosine"}]), max_size=2)
    plans = [data.draw(first), *data.draw(others)]
    actions = data.draw(ACTIONS)
    cut = data.draw(st.integers(0, len(actions)), "saved after")
    rates, saved = run(plans, actions, cut)
    path = tmp_path_factory.mktemp("s") / "s.safetensors"
    saving.save(path, saved)

    def pick(n):
        return data.draw(st.integers(0, n - 1))

    assert resumed(plans, actions, cut, saving.load(path), pick) == rates


@pytest.mark.parametrize("plans", [("cosine", "plateau"), ("step", "low cosine")])
def test_every_order_of_restoring_two_schedules(plans):
    actions = [(0, 1.0), (1, 1.0), (1, 2.0), (1, 3.0), (0, 1.0), (1, 4.0)]
    cut = 4  # the plateau has just lowered what the other schedule set
    rates, saved = run(plans, actions, cut)
    orders = 0
    for choices in itertools.product(range(3), range(3), range(3), range(2), range(1)):
        picks = iter(choices)
        with contextlib.suppress(_NoSuchChoice):
            assert resumed(plans, actions, cut, saved, lambda n, p=picks: _of(n, next(p))) == rates
            orders += 1
    assert orders >= 30


class _NoSuchChoice(Exception):
    pass


def _of(n, choice):
    if choice >= n:
        raise _NoSuchChoice
    return choice


def test_a_schedule_over_an_optimiser_that_was_saved_in_warm_up():
    adam = optim.Adam([nn.Parameter([1.0])], lr=0.8)
    schedule = optim.CosineLR(adam, 100, warmup_steps=10, min_lr=0.1)
    assert adam.lr == pytest.approx(0.08)
    saved = adam.state_dict(), schedule.state_dict()
    again = optim.Adam([nn.Parameter([1.0])], lr=0.8)
    again.load_state_dict(saved[0])
    restored = optim.CosineLR(again, 100, warmup_steps=10, min_lr=0.1)
    restored.load_state_dict(saved[1])
    assert (again.lr, restored.base_lr) == (adam.lr, 0.8)


def test_a_state_that_an_earlier_version_saved_says_no_rate():
    made, other = schedule("cosine"), SCHEDULES["cosine"](optim.SGD([nn.Parameter([1.0])], lr=0.8))
    state = made.state_dict()
    del state["lr"]
    other.load_state_dict(state)
    assert other.optimizer.lr == made.optimizer.lr


def test_a_rate_that_is_no_number_changes_nothing():
    sgd = optim.SGD([nn.Parameter([1.0])], lr=0.8)
    grows = optim.StepLR(sgd, 1, 1e200)
    grows.step()
    before = grows.state_dict()
    with pytest.raises(
        ValueError, match=r"StepLR: the learning rate after 2 steps from 0.8 is inf"
    ):
        grows.step()
    assert (grows.state_dict(), sgd.lr) == (before, before["lr"])
    with pytest.raises(ValueError, match="is inf"):
        grows.load_state_dict({"steps": 9, "base_lr": 0.8})
    assert grows.state_dict() == before


# -- other states ---------------------------------------------------------------------------------


def test_the_random_stream_is_restored_whole_or_not_at_all():
    before = ts.random.get_state()
    ts.random.generator().random(3)
    inside = ts.random.get_state()
    with pytest.raises(TypeError, match="state=None must be a dictionary"):
        ts.random.set_state(None)
    for damaged in (
        {},
        {**before, "bit_generator": "MT19937"},
        {**before, "state": {"state": 1}},
        {**before, "state": {"state": -1, "inc": 3}},
        {**before, "state": {"state": 1 << 200, "inc": 3}},
        {**before, "uinteger": "x"},
        {k: v for k, v in before.items() if k != "has_uint32"},
    ):
        with pytest.raises(ValueError, match="none that get_state gave"):
            ts.random.set_state(damaged)
        assert ts.random.get_state() == inside
    ts.random.set_state(before)
    assert ts.random.get_state() == before


def test_a_vocabulary_of_damaged_json_names_what_is_wrong(tmp_path):
    path = tmp_path / "v.json"
    deep = "[" * 100_000 + "]" * 100_000
    for written in ("{", "[]", deep, f'{{"symbols": {deep}}}', '{"symbols": [1]}',
                    '{"symbols": []}', '{"symbols": ["a"], "unk": ["a"]}',
                    '{"symbols": ["a", "a"]}', '{"symbols": ["a"], "unk": {"a": 1}}',
                    "9" * 5000):  # fmt: skip
        path.write_text(written)
        with pytest.raises(ValueError, match=r"v\.json does not hold a vocabulary"):
            Vocabulary.load(path)
