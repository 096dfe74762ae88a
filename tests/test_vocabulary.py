"""Vocabularies of tokens, from their counts: order, limits, special symbols, JSON."""

import json
import random
import re
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn, text
from tinyseq.text import Vocabulary

ANY = st.text(st.characters(codec=None), min_size=1, max_size=4)  # lone surrogates, too
TOKENS = st.lists(
    st.sampled_from(["a", "b", "cc", "é", "'s", "\n", "<UNK>", "<EOS>"]) | ANY, min_size=1
)
SPECIAL = st.fixed_dictionaries(
    {
        "unk": st.sampled_from([None, "<UNK>", "?"]),
        "eos": st.sampled_from([None, "<EOS>", "\n"]),
        "pad": st.sampled_from([None, "<PAD>", "_"]),
        "bos": st.sampled_from([None, "<BOS>", "^"]),
    }
)


def made(tokens, special, **options):
    """A vocabulary, or None where all of the tokens are special symbols."""
    if not set(tokens) - set(special.values()):
        with pytest.raises(ValueError, match="and is not a special symbol"):
            Vocabulary.from_counts(tokens, **special, **options)
        return None
    return Vocabulary.from_counts(tokens, **special, **options)


@given(TOKENS, SPECIAL)
def test_tokens_come_back_from_their_numbers(tokens, special):
    if (vocabulary := made(tokens, special)) is None:
        return
    indices = vocabulary.encode(tokens)
    assert indices.dtype == np.int64
    assert vocabulary.symbols_of(indices) == tokens
    ordinary = set(tokens) - set(special.values())
    words = any(len(t) > 1 for t in ordinary) and all(t.split() == [t] for t in ordinary)
    assert vocabulary.decode(indices) == (" " if words else "").join(tokens)
    assert vocabulary.encode([]).shape == (0,)
    assert vocabulary.encode(iter(tokens)).tolist() == indices.tolist()
    numbers = {s: getattr(vocabulary, s) for s in ("unk", "eos", "pad", "bos")}
    spelled = {s: None if i is None else vocabulary.symbols[i] for s, i in numbers.items()}
    assert spelled == special


@given(TOKENS, SPECIAL, st.integers(1, 4), st.integers(1, 9), st.randoms(use_true_random=False))
def test_the_most_frequent_are_kept_and_the_others_unknown(tokens, special, least, room, shuffle):
    counts = Counter(tokens)
    named = [s for s in map(special.get, ("pad", "unk", "bos", "eos")) if s is not None]
    frequent = [t for t in counts if counts[t] >= least and t not in named]
    if not frequent:
        return
    size = len(named) + room
    vocabulary = Vocabulary.from_counts(tokens, size, least, **special)
    assert vocabulary.symbols[: len(named)] == tuple(named)
    kept = vocabulary.symbols[len(named) :]
    assert len(kept) == min(room, len(frequent))
    left_out = set(frequent) - set(kept)
    ranks = [(-counts[t], t) for t in kept]
    assert ranks == sorted(ranks)
    assert all(ranks[-1] < (-counts[t], t) for t in left_out)
    # the order of the tokens does not matter, nor whether somebody else has counted them
    shuffled = list(tokens)
    shuffle.shuffle(shuffled)
    assert Vocabulary.from_counts(shuffled, size, least, **special) == vocabulary
    assert Vocabulary.from_counts(counts, size, least, **special) == vocabulary
    unknown = [i for i, t in enumerate(tokens) if t not in vocabulary.symbols]
    if vocabulary.unk is None and unknown:
        with pytest.raises(ValueError, match=f"(token|character) {unknown[0]} of {len(tokens)}"):
            vocabulary.encode(tokens)
        return
    indices = vocabulary.encode(tokens)
    for token, index in zip(tokens, indices, strict=True):
        assert index == (
            kept.index(token) + len(named)
            if token in kept
            else named.index(token)
            if token in named
            else vocabulary.unk
        )


@given(st.text(min_size=1), st.text(), SPECIAL)
def test_a_vocabulary_of_characters_takes_strings_and_lists_alike(sample, other, special):
    if (vocabulary := made(sample, special)) is None:
        return
    assert vocabulary.decode(vocabulary.encode(sample)) == sample
    if vocabulary.unk is None and set(other) - set(vocabulary.symbols):
        for unknown in (other, list(other)):
            with pytest.raises(ValueError, match="the vocabulary lacks"):
                vocabulary.encode(unknown)
        return
    indices = vocabulary.encode(other)
    assert indices.tolist() == vocabulary.encode(list(other)).tolist()
    assert indices.tolist() == [
        vocabulary.symbols.index(c) if c in vocabulary.symbols else vocabulary.unk for c in other
    ]


@given(TOKENS, SPECIAL)
def test_json_and_back(tmp_path_factory, tokens, special):
    if (vocabulary := made(tokens, special)) is None:
        return
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary
    assert hash(again) == hash(vocabulary)
    assert again.encode(tokens).tolist() == vocabulary.encode(tokens).tolist()
    path = tmp_path_factory.getbasetemp() / "vocabulary.json"
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary
    others = Vocabulary.from_counts([*tokens, "more"], **special)
    assert (others == vocabulary) == ("more" in tokens)


def test_what_the_json_looks_like():
    assert json.loads(Vocabulary.from_counts(["to", "be", "to"]).to_json()) == {
        "symbols": ["<UNK>", "<EOS>", "to", "be"],
        "pad": None,
        "unk": "<UNK>",
        "bos": None,
        "eos": "<EOS>",
    }
    older = '{"symbols": ["<UNK>", "<EOS>", "to"], "pad": null, "unk": "<UNK>", "eos": "<EOS>"}'
    assert Vocabulary.from_json(older) == Vocabulary.from_counts(["to"])
    characters = Vocabulary("to be")
    assert Vocabulary.from_json(characters.to_json()) == characters
    assert characters != Vocabulary.from_counts("to be", unk=None, eos=" ")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "an object with a list of its symbols"),
        ('{"symbols": "ab"}', "an object with a list of its symbols"),
        ('{"symbols": ["a", 1]}', "1 is int"),
        ('{"symbols": ["a", ["b"]]}', r"\['b'\] is list"),
        ('{"symbols": ["a", ""]}', "cannot be the empty string"),
        ('{"symbols": ["a", "b", "a"]}', "twice"),
        ('{"symbols": ["a", "b"], "eos": "a", "unk": "a"}', "twice"),
        ('{"symbols": ["a", "b"], "eos": "c"}', "lacks the special symbols"),
        ('{"symbols": ["a", "b"], "eos": 1}', "1 is int"),
        ('{"symbols": []}', "or has no others"),
        ('{"symbols": ["<EOS>"], "eos": "<EOS>"}', "or has no others"),
    ],
)
def test_other_json_is_refused(source, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        Vocabulary.from_json(source)
    (tmp_path / "v.json").write_text(source)
    with pytest.raises(ValueError, match=r"v\.json does not hold a vocabulary"):
        Vocabulary.load(tmp_path / "v.json")


def test_files_that_are_none(tmp_path):
    (tmp_path / "v.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="does not hold a vocabulary"):
        Vocabulary.load(tmp_path / "v.json")
    with pytest.raises(FileNotFoundError):
        Vocabulary.load(tmp_path / "none.json")
    with pytest.raises(OSError, match="Choose a folder that exists"):
        Vocabulary("ab").save(tmp_path / "none" / "v.json")


def test_from_counts_refuses_what_makes_no_vocabulary():
    for empty in ([], "", {}):
        with pytest.raises(ValueError, match="at least one token, and there are none"):
            Vocabulary.from_counts(empty)
    with pytest.raises(ValueError, match="min_count=3 times"):
        Vocabulary.from_counts(["a", "a"], min_count=3)
    with pytest.raises(ValueError, match="min_count=0 must be a whole number, at least 1"):
        Vocabulary.from_counts(["a"], min_count=0)
    with pytest.raises(ValueError, match="size=2 leaves no room for a token: there are 2 special"):
        Vocabulary.from_counts(["a"], size=2)
    with pytest.raises(ValueError, match="size=0 leaves no room"):
        Vocabulary.from_counts(["a"], size=0, unk=None, eos=None)
    with pytest.raises(ValueError, match="special symbols have to differ"):
        Vocabulary.from_counts(["a"], eos="<X>", pad="<X>")
    with pytest.raises(ValueError, match=r"special symbols have to differ: .*'bos': '<X>'"):
        Vocabulary.from_counts(["a"], eos="<X>", bos="<X>")
    with pytest.raises(ValueError, match="a special symbol cannot be the empty string"):
        Vocabulary.from_counts(["a"], eos="")
    with pytest.raises(ValueError, match="a token cannot be the empty string"):
        Vocabulary.from_counts(["a", ""])
    with pytest.raises(TypeError, match="must be a series of strings"):
        Vocabulary.from_counts(["a", 3])
    with pytest.raises(TypeError, match="in one plain sequence: unhashable"):
        Vocabulary.from_counts(iter([["a"], ["b"]]))


def test_the_beginning_and_the_end_are_two_symbols():
    words = Vocabulary.from_counts(["to", "be"], bos="<BOS>")
    assert words.symbols == ("<UNK>", "<BOS>", "<EOS>", "be", "to")
    assert (words.unk, words.bos, words.eos, words.pad) == (0, 1, 2, None)
    assert words.encode(["<BOS>", "to", "<EOS>"]).tolist() == [1, 4, 2]


@pytest.mark.parametrize("sentence", ["the cat sits . the cat sleeps .", "R OW1 M", "I am"])
def test_words_come_back_with_spaces_between(sentence):
    vocabulary = Vocabulary.from_counts(sentence.split())
    assert vocabulary.decode(vocabulary.encode(sentence.split())) == sentence


SENTENCE = "The cat saw the dog. The dog ran!"
SPLITTERS = {  # and what helps, where a sentence is not split
    "str.split(text)": str.split,
    "text.Words().split(text)": text.Words().split,
    "text.Words(punctuation=True).split(text)": text.Words(punctuation=True).split,
    "text.Words(keep_spaces=True).split(text)": text.Words(keep_spaces=True).split,
}


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_a_string_for_words_gets_the_advice_that_helps(splitter):
    words = Vocabulary.from_counts(SPLITTERS[splitter](SENTENCE))
    model = text.LanguageModel(len(words), 2, 1)
    ngram = text.NGram(2, len(words)).fit(np.arange(len(words)))
    for m in (model, ngram):
        for ask in (
            lambda: words.encode(SENTENCE),
            lambda m=m: text.generate(m, words, SENTENCE),
            lambda m=m: text.generate_batch(m, words, [SENTENCE]),
            lambda m=m: text.beam_search(m, words, SENTENCE),
            lambda m=m: text.rank(m, words, [SENTENCE]),
            lambda m=m: text.likeliest(m, words, SENTENCE),
            lambda m=m: m.perplexity(SENTENCE, vocabulary=words),
        ):
            with pytest.raises(TypeError, match=rf"'The.*perhaps by {re.escape(splitter)}$"):
                ask()
    known = words.encode(eval(splitter, {"text": Text(SENTENCE), "str": str}))
    assert words.unk not in known


class Text(str):
    """A text, and the library's module, as they are called in the advice."""

    Words = text.Words


def test_tokens_that_were_split_in_another_way_are_not_unknown():
    spaced = Vocabulary.from_counts(text.Words(keep_spaces=True).split(SENTENCE))
    advice = r"Split .*perhaps by text\.Words\(keep_spaces=True\)\.split\(' ' \+ text\)"
    for tokens, at in ((["cat"], 0), (["The", "cat", "saw"], 1), (iter(["cat", "dog"]), 0)):
        with pytest.raises(ValueError, match=rf"has ' cat' and lacks 'cat', token {at}\. {advice}"):
            spaced.encode(tokens)
    tokens = text.Words(keep_spaces=True).split(" cat")
    assert spaced.unk not in spaced.encode(tokens)
    # a word that is rare at the start of a line, in a text that was split as it should be
    assert spaced.encode(["cat", " saw"]).tolist()[0] == spaced.unk
    words = Vocabulary.from_counts(text.Words().split(SENTENCE))
    for token, known in ((" cat", "cat"), ("the dog", "the"), ("a\tcat", "cat")):
        with pytest.raises(ValueError, match=rf"has '{known}' .* perhaps by str\.split\(text\)"):
            words.encode(["saw", token])
    assert words.encode(["zebra", "a zebra", "zebras"]).tolist() == [words.unk] * 3
    with pytest.raises(ValueError, match="has 'The' and lacks"):
        words.encode([SENTENCE])


def test_encode_refuses_what_is_no_list_of_tokens():
    words = Vocabulary.from_counts(["to", "be", "or"])
    with pytest.raises(TypeError, match=r"tokens such as 'be' takes a list of them, not a string"):
        words.encode("to be or")
    with pytest.raises(TypeError, match="token 1 is 7, of type int"):
        words.encode(["to", 7])
    with pytest.raises(TypeError, match=r"token 0 is \['to'\], of type list"):
        words.encode([["to"], ["be"]])
    with pytest.raises(TypeError, match="token 1 is None"):
        words.encode(["to", None])
    strict = Vocabulary.from_counts(["to", "be"], unk=None)
    with pytest.raises(ValueError, match=r"lacks 'or', token 1 of 2.*3 symbols: '<EOS>', 'be'"):
        strict.encode(["to", "or"])


def test_decode_refuses_what_is_no_symbol():
    words = Vocabulary.from_counts(["to", "be"])
    assert words.symbols_of([]) == []
    with pytest.raises(ValueError, match="index 4 is out of range: the vocabulary has 4 symbols"):
        words.symbols_of([4])
    with pytest.raises(TypeError, match="indices are the whole numbers of symbols, not float64"):
        words.symbols_of([0.5])


def test_repr_shows_the_first_symbols():
    words = Vocabulary.from_counts([str(i) for i in range(10_000)], size=1000)
    assert repr(words).startswith("<Vocabulary of 1000 symbols: '<UNK>', '<EOS>', '0', '1', '10',")
    assert repr(words).endswith(" … and 992 more>")
    assert repr(Vocabulary.from_counts("aab", unk=None, eos=None)) == "Vocabulary('ab')"
    assert repr(Vocabulary.from_counts("bba", unk=None, eos=None)) == (
        "<Vocabulary of 2 characters: 'ba'>"
    )


def test_numbers_go_into_an_embedding_or_become_one_hot_vectors():
    """One row of the table a symbol, and the same as the product with its one-hot vector."""
    tokens = text.Words().split("The apple and pear salad")
    vocabulary = Vocabulary.from_counts(tokens)
    indices = vocabulary.encode(tokens)
    table = nn.Embedding(len(vocabulary), 3)
    vectors = ts.functional.one_hot(indices, len(vocabulary))
    assert vectors.shape == (len(tokens), len(vocabulary))
    assert vectors.numpy().argmax(-1).tolist() == indices.tolist()
    assert (vectors.numpy().sum(-1) == 1).all()
    np.testing.assert_array_equal((vectors @ table.weight).numpy(), table(indices).numpy())


def test_many_words():
    """Against numbers looked up one by one: the fast way is the plain way."""
    rng = random.Random(0)
    words = [f"w{min(int(rng.expovariate(1 / 300)), 5000)}" for _ in range(200_000)]
    vocabulary = Vocabulary.from_counts(words, size=1000)
    indices = vocabulary.encode(words)
    for i in range(0, len(words), 997):
        expected = words[i] if words[i] in vocabulary.symbols else "<UNK>"
        assert vocabulary.symbols[indices[i]] == expected
    assert 0.02 < (indices == vocabulary.unk).mean() < 0.2


@given(TOKENS, st.integers(1, 5))
def test_the_smallest_dtype_holds_the_same_numbers(tokens, piece):
    vocabulary = Vocabulary.from_counts(tokens, unk=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyseq.text.vocabulary._PIECE", piece)
        expected = vocabulary.encode(tokens).tolist()
        assert expected == [vocabulary.symbols.index(token) for token in tokens]
        for given_tokens in (tokens, tuple(tokens), iter(tokens)):
            indices = vocabulary.encode(given_tokens, vocabulary.smallest_dtype)
            assert indices.dtype == np.uint8
            assert indices.tolist() == expected
            assert indices.flags.writeable
        unknown = [*tokens, "unknown"]
        for given_tokens, of in ((unknown, f" of {len(unknown)}"), (iter(unknown), "")):
            with pytest.raises(ValueError, match=rf"'unknown', token {len(tokens)}{of}\."):
                vocabulary.encode(given_tokens)


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, "u1"), (256, "u1"), (257, "u2"), (65_536, "u2"), (65_537, "u4")]
)
def test_how_small_a_dtype_may_be(size, dtype):
    vocabulary = Vocabulary.from_counts(map(str, range(size)), unk=None, eos=None)
    assert vocabulary.smallest_dtype == dtype
    last = vocabulary.symbols[-1]
    assert vocabulary.encode([last], vocabulary.smallest_dtype).tolist() == [size - 1]
    for smaller in ("u1", "i1", "u2"):
        if np.iinfo(smaller).max < size - 1:
            with pytest.raises(ValueError, match=rf"holds numbers up to .* Use {np.dtype(dtype)}"):
                vocabulary.encode([last], smaller)
    for other in (float, bool, complex, str):
        with pytest.raises(ts.errors.DtypeError, match="Use an integer dtype"):
            vocabulary.encode([last], other)


def test_one_hot_vectors_of_few_words_out_of_many_take_little_memory():
    tracemalloc.start()
    try:
        vectors = ts.functional.one_hot(np.array([0, 19_999]), 20_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert vectors.numpy().sum() == 2
    assert peak < 4 * vectors.numpy().nbytes


@pytest.mark.parametrize("wrong", [-1, -100, 3, 10**9])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_index_that_is_none_is_named_wherever_it_stands(wrong, place):
    vocabulary, indices = Vocabulary("abc"), [2, 0]
    indices.insert(place, wrong)
    for read in (vocabulary.decode, vocabulary.symbols_of):
        with pytest.raises(ValueError, match=rf"index {wrong} is out of range.* 0 to 2"):
            read(indices)
