"""One trained run for all tests of this folder."""

import pytest

from tests.tiny_runs import tiny_arguments, write_images
from train.__main__ import main
from train.errors import DONE


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Tiny images, not to be changed."""
    return write_images(tmp_path_factory.mktemp("set") / "images")


@pytest.fixture(scope="session")
def workdir(folder, tmp_path_factory):
    """A finished run of them, not to be changed."""
    place = tmp_path_factory.mktemp("runs") / "run"
    assert main(tiny_arguments(folder, place, "--epochs=2", "--output.quiet")) == DONE
    return place
