"""What a network must know of its data set; a run keeps it and then needs no images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What the network must know of its data set.

    Attributes:
      image_shape: (height, width, channels) of the network's input.
      class_names: one per class of an image; empty where objects have categories.
      num_examples: training images.
      truth: rotated, box, mask, or none.
      regions: what the values of masks mean; see `DatasetInfo`.
      categories: the kinds of objects; see `DatasetInfo`.
      rotated_objects: whether their rectangles may be rotated.
      most_objects: in one image of the training and evaluation splits.
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    num_examples: int
    truth: str
    regions: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    rotated_objects: bool = False
    most_objects: int = 0
