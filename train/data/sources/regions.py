"""What the pixels of a mask mean: an object and its background, or regions by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from train.data.sources.base import IGNORED

OBJECT_REGIONS = ("background", "object")
# The values of Oxford-IIIT Pet's trimaps.
TRIMAP: Mapping[int, int] = {1: 1, 2: 0, 3: IGNORED}
_IN_TRIMAP = "a trimap holds 1 (object), 2 (background) and 3 (ignored border)"

Found = tuple[np.ndarray | None, str]  # regions, or the sentence that says why not


def trimap_regions(values: np.ndarray, name: str) -> Found:
    """Regions `OBJECT_REGIONS` from the values of a trimap; `name` is the file's."""
    regions, unknown = _renumbered(values, TRIMAP)
    if unknown is None:
        return regions, ""
    return None, f"{name} has the value {unknown}, but {_IN_TRIMAP}; correct it."


def named_regions(values: np.ndarray, names: Sequence[str], name: str) -> Found:
    """Regions from values that are indices into names, or 255; see `DataConfig`."""
    meaning = {value: value for value in (*range(len(names)), IGNORED)}
    regions, unknown = _renumbered(values, meaning)
    if unknown is None:
        return regions, ""
    return None, (
        f"{name} has the value {unknown}, but data.regions names 0 to"
        f" {len(names) - 1} ({', '.join(names)}), and 255 is ignored; correct the mask,"
        " or name all of its values."
    )


def _renumbered(
    values: np.ndarray, meaning: Mapping[int, int]
) -> tuple[np.ndarray, int | None]:
    """The regions, and the first value that has no meaning, if there is one."""
    table = np.full(256, -1, np.int16)
    table[list(meaning)] = list(meaning.values())
    inside = (values >= 0) & (values < len(table))
    regions = np.where(inside, table[np.where(inside, values, 0)], -1)
    if (regions < 0).any():
        return regions, int(values[regions < 0].min())
    return regions.astype(np.uint8), None
