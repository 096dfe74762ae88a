"""A text cut into tokens, and put together again: nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tinyseq.arguments import checked

_LETTERS = r"[^\W\d_]+"
WORDS = (
    rf" ?['’]?{_LETTERS}(?:['’](?!s\b){_LETTERS})*"  # a word: love, 'tis, o'er; Juliet and 's
    r"| ?\d+"
    r"|\n\n?"  # the end of a line; of a paragraph
    r"| ?([^\w\s])\1*"  # punctuation: a comma, two dashes, three dots
)
# An end, white space, and the first letter of what follows, behind its quotation mark or bracket.
_SENTENCE_END = re.compile(r"""[.!?]['"’”)\]]*(\s+)(?=['"‘“’(\[]*(\w))""")


class Characters:
    """Every character is a token. ``split`` is ``list``, ``join`` is ``"".join``.

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
    """Words, numbers and punctuation, as a regular expression finds them.

    >>> words = Words()
    >>> words.split("O Romeo, Romeo's gone!\\nAy me!")
    ['O', ' Romeo', ',', ' Romeo', "'s", ' gone', '!', '\\n', 'Ay', ' me', '!']
    >>> words.join(words.split("Ay  me!"))
    'Ay  me!'

    Each character belongs to exactly one token, so that ``join(split(text)) == text`` for every
    text: what the pattern does not find becomes tokens of its own, one for each stretch between.

    By default the space before a word belongs to it (as in GPT-2: Radford et al., 2019), so that no
    step of a model is spent on predicting that words are apart; a word at the start of a line is
    another token than within it. The end of a line is a token, and so are two of them, which end a
    speech. 's is split off, a plural or a verb costs no second symbol; other apostrophes are part
    of their word.

    Args:
        pattern: a regular expression (`re`) of one token.

    Raises:
        ValueError: the pattern is none.
    """

    @checked
    def __init__(self, pattern: str = WORDS) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"pattern={pattern!r} is not a regular expression: {error}") from error
        self.pattern = pattern

    @checked
    def split(self, text: str) -> list[str]:
        """The tokens of a text, in their order."""
        tokens: list[str] = []
        end = 0
        for match in self._pattern.finditer(text):
            tokens += text[end : match.start()], match[0]
            end = match.end()
        tokens.append(text[end:])
        return list(filter(None, tokens))  # a pattern may match nothing, as " *" does

    @checked
    def join(self, tokens: Iterable[str]) -> str:
        """The text that was split into ``tokens``."""
        return "".join(tokens)

    def __repr__(self) -> str:
        return "Words()" if self.pattern == WORDS else f"Words({self.pattern!r})"


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
