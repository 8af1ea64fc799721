"""Regions of images, what hides the rest, and random ones to train a judge on.

Regions are bool `[B, H, W]` at the pixels of the network's input; True stays visible.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_LEAST_SHARE, _MOST_SHARE = 0.1, 0.8
_BLOB_GRID = 5


def hidden(images: np.ndarray, regions: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """Images with one colour outside of their regions.

    Args:
      images: uint8 `[B, H, W, C]`.
      regions: bool `[B, H, W]`.
      fill: the colour, `[C]` or one for each image, `[B, C]`.
    """
    colour = np.asarray(fill, np.uint8)
    colour = colour.reshape(-1, 1, 1, images.shape[-1])
    return np.where(regions[..., None], images, colour)


def random_regions(
    rng: np.random.Generator, count: int, height: int, width: int
) -> np.ndarray:
    """What a judge is trained on: `[count, height, width]`.

    A fifth of the images are whole. The others show a rotated rectangle or a blob of a
    tenth to eight tenths of the picture, or, as often, what lies outside of it. Blobs
    are there because maps, unlike rectangles, give regions of any shape.
    """
    regions = np.ones((count, height, width), bool)
    for row in range(count):
        kind = rng.uniform()
        if kind < 0.2:
            continue
        share = rng.uniform(_LEAST_SHARE, _MOST_SHARE)
        draw = _rectangle if kind < 0.6 else _blob
        region = draw(rng, share, height, width)
        regions[row] = ~region if rng.uniform() < 0.5 else region
    return regions


def _rectangle(rng, share: float, height: int, width: int) -> np.ndarray:
    """A rotated rectangle of this share of the picture, some of it perhaps beyond."""
    aspect = np.exp(rng.uniform(-np.log(2), np.log(2)))
    half_width = np.sqrt(share * height * width * aspect) / 2
    half_height = np.sqrt(share * height * width / aspect) / 2
    angle = rng.uniform(-np.pi / 2, np.pi / 2)
    x = np.arange(width) + 0.5 - rng.uniform(0.2, 0.8) * width
    y = (np.arange(height) + 0.5 - rng.uniform(0.2, 0.8) * height)[:, None]
    along = np.abs(np.cos(angle) * x + np.sin(angle) * y)
    across = np.abs(np.cos(angle) * y - np.sin(angle) * x)
    return (along <= half_width) & (across <= half_height)


def _blob(rng, share: float, height: int, width: int) -> np.ndarray:
    """The highest part, of this share, of smooth noise."""
    noise = rng.normal(size=(_BLOB_GRID, _BLOB_GRID)).astype(np.float32)
    resample = Image.Resampling.BICUBIC
    field = np.asarray(Image.fromarray(noise).resize((width, height), resample))
    return field >= np.quantile(field, 1 - share)


def highest(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The regions `[N, H, W]` of the highest values: in each image exactly so many.

    Args:
      values: `[N, H, W]`. Of equal ones the first in reading order comes first.
      counts: int `[N]`.
    """
    flat = values.reshape(len(values), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(flat.shape[1])[None], axis=1)
    return (ranks < np.asarray(counts)[:, None]).reshape(values.shape)


def central(counts: np.ndarray, height: int, width: int) -> np.ndarray:
    """Squares in the middle with so many pixels each, `[N, height, width]`.

    Exactly so many: the last ring of a square may be open at its end.
    """
    x = np.abs(np.arange(width) + 0.5 - width / 2)
    y = np.abs(np.arange(height) + 0.5 - height / 2)
    distance = np.maximum(x, y[:, None])
    return highest(np.repeat(-distance[None], len(counts), axis=0), counts)
