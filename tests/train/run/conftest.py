"""What the tests of whole runs share."""

import jax
import pytest

from tests.tiny_runs import write_images


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """These runs compile the same programs again and again."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(tmp_path_factory.mktemp("compiled")))
    jax.config.update(names[1], 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of tiny images, not to be changed."""
    return write_images(tmp_path_factory.mktemp("set") / "images")
