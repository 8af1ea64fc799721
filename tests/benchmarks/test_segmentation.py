"""The benchmark of segmentation, with evaluations that are already there."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import segmentation
from benchmarks.segmentation import (
    LAYERS,
    Options,
    fit_arguments,
    scores_without_learning,
)
from benchmarks.segmentation_report import markdown
from train.commands.options import parse_fit
from train.data.loaders import Feed
from train.tasks.registry import make_task


@pytest.mark.parametrize("name", ["digits", "butterflies10", "pets3"])
def test_rows_differ_in_their_layer_alone(name):
    bare = parse_fit(fit_arguments(Options(), name, "none", 7))
    assert bare.task.name == "segmentation"
    assert bare.seed == 7
    assert (bare.task.decoder, bare.task.decoder_width) == ("sum", 32)
    larger = parse_fit(fit_arguments(Options(), name, "none-concat", 7))
    assert (larger.task.decoder, larger.task.decoder_width) == ("concat", 16)
    assert (larger.model, larger.optimizer) == (bare.model, bare.optimizer)
    for layer in LAYERS:
        config = parse_fit(fit_arguments(Options(skips=True), name, layer, 7))
        assert config.model.attention == layer
        assert config.task.attention_in_skips
        assert (config.optimizer, config.data) == (bare.optimizer, bare.data)
        assert (config.epochs, config.batch_size) == (bare.epochs, bare.batch_size)


def evaluation(iou):
    scores = {"mean_iou": iou, "iou_object": iou - 0.1, "mean_dice": iou + 0.05}
    return {"test": scores, "train": {"mean_iou": 1.0}}


def test_the_table_has_means_and_differences_paired_by_seed():
    rows = {
        "none": [evaluation(0.7), evaluation(0.8)],
        "scse": [evaluation(0.75), evaluation(0.85)],
    }
    guess = {"digits": {"mean_iou": 0.4, "iou_object": 0.0, "mean_dice": 0.45}}
    text = markdown(
        {
            "command": "the command",
            "machine": "a machine",
            "no_learning": guess,
            "runs": {"digits": rows},
            "torch": {"digits": {"0": evaluation(0.6)}},
        }
    )
    assert "`the command` on a machine" in text
    assert "| U-Net (torch) | 0.6000 |" in text
    assert "| no learning | 0.4000 |  | 0.0000 |" in text
    assert "| none | 0.7500 ± 0.6353 | 1.0000 ± 0.0000 | 0.6500 ± 0.6353 |" in text
    assert "- scse: +0.0500 ± 0.0000; above on 2 of 2" in text
    assert "| scse, seed 1 | 0.8500 |" in text


def test_what_is_done_is_not_run_again_and_is_written(tmp_path, monkeypatch):
    drawn = []
    guess = {"mean_iou": 0.4}
    # It would make the set of digits.
    known = guess, {"none": 7.0, "scse": 8.0}
    monkeypatch.setattr(segmentation, "known_beforehand", lambda *_: known)
    monkeypatch.setattr(segmentation, "picture_rows", lambda *of: drawn.append(of))
    workdir, results = tmp_path / "runs", tmp_path / "results" / "segmentation"
    # Of a third seed one run is missing.
    for layer, seeds in (("none", 3), ("scse", 2)):
        for seed in range(seeds):
            run = workdir / f"digits-{layer}-{seed}"
            run.mkdir(parents=True)
            (run / "evaluation.json").write_text(json.dumps(evaluation(0.8)))
    options = ["--sets", "digits", "--layers", "none", "scse", "--seeds", "3"]
    options += ["--only-report"]
    places = ["--workdir", str(workdir), "--results", str(results)]
    segmentation.main([*options, *places])
    record = json.loads(results.with_suffix(".json").read_text())
    found = {name: len(runs) for name, runs in record["runs"]["digits"].items()}
    assert found == {"none": 2, "scse": 2}
    assert "## digits, 2 seeds" in results.with_suffix(".md").read_text()
    assert "above on 0 of 2" in results.with_suffix(".md").read_text()
    workdirs = [workdir / "digits-none-0", workdir / "digits-scse-0"]
    assert drawn == [(workdirs, results.with_name("segmentation_digits.png"))]


def test_no_learning_is_the_most_frequent_region_of_each_pixel(tmp_path):
    """Two of three training masks have the object on the left; all test masks do."""
    left, right = np.zeros((2, 8, 8), np.uint8)
    left[:, :4], right[:, 4:] = 255, 255
    masks = {"train": [left, left, right], "test": [left, left]}
    for split, of_split in masks.items():
        for number, mask in enumerate(of_split):
            place = tmp_path / split / "ab"[number % 2] / f"{split}{number}.png"
            for path, values in (
                (place, np.full((8, 8, 3), 90, np.uint8)),
                (tmp_path / "masks" / place.relative_to(tmp_path), mask),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    options = ["--preset", "digits-segment", "--data.name", f"folder:{tmp_path}"]
    config = parse_fit([*options, "--data.image-size", "8", "--batch-size", "2"])
    task = make_task(config)
    scores = scores_without_learning(Feed(config, task), task)
    assert scores["images"] == 2
    assert scores["mean_iou"] == 1.0
