"""The faithfulness benchmark: regions, the judge, planted markers, and the report."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import faithfulness
from benchmarks import faithfulness_judge as judging
from benchmarks import faithfulness_marker as marking
from benchmarks.faithfulness_judge import BOX, CAM, CENTRAL, MASK, RECTANGLE
from benchmarks.faithfulness_regions import (
    central,
    hidden,
    highest,
    random_regions,
)
from benchmarks.faithfulness_report import judge_lines, markdown
from tests.tiny_runs import random_batch, tiny_config, write_images
from train.data.loaders import Feed
from train.tasks.registry import make_task


def test_hidden_pixels_have_the_colour_and_the_others_are_kept():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 8, 6, 3), np.uint8)
    regions = rng.uniform(size=(3, 8, 6)) < 0.5
    one = hidden(images, regions, np.array([1, 2, 3], np.uint8))
    assert (one[regions] == images[regions]).all()
    assert (one[~regions] == [1, 2, 3]).all()
    fills = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)
    each = hidden(images, regions, fills)
    for row in range(3):
        assert (each[row][~regions[row]] == fills[row]).all()


def test_random_regions_are_as_often_their_complements_and_of_many_sizes():
    regions = random_regions(np.random.default_rng(0), 800, 32, 48)
    shares = regions.mean(axis=(1, 2))
    assert np.mean(shares == 1) == pytest.approx(0.2, abs=0.04)
    part = shares[shares < 1]
    # A region and its complement are equally likely, so the mean is a half.
    assert np.mean(part) == pytest.approx(0.5, abs=0.03)
    assert part.min() < 0.25
    assert part.max() > 0.85
    # Nowhere is hidden or shown always.
    seen = regions[shares < 1].mean(axis=0)
    assert 0.3 < seen.min() <= seen.max() < 0.7
    again = random_regions(np.random.default_rng(0), 800, 32, 48)
    assert (again == regions).all()


def test_the_highest_values_are_as_many_as_asked():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, (4, 7, 5)).astype(np.float32)  # with ties
    counts = np.array([0, 1, 17, 35])
    regions = highest(values, counts)
    assert regions.sum(axis=(1, 2)).tolist() == counts.tolist()
    for value, region in zip(values[1:3], regions[1:3], strict=True):
        assert value[region].min() >= value[~region].max()


def test_central_squares_have_the_area_and_are_central():
    regions = central(np.array([16, 17, 0, 80]), 8, 10)
    assert regions.sum(axis=(1, 2)).tolist() == [16, 17, 0, 80]
    assert regions[0, 2:6, 3:7].all()


def test_a_judge_learns_from_masked_images_and_true_labels(monkeypatch):
    config = tiny_config()
    batch = random_batch(0, 8)
    monkeypatch.setattr(Feed, "train_batches", lambda self, step, put: put(batch))
    found = judging.MaskedFeed(config).train_batches(0, lambda batch: batch)
    again = judging.MaskedFeed(config).masked(batch)
    assert (found["image"] == again["image"]).all()
    other = judging.MaskedFeed(dataclasses.replace(config, seed=1)).masked(batch)
    assert (found["image"] != other["image"]).any()
    assert {name for name in batch if found[name] is not batch[name]} == {"image"}
    kept = (found["image"] == batch["image"]).all(axis=-1)
    black = (found["image"] == 0).all(axis=-1)
    mean = (found["image"] == judging.mean_colour(config)).all(axis=-1)
    assert (kept | black | mean).all()
    assert (~kept).any(axis=(1, 2)).sum() >= 3


def test_a_judge_is_trained_and_read_from_its_directory(tmp_path):
    folder = write_images(tmp_path / "data")
    config = tiny_config(tmp_path / "judge", epochs=1.0)
    data = dataclasses.replace(config.data, name=f"folder:{folder}")
    judging.train_judge(dataclasses.replace(config, data=data))
    judge = judging.restored(tmp_path / "judge")
    assert int(judge.step) == 3
    batch = judging.evaluation_images(judge, f"folder:{folder}")
    assert len(batch["image"]) == 15
    right = judging.accuracy_of(judge)(batch) * 15
    assert right == pytest.approx(round(right))


def test_parts_of_a_batch_are_whole_again():
    batch = {"image": np.arange(10), "label": np.arange(10)}
    parts = list(judging.chunks(batch, 4))
    assert [len(part["image"]) for part, _ in parts] == [4, 4, 4]
    rows = judging.joined([(part["image"], count) for part, count in parts])
    assert rows.tolist() == list(range(10))


def test_a_judge_that_needs_the_object_is_right_where_the_object_is(monkeypatch):
    batch = random_batch(0, 8)
    fill = judging.mean_colour(tiny_config())
    row, column = ((batch["rectangle"][:, [1, 0]] + 1) * 6).astype(int).T

    def needs_the_middle_of_the_object(_):
        def accuracy(batch):
            pixels = batch["image"][np.arange(8), row, column]
            return float(np.mean((pixels != fill).any(axis=-1)))

        return accuracy

    monkeypatch.setattr(judging, "accuracy_of", needs_the_middle_of_the_object)
    true = np.zeros((8, 12, 12), bool)
    true[np.arange(8), row, column] = True
    regions = {BOX: true, RECTANGLE: np.ones_like(true), CENTRAL: np.zeros_like(true)}

    class Judge:
        config = tiny_config()

    found = judging.judge_scores(Judge(), batch, regions)  # type: ignore[arg-type]
    assert found["whole"] == 1
    assert found["inside"] == {BOX: 1, RECTANGLE: 1, CENTRAL: 0}
    assert found["outside"] == {BOX: 0, RECTANGLE: 0, CENTRAL: 1}
    assert found["area"][BOX] == pytest.approx(1 / 144)


SIDE = 6


@pytest.fixture(scope="module", params=marking.VARIANTS)
def marked(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("marked")
    source = write_images(root / "source")
    settings = {"size": 24, "side": SIDE}
    folders = marking.make_folders(source, root / "out", request.param, **settings)
    return source, root / "out", request.param, folders


def boxes_of(folder):
    with (folder / "boxes.csv").open() as file:
        return {
            row["path"]: [int(row[name]) for name in ("xmin", "ymin", "xmax", "ymax")]
            for row in csv.DictReader(file)
        }


def test_the_marker_is_in_its_box_and_tells_the_class(marked):
    folders = marked[3]
    kinds = [marking.marker_of(kind, 3, SIDE) for kind in range(3)]
    classes = sorted(path.name for path in (folders["marked"] / "train").iterdir())
    boxes = boxes_of(folders["marked"])
    assert len(boxes) == 24 + 15
    for path, (left, top, right, bottom) in boxes.items():
        label = classes.index(path.split("/")[1])
        images = {
            name: np.asarray(Image.open(folder / path))
            for name, folder in folders.items()
        }
        inside = np.zeros((24, 24), bool)
        inside[top:bottom, left:right] = True
        shown = images["marked"][top:bottom, left:right]
        assert (shown == kinds[label]).all()
        swapped = images["swapped"][top:bottom, left:right]
        assert any((swapped == kinds[kind]).all() for kind in {0, 1, 2} - {label})
        for name in ("marked", "swapped"):
            assert (images[name] == images["plain"])[~inside].all()
        assert (shown != images["plain"][top:bottom, left:right]).any()


def test_alone_the_photograph_does_not_tell_the_class(marked):
    source, _, variant, _ = marked
    room, classes = 24 - SIDE + 1, ("blob", "cross", "edge")
    found = list(marking.planned(source, classes, variant, room))
    own = [each.file.parent.name == classes[each.label] for each in found]
    assert all(own) == (variant == "beside")
    if variant == "alone":
        assert np.mean(own) < 0.7
    # As many of each class as there were, and never the same marker twice.
    for split, count in (("train", 8), ("test", 5)):
        labels = [each.label for each in found if each.split == split]
        assert np.bincount(labels).tolist() == [count] * 3
    assert all(each.label != each.other for each in found)
    places = [(each.x, each.y) for each in found]
    assert 0 <= np.min(places) <= np.max(places) < room
    beside = marking.planned(source, classes, "beside", room)
    assert [(each.x, each.y) for each in beside] == places


def test_folders_are_made_once(marked):
    source, root, variant, folders = marked
    file = next((folders["marked"] / "test").rglob("*.png"))
    before = file.stat().st_mtime_ns
    again = marking.make_folders(source, root, variant, size=24, side=SIDE)
    assert again == folders
    assert file.stat().st_mtime_ns == before


def test_the_program_takes_the_marker_for_the_object(marked):
    folders = marked[3]
    config = tiny_config()
    name = f"folder:{folders['marked']}"
    data = dataclasses.replace(config.data, name=name, image_size=24)
    config = dataclasses.replace(config, data=data)
    feed = Feed(config, make_task(config))
    assert feed.inputs.truth == "box"
    batch = feed.fixed_batch(15)
    found = marking._pixel_boxes(batch["rectangle"], 24)
    boxes = boxes_of(folders["marked"])
    expected = sorted(box for path, box in boxes.items() if path.startswith("test"))
    whole = np.rint(found)
    assert np.allclose(found, whole, atol=1e-4)
    assert sorted(whole.tolist()) == expected


def test_markers_look_alike_in_the_mirror_but_for_the_phase_of_their_checks():
    kinds = [marking.marker_of(kind, 10, 12) for kind in range(10)]
    colours = [{tuple(map(int, pixel)) for pixel in m.reshape(-1, 3)} for m in kinds]
    assert all(len(colour) == 2 for colour in colours)
    assert len({frozenset(colour) for colour in colours}) == 10


def test_looks_are_judged_against_their_own_marker_and_against_others():
    boxes = np.array([[0, 0, 4, 4], [10, 10, 14, 14], [4, 12, 8, 16]], float)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    regions = np.zeros((3, 16, 16), bool)
    for region, (left, top, right, bottom) in zip(regions, boxes, strict=True):
        region[int(top) : int(bottom), int(left) : int(right)] = True
    found = marking._look(middles, regions, boxes, 1.0)
    assert found == {
        "on": 1.0,
        "near": 1.0,
        "near, chance": 0.0,
        "inside": 1.0,
        "inside, chance": 0.0,
        "area": 16 / 256,
    }
    beside = marking._look(middles + np.array([2.5, 0]), regions, boxes, 1.0)
    assert (beside["on"], beside["near"]) == (0, 1)
    assert marking.pointed(middles + np.array([3.5, 0]), boxes, 1.0) == 0


def judge_record(rectangle: float, others: float):
    inside = dict.fromkeys((CAM, MASK, CENTRAL), others) | {RECTANGLE: rectangle}
    outside = dict.fromkeys((CAM, MASK, CENTRAL), 1 - others) | {
        RECTANGLE: 1 - rectangle
    }
    return {
        "images": 298,
        "whole": 0.95,
        "area": dict.fromkeys((*inside, BOX), 0.33),
        "inside": inside | {BOX: 0.9},
        "outside": outside | {BOX: 0.2},
    }


def test_the_report_pairs_seeds_and_says_which_way_is_better():
    of_set = {
        str(seed): {
            judge: judge_record(0.90 + 0.001 * seed + 0.01 * number, 0.8)
            for number, judge in enumerate(("100", "101"))
        }
        for seed in range(3)
    }
    record = {"command": "c", "machine": "m", "marker_side": 12, "marked": {}}
    text = markdown({**record, "judged": {"pets3": of_set}})
    mean = np.mean([0.905, 0.906, 0.907])
    assert f"| {RECTANGLE} | 0.330 ± 0.000 | {mean:.4f} ± " in text
    assert text.count("**holds**") == 6
    assert f"(+{mean - 0.8:.4f} ±" in text
    assert f"({0.8 - mean:+.4f} ±" in text


def test_seeds_are_paired_by_name_where_one_lacks_a_region():
    """Seed 0 has no map of a position-wise layer, and one judge."""
    rectangle, mask = [0.5, 0.7, 0.9, 0.8], [0.6, 0.85, 0.72]
    of_set = {
        str(seed): {str(judge): judge_record(value, 0.5) for judge in range(1 + seed)}
        for seed, value in enumerate(rectangle[:2])
    }
    of_set |= {
        str(seed): {"0": judge_record(rectangle[seed], 0.5)} for seed in range(2, 4)
    }
    for seed, judges in of_set.items():
        for scores in judges.values():
            for side in ("inside", "outside"):
                scores[side][MASK] = None if seed == "0" else mask[int(seed) - 1]
    text = "\n".join(judge_lines(of_set, "pets3"))
    assert "4 seeds of networks, each with 1 or 2 judges" in text
    mean = np.mean(np.subtract(rectangle[1:], mask))
    assert f"inside than with the {MASK}: **holds** ({mean:+.4f} ±" in text
    assert ", 3 seeds)" in text


def test_the_report_is_written_where_nothing_is_there_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = ["--workdir", "w", "--results", "out/faithfulness", "--runs", "r"]
    faithfulness.main(["--only-report", *places])
    record = json.loads((tmp_path / "out/faithfulness.json").read_text())
    assert record["judged"] == record["marked"] == {}
    assert (tmp_path / "out/faithfulness.md").exists()


def test_scores_that_are_there_are_not_computed_again(tmp_path):
    path, calls = tmp_path / "a" / "b.json", []

    def compute():
        calls.append(1)
        return {"x": 1}

    assert faithfulness.kept(path, True, compute) is None
    assert faithfulness.kept(path, False, compute) == {"x": 1}
    assert faithfulness.kept(path, False, compute) == {"x": 1}
    assert len(calls) == 1
    assert faithfulness.kept(tmp_path / "c.json", False, lambda: None) is None
    assert not (tmp_path / "c.json").exists()
