"""Lengths, sizes, shares and symbols that make no sense: an error names the argument, at once."""

import math

import numpy as np
import pytest

from tinyseq import text

MODEL = text.LanguageModel(4, 3, 1)
ABCD = text.Vocabulary("abcd")
TEXT = np.arange(60) % 4
FITTED = text.NGram(2).fit(TEXT)

WRONG = [1.5, math.nan, math.inf, -math.inf, -1, "3", b"3", 1j, True, [2], np.array([1, 2]), {}]
NONE = [None]
ZERO = [0]

SIZES = {  # by what takes them: whole numbers, with what else is wrong
    "generate length": (lambda v: text.generate(MODEL, ABCD, length=v), []),
    "generate top_k": (lambda v: text.generate(MODEL, ABCD, top_k=v), ZERO),
    "generate beam_width": (lambda v: text.generate(MODEL, ABCD, beam_width=v), ZERO),
    "generate_batch length": (lambda v: text.generate_batch(MODEL, ABCD, ["a"], v), NONE),
    "sample length": (lambda v: text.sample(MODEL, ABCD, "a", v), NONE),
    "beam_search length": (lambda v: text.beam_search(MODEL, ABCD, "a", v), NONE + ZERO),
    "beam_search width": (lambda v: text.beam_search(MODEL, ABCD, "a", 3, v), NONE + ZERO),
    "NGram n": (lambda v: text.NGram(v), NONE + ZERO),
    "NGram vocabulary_size": (lambda v: text.NGram(2, v), ZERO),
    "NGram.sample length": (lambda v: FITTED.sample(v), NONE),
    "likeliest k": (lambda v: text.likeliest(MODEL, ABCD, "a", v), NONE + ZERO),
    "score tracks": (lambda v: text.score(MODEL, TEXT, tracks=v), NONE + ZERO),
    "score context": (lambda v: text.score(MODEL, TEXT, context=v), NONE),
    "score steps": (lambda v: text.score(MODEL, TEXT, steps=v), NONE + ZERO),
    "Partition batch_size": (lambda v: text.Partition(TEXT, v, 3), NONE + ZERO),
    "Partition steps": (lambda v: text.Partition(TEXT, 2, v), NONE + ZERO),
    "RandomOffsets steps": (lambda v: text.RandomOffsets(TEXT, 2, v), NONE + ZERO),
    "RandomOffsets seed": (lambda v: text.RandomOffsets(TEXT, 2, 3, v), NONE),
    "Windows stride": (lambda v: text.Windows(TEXT, 2, 3, v), ZERO),
    "Windows seed": (lambda v: text.Windows(TEXT, 2, 3, seed=v), []),
    "Buckets batch_size": (lambda v: text.Buckets([1, 2], v), NONE + ZERO),
    "Buckets seed": (lambda v: text.Buckets([1, 2], 2, v), []),
    "Batches batch_size": (lambda v: text.Batches([[1, 2]], v), NONE + ZERO),
    "epoch number": (lambda v: text.Buckets([1, 2], 2).epoch(v), NONE),
    "from_counts size": (lambda v: text.Vocabulary.from_counts("ab", v), ZERO),
    "from_counts min_count": (lambda v: text.Vocabulary.from_counts("aaab", None, v), NONE + ZERO),
}
NUMBERS = {  # finite numbers: what lies outside of their range
    "generate temperature": (lambda v: text.generate(MODEL, ABCD, temperature=v), [-0.5]),
    "sample temperature": (lambda v: text.sample(MODEL, ABCD, "a", 3, v), [-0.5]),
    "NGram.sample temperature": (lambda v: FITTED.sample(3, temperature=v), [-0.5]),
    "generate top_p": (lambda v: text.generate(MODEL, ABCD, top_p=v), [0, 1.01]),
    "NGram k": (lambda v: text.NGram(2, 3, "add-k", k=v), [0]),
    "split held_out": (lambda v: text.split(TEXT, v), [0, 1, 1.5]),
}
NO_NUMBERS = [None, math.nan, math.inf, -math.inf, -1, "0.5", b"1", 1j, [0.5], np.array([0.5, 1])]


@pytest.mark.parametrize("what", [*SIZES, *NUMBERS])
def test_what_is_no_size_or_number_is_named(what):
    call, also = {**SIZES, **NUMBERS}[what]
    name = what.split()[-1]
    for value in [*(WRONG if what in SIZES else NO_NUMBERS), *also]:
        with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
            call(value)


@pytest.mark.parametrize("what", SIZES)
def test_whole_numbers_of_numpy_are_whole_numbers(what):
    call, _ = SIZES[what]
    for kind in (int, np.int8, np.uint64):
        call(kind(3))


CUTS = {
    "split": lambda v: text.split(v, 0.5),
    "Partition": lambda v: text.Partition(v, 2, 3),
    "RandomOffsets": lambda v: text.RandomOffsets(v, 2, 3),
    "Windows": lambda v: text.Windows(v, 2, 3),
}


@pytest.mark.parametrize("cut", CUTS)
def test_what_is_no_text_of_numbers_is_refused(cut):
    negative = TEXT.copy()
    negative[[7, 30]] = [-1, -5]
    for value, words in (
        (negative, r"indices\[7\] is -1: .* numbered from 0"),
        (negative.tolist(), r"indices\[7\] is -1"),
        (negative.astype(np.int8), r"indices\[7\] is -1"),
        ("abcd" * 20, r"\bindices\b"),
        (list("abcd" * 20), r"\bindices\b"),
        (["ab"] * 20, r"\bindices\b"),
        (TEXT / 2, "indices are whole numbers, not float64"),
        (TEXT > 1, "indices are whole numbers, not bool"),
        (TEXT.reshape(2, 30), r"shape \(N,\), not \(2, 30\)"),
        (None, r"\bindices\b"),
        (3, r"\bindices\b"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            CUTS[cut](value)


def test_cut_texts_of_small_dtypes_are_those_of_large_ones():
    for cut in CUTS.values():
        small, large = (list(cut(TEXT.astype(dtype))) for dtype in (np.uint8, np.int64))
        for a, b in zip(small, large, strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y)
