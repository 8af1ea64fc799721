"""The embedded set of several digits: its images, their truth, its files."""

import numpy as np
import pytest

from tests.train.data.sources.opened import opened
from train.data.sources import NoSplitError
from train.data.sources.digits import many
from train.data.sources.digits.ink import digits_of, ink_box, render, upsample
from train.data.sources.digits.many import SIDE, make_sample
from train.data.sources.holding_out import HELD_OUT

CASES = [("train", index) for index in range(50)] + [
    ("test", index) for index in range(50)
]
PIXEL = 2 / SIDE


@pytest.fixture(scope="module")
def samples():
    return [make_sample(*case) for case in CASES]


@pytest.fixture
def small(monkeypatch):
    """The set with 12 and 5 images, so that preparing takes no time."""
    monkeypatch.setattr(many, "SPLIT_SIZES", {"train": 12, "test": 5})


def inside(rectangle, grown=0.0):
    """Which pixel centres lie in a rectangle, written out independently."""
    ticks = (np.arange(SIDE) + 0.5) * PIXEL - 1
    x, y = np.meshgrid(ticks, ticks)
    center_x, center_y, half_width, half_height, angle = rectangle.astype(np.float64)
    own = np.exp(-1j * angle) * (x - center_x + 1j * (y - center_y))
    return (np.abs(own.real) <= half_width + grown) & (
        np.abs(own.imag) <= half_height + grown
    )


def test_an_image_has_one_to_eight_digits_of_all_kinds(samples):
    for sample in samples:
        assert sample.image.shape == (SIDE, SIDE)
        assert sample.image.dtype == np.uint8
        assert (sample.labels.dtype, sample.rectangles.dtype) == (np.int64, np.float32)
        assert sample.rectangles.shape == (len(sample.labels), 5)
    assert {len(sample.labels) for sample in samples} == set(range(1, 9))
    labels = np.concatenate([sample.labels for sample in samples])
    assert np.bincount(labels).min() > 20


def test_an_image_depends_on_nothing_but_split_and_index(samples):
    for split, index in (("test", 3), ("train", 3)):
        again = make_sample(split, index)
        first = samples[CASES.index((split, index))]
        for one, other in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, other)
    assert (samples[0].image != samples[50].image).any()
    with pytest.raises(ValueError, match=r"split must be one of .*got 'val'"):
        make_sample("val", 0)


def test_the_rectangles_are_tight_round_the_ink_of_their_digits(monkeypatch):
    drawn = []

    def remembered(canvas, ink, pose, contrast):
        drawn.append((ink, pose))

    # Nothing but noise is left: what would be drawn is drawn here alone.
    monkeypatch.setattr(many, "render_within", remembered)
    known = {}
    for split in ("train", "test"):
        digits, labels = digits_of(split)
        known[split] = {
            upsample(d).tobytes(): n for d, n in zip(digits, labels, strict=True)
        }
    for split, index in CASES[::5]:
        drawn.clear()
        sample = make_sample(split, index)
        count = len(sample.labels)
        for position, (ink, pose) in enumerate(drawn[:count]):
            assert known[split][ink.tobytes()] == sample.labels[position]
            rectangle = sample.rectangles[position]
            there = render(ink, pose, (SIDE, SIDE)) >= 0.25
            assert there.any()
            # Half a pixel, and what bilinear sampling of the ink is off.
            assert inside(rectangle, 0.8 * PIXEL)[there].all()
            box = np.array(ink_box(ink)) * pose.scale
            np.testing.assert_allclose(
                2 * rectangle[2:4] / PIXEL, box[2:] - box[:2], rtol=1e-5
            )
        assert 4 <= len(drawn) - count <= 10


def test_ink_is_where_the_rectangles_are_and_elsewhere_too(samples):
    within, beside = [], []
    for sample in samples:
        bright = sample.image > 80
        covered = np.zeros_like(bright)
        for rectangle in sample.rectangles:
            own = inside(rectangle)
            covered |= own
            within.append(bright[own].mean())
        beside.append(bright[~covered].mean())
    assert np.min(within) > 0.15  # the thinnest digit
    assert 0.02 < np.median(beside) < 0.2  # fragments


def test_digits_lie_whole_on_the_canvas_and_none_hides_another(samples):
    rectangles = np.concatenate([sample.rectangles for sample in samples])
    x, y, w, h, angle = rectangles.T
    reach_x = w * np.cos(angle) + h * np.abs(np.sin(angle))
    reach_y = w * np.abs(np.sin(angle)) + h * np.cos(angle)
    assert (np.abs(x) + reach_x <= 1 + 1e-5).all()
    assert (np.abs(y) + reach_y <= 1 + 1e-5).all()
    assert (np.abs(angle) <= np.pi / 4).all()
    heights = 2 * h / PIXEL
    assert heights.min() >= 16 - 1e-3
    assert heights.max() <= 30 + 1e-3
    touching = 0
    for sample in samples:
        masks = np.stack([inside(rectangle) for rectangle in sample.rectangles])
        areas = masks.sum(axis=(1, 2))
        for one in range(len(masks)):
            for other in range(one):
                both = (masks[one] & masks[other]).sum()
                assert both < 0.35 * min(areas[one], areas[other])
                touching += both > 0
    assert touching > 10


@pytest.mark.parametrize(
    ("split", "index", "labels", "total", "rectangle"),
    [
        (
            "train",
            0,
            [7, 8],
            150264,
            [
                0.5748699903488159,
                0.5523399710655212,
                0.1147800013422966,
                0.18583999574184418,
                0.25110000371932983,
            ],
        ),
        (
            "train",
            3999,
            [5, 2, 1, 0, 7, 7, 6, 5],
            376379,
            [
                -0.593280017375946,
                0.5883100032806396,
                0.15252000093460083,
                0.20853999257087708,
                -0.25494998693466187,
            ],
        ),
        (
            "test",
            0,
            [8, 9, 2, 8, 2, 4, 6],
            319964,
            [
                0.6816200017929077,
                -0.7007099986076355,
                0.15498000383377075,
                0.2414799928665161,
                0.6187099814414978,
            ],
        ),
        (
            "test",
            999,
            [0, 7, 2, 9, 3, 6, 1, 1],
            307345,
            [
                -0.7477899789810181,
                -0.18577000498771667,
                0.09205000102519989,
                0.17868000268936157,
                -0.11754000186920166,
            ],
        ),
    ],
)
def test_version_1_is_frozen(split, index, labels, total, rectangle):
    assert many.VERSION == "1.0.0"
    assert many.SPLIT_SIZES == {"train": 4000, "test": 1000}
    sample = make_sample(split, index)
    assert sample.labels.tolist() == labels
    # A pixel on the edge of rounding may differ between machines.
    assert abs(int(sample.image.sum()) - total) <= 3
    np.testing.assert_allclose(sample.rectangles[-1], rectangle, atol=2e-5)


@pytest.mark.usefixtures("small")
def test_prepared_files_hold_the_images_in_order(tmp_path):
    source = opened("many_digits", "train", data_dir=tmp_path)
    info = source.info
    assert info.categories == tuple("0123456789")
    assert (info.class_names, info.truth, info.rotated_objects) == ((), "none", True)
    assert (info.channels, info.image_size) == (1, (SIDE, SIDE))
    assert len(source) == info.num_examples == 12
    for index in range(12):
        sample, example = make_sample("train", index), source[index]
        np.testing.assert_array_equal(example.image[..., 0], sample.image)
        assert example.label == -1
        objects = example.objects
        assert objects is not None
        np.testing.assert_array_equal(objects.labels, sample.labels)
        isotropic = (objects.rectangles - [SIDE / 2, SIDE / 2, 0, 0, 0]) * [
            *[PIXEL] * 4,
            1,
        ]
        np.testing.assert_allclose(isotropic, sample.rectangles, atol=1e-12)
        assert not objects.ignored.any()
    part = opened("many_digits", "train[:3]", data_dir=tmp_path)
    np.testing.assert_array_equal(part[2].image, source[2].image)
    options = {"data_dir": tmp_path, "validation": 0.25}
    held = opened("many_digits", HELD_OUT, **options)
    stay = opened("many_digits", "train", **options)
    assert (len(held), len(stay)) == (3, 9)
    shown = {example.image.tobytes() for example in (*held, *stay)}
    assert len(shown) == 12
    with pytest.raises(NoSplitError, match="many_digits has no split 'val'; it has tr"):
        opened("many_digits", "val", data_dir=tmp_path)


def test_a_name_with_a_dash_is_told_the_right_one():
    with pytest.raises(ValueError, match="Did you mean 'many_digits'"):
        opened("many-digits", "train")
