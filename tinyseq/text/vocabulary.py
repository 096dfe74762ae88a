"""Which symbols there are, and the number of each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class Vocabulary:
    """The characters of a text, sorted, so that the same text always gives the same numbers.

    >>> vocabulary = Vocabulary("to be")
    >>> vocabulary.symbols
    (' ', 'b', 'e', 'o', 't')
    >>> vocabulary.encode("bot")
    array([1, 3, 4])
    >>> vocabulary.decode([1, 3, 4])
    'bot'

    ``Vocabulary(v.symbols)`` equals ``v``, and ``list(v.symbols)`` is what to keep in a JSON file.
    """

    def __init__(self, symbols: Iterable[str]) -> None:
        """``symbols``: a text, or single characters in any order.

        Raises:
            ValueError: there are none, or one of them is not a single character.
        """
        self.symbols: tuple[str, ...] = tuple(sorted(set(symbols)))
        if not self.symbols:
            raise ValueError("a vocabulary needs at least one character, and the text is empty")
        longer = next((s for s in self.symbols if len(s) != 1), None)
        if longer is not None:
            raise ValueError(f"a vocabulary is made of single characters, but {longer!r} is not")
        self._code_points = np.array([ord(s) for s in self.symbols])

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.symbols == other.symbols

    def __hash__(self) -> int:
        return hash(self.symbols)

    def __repr__(self) -> str:
        return f"Vocabulary({''.join(self.symbols)!r})"

    def encode(self, text: str) -> np.ndarray:
        """The number of each character: an int64 array (len(text),).

        Raises:
            ValueError: a character that the vocabulary lacks, with its position.
        """
        # As UTF-32 a text is an array of code points, so that millions of characters take a moment.
        code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        indices = np.searchsorted(self._code_points, code_points)
        indices = np.minimum(indices, len(self) - 1)
        missing = np.flatnonzero(self._code_points[indices] != code_points)
        if missing.size:
            at = int(missing[0])
            raise ValueError(
                f"the vocabulary lacks {text[at]!r} (U+{ord(text[at]):04X}), character {at} of "
                f"{len(text)}. Leave it out, or build the vocabulary from a text that has it; "
                f"there are {len(self)} characters: {''.join(self.symbols)!r}"
            )
        return indices.astype(np.int64, copy=False)

    def decode(self, indices: Iterable[int] | np.ndarray) -> str:
        """The text that ``encode`` turns into ``indices``, an iterable of integers 0 … len − 1.

        Raises:
            TypeError: numbers that are not integers.
            ValueError: an index out of range.
        """
        array = np.asarray(indices if isinstance(indices, np.ndarray) else list(indices))
        if array.size == 0:
            return ""
        if array.dtype.kind not in "iu":
            raise TypeError(f"indices of symbols are integers, not {array.dtype}")
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= len(self):
            raise ValueError(
                f"index {low if low < 0 else high} is out of range: "
                f"the vocabulary has {len(self)} characters, 0 to {len(self) - 1}"
            )
        return "".join(self.symbols[i] for i in array.ravel())
