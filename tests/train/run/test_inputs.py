"""What a run notes of its data set, with or without objects."""

import dataclasses
import json

import pytest

from tests.tiny_runs import INPUTS, tiny_config
from train.data.facts import Facts
from train.errors import UserError
from train.run import claim
from train.run.workdir import load_inputs

OBJECTS = Facts(
    (16, 16, 3),
    class_names=(),
    num_examples=7,
    truth="none",
    categories=("car", "person"),
    rotated_objects=True,
)


def noted(workdir, values):
    (workdir / "inputs.json").write_text(json.dumps(values))
    return load_inputs(workdir)


@pytest.mark.parametrize("facts", [INPUTS, OBJECTS])
def test_facts_are_read_as_they_were_noted(tmp_path, facts):
    assert noted(tmp_path, dataclasses.asdict(facts)) == facts


def test_a_run_from_before_there_were_categories_still_loads(tmp_path):
    without = dataclasses.replace(INPUTS, categories=())
    values = dataclasses.asdict(without)
    for name in ("categories", "rotated_objects", "most_objects"):
        del values[name]
    assert noted(tmp_path, values) == without


@pytest.mark.parametrize("categories", [[], "car"])
def test_a_record_that_names_nothing_is_damaged(tmp_path, categories):
    values = dataclasses.asdict(OBJECTS) | {"categories": categories}
    with pytest.raises(UserError, match="names no image shape or no classes"):
        noted(tmp_path, values)


def test_a_set_of_other_categories_is_not_the_runs(tmp_path, monkeypatch):
    noted(tmp_path, dataclasses.asdict(OBJECTS))
    monkeypatch.setattr(claim, "saved_steps", lambda workdir: [3])
    config = tiny_config(tmp_path)
    claim.check_inputs(config, OBJECTS)
    turned = dataclasses.replace(OBJECTS, categories=("person", "car"))
    claim.check_inputs(config, turned)  # its labels go by their names
    other = dataclasses.replace(OBJECTS, categories=("car", "tree"))
    with pytest.raises(UserError, match=r"other categories than .*: \+ tree - person"):
        claim.check_inputs(config, other)
