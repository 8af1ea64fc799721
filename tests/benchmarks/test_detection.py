"""The benchmark of detection: what it trains, and what it writes."""

import json

import numpy as np
import pytest

from benchmarks import detection
from benchmarks.detection import LAYERS, LOSSES, Options, fit_arguments, rows_of
from train.commands.options import parse_fit


@pytest.mark.parametrize("name", detection.PRESETS)
def test_runs_of_a_set_differ_in_nothing_but_their_row(name):
    options = Options(epochs=2.0)
    configs = {}
    for study in ("layers", "losses"):
        for row, more in rows_of(study).items():
            configs[row] = parse_fit(fit_arguments(options, name, more, 1))
    assert set(configs) == {*LAYERS, *LOSSES}
    none = configs["none"]
    assert (none.model.attention, none.seed, none.epochs) == ("none", 1, 2.0)
    assert none.task.name == "detection"
    for row, config in configs.items():
        assert config.data == none.data
        assert config.optimizer == none.optimizer
        if row in LOSSES:
            assert config.task.box_loss == row
            assert config.model.attention == "none"
        else:
            assert config.task == none.task
    several = configs["rectangular, K = 4"].model
    assert (several.attention, several.attention_count) == ("rectangular", 4)
    places = {detection.place_of(options, name, row, 0) for row in configs}
    assert len(places) == len(configs)


class MadeUpFeed:
    """Two training objects of one category, one of another, on oblong images."""

    class inputs:  # noqa: N801
        categories = ("a", "b", "c")
        image_shape = (20, 40, 1)

    def train_images(self):
        objects = np.zeros((2, 3, 5), np.float32)
        objects[0, :2, 2:4] = [[0.2, 0.1], [0.4, 0.3]]
        objects[1, 0, 2:4] = [0.5, 0.6]
        labels = np.array([[0, 0, -1], [1, -1, -1]])
        yield {"objects": objects, "object_labels": labels}


def test_without_learning_the_mean_object_is_everywhere():
    found, scores, labels = detection.mean_objects_everywhere(MadeUpFeed())  # pyright: ignore
    assert found.shape == (3 * detection.GRID**2, 5)
    first = found[labels == 0]
    np.testing.assert_allclose(first[:, 2:4], [[0.3, 0.2]] * len(first), rtol=1e-6)
    np.testing.assert_allclose(scores[labels == 0], 2 / 3)
    assert (scores[labels == 2] == 0).all()
    # The shorter side ends at one half.
    np.testing.assert_allclose(np.abs(first[:, :2]).max(0), [0.9, 0.45])


def test_the_page_pairs_rows_by_seed(tmp_path, monkeypatch):
    def evaluation(ap75):
        test = {"ap": ap75 - 0.1, "ap50": ap75 + 0.2, "ap75": ap75}
        return {"test": test, "train": {"ap": 0.9}}

    def made_up(options, name, study):
        return {
            row: [evaluation(0.5 + place / 10) for _ in range(2)]
            for place, row in enumerate(rows_of(study))
        }

    guess = {"ap": 0.01, "ap50": 0.02, "ap75": 0.0}
    monkeypatch.setattr(detection, "run", made_up)
    monkeypatch.setattr(detection, "score_without_learning", lambda *_: guess)
    monkeypatch.setattr(detection, "picture_rows", lambda *_: None)
    results = tmp_path / "detection"
    words = ["--sets", "many_digits", "--studies", "losses", "--results", str(results)]
    detection.main(words)
    text = results.with_suffix(".md").read_text()
    assert "- gaussian: +0.100 ± 0.000; above on 2 of 2" in text
    assert "| no learning | 0.010 | 0.020 | 0.000 |" in text
    record = json.loads(results.with_suffix(".json").read_text())
    assert record["command"].endswith("--sets many_digits --studies losses")
