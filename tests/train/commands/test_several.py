"""`--model.attention-count`: a run of several rectangles from training to pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.tiny_runs import finish, tiny_network, write_images
from train.__main__ import main
from train.config.model import ModelConfig
from train.errors import DONE


def test_a_run_of_two_rectangles_trains_and_predicts(tmp_path):
    folder = write_images(tmp_path / "images", per_class=3)
    run = finish(
        folder,
        tmp_path / "run",
        "--epochs=1",
        "--model.attention-count=2",
        "--equivariance.weight=0.5",
        "--budget.area=0.3",
    )
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    trained = [each for each in records if each["kind"] == "train"][-1]
    assert trained["equivariance_loss"] > 0
    assert trained["area_loss"] > 0
    assert 0 < trained["attention1/mask_area"] <= 1
    scored = [each for each in records if each["kind"] == "eval"][-1]
    assert {"attention1/best_iou", "attention1/mask_iou"} <= scored.keys()
    photo = tmp_path / "a.png"
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(values).save(photo)
    words = ["predict", f"--workdir={run}", str(photo), f"--output={tmp_path / 'out'}"]
    assert main(words) == DONE
    (record,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    first, second = record["rectangles"]["attention1"]
    assert len(first["corners"]) == len(second["corners"]) == 4
    assert first["view"]["center_x"] < second["view"]["center_x"]


def test_a_layer_without_rectangles_has_no_number_of_them():
    with pytest.raises(ValueError, match=r"attention_count 2 needs .* is 'cbam'"):
        tiny_network(ModelConfig(attention="cbam", attention_count=2))
    with pytest.raises(ValueError, match=r"attention_count must be 1 or more.* 0"):
        ModelConfig(attention_count=0)
