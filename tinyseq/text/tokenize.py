"""A text cut into tokens, and put together again."""

from __future__ import annotations

import functools
import itertools
import re
import reprlib
import unicodedata
from collections.abc import Iterable

from tinyseq.arguments import checked

# An end, white space, and the first letter of what follows, behind its quotation mark or bracket.
_SENTENCE_END = re.compile(r"""[.!?]['"’”)\]]*(\s+)(?=['"‘“’(\[]*(\w))""")


class Characters:
    """Every character is a token. ``split`` is ``list``, ``join`` is ``"".join``.

    A character is a code point, here and wherever the library counts characters: "é" is one or,
    decomposed, two. ``unicodedata.normalize("NFC", text)`` composes what can be composed.

    >>> Characters().split("to be")
    ['t', 'o', ' ', 'b', 'e']
    """

    @checked
    def split(self, text: str) -> list[str]:
        """The characters of a text."""
        return list(text)

    @checked
    def join(self, tokens: Iterable[str]) -> str:
        """The text that was split into ``tokens``."""
        return "".join(tokens)


class Words:
    """The words and numbers of a text, as a regular expression finds them.

    >>> words = Words()
    >>> words.split("O Romeo, Romeo's gone!")
    ['O', 'Romeo', 'Romeo', "'s", 'gone']
    >>> words.join(words.split("The cat saw the dog."))
    'The cat saw the dog'
    >>> Words(punctuation=True).split("Ay me! O Romeo!")
    ['Ay', 'me', '!', 'O', 'Romeo', '!']
    >>> Words(keep_spaces=True).split("Ay  me!\\nO Romeo!")
    ['Ay', ' ', ' me', '!', '\\n', 'O', ' Romeo', '!']

    A word is the same token wherever it stands. 's is split off: a plural or a verb costs no second
    symbol. Other apostrophes are part of their word, as hyphens are, digits beside letters, and the
    point or comma within a number.

    Words of all scripts: combining marks and joiners stay with their letter, and an emoji, a flag
    and the end of a line, CR LF, with all that they are made of, are one token. Where words are
    written without spaces, as in Thai and Chinese, one token is what stands between two signs of
    punctuation.

    Equal tokens are the same object: in prose the list takes about twice the memory of the text.

    Args:
        pattern: a regular expression (`re`) of one token, instead of the default. What it does not
            find is left out.
        punctuation: punctuation and other signs, emoji among them, are tokens, too: a stretch of
            the same sign is one. A ``pattern`` says this itself.
        keep_spaces: nothing is lost, ``"".join(split(text)) == text`` for every text. The space
            before a word belongs to it (as in GPT-2: Radford et al., 2019), so that a word at the
            start of a line is another token than within it; so does an apostrophe. The end of a
            line is a token, and so are two of them, which end a paragraph, and all punctuation,
            hyphens and the points in numbers included. What a ``pattern`` does not find becomes
            tokens of its own, one for each stretch between.

    Raises:
        ValueError: the pattern is none, or ``punctuation`` is asked for beside it.
    """

    @checked
    def __init__(
        self, pattern: str | None = None, *, punctuation: bool = False, keep_spaces: bool = False
    ) -> None:
        if pattern is not None and punctuation:
            raise ValueError(
                f"punctuation=True beside pattern={reprlib.repr(pattern)}: the pattern says what a "
                r"token is. Let it find punctuation, too, as r'\w+|[^\w\s]' does"
            )
        given, pattern = pattern, _words(keep_spaces, punctuation) if pattern is None else pattern
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            shown = reprlib.repr(pattern)
            raise ValueError(f"pattern={shown} is not a regular expression: {error}") from error
        self.pattern, self.keep_spaces = pattern, keep_spaces
        options = {"punctuation": punctuation, "keep_spaces": keep_spaces}
        parts = [] if given is None else [repr(given)]
        self._repr = ", ".join([*parts, *(f"{name}=True" for name in options if options[name])])

    @checked
    def split(self, text: str) -> list[str]:
        """The tokens of a text, in their order."""
        tokens: list[str] = []
        known: dict[str, str] = {}
        end = 0
        for match in self._pattern.finditer(text):
            if self.keep_spaces and end < match.start():
                between = text[end : match.start()]
                tokens.append(known.setdefault(between, between))
            if token := match[0]:  # a pattern may match nothing, as " *" does
                tokens.append(known.setdefault(token, token))
            end = match.end()
        if self.keep_spaces and end < len(text):
            tokens.append(text[end:])
        return tokens

    @checked
    def join(self, tokens: Iterable[str]) -> str:
        """The tokens with a space between, but none before 's, a comma, or a closing bracket, and
        none after an opening one. With ``keep_spaces`` the text that was split, to the character.
        """
        if self.keep_spaces:
            return "".join(tokens)
        parts: list[str] = []
        attached = True
        for token in tokens:
            if not (attached or _CLOSING.fullmatch(token)):
                parts.append(" ")
            parts.append(token)
            attached = token in _OPENING
        return "".join(parts)

    def __repr__(self) -> str:
        return f"Words({self._repr})"


_CLOSING = re.compile(r"['’]s|[.,;:!?…%)\]}»”’]+")
_OPENING = frozenset("([{«“‘¿¡")


@functools.cache
def _words(keep_spaces: bool, punctuation: bool) -> str:
    """The default pattern. What follows ``++`` and ``*+`` is never tried again: it is quick. Only
    single letters are followed by them: for groups they match wrongly before Python 3.11.5.
    """
    # Belongs to the letter, digit or sign before it; joiners ask for a form of the letter.
    mark = rf"[{_marks()}\u200c\u200d]"
    part = rf"[^\W\d_]++(?:{mark}++[^\W\d_]*+)*"
    # Soft hyphens, signs of direction and such are in a word where letters are on both sides.
    letters = rf"{part}(?:[\u00ad\u061c\u200e\u200f\u2060-\u2064\ufeff]++{part})*"
    s = rf"['’]s(?!\w|{mark})"
    # l·l of Catalan, and what stands in Hebrew acronyms, are within words as apostrophes are.
    within = rf"(?:(?!{s})['’]|[··‧׳״])"
    digits = rf"(?:\d{mark}*+)+"
    # Marks, colours of skin, tags of flags; more of them after each joiner. Two letters are a flag.
    attached = rf"(?:[{_marks()}\u200c\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f])*"
    sign = (
        r"[\U0001f1e6-\U0001f1ff]{2}"
        rf"|[^\w\s]{attached}(?:\u200d++(?:[^\w\s]{attached})?)*"
        rf"|_{attached}"
    )
    signs = rf"({sign})\1*"  # a comma, two dashes, three dots
    if not keep_spaces:
        unit = rf"(?:{letters}|{digits})"
        words = rf"{s}|{unit}(?:(?:{within}|[-‐‑]|(?<=\d)[.,](?=\d))?{unit})*"
        return rf"{words}|{signs}" if punctuation else words
    return (
        rf" ?['’]?{letters}(?:{within}{letters})*"  # a word: love, 'tis, o'er; Juliet and 's
        rf"| ?{digits}"
        r"|\r\n(?:\r\n)?|\n\n?"  # the end of a line; of a paragraph
        rf"| ?{signs}"
        rf"|[^\S\x00-\x1f\x85\u2028\u2029]{mark}++"  # marks that are shown on a wide space
    )


def _marks() -> str:
    """All combining marks as ranges of a regular expression's set, variation selectors too."""
    category = unicodedata.category
    numbers = [n for n in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
               if category(chr(n))[0] == "M"]  # fmt: skip
    runs = itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    spans = [[n for _, n in run] for _, run in runs]
    return "".join(f"{chr(span[0])}-{chr(span[-1])}" for span in spans)


@checked
def sentences(text: str) -> list[str]:
    """The sentences of a text, each on one line, for P(sentence).

    One ends at ``.``, ``!`` or ``?`` before white space and a capital letter or a digit, quotation
    marks and brackets apart; also at an empty line. White space within becomes one space: the lines
    of a verse do not matter here. Nothing else changes:
    ``" ".join(sentences(text)).split() == text.split()``.

    >>> sentences("But, soft! what light\\nthrough yonder window breaks? It is the east.")
    ['But, soft! what light through yonder window breaks?', 'It is the east.']

    It knows no abbreviations: "Mr. Page" is two.
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        start = 0
        for match in _SENTENCE_END.finditer(paragraph):
            if not match[2].islower():
                found.append(paragraph[start : match.start(1)])
                start = match.end(1)
        found.append(paragraph[start:])
    return [" ".join(sentence.split()) for sentence in found if sentence.strip()]
