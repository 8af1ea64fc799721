"""The task detection, from rotated boxes in a file to boxes on photographs."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw

from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.similarity import Similarity
from cram_jax.heads.detections import Detections
from tests.checks import assert_close
from train.__main__ import main
from train.data.facts import Facts
from train.data.objects.rows import blank_objects
from train.data.sources.base import (
    DatasetInfo,
    Example,
    Objects,
    UnreadableImageError,
    WrongLabelError,
)
from train.data.views import View, eval_view, rectangle_to_network
from train.errors import DONE, WRONG_USE, UserError
from train.tasks.detection import Detection
from train.tasks.detection_pictures import draw_objects, objects_in_pixels

NAMES = ("bar", "block")
FACTS = Facts((32, 32, 3), (), 24, "none", categories=NAMES, rotated_objects=True)


def corners_of(box):
    """The four corners of [category, x, y, width, height, angle], by trigonometry."""
    _, x, y, width, height, angle = box
    points = []
    for along, across in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        dx, dy = along * width / 2, across * height / 2
        points.append(
            (
                x + dx * math.cos(angle) - dy * math.sin(angle),
                y + dx * math.sin(angle) + dy * math.cos(angle),
            )
        )
    return points


def write_boxes(folder, counts=(48, 16), objects=(0, 1, 2)):
    """Bars and blocks, bright and rotated, on dark ground, with their file."""
    generator = np.random.default_rng(0)
    for split, count in zip(("train", "test"), counts, strict=True):
        images = []
        (folder / split).mkdir(parents=True)
        for index in range(count):
            picture = Image.new("RGB", (32, 32), (20, 20, 20))
            boxes = []
            for place in range(objects[index % len(objects)]):
                category = int(generator.integers(2))
                x, y = (
                    8 + 16 * place + generator.uniform(-2, 2),
                    generator.uniform(8, 24),
                )
                sides = (12.0, 5.0) if category == 0 else (9.0, 8.0)
                box = [
                    category,
                    float(x),
                    float(y),
                    *sides,
                    generator.uniform(-1.5, 1.5),
                ]
                boxes.append(box)
                shade = (220, 60, 60) if category == 0 else (60, 200, 220)
                ImageDraw.Draw(picture).polygon(corners_of(box), fill=shade)
            name = f"{split}/{index}.png"
            picture.save(folder / name)
            images.append(
                {"file_name": name, "width": 32, "height": 32, "boxes": boxes}
            )
        record = {"categories": list(NAMES), "images": images}
        (folder / f"{split}.json").write_text(json.dumps(record))
    return folder


def arguments(folder, workdir, *more):
    return [
        "fit",
        f"--workdir={workdir}",
        f"--data.name=rotated:{folder}",
        "--task.name=detection",
        "--task.decoder-width=16",
        "--task.max-detections=10",
        "--batch-size=16",
        "--model.widths=8",
        "8",
        "8",
        "--model.attention-stages=1",
        "--optimizer.learning-rate=1e-2",
        "--output.no-tensorboard",
        "--output.quiet",
        *more,
    ]


def test_it_is_trained_evaluated_and_asked_for_boxes(tmp_path, capsys):
    folder, workdir = write_boxes(tmp_path / "boxes"), tmp_path / "run"
    options = ["--epochs=30", "--output.pictures=4", "--output.evaluate-every=30"]
    options += ["--data.flip", "--data.validation=0.2"]
    assert main(arguments(folder, workdir, *options)) == DONE
    result = json.loads((workdir / "result.json").read_text())
    # Two colours on dark ground: easily found, and their outlines nearly.
    assert result["ap50"] > 0.5
    assert 0 < result["ap75"] <= result["ap50"]
    assert result["ap50"] == pytest.approx(
        (result["ap50_bar"] + result["ap50_block"]) / 2
    )
    truth = json.loads((folder / "test.json").read_text())["images"]
    assert result["objects"] == sum(len(image["boxes"]) for image in truth)
    assert result["validation"]["images"] > 0
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert {"heat_loss", "box_loss", "loss"} <= json.loads(lines[0]).keys()
    assert list((workdir / "pictures").glob("*.png"))

    evaluate = ["evaluate", "--workdir", str(workdir), "--equivariance-images=0"]
    assert main(evaluate) == DONE
    scores = json.loads((workdir / "evaluation.json").read_text())["test"]
    assert scores["ap"] == pytest.approx(result["ap"], abs=1e-6)
    assert 0 <= scores["backbone/attention1/mask_area"] <= 1

    # An image of another shape, of which the network sees the central square.
    image = next(image for image in truth if len(image["boxes"]) == 2)
    with Image.open(folder / image["file_name"]) as picture:
        wide = Image.new("RGB", (128, 64), (20, 20, 20))
        wide.paste(picture.resize((64, 64)), (32, 0))
        wide.save(tmp_path / "wide.png")
    words = ["predict", "--workdir", str(workdir), str(tmp_path / "wide.png")]
    assert main(words) == DONE
    (record,) = json.loads((workdir / "predictions/predictions.json").read_text())
    assert record["objects"]
    for found in record["objects"]:
        assert found["category"] == NAMES[found["label"]]
        assert 0.3 <= found["score"] <= 1
        box = [0, *found["center"], *found["size"], found["angle"]]
        assert_close(np.array(found["corners"]), np.array(corners_of(box)), atol=1e-6)
    best = record["objects"][0]
    true = np.array([box[1:3] for box in image["boxes"]]) * 2 + [32, 0]
    assert np.min(np.hypot(*(true - best["center"]).T)) < 6
    assert NAMES[best["label"]] in capsys.readouterr().out


def test_sets_that_do_not_fit_are_one_sentence(tmp_path, capsys):
    words = arguments(tmp_path, tmp_path / "run", "--data.name=digits")
    words += ["--data.train-examples=32", "--data.eval-examples=32"]
    assert main(words) == WRONG_USE
    assert "needs the objects of each image" in capsys.readouterr().err
    folder = write_boxes(tmp_path / "boxes", counts=(3, 3))
    assert (
        main(arguments(folder, tmp_path / "run", "--task.max-objects=1")) == WRONG_USE
    )
    assert "Use --task.max-objects 2" in capsys.readouterr().err
    assert main(arguments(folder, tmp_path / "run", "--task.name=classification")) == 2
    assert "Traceback" not in capsys.readouterr().err
    info = DatasetInfo("set", "train", (), 1, "none", 3, categories=NAMES)
    with pytest.raises(UnreadableImageError, match="image 3 of set has no list"):
        Detection().check(Example(np.zeros((4, 4, 3), np.uint8), -1), info, "image 3")
    # Sets that do not say beforehand how many objects an image has.
    boxes = np.tile([2.0, 2.0, 1.0, 1.0, 0.0], (3, 1))
    objects = Objects(boxes, np.zeros(3, np.int64), np.zeros(3, bool))
    example = Example(np.zeros((4, 4, 3), np.uint8), -1, objects=objects)
    Detection(max_objects=3).check(example, info, "image 3")
    with pytest.raises(WrongLabelError, match=r"3 objects, .* --task.max-objects 3"):
        Detection(max_objects=2).check(example, info, "image 3")


def test_a_set_without_a_single_object_trains(tmp_path):
    folder = write_boxes(tmp_path / "boxes", counts=(16, 8), objects=(0,))
    assert main(arguments(folder, tmp_path / "run", "--epochs=1")) == DONE
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["objects"] == 0
    assert "ap" not in result  # Nothing could be found: there is no score.


def test_a_moved_batch_moves_its_objects_and_drops_those_that_leave():
    rows = {name: value[None] for name, value in blank_objects(3).items()}
    rows["objects"][0, :2] = [[0.5, 0.0, 0.2, 0.1, 0.0], [0.0, 0.8, 0.1, 0.1, 0.3]]
    rows["object_labels"][0, :2] = (1, 0)
    batch = {
        "image": np.zeros((1, 8, 8, 3), np.uint8),
        "weight": np.ones(1, np.float32),
        **rows,
    }
    moves = Similarity(*(jnp.array([v]) for v in (np.pi / 2, 1.0, 0.3, 0.0)))
    moved = Detection(max_objects=3).moved(moves, batch)
    expected = [0.3, 0.5, 0.2, 0.1, np.pi / 2]
    assert_close(np.asarray(moved["objects"])[0, 0], np.array(expected), atol=1e-6)
    # The other one's centre goes to (-0.5, 0): it stays; a wider shift drops it.
    np.testing.assert_array_equal(moved["object_labels"][0], [1, 0, -1])
    moves = Similarity(*(jnp.array([v]) for v in (0.0, 1.0, 0.7, 0.0)))
    moved = Detection(max_objects=3).moved(moves, batch)
    np.testing.assert_array_equal(moved["object_labels"][0], [-1, 0, -1])


@pytest.mark.parametrize(
    "view",
    [
        eval_view((40, 60), (32, 32)),
        View(4.0, 2.0, 36.0, 34.0, 64, 64, mirrored=True),
        eval_view((50, 70), (24, 36)),
    ],
)
def test_objects_come_back_to_the_pixels_of_the_original(view):
    source = np.array([[20.0, 15.0, 6.0, 3.0, 0.4], [25.0, 20.0, 2.0, 5.0, -1.2]])
    seen = jnp.asarray(rectangle_to_network(view, source), jnp.float32)
    found = Detections(
        Rectangle.from_array(seen), jnp.array([0.9, 0.2]), jnp.array([1, 0])
    )
    (best,) = objects_in_pixels(found, view, NAMES, least=0.3)
    assert (best["category"], best["label"]) == ("block", 1)
    assert_close(np.array(best["center"]), source[0, :2], atol=1e-3)
    box = [0, *source[0, :2], *(2 * source[0, 2:4]), source[0, 4]]
    expected = {tuple(np.round(corner, 2)) for corner in corners_of(box)}
    assert {tuple(np.round(corner, 2)) for corner in best["corners"]} == expected
    assert len(objects_in_pixels(found, view, NAMES, least=0.0)) == 2


def test_drawn_boxes_lie_where_the_objects_are():
    picture = np.zeros((40, 60, 3), np.uint8)
    box = {"category": "bar", "label": 0, "score": 0.5}
    box |= {"center": [60.0, 40.0], "size": [40.0, 20.0], "angle": 0.0}
    drawn = draw_objects(picture, [box], 0.5)
    lit = np.argwhere(drawn.max(-1) > 150)
    lit = lit[lit[:, 0] > 17]  # Below the label.
    assert draw_objects(picture, [], 0.5) is picture
    assert abs(lit[:, 0].max() - 25) <= 2
    assert abs(lit[:, 1].min() - 20) <= 2
    assert abs(lit[:, 1].max() - 40) <= 2


def test_rows_of_batches_make_the_score_of_the_whole_set():
    generator = np.random.default_rng(0)
    task = Detection(max_objects=4, max_detections=6)
    heat = jnp.asarray(generator.normal(-2, 2, (6, 6, 6, 2)), jnp.float32)
    boxes = generator.normal(0, 0.2, (6, 6, 6, 6)).astype(np.float32)
    boxes[..., 2:4] -= 0.64  # Half sizes of about 0.7.
    outputs = {"heat": heat, "boxes": boxes}
    rows = [blank_objects(4) for _ in range(6)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    batch["objects"][:, :2] = generator.uniform(-0.6, 0.6, (6, 2, 5))
    batch["objects"][:, :2, 2:4] = 0.7
    batch["object_labels"][:, :2] = generator.integers(0, 2, (6, 2))
    batch |= {
        "image": np.zeros((6, 24, 24, 3), np.uint8),
        "weight": np.ones(6, np.float32),
    }

    @jax.jit
    def judge(outputs, batch):
        return task.sums(outputs, batch), task.rows(outputs, batch)

    def record(parts):
        found = []
        for part in parts:
            own = jax.tree.map(lambda leaf, part=part: leaf[part], (outputs, batch))
            found.append(jax.device_get(judge(*own)))
        sums, rows = zip(*found, strict=True)
        total = jax.tree.map(lambda *leaves: np.sum(leaves, 0), *sums)
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)
        return task.record(total, joined, FACTS)

    whole = record([slice(0, 6)])
    assert whole["images"] == 6
    assert whole["objects"] == 12
    assert 0 < whole["ap50"] < 1
    assert record([slice(0, 3), slice(3, 6)]) == pytest.approx(whole)
    # A network that gave up finds nothing, and the record says so.
    outputs = {"heat": heat.at[2].set(jnp.nan), "boxes": boxes}
    broken = record([slice(0, 6)])
    assert broken["images_not_finite"] == 1
    assert broken["objects"] == 12


def test_names_need_categories_and_room():
    with pytest.raises(UserError, match="many_digits"):
        Detection().names(Facts((32, 32, 3), ("ant",), 24, "none"))
