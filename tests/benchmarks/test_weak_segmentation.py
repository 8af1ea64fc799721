"""Masks made from what networks show, and the table of what is learnt from them."""

import json

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import Point, Polygon

from benchmarks import weak_segmentation
from benchmarks.weak_segmentation import Options, fit_folder, made_folder, markdown
from benchmarks.weak_segmentation_masks import (
    MAP,
    MASKS,
    RECTANGLE,
    highest_pixels,
    make_folders,
    object_pixels,
    rectangle_mask,
)
from train.commands.options import parse_fit
from train.data.sources.base import IGNORED
from train.data.sources.opening import open_source
from train.data.views import eval_view
from train.evidence.sight import Sight
from train.use import Prediction

SIZE = 24, 40


def prediction(rectangle, size=SIZE):
    view = eval_view(size, (16, 16))
    sight = Sight({"attention": np.array(rectangle)}, {}, view, size)
    rows, columns = np.mgrid[:16, :16].astype(np.float32) / 15
    cam = Sight({}, {"cam": rows * columns}, view, size)
    return Prediction({}, (), None, None, sight, cam)


def test_a_mask_is_the_inside_of_the_rectangle_on_the_photograph():
    found = prediction([0.1, -0.2, 0.6, 0.3, 0.5])
    corners = Polygon(found.rectangles["attention"]["corners"])
    mask = rectangle_mask(found)
    inside = [
        [corners.contains(Point(x + 0.5, y + 0.5)) for x in range(SIZE[1])]
        for y in range(SIZE[0])
    ]
    np.testing.assert_array_equal(mask, inside)


def test_the_highest_pixels_are_as_many_as_asked_for_and_were_seen():
    values = np.arange(12.0).reshape(3, 4)
    seen = np.ones((3, 4), bool)
    seen[2, 3] = False
    chosen = highest_pixels(values, 3, seen)
    assert set(values[chosen]) == {8, 9, 10}
    assert highest_pixels(values, 99, seen).sum() == 11


def test_pixels_of_two_objects_count_where_both_regions_are_known():
    made = np.array([[1, 1, 0, 0, IGNORED, 1]])
    true = np.array([[1, 0, 1, 0, 1, IGNORED]])
    assert object_pixels(made, true) == (1, 3)


class Network:
    """What `TrainedRun.predict` gives, without a network."""

    def predict(self, images, *, cam=False):
        found = []
        for file in images:
            with Image.open(file) as image:
                size = image.size[::-1]
            found.append(prediction([0.0, 0.0, 0.5, 0.5, 0.0], size))
        return found


@pytest.fixture
def folder(tmp_path):
    """Two training photographs and a test photograph, wider than high, with masks."""
    for name in ("train/a/0", "train/b/1", "test/a/2", "test/b/3"):
        photograph = tmp_path / "set" / f"{name}.png"
        mask = tmp_path / "set" / MASKS / f"{name}.png"
        for path, values in (
            (photograph, np.full((*SIZE, 3), 90, np.uint8)),
            (mask, np.uint8(255) * (np.indices(SIZE)[1] < 20)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(path)
    return tmp_path / "set"


def test_made_masks_stand_in_for_the_true_ones_of_training_images_only(folder):
    places = {kind: folder.parent / kind for kind in (RECTANGLE, MAP)}
    quality = make_folders(folder, places, Network(), Network())
    # 12 x 12 pixels in the middle against the left half: 12 x 6 of 24 x 20 + 12 x 6 in
    # the square of 24 that was seen, whose left border is pixel 8.
    assert quality[RECTANGLE] == 72 / (24 * 12 + 72)
    for kind, place in places.items():
        arguments = ["--preset", "pets3-segment", *fit_folder(place)]
        config = parse_fit([*arguments, "--data.validation", "0"]).data
        made, test = (open_source(config, split) for split in ("train", "test"))
        assert len(made) == len(test) == 2
        regions = made[0].regions
        assert (regions == 1).sum() == 144, kind
        assert (regions == IGNORED).sum() == 24 * 16
        assert (test[0].regions == 1).sum() == 24 * 20
        assert not (test[0].regions == IGNORED).any()


def evaluation(iou, made=None):
    scores = {"test": {"mean_iou": iou, "iou_object": iou - 0.1}}
    return scores | ({} if made is None else {"made": {"iou_object": made}})


def test_the_table_pairs_seeds(monkeypatch, tmp_path):
    def of_seed(options, name, seed):
        assert (name, options.seeds) == ("a", 2)
        return {
            "true masks": evaluation(0.9 + seed / 100),
            RECTANGLE: evaluation(0.7 + seed / 50, 0.6),
            MAP: evaluation(0.6, 0.5),
        }

    monkeypatch.setattr(weak_segmentation, "train_all", of_seed)
    drawn = []
    monkeypatch.setattr(weak_segmentation, "picture_rows", lambda *of: drawn.append(of))
    results = tmp_path / "out" / "weak"
    places = ["--workdir", str(tmp_path / "w"), "--results", str(results)]
    weak_segmentation.main(["--sets", "a", "--seeds", "2", *places])
    text = results.with_suffix(".md").read_text()
    assert text == markdown(json.loads(results.with_suffix(".json").read_text()))
    assert f"- {RECTANGLE}: -0.1950 ± 0.0635; above on 0 of 2" in text
    assert f"- {RECTANGLE}: +0.1100 ± 0.1271; above on 2 of 2" in text
    ((workdirs, picture),) = drawn
    options = Options(workdir=tmp_path / "w", sets=("a",))
    assert [w.name for w in workdirs] == [
        made_folder(options, "a", kind, 0).name for kind in (RECTANGLE, MAP)
    ]
    assert picture == tmp_path / "out" / "weak_a.png"
