"""The training window: means over images, and what it starts from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.geometry.rectangle import Rectangle
from tests.checks import assert_close
from train.learning.window import empty_window, layer_sums, window_record
from train.tasks.sums import weighted_sum, weighted_sum_each


def step_sums(rectangles, mask, weight):
    """What a step adds up in a network of one layer."""
    rectangle = Rectangle.from_array(jnp.asarray(rectangles, jnp.float32))
    layer = {"rectangle": rectangle, "mask": mask}
    return {
        "loss": jnp.ones(()),
        "weight": jnp.sum(weight),
        "layers": {"attention1": layer_sums(layer, weight)},
    }


def test_without_images_there_is_no_record():
    sums = step_sums([[0.0, 0.0, 0.5, 0.5, 0.0]], jnp.ones((1, 6, 6)), jnp.ones(1))
    window = jax.device_get(empty_window(sums))
    assert window_record(window) == {}
    assert window_record(window | {"steps": 1.0}) == {"gradient_norm": 0}


def test_a_window_has_the_names_of_what_a_step_adds_up_and_starts_from_nothing():
    sums = step_sums([[0.1, 0.2, 0.5, 0.5, 0.0]], jnp.ones((1, 6, 6)), jnp.ones(1))
    window = empty_window(jax.eval_shape(lambda: sums))
    found = {name: window[name] for name in sums}
    assert jax.tree.structure(found) == jax.tree.structure(sums)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(found))


def test_values_per_rectangle_are_not_summed_by_weights_of_images():
    weight = jnp.ones(4)
    for shape in ((4, 4), (4, 1), ()):
        with pytest.raises(ValueError, match=r"one value per image; got .* \(4,\)"):
            weighted_sum(weight, jnp.ones(shape))
    for shape in ((4,), (3, 4), (4, 4, 4)):
        with pytest.raises(ValueError, match=r"K values per image, .* \(4,\)"):
            weighted_sum_each(weight, jnp.ones(shape))
    with pytest.raises(ValueError, match=r"\(4, 4, 4\) and a mask \(4, 6, 6\)"):
        step_sums(jnp.ones((4, 4, 4, 5)) / 2, jnp.ones((4, 6, 6)), weight)


def test_the_window_gives_means_and_the_spread_of_centres():
    rectangles = [[-0.3, 0.0, 0.5, 0.2, 0.0], [0.3, 0.0, 0.7, 0.2, 1.0]]
    sums = step_sums(rectangles, jnp.full((2, 3, 3), 0.25), jnp.ones(2))
    record = window_record(jax.device_get(empty_window(sums) | sums | {"steps": 1.0}))
    assert record["loss"] == 0.5
    assert record["attention1/mask_area"] == pytest.approx(0.25)
    assert record["attention1/half_width"] == pytest.approx(0.6)
    assert_close(record["attention1/center_spread"], 0.3, dtype="float32")
