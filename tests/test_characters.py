"""Who counts as a person in the demo characters.py, and how what it finds is counted."""

import characters
import common
import numpy as np
import pytest

from tinyseq import text
from tinyseq.text import Speech


@pytest.mark.parametrize(
    ("speaker", "names"),
    [
        ("ROMEO", ["romeo"]),
        ("SIR TOBY BELCH", ["toby", "belch"]),
        ("KING HENRY VIII", ["henry"]),
        ("ANTIPHOLUS OF SYRACUSE", ["antipholus"]),
        ("DUKE OF YORK", []),
        ("Ghost of CLARENCE", []),
        ("Young MARCIUS", ["marcius"]),
        ("QUINTUS and MARTIUS", ["quintus", "martius"]),
        ("First Lord", []),
        ("FIRST FRENCH HERALD", []),
        ("JAQUES DE BOYS", ["jaques"]),
    ],
)
def test_names_of(speaker, names):
    assert characters.names_of(speaker) == names


def labelled(speech: str, names: set[str], common_words: set[str]) -> list[list[tuple[str, int]]]:
    found = characters.sentences(speech, names, common_words)
    return [list(zip(s.words, s.labels.tolist(), strict=True)) for s in found]


def test_sentences():
    speech = "O, Ford's ford! Alas, poor Yorick.\nFord waits, o'er there"
    assert labelled(speech, {"ford"}, {"ford", "o'er"}) == [
        [("o", 0), (",", 0), ("ford", 1), ("'s", 0), ("ford", 0), ("!", 0)],
        [("alas", 0), (",", 0), ("poor", 0), ("yorick", 0), (".", 0)],
        # at the start of a line a capital says nothing of a word that is also a common one
        [("ford", -1), ("waits", 0), (",", 0), ("o'er", 0), ("there", 0)],
    ]
    assert labelled("Ford!", {"ford"}, set()) == [[("ford", 1), ("!", 0)]]
    assert labelled("", {"ford"}, set()) == []


def test_a_long_sentence_is_cut_and_nothing_is_lost():
    words = [f"word{i}" for i in range(3 * characters.LONGEST // 2)]
    first, second = characters.sentences(" ".join(words), set(), set())
    assert first.words + second.words == words
    assert len(first.words) == len(first.labels) == characters.LONGEST


def test_names_come_from_the_headings_of_all_plays(monkeypatch):
    said = [
        Speech("a", "MOTH", "Come, Moth, the moth is here."),
        Speech("b", "Page", "Page! Moth?"),
    ]
    monkeypatch.setattr(characters, "speeches", lambda: said)
    plays = characters.by_play()
    assert plays["a"][0].labels.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert [s.words for s in plays["b"]] == [["page", "!"], ["moth", "?"]]
    assert [s.labels.tolist() for s in plays["b"]] == [[0, 0], [-1, 0]]


def sentence(words: str, *labels: int) -> characters.Sentence:
    return characters.Sentence(words.split(), np.array(labels))


def test_the_dictionary_and_what_may_be_either():
    data = [sentence("the ford of ford", 0, 0, 0, 1), sentence("ford moth", -1, 1)]
    share = characters.dictionary(data)
    assert [share(word) for word in ("the", "ford", "moth", "never")] == [0, 0.5, 1, 0]
    assert characters.ambiguous(data) == {"ford"}


def test_f1():
    guess = np.array([True, True, True, False, False])
    labels = np.array([1, 1, 0, 1, 0])
    found = characters.f1(guess, labels)
    assert found == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    assert characters.f1(guess[3:4], labels[4:]) == {"precision": 0, "recall": 0, "f1": 0}


def test_one_direction_does_not_see_what_comes_and_two_do():
    data = [
        sentence("he said teddy roosevelt", 0, 0, 1, 1),
        sentence("he said teddy bears", 0, 0, 0, 0),
    ]
    words = characters.Words(data * 3, [])
    x, lengths = words.encode(data)
    for bidirectional in (False, True):
        tagger = characters.Tagger(words, bidirectional).eval()
        y = tagger(x, lengths, np.zeros(x.shape, bool)).numpy()
        assert np.allclose(y[2, 0], y[2, 1]) is not bidirectional
        assert not np.allclose(y[3, 0], y[3, 1])


def test_an_unknown_word_is_still_read_letter_by_letter():
    words = characters.Words(
        [sentence("moth moth moth", 1, 1, 1)], [sentence("petruchio iago", 1, 1)]
    )
    x, lengths = words.encode([sentence("petruchio", 1), sentence("iago", 1)])
    tagger = characters.Tagger(words, False).eval()
    y = tagger(x, lengths, np.zeros(x.shape, bool)).numpy()
    assert not np.allclose(y[0, 0], y[0, 1])
    assert np.array_equal(y, tagger(x, lengths, np.ones(x.shape, bool)).numpy())
    assert words.words == ["iago", "moth", "petruchio"]
    assert text.padded([[1]])[0].shape == (1, 1)


def test_it_learns_to_wait_for_the_next_word(monkeypatch, tmp_path):
    """The notes' example, repeated: both know it in the end, but only one can know "teddy"."""
    data = [
        sentence("he said teddy roosevelt", 0, 0, 1, 1),
        sentence("he said teddy bears", 0, 0, 0, 0),
    ]
    monkeypatch.setattr("tinyseq.nn.recurrent.COMPILED_FROM", 10**9)
    monkeypatch.setattr(characters, "STEPS", 60)
    monkeypatch.setattr(characters, "LR", 0.02)
    run = common.Run(0, tmp_path, None)
    words = characters.Words(data * 3, [])
    one, two = (
        characters.probabilities(characters.train(run, words, data * 3, bidirectional), data)
        for bidirectional in (False, True)
    )
    for found in (one, two):  # said at the end of the sentence, it is plain
        assert found[0][3] > 0.8 > 0.2 > found[1][3]
    assert two[0][2] > 0.8 > 0.2 > two[1][2]
    assert one[0][2] == pytest.approx(one[1][2], abs=1e-5)
    assert 0.2 < one[0][2] < 0.8
    wrong = 0 if one[0][2] < 0.5 else 1
    longer = sentence("ay , he said teddy", 0, 0, 0, 0, 1 - wrong)
    told = [np.array([0, 0, 0, 0, p[wrong][2]]) for p in (one, two)]
    assert characters.examples([longer], [told[0]], [told[1]], set()) == [(0, 4)]
