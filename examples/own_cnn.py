"""Your own network with a rectangle in it: three lines change.

    python examples/own_cnn.py

Trains it on scikit-learn's handwritten digits, each put somewhere on a larger dark
image. Prints the accuracy on held-out images, and for one of them where the network
looked. The lines that the attention layer needs are marked.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

from cram_jax import RectangularAttention, attended_rectangles  # <- 1

SIDE = 24


class OwnCNN(nn.Module):
    """A network as one writes it."""

    num_classes: int

    @nn.compact
    def __call__(self, x):
        """Images [B, H, W, 1] to logits [B, num_classes]."""
        x = nn.relu(nn.Conv(16, (3, 3), strides=2)(x))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = RectangularAttention()(x)  # <- 2
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


def scattered_digits(seed):
    """Digits of 8 x 8 pixels at random places of dark images; images and classes."""
    generator = np.random.default_rng(seed)
    pixels, classes = load_digits(return_X_y=True)
    images = np.zeros((len(classes), SIDE, SIDE, 1), np.float32)
    places = generator.integers(0, SIDE - 8, (len(images), 2))
    for image, digit, (top, left) in zip(images, pixels, places, strict=True):
        image[top : top + 8, left : left + 8, 0] = digit.reshape(8, 8) / 16
    order = generator.permutation(len(images))
    return images[order], classes[order]


def train(images, labels, *, steps, batch_size=64):
    """The network and its variables after training with Adam."""
    network = OwnCNN(10)
    variables = jax.jit(network.init)(jax.random.key(0), images[:1])
    # `init` also returns what the layer showed of that one image: keep the parameters.
    params = variables["params"]
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state, x, y):
        def loss(params):
            logits: Any = network.apply({"params": params}, x)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state, generator = optimizer.init(params), np.random.default_rng(0)
    for _ in range(steps):
        batch = generator.integers(0, len(images), batch_size)
        params, state = step(params, state, images[batch], labels[batch])
    return network, params


def main(steps=600):
    """Trains, and returns accuracy and the rectangles of the test images."""
    images, labels = scattered_digits(seed=0)
    network, params = train(images[:1500], labels[:1500], steps=steps)
    test, classes = images[1500:], labels[1500:]
    apply = jax.jit(functools.partial(network.apply, mutable=["intermediates"]))
    logits, seen = apply({"params": params}, test)
    (rectangle,) = attended_rectangles(seen).values()  # <- 3
    accuracy = float(np.mean(np.argmax(logits, -1) == classes))
    print(f"Accuracy on {len(test)} images: {accuracy:.1%}")
    print("Where it looked in the first (isotropic coordinates):")
    for name in ("center_x", "center_y", "half_width", "half_height", "angle"):
        print(f"  {name:<12}{float(getattr(rectangle, name)[0]):.2f}")
    return accuracy, rectangle


if __name__ == "__main__":
    main()
