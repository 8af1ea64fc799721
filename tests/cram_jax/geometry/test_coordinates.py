import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.geometry.coordinates import map_extents, pixel_centers
from tests.checks import assert_close


def test_worked_example_of_the_docstring():
    x, y = pixel_centers(2, 4)
    assert_close(x, [-0.75, -0.25, 0.25, 0.75])
    assert_close(y, [-0.25, 0.25])


def test_longer_side_spans_one_and_pixels_are_square():
    for height, width in [(3, 7), (7, 3), (5, 5), (1, 11)]:
        x, y = pixel_centers(height, width)
        side = 2 / max(height, width)
        assert_close(jnp.diff(x), np.full(width - 1, side))
        assert_close(jnp.diff(y), np.full(height - 1, side))
        assert max(map_extents(height, width)) == 1
        assert_close(x[0] - side / 2, -map_extents(height, width)[0])


def test_one_pixel_is_at_the_origin():
    x, y = pixel_centers(1, 1)
    assert_close(x, [0.0])
    assert_close(y, [0.0])


def test_empty_map_is_refused():
    with pytest.raises(ValueError, match="height=0 and width=4"):
        pixel_centers(0, 4)
