"""Draws the gallery, runs/gallery/index.html: ``python viz/gallery/make.py``."""

from __future__ import annotations

import sys

from tinyseq.viz.gallery.index import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    sys.exit(main())
