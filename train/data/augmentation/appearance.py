"""Colours changed at random and parts erased: nothing in an image changes its place.

All of it is drawn from a row's own generator, so that an image of a step is the same
whoever makes it. Every image is uint8 `[H, W, C]` with one channel or three.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from train.config.data import DataConfig

# Luma weights of ITU-R BT.601, as Pillow's conversion to grey has them.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Zhong et al. (2020), section 4.2: of an image's area; height to width.
_ERASED_AREA = (0.02, 0.4)
_ERASED_ASPECT = (0.3, 1 / 0.3)
_ERASE_ATTEMPTS = 10
# TrivialAugment draws one of so many strengths, none and the full one among them.
_STRENGTHS = 31


def altered(
    image: np.ndarray, config: DataConfig, rng: np.random.Generator
) -> np.ndarray:
    """The image with the colours and the erasing of `config`, in that order.

    What is off draws nothing, so that the rest stays as it is without it.
    """
    if config.color_jitter:
        low, high = 1 - config.color_jitter, 1 + config.color_jitter
        brightness, contrast, saturation = rng.uniform(low, high, 3)
        image = jitter_color(
            image, brightness=brightness, contrast=contrast, saturation=saturation
        )
    if config.trivial_augment:
        image = trivial_augment(rng, image)
    if config.erasing and rng.random() < config.erasing:
        image = erase_part(rng, image)
    return image


def jitter_color(
    image: np.ndarray, *, brightness: float, contrast: float, saturation: float
) -> np.ndarray:
    """Scales brightness, contrast and saturation; 1 changes nothing.

    Contrast is about the mean grey level, saturation about each pixel's own; one
    channel has no saturation.
    """
    values = image.astype(np.float32) * brightness
    if image.shape[-1] == 3:
        grey = (values @ _LUMA)[..., None]
        mean = grey.mean()
        values = grey + saturation * (values - grey)
    else:
        mean = values.mean()
    values = mean + contrast * (values - mean)
    return np.round(np.clip(values, 0, 255)).astype(np.uint8)


Operation = Callable[[Image.Image, float], Image.Image]


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    """0 changes nothing; -1 takes nearly all away, 1 nearly doubles it."""
    return lambda picture, strength: kind(picture).enhance(1 + 0.99 * strength)


# By name; the strength is in [-1, 1], and where its sign means nothing it is ignored.
COLOR_OPERATIONS: dict[str, Operation] = {
    "identity": lambda picture, _: picture,
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "saturation": _enhanced(ImageEnhance.Color),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "posterize": lambda picture, strength: ImageOps.posterize(
        picture, 8 - round(6 * abs(strength))
    ),
    "solarize": lambda picture, strength: ImageOps.solarize(
        picture, round(256 * (1 - abs(strength)))
    ),
}


def trivial_augment(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """One operation on colours, each as likely, of a strength drawn uniformly.

    This is TrivialAugment (Mueller and Hutter 2021) in its wide space, without shear,
    rotation and shift: a sheared rectangle is none, an upright box that is turned is no
    tight box any more, and what comes in from outside is blank. Images move by
    `data.crop_area` and `data.flip`, and by the equivariance terms.
    """
    name = list(COLOR_OPERATIONS)[rng.integers(len(COLOR_OPERATIONS))]
    strength = rng.integers(_STRENGTHS) / (_STRENGTHS - 1)
    sign = 1 - 2 * rng.integers(2)
    return color_operation(name, image, float(sign * strength))


def color_operation(name: str, image: np.ndarray, strength: float) -> np.ndarray:
    """The image after one of `COLOR_OPERATIONS`, of a strength in [-1, 1]."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    changed = COLOR_OPERATIONS[name](picture, strength)
    return np.asarray(changed).reshape(image.shape)


def erase_part(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Random erasing (Zhong et al. 2020): noise in place of a random upright rectangle.

    The rectangle covers 2% to 40% of the image, and its aspect ratio is drawn uniformly
    in its logarithm (ours; in the paper: uniformly). What is known of the object
    stays: it is partly hidden, not moved.
    """
    height, width, channels = image.shape
    for _ in range(_ERASE_ATTEMPTS):
        pixels = rng.uniform(*_ERASED_AREA) * height * width
        ratio = np.exp(rng.uniform(*np.log(_ERASED_ASPECT)))
        h = max(1, round(float(np.sqrt(pixels * ratio))))
        w = max(1, round(float(np.sqrt(pixels / ratio))))
        if h <= height and w <= width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            noise = rng.integers(0, 256, (h, w, channels), np.uint8)
            erased = image.copy()
            erased[top : top + h, left : left + w] = noise
            return erased
    return image
