"""A source is opened by its name; a new one is a file and a line in a table."""

import sys
import types

import numpy as np
import pytest

from tests.batches import eval_batches
from tests.train.data.sources.opened import opened
from train.config.data import DataConfig
from train.data.pipeline import load_source
from train.data.sources import DatasetInfo, Example
from train.data.sources.opening import SOURCES


class Stripes:
    """Four images of two classes."""

    def __init__(self, split):
        self.info = DatasetInfo(
            name="stripes:4",
            split=split,
            class_names=("across", "along"),
            num_examples=4,
            truth="none",
            channels=1,
            image_size=(6, 6),
        )

    def __len__(self):
        return 4

    def __getitem__(self, index):
        image = np.zeros((6, 6, 1), np.uint8)
        image[(slice(None, None, 2),) if index % 2 else (slice(None), slice(3))] = 255
        return Example(image, index % 2)


@pytest.fixture
def stripes(monkeypatch):
    asked = []

    def open_stripes(config, split, max_examples):
        asked.append((config.name, split, max_examples))
        return Stripes(split)

    module = types.ModuleType("my_stripes")
    vars(module)["open_stripes"] = open_stripes
    monkeypatch.setitem(sys.modules, "my_stripes", module)
    monkeypatch.setitem(SOURCES, "stripes:COUNT", "my_stripes:open_stripes")
    return asked


def test_a_new_source_is_a_file_and_a_line(stripes):
    config = DataConfig("stripes:4", eval_examples=3)
    (batch,) = eval_batches(load_source(config, "eval"), config, 4)
    assert stripes == [("stripes:4", "test", 3)]
    assert batch["image"].shape == (4, 6, 6, 1)
    assert batch["label"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("stripe:4", "'stripes:4'"),
        ("stripes", None),
        ("stripes:", None),
        ("digits:4", None),
        ("digit", "'digits'"),
        ("folders:x", "'folder:x'"),
    ],
)
def test_another_name_is_refused_with_all_there_are(stripes, name, meant):
    with pytest.raises(ValueError, match=r"must be one of .*stripes:COUNT") as e:
        opened(name, "train")
    assert meant is None or f"Did you mean {meant}?" in str(e.value)
