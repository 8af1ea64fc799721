"""Regions as colours on an image."""

import numpy as np
import pytest

from cram_jax.drawing import overlay_regions, region_colors


def test_each_region_has_its_tint_the_background_none_and_the_unknown_grey():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    regions = np.array([[0, 1, 2], [255, 3, 0]], np.uint8)
    found = overlay_regions(image, regions, count=3, opacity=0.25)
    colors = {1: region_colors(2)[0], 2: region_colors(2)[1], 3: (128,) * 3}
    colors[255] = colors[3]
    # Each pixel of the regions covers two by two of the image.
    for row, column in np.ndindex(4, 6):
        region = int(regions[row // 2, column // 2])
        expected = image[row, column].astype(float)
        if region:
            expected += 0.25 * (np.array(colors[region]) - expected)
        assert np.abs(found[row, column] - expected).max() <= 0.5


def test_a_grey_image_of_any_size_gets_colours():
    regions = np.arange(35).reshape(5, 7) % 3
    found = overlay_regions(np.full((13, 11), 0.5), regions, count=3)
    assert found.shape == (13, 11, 3)
    assert found.dtype == np.uint8
    assert len(np.unique(found.reshape(-1, 3), axis=0)) == 3


def test_many_regions_have_colours_that_differ():
    colors = region_colors(40)
    assert colors.shape == (40, 3)
    distances = np.abs(colors[:, None].astype(int) - colors[None]).sum(-1)
    assert distances[~np.eye(40, dtype=bool)].min() > 5
    assert region_colors(0).shape == (0, 3)


@pytest.mark.parametrize(("shape", "opacity"), [((3,), 0.5), ((3, 3), 1.5)])
def test_mistakes_are_refused_with_what_came(shape, opacity):
    with pytest.raises(ValueError, match="opacity lies in"):
        overlay_regions(
            np.zeros((3, 3)), np.zeros(shape, int), count=2, opacity=opacity
        )
