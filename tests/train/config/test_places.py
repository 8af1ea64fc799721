"""Where data lies, whatever the kind of set."""

import dataclasses

import pytest

from train.config.data import DataConfig
from train.config.places import FOLDERS, folder_of, same_place, with_absolute_places
from train.config.run import FitConfig
from train.data.sources.opening import SOURCES


def config(name):
    return dataclasses.replace(FitConfig(), data=DataConfig(name))


def test_every_kind_of_set_that_is_a_folder_is_known():
    named = {form.removesuffix("PATH") for form in SOURCES if form.endswith(":PATH")}
    assert set(FOLDERS) == named


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_found_wherever_the_program_is_started(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absolute = with_absolute_places(config(f"{kind}set/../other")).data.name
    assert absolute == f"{kind}{tmp_path / 'other'}"
    assert folder_of(absolute) == tmp_path / "other"
    assert folder_of(kind) is None


@pytest.mark.parametrize("name", ["digits", "many_digits", "tfds:cars196"])
def test_other_sets_have_no_folder(name):
    assert folder_of(name) is None
    assert with_absolute_places(config(name)).data.name == name


def test_a_moved_set_is_the_same_and_one_of_another_kind_is_not():
    old, moved, other = (
        {"data": {"name": name}} for name in ("coco:a", "coco:b", "dota:a")
    )
    assert same_place("data.name", old, moved)
    assert not same_place("data.name", old, other)
    assert not same_place("data.name", old, {"data": {"name": "many_digits"}})
