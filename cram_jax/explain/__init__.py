"""Where a trained network saw its class, asked from outside the network.

Files, each built on those before it: cam, gradients.
"""

from cram_jax.explain.cam import (
    ClassMaps,
    activation_map,
    class_activation_maps,
    map_on_pixels,
    unit_map,
)
from cram_jax.explain.gradients import grad_cam, grad_cam_of_split, gradient_map

__all__ = [
    "ClassMaps",
    "activation_map",
    "class_activation_maps",
    "grad_cam",
    "grad_cam_of_split",
    "gradient_map",
    "map_on_pixels",
    "unit_map",
]
