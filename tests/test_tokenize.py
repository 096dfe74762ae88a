"""Tokens: nothing of a text is lost, and words are what they should be."""

import doctest
import functools
import itertools
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyseq import text
from tinyseq.text import Characters, Words, sentences

UNICODE = st.text(st.characters(codec=None))  # every code point, lone surrogates included
PROSE = st.text(st.sampled_from("aB's .,!?-\n\t’“é4_ "))
PATTERNS = ["a", r"\w+", r"(\w)(\w)?", r"x*", r"\b", "", r"(?=a)", r".\n", r"\s?\S"]


@given(UNICODE | PROSE)
def test_every_character_belongs_to_exactly_one_token(sample):
    for tokenizer in (Characters(), Words(), *map(Words, PATTERNS)):
        tokens = tokenizer.split(sample)
        assert tokenizer.join(tokens) == sample
        assert "".join(tokens) == sample
        assert all(tokens)
    assert Characters().split(sample) == list(sample)


@given(UNICODE | PROSE)
def test_a_pattern_s_matches_are_its_tokens(sample):
    tokens = Words(r"\w+").split(sample)
    found = [re.fullmatch(r"\w+", token) is not None for token in tokens]
    assert [t for t, one in zip(tokens, found, strict=True) if one] == re.findall(r"\w+", sample)
    assert all(a != b for a, b in itertools.pairwise(found))  # and each stretch between is one


@pytest.mark.parametrize(
    ("sample", "tokens"),
    [
        ("To be, or not", "To| be|,| or| not"),
        ("'Tis o'er, th' lov'd", "'Tis| o'er|,| th|'| lov'd"),
        ("Romeo's; o' the dogs'", "Romeo|'s|;| o|'| the| dogs|'"),
        ("Juliet’s ’tis", "Juliet|’s| ’tis"),
        ("'scape 'somewhat", "'scape| 'somewhat"),
        ("go--stay... good-night!", "go|--|stay|...| good|-|night|!"),
        ("line\nnext\n\nJULIET:\nAy", "line|\n|next|\n\n|JULIET|:|\n|Ay"),
        ("a\n\n\nb", "a|\n\n|\n|b"),
        ("in 1599, two  spaces\tand", "in| 1599|,| two| | spaces|\t|and"),
        ("naïve Ærøskøbing κόσμος", "naïve| Ærøskøbing| κόσμος"),
        (" a_b", " a|_|b"),
        ("what!?", "what|!|?"),
    ],
)
def test_words(sample, tokens):
    assert Words().split(sample) == tokens.split("|")


def test_the_docstrings():
    failed, attempted = doctest.testmod(sys.modules[Words.__module__])
    assert attempted >= 4
    assert failed == 0
    assert repr(Words()) == "Words()"
    assert repr(Words("a+")) == "Words('a+')"


def test_what_is_no_regular_expression():
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression: missing \)"):
        Words("(")


@functools.cache
def plays() -> str:
    return text.shakespeare()


def test_the_plays_in_words():
    """Under two tokens of punctuation a word; no token is mere space, so no step is spent on it."""
    sample = plays()[:1_000_000]
    tokens = Words().split(sample)
    assert "".join(tokens) == sample
    words = [token for token in tokens if token.strip()[-1:].isalnum()]
    assert len(words) > 0.7 * len(tokens)
    assert sum(token == " " for token in tokens) < 1e-5 * len(tokens)
    assert tokens.count("\n\n") == sample.count("\n\n")
    assert tokens.count("\n") == sample.count("\n") - 2 * sample.count("\n\n")
    vocabulary = text.Vocabulary.from_counts(tokens, 10_000)
    known = vocabulary.encode(tokens) != vocabulary.unk
    assert known.mean() > 0.96


# -- sentences ------------------------------------------------------------------------------------


@given(UNICODE | PROSE)
def test_sentences_lose_nothing_but_white_space(sample):
    found = sentences(sample)
    assert " ".join(found).split() == sample.split()
    assert all(sentence and sentence == " ".join(sentence.split()) for sentence in found)
    assert sentences("\n\n".join(found)) == [s for one in found for s in sentences(one)]


@pytest.mark.parametrize(
    ("sample", "found"),
    [
        ("", []),
        ("  \n ", []),
        ("no end", ["no end"]),
        ("Ay me! O Romeo, Romeo!", ["Ay me!", "O Romeo, Romeo!"]),
        ("O! speak\nagain", ["O! speak again"]),
        ("Peace!\n'Tis he. (Sir?) 40 men...", ["Peace!", "'Tis he.", "(Sir?)", "40 men..."]),
        ('"Why?" "Éh." état? Σ.', ['"Why?"', '"Éh." état?', "Σ."]),
        ("one\n\ntwo\n \nthree.four", ["one", "two", "three.four"]),
    ],
)
def test_where_a_sentence_ends(sample, found):
    assert sentences(sample) == found
