"""Tolerances and comparisons shared by the tests: one place to argue about."""

import jax
import jax.numpy as jnp
import numpy as np

ABSOLUTE_AND_RELATIVE = {
    "float64": 1e-8,
    "float32": 1e-5,
    "bfloat16": 1e-2,
    "float16": 2e-3,
}
FINITE_DIFFERENCES = 5e-4
# Accelerators round matrix products more coarsely than CPUs.
ACCELERATOR_FACTOR = 20.0


def tolerance(dtype) -> float:
    """The tolerance for values that were computed in `dtype`."""
    value = ABSOLUTE_AND_RELATIVE.get(jnp.dtype(dtype).name, 0.0)
    return value if jax.default_backend() == "cpu" else value * ACCELERATOR_FACTOR


def assert_close(actual, expected, *, atol=None, rtol=None, dtype=None):
    """Asserts that two arrays are finite, of one shape, and close.

    `dtype` is the precision of the computation (default: that of `actual`).
    """
    default = tolerance(dtype or jnp.asarray(actual).dtype)
    actual = np.asarray(actual, np.float64)
    expected = np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert np.isfinite(actual).all(), "not finite"
    np.testing.assert_allclose(
        actual,
        expected,
        atol=default if atol is None else atol,
        rtol=default if rtol is None else rtol,
    )


def assert_tree_finite(tree):
    """Asserts that no leaf holds a NaN or an infinity."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.asarray(leaf, np.float64)
        assert np.isfinite(values).all(), f"{jax.tree_util.keystr(path)} not finite"


def finite_difference_gradient(function, array, *, step=1e-5):
    """Central differences of a scalar function of one float64 numpy array."""
    array = np.asarray(array, np.float64)
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        ahead, behind = array.copy(), array.copy()
        ahead[index] += step
        behind[index] -= step
        difference = float(function(ahead)) - float(function(behind))
        gradient[index] = difference / (2 * step)
    return gradient
