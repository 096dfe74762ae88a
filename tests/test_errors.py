"""Messages name what is wrong and stay short, however much of it there is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import errors, nn, text, viz
from tinyseq.text import Vocabulary


@given(st.lists(st.text(max_size=3), max_size=30), st.integers(1, 9))
def test_a_list_shows_the_first_and_counts_the_rest(items, most):
    shown = errors.listed(items, "|", most)
    if len(items) <= most:
        assert shown == "|".join(items)
    else:
        assert shown == "|".join(items[:most]) + f" … and {len(items) - most} more"


def test_what_is_spoiled():
    arrays = {"a": np.zeros((2, 3)), "n": np.array([1]), "b": np.zeros((2, 3)), "s": np.array("x")}
    assert errors.spoiled(arrays.items()) == ""
    arrays["b"][1, 2] = -np.inf
    assert errors.spoiled(arrays.items()) == "b holds -inf, first at [1, 2] of (2, 3)"
    assert errors.spoiled([("c", np.array(np.nan))]) == "c holds nan, first at [] of ()"


class Many(nn.Module):
    def __init__(self, n=500):
        self.layers = [nn.Linear(1, 1) for _ in range(n)]
        self.more = [nn.Recurrent(nn.RNNCell(1, 1)) for _ in range(n)]

    def forward(self, x):
        return self.more[0](x)[0]


LONG = "x" * 100_000
MANY = [str(i) for i in range(100_000)]
SIGNS = Vocabulary(map(chr, range(0x4E00, 0x4E00 + 6000)))
WORDS = Vocabulary.from_counts(MANY, unk=None)


@pytest.mark.parametrize(
    "call",
    [
        lambda: SIGNS.encode(LONG),
        lambda: SIGNS.encode(iter(LONG)),
        lambda: SIGNS.encode([LONG]),
        lambda: SIGNS.decode([6000]),
        lambda: WORDS.encode([LONG]),
        lambda: WORDS.encode(LONG),
        lambda: WORDS.encode([MANY]),
        lambda: Vocabulary([LONG]),
        lambda: Vocabulary.from_counts([*MANY, b"x" * 100_000]),
        lambda: Vocabulary.from_counts(MANY, unk=LONG, eos=LONG),
        lambda: Vocabulary.from_json('{"symbols": ["a"], "unk": "' + LONG + '"}'),
        lambda: Vocabulary.from_json(LONG),
        lambda: next(text.generate(text.LanguageModel(6000, 2), SIGNS, LONG)),
        lambda: text.sample(text.LanguageModel(6000, 2), SIGNS, LONG),
        lambda: text.generate_batch(text.LanguageModel(6000, 2), SIGNS, [LONG]),
        lambda: text.beam_search(text.LanguageModel(6000, 2), SIGNS, LONG),
        lambda: text.rank(text.LanguageModel(6000, 2), SIGNS, [LONG]),
        lambda: text.likeliest(text.LanguageModel(6000, 2), SIGNS, LONG),
        lambda: text.generate(text.LanguageModel(6000, 2), SIGNS, length=LONG),
        lambda: text.Words("(" + LONG),
        lambda: text.NGram(2, 5).fit(np.arange(100_000)),
        lambda: text.NGram(2, 5, smoothing=LONG),
        lambda: text.LanguageModel(5, cell=LONG),
        lambda: text.Partition(np.arange(-100_000, 0), 2, 3),
        lambda: text.Partition(np.array(MANY), 2, 3),
        lambda: Many().load_state_dict({}),
        lambda: nn.Linear(1, 1).load_state_dict(Many().state_dict()),
        lambda: nn.interop.load_torch(nn.Linear(1, 1), Many().state_dict()),
        lambda: ts.concat([ts.tensor(np.ones((1, i))) for i in range(2000)]),
        lambda: ts.stack([ts.tensor(np.ones(i)) for i in range(2000)]),
        lambda: viz.record(Many(), np.zeros((3, 1, 1), np.float32))["x"],
    ],
)
def test_messages_do_not_grow_with_the_data(call):
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)) as caught:
        call()
    assert len(str(caught.value)) < 700


def test_a_repr_of_a_vocabulary_is_short():
    for vocabulary in (SIGNS, WORDS, Vocabulary.from_counts([LONG, "a"])):
        assert len(repr(vocabulary)) < 200
    letters = Vocabulary("To be, or not to be")
    assert repr(letters) == f"Vocabulary({''.join(letters.symbols)!r})"
