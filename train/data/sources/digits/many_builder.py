"""`many_digits` as a TFDS builder, prepared as array_record without TensorFlow."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds

from train.data.sources.digits import many
from train.data.sources.digits.builder import encoded_png
from train.data.sources.digits.ink import CLASS_NAMES


class Builder(tfds.core.GeneratorBasedBuilder):
    """One to eight whole handwritten digits, rotated and scaled, amid fragments."""

    name = "many_digits"
    pkg_dir_path = None
    VERSION = tfds.core.Version(many.VERSION)
    RELEASE_NOTES = {many.VERSION: "First version."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        """Features: image, and each digit's true rectangle and label."""
        return self.dataset_info_from_configs(
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(many.SIDE, many.SIDE, 1), encoding_format="png"
                    ),
                    "objects": tfds.features.Sequence(
                        {
                            "rectangle": tfds.features.Tensor(
                                shape=(5,), dtype=np.float32
                            ),
                            "label": tfds.features.ClassLabel(names=list(CLASS_NAMES)),
                        }
                    ),
                }
            ),
            # Record i is image i, so that `train[:1000]` is a smaller set.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {split: self._generate_examples(split) for split in many.SPLIT_SIZES}

    def _generate_examples(self, split: str):
        for index in range(many.SPLIT_SIZES[split]):
            sample = many.make_sample(split, index)
            objects = [
                {"rectangle": rectangle, "label": int(label)}
                for rectangle, label in zip(
                    sample.rectangles, sample.labels, strict=True
                )
            ]
            yield index, {"image": encoded_png(sample.image), "objects": objects}
