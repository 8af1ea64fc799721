"""One trained run for all tests of this folder."""

import pytest

from tests.tiny_runs import finish, write_images


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Tiny images, not to be changed."""
    return write_images(tmp_path_factory.mktemp("set") / "images")


@pytest.fixture(scope="session")
def workdir(folder, tmp_path_factory):
    """A finished run of them, not to be changed."""
    return finish(folder, tmp_path_factory.mktemp("runs") / "run", "--epochs=2")
