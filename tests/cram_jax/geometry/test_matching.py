"""Which detections are right: every rule on an example that fits on paper."""

import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.geometry.matching import (
    COCO_THRESHOLDS,
    join_matches,
    match_detections,
)
from cram_jax.geometry.rectangle import Rectangle


def strips(*ends):
    """Boxes from x = 0 to the ends, 1 high: overlaps are ratios of the ends."""
    return np.array([[end / 2, 0.5, end / 2, 0.5, 0.0] for end in ends]).reshape(-1, 5)


def match(found, true, *, scores=None, thresholds=(0.5,), **settings):
    """Strips of one class, the best first unless scores are given."""
    scores = -np.arange(len(found)) if scores is None else scores
    labels, true_labels = np.zeros(len(found), int), np.zeros(len(true), int)
    return match_detections(
        strips(*found),
        scores,
        labels,
        strips(*true),
        true_labels,
        thresholds=thresholds,
        **settings,
    )


def fates(found, true, **settings):
    """What each detection is at the only threshold, as a word of letters."""
    matches = match(found, true, **settings)
    assert not (matches.right & matches.ignored).any()
    states = matches.right[:, 0] + 2 * matches.ignored[:, 0]
    return "".join("xri"[state] for state in states)


def test_thresholds_are_pycocotools():
    pycocotools = pytest.importorskip("pycocotools.cocoeval")
    assert list(COCO_THRESHOLDS) == pycocotools.Params("bbox").iouThrs.tolist()


@pytest.mark.parametrize(
    ("found", "true", "settings", "expected"),
    [
        # An overlap of exactly the threshold is enough.
        ([5], [10], {}, "r"),
        ([4.999], [10], {}, "x"),
        # A truth is found once, by the surest and not by the closest.
        ([8, 10], [10], {}, "rx"),
        ([8, 10], [10], {"scores": [0.1, 0.9]}, "xr"),
        # Of equal scores the first one chooses first.
        ([8, 10, 9], [10], {"scores": [0.5, 0.5, 0.5]}, "rxx"),
        # It takes the closest, which may leave the next one nothing.
        ([8, 9], [7, 14], {}, "rr"),
        ([8, 6.9], [7, 20], {}, "rx"),
        # Wanted truths come before ignored ones that are closer, and those after.
        ([8], [10, 8], {"ignored": [False, True]}, "r"),
        ([8], [10, 8], {"ignored": [True, False]}, "r"),
        ([8, 8, 8], [10, 8], {"ignored": [False, True]}, "rix"),
        ([8, 8, 8], [10, 8], {"ignored": np.array([0, 1])}, "rix"),
        # A crowd is never used up, and what lies in it counts by its own size.
        ([8, 8, 1, 1], [10, 40], {"crowd": [False, True]}, "riii"),
        ([8, 1, 1], [10, 40], {"ignored": [False, True]}, "rxx"),
        ([9], [4], {"crowd": [True]}, "x"),
        ([8], [4], {"crowd": [True]}, "i"),
        ([8, 8], [8], {"crowd": [True], "ignored": [True]}, "ii"),
        # What is beyond the limit does not count, whatever it would have been.
        ([3, 9, 3, 9], [10, 10], {"max_detections": 2}, "xrii"),
        ([3, 3, 9], [10], {"max_detections": 2, "scores": [1, 2, 3]}, "ixr"),
        # One list, or both, may be empty.
        ([4, 4], [], {}, "xx"),
        ([], [4, 4], {}, ""),
        ([], [], {}, ""),
    ],
)
def test_what_becomes_of_each_detection(found, true, settings, expected):
    assert fates(found, true, **settings) == expected


def test_of_equal_overlaps_the_last_truth_is_taken():
    # The first detection overlaps by 1/2 with both, the second with the 16 only.
    assert fates([8, 12], [16, 4]) == "rr"
    assert fates([8, 12], [4, 16]) == "rx"


def test_every_threshold_is_matched_on_its_own():
    # At 0.5 the surest takes the truth; at 0.7 it is too far, and leaves it.
    matches = match([6, 8], [10], thresholds=(0.5, 0.7, 0.9))
    assert matches.right.T.tolist() == [[True, False], [False, True], [False, False]]


def test_classes_do_not_meet():
    settings = {"thresholds": (0.5,), "max_detections": 1}
    found, true = strips(8, 10, 10, 10), strips(10, 10, 10)
    labels, true_labels = [2, 0, 0, 7], [0, 2, 5]
    matches = match_detections(
        found, [4, 3, 2, 1], labels, true, true_labels, crowd=[0, 0, 1], **settings
    )
    assert matches.right[:, 0].tolist() == [True, True, False, False]
    assert matches.ignored[:, 0].tolist() == [False, False, True, False]
    assert matches.labels.tolist() == labels
    assert matches.wanted_labels.tolist() == [0, 2]


def test_equal_rectangles_match_at_threshold_one_at_any_angle():
    one = np.array([[0.1, 0.2, 0.3, 0.4, 0.7]])
    matches = match_detections(one, [1.0], [0], one, [0], thresholds=[1.0])
    assert matches.right.all()


def test_what_is_no_number_is_wrong_and_comes_last():
    found = strips(10, 10, 10, 10)
    found[0, 2], found[1, 4] = np.nan, np.inf
    scores = np.array([4, 3, np.nan, 0.5], np.float32)
    matches = match_detections(found, scores, [0] * 4, strips(10), [0])
    assert matches.right[:, 0].tolist() == [False, False, False, True]
    assert not matches.ignored.any()
    assert matches.scores.tolist() == [4, 3, -np.inf, 0.5]


def test_takes_rectangles_and_arrays_of_jax_in_any_precision():
    found, true = strips(8, 3, 16), strips(16, 8)
    scores, labels, true_labels = [0.5, 0.25, 2], [0, 1, 1], [1, 0]
    expected = match_detections(found, scores, labels, true, true_labels, crowd=[0, 1])
    matches = match_detections(
        Rectangle.from_array(jnp.asarray(found, jnp.bfloat16)),
        jnp.asarray(scores, jnp.bfloat16),
        jnp.asarray(labels),
        jnp.asarray(true, jnp.float16),
        jnp.asarray(true_labels, jnp.uint8),
        crowd=jnp.array([False, True]),
    )
    for one, other in zip(matches, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert type(one) is np.ndarray
        assert one.dtype == other.dtype
    assert expected.right[2].all()
    assert expected.ignored[0].all()


def test_joined_matches_are_those_of_all_images_in_order():
    parts = [match([10, 4], [10]), match([], [5, 6]), match([5], [])]
    joined = join_matches(parts)
    assert joined.scores.tolist() == [0, -1, 0]
    assert joined.right[:, 0].tolist() == [True, False, False]
    assert len(joined.wanted_labels) == 3
    again = join_matches([join_matches(parts[:1]), join_matches(parts[1:])])
    for one, other in zip(joined, again, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("parts", [[], [(0.5,), (0.5, 0.6)]])
def test_refuses_to_join_nothing_and_what_does_not_fit(parts):
    with pytest.raises(ValueError, match="at least one, must have the same thresholds"):
        join_matches(match([4], [4], thresholds=each) for each in parts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [0.5]}, r"scores must hold one value.*got shape \[1\] beside 2"),
        ({"labels": [[0, 0]]}, r"labels must hold one value.*got shape \[1, 2\]"),
        ({"labels": [0.0, 1.0]}, "labels must be whole numbers, got float64"),
        ({"true_labels": [True]}, "true_labels must be whole numbers, got bool"),
        ({"crowd": [2]}, r"crowd must be True or False, got \[2\]"),
        ({"ignored": []}, "ignored must hold one value"),
        ({"thresholds": [0.0]}, r"thresholds must be a list of overlaps in \(0, 1\]"),
        ({"thresholds": 0.5}, "thresholds must be a list"),
        ({"thresholds": []}, "thresholds must be a list"),
        ({"thresholds": [0.5, np.nan]}, "thresholds must be a list"),
        ({"max_detections": 0}, "max_detections must be a whole number of at least 1"),
        ({"rectangles": np.zeros((2, 4))}, r"rectangles must be \[N, 5\]"),
        ({"true_rectangles": -strips(4)}, "true_rectangles must have half sizes"),
        ({"true_rectangles": strips(np.nan)}, "true_rectangles must be finite"),
    ],
)
def test_refuses_what_does_not_fit(changes, message):
    given = {
        "rectangles": strips(4, 5),
        "scores": [0.5, 0.4],
        "labels": [0, 1],
        "true_rectangles": strips(4),
        "true_labels": [0],
    }
    with pytest.raises(ValueError, match=message):
        match_detections(**{**given, **changes})
