"""Data files of installed packages, read without importing the packages' code."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path


def installed_files(package: str, pattern: str, what: str) -> dict[str, Path]:
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
