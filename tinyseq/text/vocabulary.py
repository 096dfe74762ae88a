"""Which symbols there are, and the number of each."""

from __future__ import annotations

import json
import os
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq.arguments import Size, checked, shown
from tinyseq.errors import DtypeError, listed
from tinyseq.saving import write_atomically
from tinyseq.tensor import plain_array
from tinyseq.text.tokenize import Words

_SPECIAL = ("pad", "unk", "bos", "eos")  # in the order of their numbers
_PIECE = 2**13  # tokens that are looked up at once: of an iterable, each is an object
_SHOWN = 100  # characters that the repr of a vocabulary spells out …
_FEW = 16  # … and a message
_SPLITTERS: dict[str, Callable[[str], list[str]]] = {  # into words, the simplest first
    "str.split": str.split,
    "text.Words().split": lambda text: Words().split(text),
    "text.Words(punctuation=True).split": lambda text: Words(punctuation=True).split(text),
    "text.Words(keep_spaces=True).split": lambda text: Words(keep_spaces=True).split(text),
}


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

    Words, or whatever tokens there are, come `from_counts`, the most frequent first, with symbols
    for what the others become (unk), for the end (eos), and, where they are asked for, for the
    beginning (bos) and for what fills up a batch (pad):

    >>> words = Vocabulary.from_counts(["to", "be", "or", "not", "to", "be"], size=4)
    >>> words.symbols
    ('<UNK>', '<EOS>', 'be', 'to')
    >>> words.encode(["not", "to", "be"])
    array([0, 3, 2])
    >>> words.decode([3, 2])
    'to be'

    The numbers are what `nn.Embedding` takes, and ``functional.one_hot(numbers, len(vocabulary))``
    makes vectors of them.

    Attributes:
        symbols: all of them; a symbol's place is its number.
        unk, bos, eos, pad: the number of that special symbol, or `None` where there is none.
        separator: what `decode` puts between symbols: a space between words, of which one is longer
            than a character and none has white space in it, and nothing between others.
    """

    symbols: tuple[str, ...]
    unk: int | None
    bos: int | None
    eos: int | None
    pad: int | None

    @checked
    def __init__(self, symbols: Iterable[str]) -> None:
        """``symbols``: a text, or single characters in any order.

        Raises:
            ValueError: there are none, or one of them is not a single character.
        """
        characters = tuple(sorted(set(symbols)))
        if not characters:
            raise ValueError(
                "symbols: a vocabulary needs at least one character, and the text is empty"
            )
        longer = next((s for s in characters if len(s) != 1), None)
        if longer is not None:
            raise ValueError(
                f"a vocabulary is made of single characters, but {reprlib.repr(longer)} is not. "
                "One of words is made by Vocabulary.from_counts"
            )
        self._set(characters, {})

    @classmethod
    @checked
    def from_counts(
        cls,
        tokens: Iterable[str] | Mapping[str, int],
        size: int | None = None,
        min_count: Size = 1,
        *,
        unk: str | None = "<UNK>",
        eos: str | None = "<EOS>",
        pad: str | None = None,
        bos: str | None = None,
    ) -> Vocabulary:
        """The most frequent tokens, the special symbols before them.

        The order is pad, unk, bos, eos, then falling counts; where two are equal, the code points
        decide. So the same counts always give the same numbers.

        Args:
            tokens: a text as its tokens (a string: as its characters), or how often each occurs.
            size: V, how many symbols at most, special ones included; all when left out.
            min_count: leave out what occurs less often.
            unk: how the symbol is spelled that stands for every token left out; `None` for none,
                and then those tokens are refused by `encode`.
            eos: the symbol that ends a sentence; `None` for none.
            pad: the symbol that fills up what is shorter; `None` for none.
            bos: the symbol that begins a sentence, ``"<BOS>"`` say; `None` for none.

            A token that is spelled like a special symbol is that symbol.

        Raises:
            TypeError: tokens that are no strings.
            ValueError: no tokens, an empty one, none that is frequent enough, a size without room
                for one of them, a ``min_count`` below one, or special symbols that are the same.
        """
        special = {
            kind: symbol
            for kind, symbol in zip(_SPECIAL, (pad, unk, bos, eos), strict=True)
            if symbol is not None
        }
        _check([*special.values()], "a special symbol")
        if len(set(special.values())) < len(special):
            raise ValueError(f"special symbols have to differ: {reprlib.repr(special)}")
        if size is not None and size <= len(special):
            raise ValueError(
                f"size={size} leaves no room for a token: there are {len(special)} special symbols"
            )
        counts = _count(tokens)
        if not counts:
            raise ValueError("tokens: a vocabulary needs at least one token, and there are none")
        _check(counts, "a token")
        ordinary = [t for t in counts if counts[t] >= min_count and t not in special.values()]
        if not ordinary:
            raise ValueError(
                f"none of the {len(counts)} different tokens occurs min_count={min_count} times "
                "and is not a special symbol. Lower min_count, or use a longer text"
            )
        ordinary.sort(key=lambda token: (-counts[token], token))
        if size is not None:
            ordinary = ordinary[: size - len(special)]
        return cls._made((*special.values(), *ordinary), special)

    @classmethod
    def _made(cls, symbols: tuple[str, ...], special: Mapping[str, str]) -> Vocabulary:
        vocabulary = cls.__new__(cls)
        vocabulary._set(symbols, special)
        return vocabulary

    def _set(self, symbols: tuple[str, ...], special: Mapping[str, str]) -> None:
        self.symbols = symbols
        self._indices = {symbol: i for i, symbol in enumerate(symbols)}
        self.pad, self.unk, self.bos, self.eos = (
            self._indices[special[kind]] if kind in special else None for kind in _SPECIAL
        )
        # What makes it one of words, and not of characters.
        named = special.values()
        self._longer = next((s for s in symbols if len(s) > 1 and s not in named), None)
        self._kind = "characters" if self._longer is None and not special else "symbols"
        self._spaces = any(s.split() != [s] for s in symbols if s not in named)
        self.separator = " " if self._longer is not None and not self._spaces else ""

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[Any, ...]:
        return self.symbols, self.pad, self.unk, self.bos, self.eos

    def __repr__(self) -> str:
        if (
            self._kind == "characters"
            and len(self) <= _SHOWN
            and self.symbols == tuple(sorted(self.symbols))
        ):
            return f"Vocabulary({''.join(self.symbols)!r})"
        return f"<Vocabulary of {self._described()}>"

    def _described(self) -> str:
        if self._kind == "characters" and len(self) <= _FEW:
            return f"{len(self)} characters: {''.join(self.symbols)!r}"
        return f"{len(self)} {self._kind}: {listed(map(reprlib.repr, self.symbols))}"

    # -- to numbers and back ---------------------------------------------------------------------

    def _is_text(self, string: str) -> bool:
        """Whether it is a text of several characters, or none, rather than a token."""
        return self._longer is None and len(string) != 1 and string not in self._indices

    @property
    def smallest_dtype(self) -> np.dtype[Any]:
        """The smallest dtype that holds all numbers: uint8 for up to 256 symbols, then uint16 …"""
        return np.min_scalar_type(len(self) - 1)

    def encode(self, text: str | Iterable[str], dtype: npt.DTypeLike = np.int64) -> np.ndarray:
        """The number of each character of a text, or of each token: an array (N,).

        What the vocabulary lacks becomes ``unk``, where there is one; tokens that were split in
        another way than the vocabulary's, as "cat" is beside " cat", are an error. A long text
        takes an eighth of the memory with ``dtype=vocabulary.smallest_dtype``, and is good for all
        that the library does with it; mind that your own arithmetic may leave the range of so small
        a dtype. An iterable, such as a file's lines one after the other, is read once and not
        kept::

            vocabulary.encode(itertools.chain.from_iterable(file), vocabulary.smallest_dtype)

        Raises:
            TypeError: a text that is not split into tokens, for a vocabulary of words; or tokens
                that are no strings.
            DtypeError: a dtype that is no integer.
            ValueError: a character or token that the vocabulary lacks, with its position; or a
                dtype that is too small.
        """
        if isinstance(text, str) and self._longer is not None:
            raise TypeError(
                f"text={shown(text)}: a vocabulary of tokens such as {reprlib.repr(self._longer)} "
                "takes a list of them, not a string. Split the text first, as it was split to make "
                f"the vocabulary, perhaps by {self._split_by(text)}(text)"
            )
        if isinstance(text, bytes | Mapping) or not isinstance(text, Iterable):
            raise TypeError(
                f"encode: text={shown(text)} must be a text or a list of tokens, which are strings"
            )
        dtype = self._checked(np.dtype(dtype))
        if isinstance(text, str | list | tuple):
            indices = np.empty(len(text), dtype)
            for at in range(0, len(text), _PIECE):
                piece = text[at : at + _PIECE]
                indices[at : at + len(piece)] = self._numbers(piece, at, len(text))
            return indices
        grown, rest = bytearray(), iter(text)  # the array's memory, which grows in place
        while piece := list(islice(rest, _PIECE)):
            numbers = self._numbers(piece, len(grown) // dtype.itemsize, None)
            grown += numbers.astype(dtype).tobytes()
        return np.frombuffer(grown, dtype)

    def _checked(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        if dtype.kind not in "iu":
            raise DtypeError(f"dtype={dtype} does not hold whole numbers. Use an integer dtype")
        if (most := int(np.iinfo(dtype).max)) < len(self) - 1:
            raise ValueError(
                f"dtype={dtype} holds numbers up to {most}, and the vocabulary has {len(self)} "
                f"{self._kind}. Use {self.smallest_dtype}, or leave dtype out"
            )
        return dtype

    def _numbers(self, tokens: str | Sequence[str], start: int, size: int | None) -> np.ndarray:
        """Those of a piece of a text, of ``size`` tokens where it is known, from ``start`` on."""
        try:
            # All of it runs in C, so that a million words or characters take a moment.
            indices = np.fromiter(map(self._indices.get, tokens, repeat(-1)), np.int64)
        except TypeError:  # what has no hash, as a list within the list
            indices = np.full(len(tokens), -1)
        missing = np.flatnonzero(indices < 0)
        for i in missing.tolist():
            if not isinstance(tokens[i], str):
                raise TypeError(
                    f"the tokens of text are strings, but token {start + i} is "
                    f"{shown(tokens[i])}, of type {type(tokens[i]).__name__}"
                )
        if missing.size:
            if self._longer is not None:
                self._check_split([tokens[i] for i in missing.tolist()], tokens, start)
            if self.unk is None:
                at = int(missing[0])
                code, what = "", "token"
                if len(tokens[at]) == 1 and self._longer is None:
                    code, what = f" (U+{ord(tokens[at]):04X})", "character"
                of = "" if size is None else f" of {size}"
                raise ValueError(
                    f"the vocabulary lacks {reprlib.repr(tokens[at])}{code}, {what} {start + at}"
                    f"{of}. Leave it out, or make the vocabulary of a text that has it, or with a "
                    f"symbol for what it lacks (unk); there are {self._described()}"
                )
            indices[missing] = self.unk
        return indices

    def _check_split(self, missing: list[Any], tokens: Sequence[Any], start: int) -> None:
        """Raises where the vocabulary has a token that is missing, but for its spaces."""
        if self._spaces and any(t.split() != [t] for t in tokens if isinstance(t, str)):
            return  # a word at the start of a line has no space before it, and may be rare there
        for token in missing:
            if self._spaces:
                parts, how = [f" {token}"], "(' ' + text), for there the space belongs to the word"
            else:
                parts, how = token.split(), "(text)"
            known = next((part for part in parts if part != token and part in self._indices), None)
            if known is not None:
                raise ValueError(
                    f"the vocabulary has {reprlib.repr(known)} and lacks {reprlib.repr(token)}, "
                    f"token {start + tokens.index(token)}. Split the text as it was split to make "
                    f"the vocabulary, perhaps by {self._split_by(' '.join(parts))}{how}"
                )

    def _split_by(self, text: str) -> str:
        """What splits most of a text into tokens that the vocabulary has."""

        def known(splitter: str) -> tuple[float, int]:
            tokens = _SPLITTERS[splitter](text[:_PIECE])
            count = sum(token in self._indices for token in tokens)
            return count / max(1, len(tokens)), count

        return max(_SPLITTERS, key=known)

    @checked
    def decode(self, indices: Iterable[int] | npt.ArrayLike) -> str:
        """The text whose characters or tokens have these numbers, integers 0 … len − 1.

        It is the one that ``encode`` got, but for what became ``unk``; of words, as ``str.split``
        makes them, with a space between. `Words.join` of `symbols_of` puts none before punctuation.
        Special symbols are written as they are spelled.

        Raises:
            TypeError: numbers that are not integers.
            ValueError: an index out of range.
        """
        return self.separator.join(self.symbols_of(indices))

    @checked
    def symbols_of(self, indices: Iterable[int] | npt.ArrayLike) -> list[str]:
        """As `decode`, but as a list of symbols: the tokens, one by one."""
        array = plain_array(list(indices) if isinstance(indices, Iterator) else indices)
        if array.size == 0:
            return []
        if array.dtype.kind not in "iu":
            raise TypeError(f"indices are the whole numbers of symbols, not {array.dtype}")
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= len(self):
            raise ValueError(
                f"indices: index {low if low < 0 else high} is out of range: "
                f"the vocabulary has {len(self)} {self._kind}, 0 to {len(self) - 1}"
            )
        return [self.symbols[i] for i in array.ravel().tolist()]

    # -- to JSON and back ------------------------------------------------------------------------

    def to_json(self) -> str:
        """As JSON: an object of the list ``symbols`` and the spelling of ``pad, unk, bos, eos``."""
        numbers = {kind: getattr(self, kind) for kind in _SPECIAL}
        special = {kind: None if i is None else self.symbols[i] for kind, i in numbers.items()}
        return json.dumps({"symbols": self.symbols, **special}, ensure_ascii=False)

    @classmethod
    @checked
    def from_json(cls, source: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote.

        Raises:
            ValueError: what is no such JSON; the message says why.
        """
        try:
            tree = json.loads(source)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"source={shown(source)} is not JSON: {error}") from error
        if not isinstance(tree, dict) or not isinstance(tree.get("symbols"), list):
            raise ValueError("the JSON of a vocabulary is an object with a list of its symbols")
        symbols = tuple(tree["symbols"])
        special = {kind: tree[kind] for kind in _SPECIAL if tree.get(kind) is not None}
        try:
            _check([*symbols, *special.values()], "a symbol")
        except TypeError as error:
            raise ValueError(f"the JSON of a vocabulary: {error}") from error
        named = set(special.values())
        if len(set(symbols)) < len(symbols) or len(named) < len(special):
            raise ValueError("the JSON of a vocabulary has one of its symbols twice")
        if not named < set(symbols):
            raise ValueError(
                "the JSON of a vocabulary lacks the special symbols "
                f"{reprlib.repr(special)} in its list, or has "
                "no others"
            )
        return cls._made(symbols, special)

    @checked
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to a file, UTF-8, atomically: there is the old file or the new one.

        Raises:
            OSError: the folder is missing, not writable or full.
        """
        write_atomically(path, self.to_json().encode("utf-8", "surrogatepass"))

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            OSError: the file is missing, or cannot be read.
            ValueError: it is not the file of a vocabulary.
        """
        try:
            return cls.from_json(Path(path).read_bytes().decode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise ValueError(f"{path} does not hold a vocabulary: {error}") from error


def _count(tokens: Iterable[str] | Mapping[str, int]) -> Mapping[str, int]:
    if isinstance(tokens, Mapping):
        return tokens
    try:
        return Counter(tokens)
    except TypeError as error:  # a list of lists: they have no hash
        raise TypeError(f"tokens are strings in one plain sequence: {error}") from error


def _check(symbols: Iterable[object], what: str) -> None:
    for symbol in symbols:
        if not isinstance(symbol, str):
            raise TypeError(
                f"{what} is a string, but {reprlib.repr(symbol)} is {type(symbol).__name__}"
            )
        if not symbol:
            raise ValueError(f"{what} cannot be the empty string: it would vanish from a text")
