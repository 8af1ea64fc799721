"""`cluttered_digits` as a TFDS builder, prepared as array_record without TensorFlow."""

from __future__ import annotations

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from train.data.sources.digits import cluttered


class Builder(tfds.core.GeneratorBasedBuilder):
    """One whole handwritten digit, rotated and scaled, amid fragments of others."""

    name = "cluttered_digits"
    pkg_dir_path = None
    VERSION = tfds.core.Version(cluttered.VERSION)
    RELEASE_NOTES = {  # noqa: RUF012
        "1.0.0": "First version.",
        cluttered.VERSION: "Masks of the digits; images as before.",
    }

    def _info(self) -> tfds.core.DatasetInfo:
        """Features: image, label, the digit's true rectangle and mask."""
        side = cluttered.SIDE
        return self.dataset_info_from_configs(
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(side, side, 1), encoding_format="png"
                    ),
                    "label": tfds.features.ClassLabel(
                        names=list(cluttered.CLASS_NAMES)
                    ),
                    "rectangle": tfds.features.Tensor(shape=(5,), dtype=np.float32),
                    "mask": tfds.features.Image(
                        shape=(side, side, 1), encoding_format="png"
                    ),
                }
            ),
            supervised_keys=("image", "label"),
            # Record i is image i, so that `train[:4000]` is a smaller set.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {
            split: self._generate_examples(split) for split in cluttered.SPLIT_SIZES
        }

    def _generate_examples(self, split: str):
        for index in range(cluttered.SPLIT_SIZES[split]):
            sample = cluttered.make_sample(split, index)
            yield (
                index,
                {
                    "image": encoded_png(sample.image),
                    "label": sample.label,
                    "rectangle": sample.rectangle,
                    "mask": encoded_png(sample.mask.astype(np.uint8)),
                },
            )


def encoded_png(pixels: np.ndarray) -> io.BytesIO:
    """Encoded bytes: TFDS needs TensorFlow to encode an array."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    file.seek(0)
    return file
