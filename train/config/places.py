"""Where data and weights lie: one place has many spellings, and things are moved."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from train.config.run import FitConfig

FOLDER = "folder:"
# What the name of a set begins with that is a folder of the user's.
FOLDERS = (FOLDER, "rotated:", "coco:", "dota:")


def expanded(path: str) -> str:
    """The path with `~` replaced; as it is if there is no such user."""
    return os.path.expanduser(path)


def folder_of(name: str) -> Path | None:
    """The folder of a data set's name, as `folder:PATH`, absolute; else None."""
    kind, path = _kind_and_path(name)
    return Path(os.path.abspath(expanded(path))) if kind and path else None


def _kind_and_path(name: str) -> tuple[str, str]:
    """The beginning of a folder's name and its path; "" and the rest for others."""
    kind = next((each for each in FOLDERS if name.startswith(each)), "")
    return kind, name.removeprefix(kind)


def is_same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two spellings mean one place, links followed."""
    return os.path.realpath(one) == os.path.realpath(other)


def with_absolute_places(config: FitConfig) -> FitConfig:
    """The config with places that do not depend on where it was started."""
    data, model = config.data, config.model
    folder = folder_of(data.name)
    if folder is not None:
        data = dataclasses.replace(data, name=f"{_kind_and_path(data.name)[0]}{folder}")
    if data.data_dir is not None:
        place = os.path.abspath(expanded(data.data_dir))
        data = dataclasses.replace(data, data_dir=place)
    if model.pretrained is not None and os.path.isfile(expanded(model.pretrained)):
        place = os.path.abspath(expanded(model.pretrained))
        model = dataclasses.replace(model, pretrained=place)
    return dataclasses.replace(config, data=data, model=model)


def same_place(name: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two configs differ in a field by spelling only, or by a move.

    A folder of images that lies elsewhere is judged by its classes and the number of
    its images (see `train.run.claim.check_inputs`); a file of weights by its name, once
    the old one is gone.
    """
    if name == "data.name":
        kinds = {_kind_and_path(str(each["data"]["name"]))[0] for each in (old, new)}
        folders = [folder_of(str(each["data"]["name"])) for each in (old, new)]
        return None not in folders and len(kinds) == 1
    weights = [each.get("model", {}).get("pretrained") for each in (old, new)]
    if name == "model.pretrained" and all(weights):
        before, now = map(expanded, weights)
        if not os.path.isfile(now):
            return False
        moved = not os.path.exists(before) and Path(before).name == Path(now).name
        return moved or is_same(before, now)
    return False


def moved_from(old: FitConfig, new: FitConfig) -> Path | None:
    """The folder where the images were, if it is another one than now."""
    before, now = folder_of(old.data.name), folder_of(new.data.name)
    if before is None or now is None or is_same(before, now):
        return None
    return before
