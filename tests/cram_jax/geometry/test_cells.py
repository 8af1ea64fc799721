"""Rectangles seen from cells: there and back, under all names, at every angle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.geometry.cells import (
    at_cells,
    cell_grid,
    longer_side_first,
    other_name,
    rectangle_from_code,
    rectangle_to_code,
)
from cram_jax.geometry.distances import rectangle_distance
from cram_jax.geometry.rectangle import Rectangle
from tests.checks import assert_close, finite_difference_gradient
from tests.cram_jax.geometry.test_overlap import float32

HEIGHT, WIDTH = 5, 7
GRID = cell_grid(HEIGHT, WIDTH)


def angles():
    """All round, and close to where something could jump."""
    special = np.arange(-8, 9) * np.pi / 8
    near = [special + change for change in (0, 1e-6, -1e-6)]
    return np.concatenate([*near, np.linspace(-7, 7, 40)]).astype(np.float32)


@jax.jit
def _there_and_back(array):
    rectangle = Rectangle.from_array(array)
    cell, inside = GRID.cell_of(rectangle)
    code = rectangle_to_code(rectangle, cell, GRID)
    back = rectangle_from_code(code, cell, GRID)
    other = rectangle_from_code(other_name(code), cell, GRID)
    distances = [
        rectangle_distance(rectangle, found, metric=metric)
        for metric in ("corners", "parameters")
        for found in (back, other)
    ]
    return code, cell, inside, back, jnp.stack(distances, axis=-1)


def there_and_back(array):
    """Codes, cells, whether inside, rectangles `[n]`, distances to them `[n, 4]`.

    All tests compile one shape.
    """
    array = np.asarray(array, np.float32)
    whole = _there_and_back(np.resize(array, (128, 5)))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(array)], whole)


@pytest.mark.parametrize("sizes", [(0.5, 0.2), (0.2, 0.5), (0.3, 0.3), (0.9, 1e-3)])
def test_decoding_inverts_encoding_at_every_angle(sizes):
    turns = angles()
    rng = np.random.default_rng(0)
    array = np.stack([*(np.zeros_like(turns) for _ in range(4)), turns], axis=-1)
    array[:, 0] = rng.uniform(-1, 1, len(turns))
    array[:, 1] = rng.uniform(-5 / 7, 5 / 7, len(turns))
    array[:, 2:4] = sizes
    code, _, inside, _, distances = there_and_back(array)
    assert inside.all()
    assert distances.max() < 1e-5
    assert np.abs(code[:, :2]).max() <= 0.5 + 1e-5
    assert (code[:, 2] >= code[:, 3]).all()
    assert_close(np.hypot(code[:, 4], code[:, 5]), np.ones(len(turns)), atol=1e-6)


def test_all_names_of_a_region_have_one_code_and_the_other_one_is_the_same_region():
    given = [0.1, -0.2, 0.5, 0.2, 0.7]
    swapped = [0.1, -0.2, 0.2, 0.5, 0.7 + np.pi / 2]
    turned = [0.1, -0.2, 0.5, 0.2, 0.7 - np.pi]
    code, *_, distances = there_and_back([given, swapped, turned])
    assert_close(code, np.tile(code[:1], (3, 1)), atol=1e-6)
    assert distances.max() < 1e-6
    other = np.asarray(other_name(jnp.asarray(code)))
    assert (other[:, 3] > other[:, 2]).all()
    assert (other[:, 4:] == -code[:, 4:]).all()


def test_a_code_moves_without_a_jump_when_a_rectangle_turns():
    turns = np.linspace(-2, 2, 128).astype(np.float32)
    array = np.tile(float32([0.05, 0.02, 0.2, 0.4, 0]), (128, 1))
    array[:, 4] = turns
    code = there_and_back(array)[0]
    assert np.abs(np.diff(code, axis=0)).max() < 2.1 * (turns[1] - turns[0])


def test_cells_are_numbered_by_rows_and_borders_belong_to_the_map():
    x, y = GRID.centers(jnp.float32)
    rows, columns = np.divmod(np.arange(HEIGHT * WIDTH), WIDTH)
    array = np.zeros((HEIGHT * WIDTH, 5), np.float32)
    array[:, 0], array[:, 1], array[:, 2:4] = x[columns], y[rows], 4 * 2 / 7
    code, cell, inside, *_ = there_and_back(array)
    assert (cell == np.arange(HEIGHT * WIDTH)).all()
    assert inside.all()
    # A rectangle in the middle of its cell, of the size of the base: all zeros.
    assert_close(code[:, :4], np.zeros((HEIGHT * WIDTH, 4)), atol=2e-6)
    corners = np.array([[-1, -5 / 7], [1, 5 / 7], [1.01, 0], [0, -0.8]], np.float32)
    array = np.zeros((4, 5), np.float32)
    array[:, :2] = corners
    _, cell, inside, *_ = there_and_back(array)
    assert cell.tolist() == [0, 34, 20, 3]
    assert inside.tolist() == [True, True, False, False]


def test_a_map_may_cover_an_image_of_another_shape():
    # 16 x 19 cells of an image of 61 x 75 pixels.
    grid = cell_grid(16, 19, extents=(1.0, 61 / 75))
    x, y = grid.centers(jnp.float32)
    assert_close(x, ((np.arange(19) + 0.5) / 19 * 2 - 1), atol=1e-6)
    assert_close(y, ((np.arange(16) + 0.5) / 16 * 2 - 1) * 61 / 75, atol=1e-6)
    rectangle = Rectangle(0.3, 0.8, 0.2, 0.1, 0.4)

    @jax.jit
    def round_trip():
        cell, inside = grid.cell_of(rectangle)
        code = rectangle_to_code(rectangle, cell, grid)
        return cell, inside, rectangle_from_code(code, cell, grid).as_array()

    cell, inside, back = round_trip()
    assert (int(cell), bool(inside)) == (15 * 19 + 12, True)
    assert_close(back, [0.3, 0.8, 0.2, 0.1, 0.4], atol=1e-6)


def test_what_a_map_holds_at_cells():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, HEIGHT, WIDTH, 4)).astype(np.float32)
    cell = rng.integers(0, HEIGHT * WIDTH, (2, 3, 6))
    found = jax.jit(at_cells)(maps, cell)
    assert found.shape == (2, 3, 6, 4)
    row, column = divmod(int(cell[1, 2, 5]), WIDTH)
    assert_close(found[1, 2, 5], maps[1, 2, row, column], atol=0)


def test_degenerate_sizes_and_any_six_numbers_give_finite_rectangles():
    point = float32([0.1, 0.1, 0, 0, 1])
    code, cell, _, back, _ = there_and_back([point])
    assert np.isfinite(code).all()
    assert 0 < float(back.half_width[0]) < 1e-3
    wild = float32([3.0, -9.0, 1e6, -1e6, 0.0, 0.0])

    @jax.jit
    def value_and_jacobian(code):
        def array(code):
            return rectangle_from_code(code, cell[0], GRID).as_array()

        return array(code), jax.jacobian(array)(code)

    for found in value_and_jacobian(wild):
        assert np.isfinite(found).all()


@pytest.mark.usefixtures("x64")
def test_gradient_of_decoding_is_that_of_finite_differences_and_bounded_at_zero():
    weights = np.array([0.7, -0.3, 0.9, 1.1, 0.5])

    @jax.jit
    def total(code):
        return weights @ rectangle_from_code(code, jnp.int32(9), GRID).as_array()

    gradient = jax.jit(jax.grad(total))
    for code in ([0.1, -0.4, 0.3, -0.2, 0.3, -0.4], [0.5, 0.2, -1, 0.6, -1.2, 1e-3]):
        code = np.array(code)
        expected = finite_difference_gradient(total, code, step=1e-6)
        assert_close(gradient(code), expected, atol=1e-7)
    short = np.array([0, 0, 0, 0, 1e-9, -1e-12])
    assert np.abs(gradient(short)).max() < 5


def test_longer_side_first_leaves_squares_alone():
    square = Rectangle(0.0, 0.0, 0.3, 0.3, 0.6)
    assert float(longer_side_first(square).angle) == np.float32(0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"base": 0.0}, "base must be positive"), ({"extents": (1, -1)}, "extents must")],
)
def test_mistakes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cell_grid(3, 4, **options)
