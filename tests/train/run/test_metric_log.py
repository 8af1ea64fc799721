"""What is written as JSON is JSON."""

import json
import math

import numpy as np
import pytest

from train.files import finite, write_json
from train.run.metric_log import Records, read_records


def strictly(text):
    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


BAD = [math.nan, math.inf, -math.inf, np.float64("nan")]


@pytest.mark.parametrize("bad", BAD)
def test_no_file_holds_what_json_does_not_have(tmp_path, bad):
    values = {"a": bad, "b": [1, bad, (bad, {"c": bad})], "d": 0.5}
    write_json(tmp_path / "file.json", values)
    text = (tmp_path / "file.json").read_text()
    assert strictly(text) == {"a": None, "b": [1, None, [None, {"c": None}]], "d": 0.5}
    assert finite(values)["a"] is None
    records = Records(tmp_path, 0, tensorboard=False)
    records.write("eval", 1, {"accuracy": 0.5, "cross_entropy": bad}, epoch=1.0)
    records.close()
    record = strictly((tmp_path / "metrics.jsonl").read_text())
    assert record == {"kind": "eval", "step": 1, "epoch": 1.0, "accuracy": 0.5}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_last_line_cut_short_does_not_spoil_the_next_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "st')
    records = Records(tmp_path, 0, tensorboard=False)
    records.write("train", 1, {"loss": 1.0})
    records.close()
    assert [record["step"] for record in read_records(path)] == [1]


def test_names_that_are_no_utf8_come_back(tmp_path):
    name = "a\udcff.png"
    write_json(tmp_path / "file.json", {"image": name})
    assert json.loads((tmp_path / "file.json").read_bytes())["image"] == name
