"""The pets benchmark, with evaluations that are already there."""

import json

import pytest

from benchmarks import pets
from benchmarks.pets import Options, fit_arguments, markdown, rows
from train.commands.options import parse_fit


@pytest.mark.parametrize("row", rows(Options()), ids=lambda row: row[0])
def test_every_row_is_a_config_of_fit_and_nothing_else_differs(row):
    _, layer, stage = row
    config = parse_fit(fit_arguments(Options(), layer, stage, 7))
    assert (config.model.attention, config.seed) == (layer, 7)
    assert stage is None or config.model.attention_stages == (stage,)
    assert config.model.pretrained == "efficientnet-lite0"
    bare = parse_fit(fit_arguments(Options(), "none", None, 7))
    assert (config.optimizer, config.data) == (bare.optimizer, bare.data)
    assert (config.epochs, config.batch_size) == (bare.epochs, bare.batch_size)


def test_flags_of_a_machine_with_a_gpu_reach_fit():
    options = Options(epochs=20.0, image_size=224, train_everything=True)
    config = parse_fit(fit_arguments(options, "rectangular", 4, 0))
    assert (config.epochs, config.data.image_size) == (20.0, 224)
    assert config.optimizer.freeze is None


def evaluation(accuracy, layer=True):
    scores = {"accuracy": accuracy}
    if layer:
        names = ("mass_on_object", "pointing", "mask_corloc", "mask_area")
        scores |= {f"attention5/{name}": accuracy - 0.5 for name in names}
    return {"test": scores, "train": {"accuracy": 1.0}}


def test_the_table_has_means_gaps_and_differences_paired_by_seed():
    runs = {
        "none": [evaluation(0.8, layer=False), evaluation(0.9, layer=False)],
        "positionwise-trunk, stage 5": [evaluation(0.8), evaluation(0.8)],
        "rectangular, stage 5": [evaluation(0.9), evaluation(1.0)],
    }
    text = markdown(runs, "the command")
    assert "`the command`" in text
    # No localisation without a layer.
    assert "| none | 0.8500 ± 0.6353 | 1.0000 ± 0.0000 | 0.1500 ± 0.6353 |  |" in text
    assert "- rectangular, stage 5: +0.1000 ± 0.0000; above on 2 of 2" in text
    assert "| rectangular, stage 5, seed 1 | 1.0000 |" in text
    versus = text.split("rectangular, stage 5 minus positionwise-trunk, stage 5")[1]
    assert "- test accuracy: +0.1500 ± 0.6353; above on 2 of 2" in versus
    assert "- pointing: +0.150 ± 0.635; above on 2 of 2" in versus


def test_what_is_done_is_not_run_again_and_is_written(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pets, "picture_rows", lambda *of: drawn.append(of))
    workdir, results = tmp_path / "runs", tmp_path / "results" / "pets3"
    for name in ("none-0", "rectangular-4"):
        for seed in range(2):
            run = workdir / f"{name}-{seed}"
            run.mkdir(parents=True)
            scored = evaluation(0.9, layer=name != "none-0")
            (run / "evaluation.json").write_text(json.dumps(scored))
    options = ["--layers", "rectangular", "--stages", "4", "--seeds", "2"]
    places = ["--workdir", str(workdir), "--results", str(results)]
    pets.main([*options, *places])
    record = json.loads(results.with_suffix(".json").read_text())
    assert {name: len(runs) for name, runs in record["runs"].items()} == {
        "none": 2,
        "rectangular, stage 4": 2,
    }
    assert "above on 0 of 2" in results.with_suffix(".md").read_text()
    workdirs = [workdir / "rectangular-4-0"]
    assert drawn == [(workdirs, results.with_suffix(".png"))]
