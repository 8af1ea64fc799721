"""What the network sees of an image, and how the ground truth moves with it.

A `View` is one crop, resize and flip, composed once: images, masks and rectangles go
through the same object, and rectangles come back through its inverse. Pixel
coordinates: x right, y down, 0 the left edge of the first pixel, 0.5 its centre. The
network's input has isotropic ones, those of `cram_jax/geometry/coordinates.py`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image

_CROP_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class View:
    """A box of a source image, resized and perhaps mirrored.

    Attributes:
        left, top, right, bottom: edges of the box in source pixels, not rounded.
        height, width: of the result in pixels.
        mirrored: left and right are exchanged.
    """

    left: float
    top: float
    right: float
    bottom: float
    height: int
    width: int
    mirrored: bool = False

    @property
    def scale_x(self) -> float:
        """Result pixels per source pixel, negative if mirrored."""
        scale = self.width / (self.right - self.left)
        return -scale if self.mirrored else scale

    @property
    def scale_y(self) -> float:
        """Result pixels per source pixel."""
        return self.height / (self.bottom - self.top)

    @property
    def shift_x(self) -> float:
        """Result x = scale_x * source x + shift_x."""
        return -self.scale_x * (self.right if self.mirrored else self.left)

    @property
    def shift_y(self) -> float:
        """Result y = scale_y * source y + shift_y."""
        return -self.scale_y * self.top

    def covers(self, height: int, width: int) -> bool:
        """Whether the result is the whole source image, pixel for pixel."""
        box = (self.left, self.top, self.right, self.bottom)
        whole = (0, 0, width, height) == box
        return whole and (self.height, self.width) == (height, width)


Size = tuple[int, int]  # (height, width)


def eval_view(size: Size, out_size: Size, crop: float = 1.0) -> View:
    """The central crop of evaluation: the largest box of the result's shape.

    Args:
        size: (height, width) of the source image.
        out_size: (height, width) of the result.
        crop: side of the box, as a share of the largest that fits.
    """
    (height, width), (out_height, out_width) = size, out_size
    share = crop * min(height / out_height, width / out_width)
    half_width, half_height = share * out_width / 2, share * out_height / 2
    left, right = width / 2 - half_width, width / 2 + half_width
    top, bottom = height / 2 - half_height, height / 2 + half_height
    return View(left, top, right, bottom, out_height, out_width)


def random_crop_view(
    rng: np.random.Generator,
    size: Size,
    out_size: Size,
    *,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> View:
    """A random resized crop (Szegedy et al. 2015, section 6), its edges not rounded.

    Args:
        rng: drawn from; how often depends on the shape of the image.
        size: (height, width) of the source image.
        out_size: (height, width) of the result.
        area: smallest and largest share of the source image's area.
        aspect: smallest and largest width-to-height ratio, relative to the result's;
            drawn uniformly in its logarithm.
    """
    (height, width), (out_height, out_width) = size, out_size
    for _ in range(_CROP_ATTEMPTS):
        pixels = rng.uniform(*area) * height * width
        ratio = np.exp(rng.uniform(*np.log(aspect))) * out_width / out_height
        w, h = float(np.sqrt(pixels * ratio)), float(np.sqrt(pixels / ratio))
        if w <= width and h <= height:
            left, top = rng.uniform(0.0, width - w), rng.uniform(0.0, height - h)
            return View(left, top, left + w, top + h, out_height, out_width)
    return eval_view(size, out_size)


def render_view(
    image: np.ndarray, view: View, interpolation: str | None = None
) -> np.ndarray:
    """uint8 [H, W, C] to uint8 [view.height, view.width, C], antialiased.

    Args:
        image: the source image.
        view: what to take of it.
        interpolation: "bilinear" (also None) or "bicubic".
    """
    if not view.covers(*image.shape[:2]):
        channels = image.shape[-1]
        resample = Image.Resampling[(interpolation or "bilinear").upper()]
        picture = Image.fromarray(image[..., 0] if channels == 1 else image)
        image = np.asarray(_resized(picture, view, resample))
        image = image.reshape(view.height, view.width, channels)
    return image[:, ::-1] if view.mirrored else image


def render_mask(mask: np.ndarray, view: View) -> np.ndarray:
    """uint8 [H, W] of 0 and 1 to uint8 [view.height, view.width], nearest pixel."""
    if not view.covers(*mask.shape):
        picture = Image.fromarray(mask)
        mask = np.asarray(_resized(picture, view, Image.Resampling.NEAREST))
    return mask[:, ::-1] if view.mirrored else mask


def rectangle_to_network(view: View, rectangle: np.ndarray) -> np.ndarray:
    """Rectangles [..., 5] in source pixels to isotropic network input coordinates.

    Raises:
        ValueError: the view changes the aspect and a rectangle is rotated, so that
            the result would be no rectangle.
    """
    moved = _affine(
        rectangle, (view.scale_x, view.scale_y), (view.shift_x, view.shift_y)
    )
    return pixel_to_isotropic(moved, view.height, view.width)


def rectangle_to_source(view: View, rectangle: np.ndarray) -> np.ndarray:
    """The inverse of `rectangle_to_network`: where on the original image it lies."""
    moved = isotropic_to_pixel(rectangle, view.height, view.width)
    scale = (1 / view.scale_x, 1 / view.scale_y)
    shift = (-view.shift_x / view.scale_x, -view.shift_y / view.scale_y)
    return _affine(moved, scale, shift)


def isotropic_to_pixel(rectangle: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rectangles [..., 5] from isotropic to pixel coordinates of an image, float64."""
    half_side = max(height, width) / 2
    pixel = np.array(rectangle, np.float64)
    pixel[..., :4] *= half_side
    pixel[..., :2] += width / 2, height / 2
    return pixel


def pixel_to_isotropic(rectangle: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rectangles [..., 5] from pixel to isotropic coordinates of an image, float64."""
    isotropic = np.array(rectangle, np.float64)
    isotropic[..., :2] -= width / 2, height / 2
    isotropic[..., :4] /= max(height, width) / 2
    return isotropic


def visible_rectangle(
    view: View, rectangle: np.ndarray, *, upright: bool
) -> np.ndarray | None:
    """A true rectangle [5] in source pixels as the network sees it, isotropic.

    An upright box is cut off at the edge of the view, and None if less than a pixel is
    left of a side. A rotated rectangle is kept whole (a cut one is no rectangle), and
    None if its centre is out of view.
    """
    seen = rectangle_to_network(view, rectangle)
    limit = np.array([view.width, view.height]) / max(view.height, view.width)
    center, half = seen[:2], seen[2:4]
    if not upright:
        return None if (np.abs(center) > limit).any() else seen
    low, high = np.maximum(center - half, -limit), np.minimum(center + half, limit)
    if ((high - low) * max(view.height, view.width) / 2 < 1.0).any():
        return None
    return np.concatenate([(low + high) / 2, (high - low) / 2, seen[4:]])


def _resized(picture: Image.Image, view: View, resample: Image.Resampling):
    # Rounding may put an edge a hair outside, which Pillow refuses.
    box = (
        max(view.left, 0.0),
        max(view.top, 0.0),
        min(view.right, float(picture.width)),
        min(view.bottom, float(picture.height)),
    )
    return picture.resize((view.width, view.height), resample, box)


def _affine(
    rectangle: np.ndarray, scale: tuple[float, float], shift: tuple[float, float]
) -> np.ndarray:
    """(x, y) -> scale * (x, y) + shift for rectangles [..., 5], float64."""
    moved = np.array(rectangle, np.float64)
    sizes = abs(scale[0]), abs(scale[1])
    alike = math.isclose(*sizes, rel_tol=1e-4)
    if not alike and (moved[..., 4] != 0.0).any():
        raise ValueError(
            "A rotated rectangle stays one only where both axes scale alike, got "
            f"{sizes[0]:.4g} and {sizes[1]:.4g}; use data.crop_aspect = (1, 1)."
        )
    moved[..., :2] = moved[..., :2] * scale + shift
    moved[..., 2:4] *= sizes
    if scale[0] * scale[1] < 0:
        moved[..., 4] *= -1.0
    return moved
