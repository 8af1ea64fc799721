"""Settings for all tests: CPU, eight virtual devices, and an x64 fixture."""

import os

from tests import compilation

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = compilation.flags(devices=8)

import jax
import pytest


@pytest.fixture
def x64():
    """Float64 for the duration of one test; a global flip would leak."""
    with jax.enable_x64(True):
        yield
