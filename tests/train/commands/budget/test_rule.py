"""The rule that chooses an area, at the edges of what it allows."""

import pytest
from scipy import stats

from train.commands.budget.picture import curve_picture
from train.commands.budget.rule import Point, choose_area, rule_sentences
from train.commands.intervals import share_interval


def points(**accuracies):
    """A curve whose masks are a little wider than asked for."""
    targets = {float(f"0.{name[1:]}"): value for name, value in accuracies.items()}
    return [Point(t, t + 0.02, accuracy) for t, accuracy in targets.items()]


def words(choice, curve, bare, images):
    return " ".join(rule_sentences(choice, curve, bare, images))


@pytest.mark.parametrize("turn", [1, -1])
def test_the_smallest_area_within_a_point_is_chosen_in_any_order(turn):
    curve = points(a2=0.93, a33=0.955, a5=0.96, a7=0.96)[::turn]
    choice = choose_area(curve, 0.964, 1000)
    assert choice == (0.33, 0.01, ())
    assert choose_area(curve, 0.964, 1000, within=0.002).target is None
    assert choose_area(curve, 0.964, 1000, within=0.05).target == 0.2


def test_a_loss_of_exactly_what_is_allowed_passes():
    # 0.96 - 0.95 is a little more than 0.01 in floating point.
    assert 0.96 - 0.95 > 0.01
    assert choose_area(points(a3=0.95), 0.96, 1000).target == 0.3
    assert choose_area(points(a3=0.949), 0.96, 1000).target is None


@pytest.mark.parametrize("right", range(31))
def test_where_one_image_is_more_than_a_point_one_image_may_be_lost(right):
    """Counted in whole images, which have no rounding."""
    curve = [Point(0.3, 0.3, right / 30)]
    for bare in range(31):
        choice = choose_area(curve, bare / 30, 30)
        assert (choice.target == 0.3) == (bare - right <= 1)
        assert choice.allowed == 1 / 30
    assert "one image is worth 3.3 points" in words(choice, curve, 1.0, 30)


def test_with_enough_images_nothing_is_said_of_one_image():
    curve = points(a3=0.95)
    choice = choose_area(curve, 0.95, 101)
    assert choice.allowed == 0.01
    assert words(choice, curve, 0.95, 101).startswith("Rule: the smallest area whose")
    assert "one image" not in words(choice, curve, 0.95, 101)


def test_a_network_better_than_the_bare_one_passes():
    assert choose_area(points(a2=0.99), 0.9, 50).target == 0.2


def test_where_no_area_passes_the_widest_says_how_far():
    curve = points(a2=0.5, a7=0.9)
    choice = choose_area(curve, 0.95, 500)
    assert choice.target is None
    said = words(choice, curve, 0.95, 500)
    assert "No area passes: the widest, 0.7, loses 5.0 points." in said
    assert "--areas" in said


def test_wider_areas_that_fail_are_named():
    curve = points(a2=0.95, a33=0.9, a5=0.95, a7=0.8)
    choice = choose_area(curve, 0.95, 500)
    assert choice == (0.2, 0.01, (0.33, 0.7))
    assert "Wider areas (0.33, 0.7) lose more" in words(choice, curve, 0.95, 500)


@pytest.mark.parametrize("count", [1, 30, 400])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.97, 1.0])
def test_the_interval_of_a_share_is_scipys(share, count):
    right = round(share * count)
    expected = stats.binomtest(right, count).proportion_ci(method="wilson")
    found = share_interval(right / count, count)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
@pytest.mark.parametrize("chosen", [None, 0.3])
def test_a_curve_is_drawn_where_all_or_no_images_are_right(accuracy, chosen):
    content = curve_picture([Point(0.3, 0.35, accuracy)], accuracy, 24, chosen)
    assert content.startswith(b"\x89PNG")


@pytest.mark.parametrize(("share", "count"), [(0.5, 0), (1.1, 5), (-0.1, 5)])
def test_no_interval_of_what_is_no_share(share, count):
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        share_interval(share, count)
