"""Settings for all tests: CPU, eight virtual devices, and an x64 fixture."""

import gc
import os
import tempfile

from tests import compilation

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = compilation.flags(devices=8)
# The same tiny run is trained in a hundred tests and compiled once for all of them.
# Processes started from here inherit the folder; the first one removes it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="cram-jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

# Nobody reads the source lines in programs that tests compile.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import jax
import pytest

# Traced programs are many small objects that live long: looking for garbage among them
# takes a tenth of the time.
gc.set_threshold(200_000, 20, 20)

# Whole files go to one process (their fixtures are dear): the longest must not be last.
LONG = (
    "test_resume",
    "test_runs",
    "test_devices",
    "test_weights",
    "test_pretrained",
    "test_notebooks",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def x64():
    """Float64 for the duration of one test; a global flip would leak."""
    with jax.enable_x64(True):
        yield
