"""Hypothesis profiles: `dev` for every day, `ci` (the default), `deep` for the patient.

``HYPOTHESIS_PROFILE=deep pytest`` runs 2 000 examples a property. ``pytest --compiled`` compiles
every layer whose mode is "auto" from its first step on; tests that are about unrolled graphs as
such carry the mark ``unrolled``, with the reason.
"""

import contextlib
import gc
import os
import signal
import threading

# Several processes run tests at once: if each had a thread of OpenBLAS on every core, they would
# spend most of the time waiting for each other. Set before NumPy is loaded, and inherited.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

import tinyseq

# Builds its list of fonts where there is none yet, and says so on stderr if that takes long: now,
# and not in whichever test is the first to draw, or to run a program that does.
with contextlib.suppress(ImportError):
    import matplotlib.font_manager  # noqa: F401

# A shell that runs this in the background has Ctrl-C ignored, also by the programs that tests start
# and then interrupt: they would never end.
_main = threading.current_thread() is threading.main_thread()
if _main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_COMMON = {
    "deadline": None,  # these machines are shared: a slow example is no failing one
    "derandomize": True,  # the same examples in every run, so that a red run can be repeated
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("dev", max_examples=10, **_COMMON)
settings.register_profile("ci", max_examples=25, **_COMMON)
settings.register_profile("deep", max_examples=2000, **_COMMON | {"derandomize": False})
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser):
    parser.addoption("--compiled", action="store_true", help="compile layers from their first step")


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "unrolled(reason): about the graph of single steps, with --compiled too"
    )


@pytest.fixture(autouse=True)
def _compiled_from_the_first_step(request, monkeypatch):
    if request.config.getoption("--compiled") and not request.node.get_closest_marker("unrolled"):
        monkeypatch.setattr("tinyseq.nn.recurrent.COMPILED_FROM", 0)


@pytest.fixture
def leaves_no_garbage():
    """Whether all that a function makes is gone with its last reference, without a collector."""

    def check(work):
        work()  # what is made once is there from now on
        gc.collect()
        gc.disable()
        try:
            work()
            assert gc.collect() == 0
        finally:
            gc.enable()

    return check


@pytest.fixture(autouse=True)
def _same_parameters_in_any_order_of_tests():
    tinyseq.seed(0)
