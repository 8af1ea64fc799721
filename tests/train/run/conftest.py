"""What the tests of whole runs share."""

import pytest

from tests.tiny_runs import write_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of tiny images, not to be changed."""
    return write_images(tmp_path_factory.mktemp("set") / "images")
