"""A trained network as a program that runs wherever jax does, without this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.export
import numpy as np

from train.data.preparation import with_source_interpolation
from train.errors import UserError, cause_of, choose
from train.learning.evaluator import observe
from train.run.checkpoints.restore import Trained

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def exported_program(trained: Trained, platforms: Sequence[str]) -> bytes:
    """The network with its weights, for any number of images, as serialised StableHLO.

    `jax.export.deserialize(bytearray(...)).call(images)` takes uint8 images
    `[batch, H, W, C]` of the network's size, and gives a dict of "outputs" (the
    network's own), "rectangles" (`[batch, 5]` by layer, of layers of several
    `[batch, K, 5]`) and "masks" (`[batch, H, W]` in [0, 1], by layer, of layers that
    have no rectangle). It is made of dicts and arrays only, so that nobody needs our
    classes to read it. `described` says the rest.

    Args:
      trained: the network.
      platforms: some of `PLATFORMS`; the same program runs on all of them.

    Raises:
      UserError: for an unknown platform, or a network that cannot be exported.
    """
    for platform in platforms:
        choose("platform", platform, PLATFORMS)
    if not platforms:
        raise UserError(f"--platforms needs one of {', '.join(PLATFORMS)}.")
    experiment = trained.experiment
    # As numpy arrays: where they lie now is no concern of the program.
    variables, step = jax.device_get((trained.variables, trained.step))

    def network(images: jax.Array) -> dict[str, Any]:
        outputs, evidence = observe(experiment, variables, step, images)
        rectangles, masks = {}, {}
        for path, layer in evidence.items():
            if "rectangle" in layer:
                rectangles[path] = layer["rectangle"].as_array()
            else:
                masks[path] = layer["mask"]
        return {"outputs": outputs, "rectangles": rectangles, "masks": masks}

    (batch,) = jax.export.symbolic_shape("batch")
    shape = (batch, *experiment.inputs.image_shape)
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    export = jax.export.export(jax.jit(network), platforms=tuple(platforms))
    try:
        return bytes(export(images).serialize())
    except (ValueError, NotImplementedError, TypeError) as error:
        raise UserError(
            f"This network cannot be exported as one program: {cause_of(error)}"
        ) from error


def described(trained: Trained) -> dict[str, Any]:
    """What must be known to use a network, as JSON: inputs, outputs, classes."""
    experiment = trained.experiment
    config, facts = experiment.config, experiment.inputs
    data = with_source_interpolation(config)
    return {
        "task": experiment.task.name,
        "classes": list(facts.class_names),
        "backbone": config.model.backbone,
        "attention": config.model.attention,
        "attention_stages": list(config.model.attention_stages),
        "attention_count": config.model.attention_count,
        "step": int(trained.step),
        "input": {
            "shape": ["batch", *facts.image_shape],
            "dtype": "uint8",
            "crop": f"the largest central box of that shape, {data.eval_crop:g} of it",
            "resize": f"{data.interpolation}, antialiased as Pillow's",
        },
        # The exported program does this itself; weights alone do not.
        "normalisation": {
            "scale": 1 / 255,
            "mean": list(experiment.mean),
            "std": list(experiment.std),
        },
        "rectangles": (
            "center_x, center_y, half_width, half_height, angle. The longer side of"
            " the input spans -1 to 1; x is to the right, y down; the angle in radians"
            " turns +x towards +y. In pixels of the input: center_x * longer / 2 +"
            " width / 2, center_y * longer / 2 + height / 2, half sizes * longer / 2."
        ),
    }
