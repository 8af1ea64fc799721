import json

from benchmarks.throughput import measure, result_of, store
from tests.tiny_runs import tiny_config, write_images
from train.config.data import DataConfig


def test_the_three_rates_are_measured_in_every_round(tmp_path):
    folder = write_images(tmp_path / "set")
    config = tiny_config(data=DataConfig(name=f"folder:{folder}"))
    rates = measure(config, steps=2, rounds=2)
    assert list(rates) == ["pipeline", "step", "together"]
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())


def rates(together):
    return {"pipeline": [90.0, 100.0, 500.0], "step": [40.0] * 3, "together": together}


def test_the_ratio_is_of_medians_to_the_slower_one():
    record = result_of(["--steps", "2"], rates([30.0, 36.0, 60.0]), load=1.0)
    assert record["together_over_slower"] == 36 / 40
    assert record["command"] == "python -m benchmarks.throughput --steps 2"


def test_a_record_takes_the_place_of_the_one_of_the_same_command(tmp_path):
    path = tmp_path / "results" / "throughput.json"
    for steps, speed in (("2", 10.0), ("3", 20.0), ("2", 38.0)):
        store(result_of(["--steps", steps], rates([speed] * 3), 0.5), path)
    records = json.loads(path.read_text())
    assert [record["together_over_slower"] for record in records] == [0.5, 0.95]
    text = path.with_name(path.stem + "_tables.md").read_text()
    assert "| 100 (90 to 500) | 40 (40 to 40) | 38 (38 to 38) | 0.950 |" in text
    assert "2. `python -m benchmarks.throughput --steps 2`" in text


def test_slow_steps_keep_their_digits(tmp_path):
    path = tmp_path / "throughput.json"
    slow = {"pipeline": [400.0], "step": [1.412], "together": [1.6]}
    store(result_of([], slow, 0.5), path)
    assert (
        "1.41 (1.41 to 1.41) | 1.60 ("
        in path.with_name(path.stem + "_tables.md").read_text()
    )
