"""Tokens: nothing of a text is lost, and words are what they should be."""

import doctest
import functools
import itertools
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyseq import text
from tinyseq.text import Characters, Words, sentences, tokenize

UNICODE = st.text(st.characters(codec=None))  # every code point, lone surrogates included
PROSE = st.text(st.sampled_from("aB's .,!?-\n\t’“é4_ "))
PATTERNS = ["a", r"\w+", r"(\w)(\w)?", r"x*", r"\b", "", r"(?=a)", r".\n", r"\s?\S"]


@given(UNICODE | PROSE)
def test_every_character_belongs_to_exactly_one_token(sample):
    patterns = (None, *PATTERNS)
    for tokenizer in (Characters(), *(Words(p, keep_spaces=True) for p in patterns)):
        tokens = tokenizer.split(sample)
        assert tokenizer.join(tokens) == sample
        assert "".join(tokens) == sample
        assert all(tokens)
    assert Characters().split(sample) == list(sample)


@given(UNICODE | PROSE)
def test_a_pattern_s_matches_are_its_tokens(sample):
    assert Words(r"\w+").split(sample) == re.findall(r"\w+", sample)
    tokens = Words(r"\w+", keep_spaces=True).split(sample)
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
def test_words_with_their_spaces(sample, tokens):
    assert SPACED.split(sample) == tokens.split("|")


@pytest.mark.parametrize(
    ("sample", "tokens"),
    [
        ("the cat saw the dog. the dog ran", "the|cat|saw|the|dog|the|dog|ran"),
        ("To be,\n or  not", "To|be|or|not"),
        ("'Tis o'er, the 'cat' isn't dogs'", "Tis|o'er|the|cat|isn't|dogs"),
        ("Romeo's Juliet’s it's2", "Romeo|'s|Juliet|’s|it's2"),
        ("good-night, go--stay a-", "good-night|go|stay|a"),
        ("1,000.5 in 12-13, 3. 1.2.3 .5", "1,000.5|in|12-13|3|1.2.3|5"),
        ("COVID-19 mp3 15th a_b x.y", "COVID-19|mp3|15th|a|b|x|y"),
        ("ça  👍🏽 \u0301 नमस्ते!", "ça|नमस्ते"),
    ],
)
def test_words(sample, tokens):
    assert Words().split(sample) == tokens.split("|")
    kept = [t for t in Words(punctuation=True).split(sample) if t in tokens.split("|")]
    assert kept == tokens.split("|")


def test_the_notes_sentence_has_as_many_words_as_they_say():
    """T_x = 9."""
    sentence = "Harry Potter and Hermione Granger invented a new spell."
    words = Words().split(sentence)
    assert len(words) == 9
    assert Words().join(words) + "." == sentence
    assert Words(punctuation=True).split(sentence) == [*words, "."]


@pytest.mark.parametrize(
    "sample",
    [
        "the cat saw the dog. the dog ran",
        "Ay me! O Romeo, Romeo's gone (he said)... 1,000.5; good-night?",
        "“well…” ¿si? [a] {b} «c» 5% :",
        "",
    ],
)
def test_punctuation_is_joined_as_it_is_written(sample):
    words = Words(punctuation=True)
    assert words.join(words.split(sample)) == sample.replace(" :", ":")


@given(UNICODE | PROSE)
def test_words_have_no_spaces_and_are_the_same_when_joined_and_split_again(sample):
    words = Words()
    tokens = words.split(sample)
    assert all(token.split() == [token] for token in tokens)
    assert words.split(" ".join(tokens)) == tokens


SPACED = Words(keep_spaces=True)


def composed(word: str) -> str:
    return unicodedata.normalize("NFC", word)


def decomposed(word: str) -> str:
    return unicodedata.normalize("NFD", word)


SCRIPTS = {  # words, as they are written with a space between
    "Hindi": "हिन्दी भाषा में क्या है",
    "Bengali": "আমি বাংলায় গান গাই",
    "Tamil": "தமிழ் மொழி",
    "Khmer": "ភាសា ខ្មែរ",
    "Burmese": "မြန်မာ ဘာသာ",
    "Thai": "ภาษาไทย ที่นี่ น้ำ",
    "Tibetan": "བོད སྐད",
    "Arabic, with vowels": "بِسْمِ ٱللَّهِ ٱلرَّحْمَٰنِ",
    "Persian, with joiners kept apart": "می\u200cخواهم خانه\u200cها",
    "Sinhala, with joiners": "ශ්\u200dරී ලංකා",
    "Hebrew, with vowels and an acronym": "בְּרֵאשִׁית צה״ל",
    "Greek": "Ἐν ἀρχῇ ἦν ὁ λόγος",
    "Korean": "한국어 글자",
    "Vietnamese": "Tiếng Việt Nguyễn",
    "German": "Übergrößen straßenbahn",
    "French": "aujourd’hui l’été naïve café",
    "Catalan": "col·lecció novel·la",
    "Yoruba": "Yorùbá ọjọ́",
    "Russian": "ёлка й",
    "Hawaiian": "Hawaiʻi okina",
    "Japanese, halfwidth": "ｶﾞｷﾞ ガギ",
    "soft hyphens, signs of direction": "co\u00adope\u00adrate a\u200eb",
    "emoji": "👩\u200d👩\u200d👧 👍🏽 ❤\ufe0f 🏳\ufe0f\u200d🌈 🇩🇪 🏴\U000e0067\U000e0062\U000e007f",
    "keycaps": "1\ufe0f\u20e3 #\ufe0f\u20e3",
    "marks on what is no letter": "=\u0338 _\u0301 2\u0305",
}


@pytest.mark.parametrize("form", [str, composed, decomposed])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_word_of_any_script_is_one_token(script, form):
    words = form(SCRIPTS[script]).split(" ")
    assert SPACED.split(" ".join(words)) == [words[0], *(f" {word}" for word in words[1:])]
    assert Words(punctuation=True).split(" ".join(words)) == words


@pytest.mark.parametrize(
    ("sample", "tokens"),
    [
        ("cafe\u0301's naïve\u0301", "cafe\u0301|'s| naïve\u0301"),
        ("it's\u0307", "it's\u0307"),  # ṡ is another letter
        ("🇩🇪🇫🇷🇩", "🇩🇪|🇫🇷|🇩"),
        ("👍🏽👍🏽👍", "👍🏽👍🏽|👍"),
        ("a\r\nb\r\n\r\nc\r\n", "a|\r\n|b|\r\n\r\n|c|\r\n"),
        ("\ufeffO Romeo", "\ufeff|O| Romeo"),
        ("שלום\u200f. و", "שלום|\u200f|.| و"),  # the sign of direction is not the word's
        ("\u0301a \u0301 \u00a0\u0301", "\u0301|a| \u0301| |\u00a0\u0301"),
        ("नमस्ते, दुनिया! १२३", "नमस्ते|,| दुनिया|!| १२३"),
        ("今日は、世界。", "今日は|、|世界|。"),
        ("well-known 1,000.5", "well|-|known| 1|,|000|.|5"),
    ],
)
def test_where_words_of_other_scripts_end(sample, tokens):
    assert SPACED.split(sample) == tokens.split("|")


MARKS = st.characters(categories=["Mn", "Mc", "Me"]) | st.sampled_from("\u200c\u200d\ufe0f")
LETTERS = st.characters(categories=["Lu", "Ll", "Lt", "Lm", "Lo"])
WORD = st.lists(st.tuples(LETTERS, st.text(MARKS, max_size=3)).map("".join), min_size=1)


@given(st.lists(WORD.map("".join), min_size=1))
def test_letters_and_their_marks_are_words(words):
    assert SPACED.split(" ".join(words)) == [words[0], *(f" {word}" for word in words[1:])]
    assert Words().split(" ".join(words)) == words


SIGNS = st.sampled_from(" \t\n\r_'’1.!👍🏽🇩\u00a0\u200f")


@given(UNICODE | PROSE | st.text(MARKS | LETTERS | SIGNS))
def test_no_mark_is_cut_off(sample):
    """Behind white space that ends a line or a cell, and at the start, a mark stands alone."""
    for before, after in itertools.pairwise(SPACED.split(sample)):
        belongs = unicodedata.category(after[0])[0] == "M" or after[0] in "\u200c\u200d"
        alone = before[-1].isspace() and unicodedata.category(before[-1]) != "Zs"
        assert alone or not belongs, (before, after)
        assert (before[-1], after[0]) != ("\r", "\n")


def test_the_pattern_knows_all_marks_of_unicode():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    marks = [c for c in everything if unicodedata.category(c)[0] == "M"]
    assert re.findall(f"[{tokenize._marks()}]", everything) == marks


def test_equal_tokens_are_one_object():
    tokens = Words().split("to be or not to be, to be")
    assert len({id(token) for token in tokens}) == len(set(tokens))


def test_the_docstrings():
    failed, attempted = doctest.testmod(sys.modules[Words.__module__])
    assert attempted >= 4
    assert failed == 0
    assert repr(Words()) == "Words()"
    assert repr(Words("a+", keep_spaces=True)) == "Words('a+', keep_spaces=True)"
    assert repr(Words(punctuation=True)) == "Words(punctuation=True)"


def test_what_is_no_regular_expression():
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression: missing \)"):
        Words("(")
    with pytest.raises(ValueError, match=r"punctuation=True beside pattern='a': .* as r'"):
        Words("a", punctuation=True)
    assert Words(r"\w+|[^\w\s]").split("Ay me!") == ["Ay", "me", "!"]


@functools.cache
def plays() -> str:
    return text.shakespeare()


def test_the_plays_in_words():
    """Under two tokens of punctuation a word; no token is mere space, so no step is spent on it."""
    sample = plays()[:1_000_000]
    tokens = SPACED.split(sample)
    assert "".join(tokens) == sample
    words = [token for token in tokens if token.strip()[-1:].isalnum()]
    assert len(words) > 0.7 * len(tokens)
    assert sum(token == " " for token in tokens) < 1e-5 * len(tokens)
    assert tokens.count("\n\n") == sample.count("\n\n")
    assert tokens.count("\n") == sample.count("\n") - 2 * sample.count("\n\n")
    vocabulary = text.Vocabulary.from_counts(tokens, 10_000)
    known = vocabulary.encode(tokens) != vocabulary.unk
    assert known.mean() > 0.96


def test_words_take_at_most_four_times_the_text():
    sample = plays()[:2_000_000]
    tokens = SPACED.split(sample)
    objects = {id(token): token for token in tokens}.values()
    taken = sys.getsizeof(tokens) + sum(map(sys.getsizeof, objects))
    assert taken < 3 * len(sample)  # besides the text itself


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
