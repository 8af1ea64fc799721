"""The task segmentation, from masks in a folder to label maps of photographs."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from cram_jax.geometry.similarity import Similarity
from tests.checks import assert_close
from tests.tiny_runs import (
    CLASSES,
    INPUTS,
    SIDE,
    tiny_arguments,
    tiny_config,
)
from tests.tiny_runs import write_images as write_classes
from train.__main__ import main
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.task import TaskConfig
from train.data.collate import RowMaker
from train.data.pipeline import load_source
from train.data.sources.base import (
    IGNORED,
    DatasetInfo,
    Example,
    UnreadableImageError,
)
from train.data.views import View, eval_view
from train.errors import DONE, WRONG_USE, UserError
from train.learning.devices import JitParallel
from train.learning.experiment import make_experiment
from train.tasks.registry import make_task
from train.tasks.segmentation import Segmentation
from train.tasks.segmentation_original import regions_of_original


def image_of(file):
    with Image.open(file) as image:
        return np.asarray(image)


def write_masks(folder, *, without=()):
    """The images of `write_images` with trimaps: their squares, a border of 1."""
    write_classes(folder)
    for file in folder.glob("*/*/*.png"):
        path = file.relative_to(folder)
        image = image_of(file).max(-1)
        mask = np.asarray(
            scipy.ndimage.binary_opening(image >= 100, np.ones((4, 4))), bool
        )
        values = np.where(mask, 1, 2).astype(np.uint8)
        wider = np.asarray(scipy.ndimage.binary_dilation(mask), bool)
        values[wider & ~mask] = 3
        if str(path) not in without:
            (folder / "trimaps" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / "trimaps" / path)
    return folder


TASK = ("--task.name=segmentation", "--task.decoder-width=8", "--output.quiet")


def test_it_is_trained_evaluated_and_asked_for_a_map(tmp_path, capsys):
    folder, workdir = write_masks(tmp_path / "images"), tmp_path / "run"
    options = ["--epochs=10", "--data.validation=0.2", "--data.flip"]
    options += ["--output.pictures=4", "--task.attention-in-skips"]
    assert main(tiny_arguments(folder, workdir, *TASK, *options)) == DONE
    result = json.loads((workdir / "result.json").read_text())
    # Squares much brighter than the ground: thirty steps are enough.
    assert result["mean_iou"] > 0.6
    assert result["iou_background"] > 0.7
    assert result["validation"]["images"] > 0
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    first, last = (json.loads(lines[index]) for index in (0, -3))
    assert {"cross_entropy", "dice_loss", "pixel_accuracy"} <= first.keys()
    assert last["loss"] < first["loss"]
    picture = next((workdir / "pictures").glob("*.png"))
    # Truth beside prediction: each image takes two places.
    width, height = image_of(picture).shape[1::-1]
    assert width > 1.9 * height

    evaluate = ["evaluate", "--workdir", str(workdir), "--equivariance-images=0"]
    assert main(evaluate) == DONE
    scores = json.loads((workdir / "evaluation.json").read_text())["test"]
    assert scores["mean_iou"] == pytest.approx(result["mean_iou"], abs=1e-6)
    assert 0 <= scores["decoder/attention1/mask_area"] <= 1

    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((40, 60, 3), 30, np.uint8)).save(photo)
    assert main(["predict", "--workdir", str(workdir), str(photo)]) == DONE
    (record,) = json.loads((workdir / "predictions/predictions.json").read_text())
    regions = image_of(record["regions"])
    assert regions.shape == (40, 60)
    # The network sees the central square.
    assert (regions[:, :10] == IGNORED).all()
    assert (regions[:, 50:] == IGNORED).all()
    seen = regions[:, 10:50]
    assert set(np.unique(seen)) <= {0, 1}
    assert record["shares"]["object"] == pytest.approx(np.mean(seen == 1))
    assert sum(record["shares"].values()) == pytest.approx(1)
    assert image_of(record["picture"]).shape[1] >= 60
    assert "%" in capsys.readouterr().out
    # What cannot be answered leaves the answers of before alone.
    earlier = (workdir / "predictions/predictions.json").read_bytes()
    words = ["predict", "--workdir", str(workdir), str(photo), "--top=2"]
    assert main(words) == WRONG_USE
    assert "--top needs a task that chooses a class" in capsys.readouterr().err
    assert (workdir / "predictions/predictions.json").read_bytes() == earlier


def test_a_set_without_masks_and_an_image_without_one_are_one_sentence(
    tmp_path, capsys
):
    plain = write_classes(tmp_path / "plain")
    assert main(tiny_arguments(plain, tmp_path / "a", *TASK)) == WRONG_USE
    error = capsys.readouterr().err
    assert "needs a mask of each training image" in error
    assert "Traceback" not in error
    lacking = f"train/{CLASSES[0]}/3.png"
    folder = write_masks(tmp_path / "images", without=(lacking,))
    assert main(tiny_arguments(folder, tmp_path / "b", *TASK)) == WRONG_USE
    error = capsys.readouterr().err
    assert f"{lacking} has no mask" in error
    assert "Traceback" not in error
    data = DataConfig(name=f"folder:{folder}", on_bad_image="skip")
    rows = RowMaker(load_source(data, "train"), data, Segmentation(), training=False)
    batch = rows(np.arange(24), np.zeros(24, bool))
    assert batch["weight"].sum() == 23


def test_rows_in_memory_and_from_disk_and_their_mirror_images_agree(tmp_path):
    folder = write_masks(tmp_path / "images")
    kept = DataConfig(name=f"folder:{folder}", flip=True)
    read = dataclasses.replace(kept, memory_limit_mb=0)
    mirrored = np.arange(8) % 2 == 0
    for task in (Segmentation(), Segmentation(by_class=True)):
        rows = [
            RowMaker(load_source(data, "train"), data, task, training=True)
            for data in (kept, read)
        ]
        first, second = (each(np.arange(4, 12), mirrored) for each in rows)
        np.testing.assert_array_equal(first["regions"], second["regions"])
        plain = rows[0](np.arange(4, 12), ~mirrored)["regions"]
        np.testing.assert_array_equal(first["regions"], plain[:, :, ::-1])
        there = set(np.unique(first["regions"]))
        assert there == ({0, 1, 2, IGNORED} if task.by_class else {0, 1, IGNORED})


def test_a_moved_batch_moves_its_masks_and_ignores_what_comes_from_outside():
    regions = np.random.default_rng(0).integers(0, 3, (3, 8, 8)).astype(np.uint8)
    moves = Similarity(
        jnp.array([0.0, np.pi / 2, 0.0]), 1.0, jnp.array([2 * 2 / 8, 0.0, 9.0])
    )
    batch = {"regions": regions, "weight": np.ones(3)}
    moved = np.asarray(Segmentation().moved(moves, batch)["regions"])
    np.testing.assert_array_equal(moved[0, :, 2:], regions[0, :, :-2])
    assert (moved[0, :, :2] == IGNORED).all()
    np.testing.assert_array_equal(moved[1], np.rot90(regions[1], -1))
    assert (moved[2] == IGNORED).all()


def slow_regions(logits, view, size):
    """Pixel by pixel: scipy's interpolation where the pixel's centre is seen."""
    found = np.full(size, IGNORED, np.uint8)
    for row, column in np.ndindex(*size):
        y, x = row + 0.5, column + 0.5
        if view.left <= x <= view.right and view.top <= y <= view.bottom:
            x, y = view.scale_x * x + view.shift_x, view.scale_y * y + view.shift_y
            values = [
                scipy.ndimage.map_coordinates(
                    each, [[y - 0.5], [x - 0.5]], order=1, mode="nearest"
                )[0]
                for each in np.moveaxis(logits, -1, 0)
            ]
            found[row, column] = np.argmax(values)
    return found


@pytest.mark.parametrize(
    "view",
    [
        eval_view((23, 31), (6, 6)),
        View(2.5, 1.0, 20.0, 22.0, 6, 5, mirrored=True),
        View(0.0, 0.0, 31.0, 23.0, 1, 1),
    ],
)
def test_the_map_of_the_original_is_that_of_a_slow_oracle(view):
    shape = (view.height, view.width, 3)
    logits = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = regions_of_original(logits, view, (23, 31))
    np.testing.assert_array_equal(found, slow_regions(logits, view, (23, 31)))


def test_each_class_is_a_region_of_its_own_if_asked_for():
    config = tiny_config(task=TaskConfig("segmentation", by_class=True))
    task = make_task(config)
    experiment = make_experiment(config, INPUTS, JitParallel(jax.devices()[:1]))
    shape = jax.eval_shape(
        experiment.model.apply,
        experiment.variables_shape(),
        jax.ShapeDtypeStruct((2, SIDE, SIDE, 3), jnp.float32),
    ).shape
    assert shape == (2, SIDE, SIDE, 1 + len(CLASSES))
    square = np.zeros((SIDE, SIDE), np.uint8)
    square[3:6, 2:8], square[0] = 1, IGNORED
    example = Example(np.zeros((SIDE, SIDE, 3), np.uint8), 2, regions=square)
    view = eval_view((SIDE, SIDE), (SIDE, SIDE))
    expected = np.where(square == 1, 3, square)
    np.testing.assert_array_equal(task.truth_of(example, view)["regions"], expected)
    named = dataclasses.replace(INPUTS, regions=("ground", "road", "car"))
    with pytest.raises(UserError, match=r"data\.regions names ground, road, car"):
        make_experiment(config, named, JitParallel(jax.devices()[:1]))


def test_the_layer_sits_in_the_encoder_or_on_the_skip():
    for in_skips, place in ((False, "backbone"), (True, "decoder")):
        config = tiny_config(
            task=TaskConfig("segmentation", attention_in_skips=in_skips),
            model=ModelConfig(widths=(4, 4, 4), attention_stages=(2,)),
        )
        experiment = make_experiment(config, INPUTS, JitParallel(jax.devices()[:1]))
        assert set(experiment.layers) == {f"{place}/attention2"}


def test_knowing_nothing_is_equally_likely_regions_everywhere():
    task = Segmentation()
    assert_close(task.ignorance(jnp.full((2, 3, 4, 5), 0.7)), [0, 0], atol=1e-6)
    sure = jnp.zeros((2, 3, 4, 5)).at[1, 0, 0, 0].set(9.0)
    assert_close(task.ignorance(sure)[0], 0, atol=1e-6)
    assert float(task.ignorance(sure)[1]) > 0.01


def test_what_has_no_regions_is_refused_by_name():
    example = Example(np.zeros((4, 4, 3), np.uint8), 0)
    info = DatasetInfo("digits", "train", ("a",), 1, "none", 3)
    with pytest.raises(UnreadableImageError, match="image 3 of digits has no mask"):
        Segmentation().check(example, info, "image 3")


def test_without_a_network_the_true_regions_are_shown():
    picture, regions = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4), np.uint8)
    regions[:, 2], regions[:, 3] = 1, IGNORED
    shown = Segmentation().compared(picture, None, {"regions": regions})
    assert shown.shape == picture.shape
    assert not shown[:, :4].any()
    assert len(np.unique(shown[:, 4:6].reshape(-1, 3), axis=0)) == 1
    assert shown[0, 4].any()
    assert (shown[:, 6:] == 64).all()
