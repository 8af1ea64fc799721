"""`cluttered_digits` as a TFDS builder, prepared as array_record without TensorFlow."""

from __future__ import annotations

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from train.datasets import cluttered_digits


class Builder(tfds.core.GeneratorBasedBuilder):
    """One whole handwritten digit, rotated and scaled, amid fragments of others."""

    name = "cluttered_digits"
    pkg_dir_path = None
    VERSION = tfds.core.Version(cluttered_digits.VERSION)
    RELEASE_NOTES = {cluttered_digits.VERSION: "First version."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        """Features: image, label, and the digit's true rectangle."""
        side = cluttered_digits.SIDE
        return self.dataset_info_from_configs(
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(side, side, 1), encoding_format="png"
                    ),
                    "label": tfds.features.ClassLabel(
                        names=list(cluttered_digits.CLASS_NAMES)
                    ),
                    "rectangle": tfds.features.Tensor(shape=(5,), dtype=np.float32),
                }
            ),
            supervised_keys=("image", "label"),
            # Record i is image i, so that `train[:4000]` is a smaller set.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {
            split: self._generate_examples(split)
            for split in cluttered_digits.SPLIT_SIZES
        }

    def _generate_examples(self, split: str):
        for index in range(cluttered_digits.SPLIT_SIZES[split]):
            sample = cluttered_digits.make_sample(split, index)
            file = io.BytesIO()
            Image.fromarray(sample.image).save(file, format="PNG")
            # Encoded bytes: TFDS needs TensorFlow to encode an array.
            file.seek(0)
            yield (
                index,
                {"image": file, "label": sample.label, "rectangle": sample.rectangle},
            )
