"""Kernels that share out all their work, however little it is."""

import contextlib

import pytest

from tinyseq.kernels import threads


@contextlib.contextmanager
def shared_out(kernels, n):
    """The kernels of a file on n threads, from the first number on."""
    before = threads.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_MANY", 1)
        threads.set_num_threads(n)
        try:
            yield n
        finally:
            threads.set_num_threads(before)
