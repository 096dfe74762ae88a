"""Chunks, windows and batches: which symbols of the text each of them shows, and how often."""

import doctest
import itertools
import math
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn, text

SIZES = st.integers(1, 90), st.integers(1, 5), st.integers(1, 7)
SEEDS = st.none() | st.integers(0, 3)


def predictions(inputs, targets, lengths=None, pad=-7):
    """What is predicted, as the places of the inputs in the text 0, 1, 2, …; all else is filled."""
    there = np.ones(inputs.shape, bool)
    if lengths is not None:
        there = np.arange(len(inputs))[:, None] < lengths
    np.testing.assert_array_equal(targets[there], inputs[there] + 1)
    assert (inputs[~there] == pad).all()
    assert (targets[~there] == -100).all()
    return inputs[there].tolist()


# -- random offsets -------------------------------------------------------------------------------


@given(*SIZES, st.integers(0, 3), st.integers(0, 9))
def test_an_epoch_of_random_offsets_shows_nothing_twice(size, batch_size, steps, seed, epoch):
    indices = np.arange(size)
    if size < (batch_size + 1) * steps:
        with pytest.raises(ValueError, match=f"{size} symbols .* = {(batch_size + 1) * steps}"):
            text.RandomOffsets(indices, batch_size, steps)
        return
    chunks = text.RandomOffsets(indices, batch_size, steps, seed).epoch(epoch)
    seen = []
    for inputs, targets in chunks:
        assert inputs.shape == targets.shape == (steps, batch_size)
        np.testing.assert_array_equal(np.diff(inputs, axis=0), 1)
        seen += predictions(inputs, targets)
        offsets = inputs[0] % steps
        assert len(set(offsets)) == 1
    assert len(set(seen)) == len(seen) == len(chunks) * batch_size * steps
    assert size - 1 - len(seen) < (batch_size + 2) * steps


def test_over_the_epochs_every_prediction_is_shown_from_every_offset():
    chunks = text.RandomOffsets(np.arange(43), 2, 4, seed=1)
    places = Counter()
    for epoch in range(400):
        for inputs, _ in chunks.epoch(epoch):
            places.update((int(symbol), t) for t, row in enumerate(inputs) for symbol in row)
    # all but the ends, which not every offset reaches: at any of the 4 steps, about equally often
    for symbol in range(3, 36):
        counts = [places[symbol, t] for t in range(4)]
        assert min(counts) > 50, symbol
        assert max(counts) < 130, symbol
    assert {symbol for symbol, _ in places} == set(range(42))


# -- windows --------------------------------------------------------------------------------------


@given(*SIZES, st.data())
def test_windows_show_every_prediction_as_often_as_they_say(size, batch_size, steps, data):
    stride = data.draw(st.none() | st.integers(1, steps), "stride")
    seed = data.draw(SEEDS, "seed")
    indices = np.arange(size)
    if size < steps + 1:
        with pytest.raises(ValueError, match=rf"{size} symbols .* target = {steps + 1}\."):
            text.Windows(indices, batch_size, steps, stride)
        return
    windows = text.Windows(indices, batch_size, steps, stride, pad=-7, seed=seed)
    seen, starts = Counter(), []
    for inputs, targets, lengths in windows:
        assert inputs.shape == targets.shape == (steps, len(lengths))
        seen.update(predictions(inputs, targets, lengths))
        starts += inputs[0].tolist()
    stride = stride or steps
    count = math.ceil((size - 1 - steps) / stride) + 1
    assert sorted(starts) == [k * stride for k in range(count)]
    assert seed is not None or starts == sorted(starts)
    for i in range(size - 1):
        assert seen[i] == sum(k * stride <= i < k * stride + steps for k in range(count)) > 0
    if stride == steps:
        assert sorted(seen.elements()) == list(range(size - 1))
    sizes = [len(lengths) for _, _, lengths in windows]
    assert sizes[:-1] == [batch_size] * (len(windows) - 1)
    assert 1 <= sizes[-1] <= batch_size


def test_the_loss_over_windows_is_that_over_the_text():
    """What is filled up changes nothing: the mean over all predictions, however they are cut."""
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 5, 60).astype(np.uint8)
    table = rng.standard_normal((5, 5))
    total = count = 0
    for inputs, targets, lengths in text.Windows(indices, 4, 7):
        losses = ts.functional.cross_entropy(ts.Tensor(table[inputs]), targets, reduction="sum")
        total += losses.item()
        count += lengths.sum()
    expected = ts.functional.cross_entropy(ts.Tensor(table[indices[:-1]]), indices[1:])
    assert count == 59
    assert total / count == pytest.approx(expected.item())


# -- many sequences -------------------------------------------------------------------------------

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=30)


@given(st.lists(st.lists(st.integers(-5, 99), min_size=1), min_size=1))
def test_padded_sequences_come_back(sequences):
    array, lengths = text.padded(sequences, 100)
    assert array.dtype == np.int64
    assert array.shape == (max(map(len, sequences)), len(sequences))
    assert lengths.tolist() == [len(sequence) for sequence in sequences]
    for b, sequence in enumerate(sequences):
        assert array[: lengths[b], b].tolist() == sequence
        assert (array[lengths[b] :, b] == 100).all()


@given(LENGTHS, st.integers(1, 7), SEEDS, st.integers(0, 3))
def test_every_sequence_is_in_one_bucket_of_its_length(lengths, batch_size, seed, epoch):
    buckets = text.Buckets(lengths, batch_size, seed).epoch(epoch)
    batches = list(buckets)
    assert sorted(i for at in batches for i in at) == list(range(len(lengths)))
    assert len(batches) == len(buckets) == math.ceil(len(lengths) / batch_size)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)

    # what lies between the shortest and the longest of a batch is in no other
    ranges = sorted((min(lengths[i] for i in at), max(lengths[i] for i in at)) for at in batches)
    assert all(longest <= shortest for (_, longest), (shortest, _) in itertools.pairwise(ranges))
    if seed is None:
        ordered = [i for at in batches for i in at]
        assert ordered == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


@given(st.integers(1, 4), st.integers(1, 5), st.randoms(use_true_random=False))
def test_no_other_full_batches_have_less_to_fill_up(batch_size, batches, drawn):
    lengths = [drawn.randint(1, 12) for _ in range(batch_size * batches)]

    def room(batches):
        return sum(max(lengths[i] for i in at) for at in batches)

    least = room(text.Buckets(lengths, batch_size, 0))
    for _ in range(20):
        order = drawn.sample(range(len(lengths)), len(lengths))
        assert least <= room(order[i : i + batch_size] for i in range(0, len(order), batch_size))


def test_short_and_long_batches_are_mixed():
    """Else an epoch would go from the longest to the shortest, and end on words of one letter."""
    buckets = text.Buckets(np.arange(1, 41), 2, seed=0)
    firsts = [tuple(at[0] for at in buckets.epoch(epoch)) for epoch in range(5)]
    assert len(set(firsts)) == 5
    assert all(np.abs(np.corrcoef(range(20), first)[0, 1]) < 0.7 for first in firsts)


def texts(lengths):
    """Sequences that share no symbol: 0, 1, 2, … cut into pieces of these lengths."""
    return np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])


@given(LENGTHS, st.integers(1, 7), st.booleans(), SEEDS)
def test_batches_predict_each_next_symbol_once(lengths, batch_size, bucketed, seed):
    sequences = texts([n + 1 for n in lengths])
    batches = text.Batches(sequences, batch_size, bucketed=bucketed, pad=-7, seed=seed)
    seen = []
    for inputs, targets, n in batches:
        assert inputs.shape == targets.shape == (n.max(), len(n))
        seen += predictions(inputs, targets, n)
    assert sorted(seen) == sorted(i for sequence in sequences for i in sequence[:-1])
    if seed is None and not bucketed:
        firsts = [i for inputs, _, _ in batches for i in inputs[0]]
        assert firsts == [sequence[0] for sequence in sequences]


@given(LENGTHS, st.integers(1, 7), st.booleans(), SEEDS)
def test_batches_keep_classes_and_labels_with_their_sequences(lengths, batch_size, bucketed, seed):
    sequences = texts(lengths)
    options = {"bucketed": bucketed, "seed": seed}
    classes = [int(sequence[0]) * 3 for sequence in sequences]
    seen = []
    for given_classes in (classes, np.array(classes)):
        for inputs, targets, _ in text.Batches(sequences, batch_size, given_classes, **options):
            np.testing.assert_array_equal(targets, inputs[0] * 3)
            seen += targets.tolist()
    assert sorted(seen) == sorted(2 * classes)

    labels = [sequence + 1 for sequence in sequences]
    seen = []
    for inputs, targets, n in text.Batches(sequences, batch_size, labels, pad=-7, **options):
        seen += predictions(inputs, targets, n)
    assert sorted(seen) == list(range(sum(lengths)))


def test_layers_and_loss_take_a_batch_as_it_is():
    """The loss of a padded batch is the mean over its sequences, read one by one."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 6, n) for n in (5, 2, 9, 3)]
    embedding, layer = nn.Embedding(6, 4), nn.LSTM(4, 6, bidirectional=True)
    head = nn.Linear(12, 6)

    def loss(inputs, targets, lengths=None):
        y, _ = layer(embedding(inputs), lengths=lengths)
        return ts.functional.cross_entropy(head(y), targets, reduction="sum").item()

    ((inputs, targets, lengths),) = text.Batches(sequences, 4)
    alone = sum(loss(s[:-1, None], s[1:, None]) for s in sequences)
    assert lengths.tolist() == [8, 4, 2, 1]
    assert loss(inputs, targets, lengths) == pytest.approx(alone, rel=1e-5)


# -- epochs ---------------------------------------------------------------------------------------


def made(kind, seed):
    indices = np.arange(200)
    if kind == "offsets":
        return text.RandomOffsets(indices, 3, 5, seed)
    if kind == "windows":
        return text.Windows(indices, 3, 5, 4, seed=seed)
    if kind == "buckets":
        return text.Buckets(indices % 7 + 1, 3, seed)
    return text.Batches(texts([2, 5, 3, 4] * 5), 3, bucketed=kind == "bucketed", seed=seed)


KINDS = ["offsets", "windows", "buckets", "bucketed", "batches"]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_found_again_by_its_numbers(kind):
    batches = made(kind, 5)
    n = len(batches)
    steps = [batches.epoch(step // n)[step % n] for step in range(3 * n)]
    for step in (3 * n - 1, 0, n, 2 * n - 1):  # from anywhere, in another process
        assert same(made(kind, 5).epoch(step // n)[step % n], steps[step])
        assert same(batches.epoch(step // n)[step % n], steps[step])
    assert same(batches.epoch(2).epoch(1).epoch(0)[0], steps[0])
    epochs = [steps[i : i + n] for i in (0, n, 2 * n)]
    others = [*epochs, list(made(kind, 6))]
    for i, one in enumerate(others):
        assert all(not all(map(same, one, other)) for other in others[:i])


@pytest.mark.parametrize("kind", KINDS[1:])
def test_without_a_seed_every_epoch_is_the_same(kind):
    batches = made(kind, None)
    assert all(map(same, batches, batches.epoch(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_and_batches_that_do_not_exist(kind):
    batches = made(kind, 0)
    for i in (-1, len(batches)):
        with pytest.raises(IndexError, match=f"batch {i} of an epoch that has {len(batches)}"):
            batches[i]
    with pytest.raises(ValueError, match="number=-1 must be a whole number, at least 0"):
        batches.epoch(-1)
    with pytest.raises(ValueError, match="seed=-1 must be a whole number, at least 0"):
        made(kind, -1)


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [text.Partition, text.RandomOffsets, text.Windows])
def test_long_texts_that_cannot_be_cut(kind):
    for sizes in ((0, 5), (5, 0), (-1, 5)):
        with pytest.raises(ValueError, match="must be a whole number, at least 1"):
            kind(np.arange(100), *sizes)
    with pytest.raises(ValueError, match="0 symbols are too few"):
        kind(np.array([]), 1, 1)
    with pytest.raises(ValueError, match=r"of shape \(N,\), not \(2, 50\)"):
        kind(np.arange(100).reshape(2, 50), 2, 2)
    with pytest.raises(TypeError, match=r"whole numbers, not float64\. Vocabulary"):
        kind(np.arange(100.0), 2, 2)


def test_strides_that_skip_or_stand_still():
    for stride, words in (
        (0, "stride=0 must be a whole number, at least 1"),
        (-1, "stride=-1 must be"),
        (6, r"from 1 to steps \(5\), not 6"),
    ):
        with pytest.raises(ValueError, match=words):
            text.Windows(np.arange(100), 2, 5, stride)


@pytest.mark.parametrize("make", [text.padded, lambda sequences: text.Batches(sequences, 2)])
def test_sequences_that_are_none(make):
    with pytest.raises(ValueError, match="there is no sequence to make a batch of"):
        make([])
    with pytest.raises(ValueError, match=r"sequences\[1\] is empty"):
        make([[1, 2], []])
    with pytest.raises(TypeError, match=r"sequences\[0\] is made of float64"):
        make([[0.5, 1]])
    with pytest.raises(TypeError, match=r"sequences\[1\] is made of <U2.*encode"):
        make([[1, 2], "to"])
    with pytest.raises(ValueError, match=r"sequences\[0\] has shape \(1, 2\)"):
        make([[[1, 2]]])
    with pytest.raises(ValueError, match=r"sequences\[0\] has shape \(\)"):
        make([1, 2])


def test_batches_that_do_not_fit():
    with pytest.raises(ValueError, match=r"sequences\[1\] has a single symbol"):
        text.Batches([[1, 2], [3]], 2)
    with pytest.raises(ValueError, match="there are 2 sequences and 1 targets"):
        text.Batches([[1, 2], [3]], 2, [1])
    with pytest.raises(ValueError, match=r"sequences\[1\] has 1 symbols, targets\[1\] 2"):
        text.Batches([[1, 2], [3]], 2, [[1, 2], [3, 4]])
    with pytest.raises(TypeError, match="targets is made of float64"):
        text.Batches([[1, 2], [3]], 2, [0.5, 1])
    with pytest.raises(TypeError, match=r"targets\[0\] is made of float64"):
        text.Batches([[1, 2]], 2, [[0.5, 1]])
    for make in (text.Buckets, lambda lengths, b: text.Batches([[1, 2]], b)):
        with pytest.raises(ValueError, match="batch_size=0 must be a whole number"):
            make([1], 0)


def test_lengths_that_are_none():
    with pytest.raises(ValueError, match="lengths is empty"):
        text.Buckets([], 2)
    with pytest.raises(ValueError, match=r"lengths\[1\] is 0, and has to be at least 1"):
        text.Buckets([3, 0], 2)
    with pytest.raises(TypeError, match="made of float64"):
        text.Buckets([0.5], 2)


def test_the_docstring_of_padded():
    failed, attempted = doctest.testmod(sys.modules[text.padded.__module__])
    assert attempted >= 3
    assert failed == 0


def test_random_offsets_need_a_seed():
    with pytest.raises(TypeError, match="seed=None must be a whole number"):
        text.RandomOffsets(np.arange(50), 2, 5, seed=None)


def test_what_can_be_read_once_is_read_once():
    sequences, targets = [[1, 2], [3, 4, 5]], [[2, 1], [5, 4, 3]]
    for one, other in zip(text.padded(sequences), text.padded(iter(sequences)), strict=True):
        assert np.array_equal(one, other)
    listed = text.Batches(sequences, 2, targets)
    for one, other in zip(listed, text.Batches(iter(sequences), 2, iter(targets)), strict=True):
        assert all(map(np.array_equal, one, other))


def test_slices_and_fractions_of_an_epoch():
    for batches in (text.Partition(np.arange(9), 2, 2), text.Windows(np.arange(9), 2, 2)):
        for wrong in (slice(0, 2), 0.0, True, None):
            with pytest.raises((TypeError, ValueError), match=r"i=.* must be a whole number"):
                batches[wrong]


@pytest.mark.parametrize("cut", [text.split, lambda given: text.Partition(given, 1, 2)])
def test_what_is_no_text_is_not_cut(cut):
    letters = np.array(list("to be or not to be"))
    for wrong in ([-1, 0, 1, 2, 3], np.arange(9.0), np.ones((4, 2), int), letters, "to be or not"):
        with pytest.raises((TypeError, ValueError), match="indices"):
            cut(wrong)


# -- shards ---------------------------------------------------------------------------------------


LETTERS = np.arange(67)
SHARED = {
    "Partition": lambda shard: text.Partition(LETTERS, 5, 4, shard=shard),
    "RandomOffsets": lambda shard: text.RandomOffsets(LETTERS, 5, 3, 1, shard=shard),
    "Windows": lambda shard: text.Windows(LETTERS, 5, 4, seed=1, shard=shard),
    "Buckets": lambda shard: text.Buckets(LETTERS + 1, 5, 1, shard=shard),
    "Batches": lambda shard: text.Batches([range(n + 2) for n in range(21)], 5, shard=shard),
    "Batches of classes": lambda shard: text.Batches(
        [range(n + 2) for n in range(21)], 5, range(21), seed=1, shard=shard
    ),
}


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("name", SHARED)
def test_shards_are_the_columns_of_the_whole_batch(name, size):
    whole = SHARED[name]((0, 1))
    shards = [SHARED[name]((rank, size)) for rank in range(size)]
    assert {len(shard) for shard in shards} == {len(whole)}
    for i in range(len(whole)):
        for rank, shard in enumerate(shards):
            wanted, given = whole[i], shard[i]
            if not isinstance(wanted, tuple):
                wanted, given = (wanted,), (given,)
            for a, b in zip(wanted, given, strict=True):
                mine = a[..., rank::size]
                assert b.shape[-1] == mine.shape[-1]
                there = b.shape[0]  # what is padded is as long as the longest of the shard
                np.testing.assert_array_equal(b, mine[:there])
                assert mine.ndim < 2 or np.isin(mine[there:], (0, -100)).all()


@pytest.mark.parametrize("name", SHARED)
def test_more_ranks_than_columns_are_refused(name):
    with pytest.raises(ValueError, match=r"batch_size=5 cannot be shared out with shard=\(2, 6\)"):
        SHARED[name]((2, 6))
