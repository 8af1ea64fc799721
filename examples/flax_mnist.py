"""A CNN in the manner of Flax's MNIST example, with a rectangle in it.

    python examples/flax_mnist.py

The network is rebuilt as a user would have it, not copied.
`Attended` below puts the layer behind one of its modules from outside: it serves
for networks of packages, whose source is not yours to edit.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax import RectangularAttention, attended_rectangles


class CNN(nn.Module):
    """The example's network."""

    @nn.compact
    def __call__(self, x):
        """Images [B, 28, 28, 1] to logits [B, 10]."""
        x = nn.Conv(features=32, kernel_size=(3, 3))(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = nn.Conv(features=64, kernel_size=(3, 3))(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.Dense(features=256)(x)
        x = nn.relu(x)
        return nn.Dense(features=10)(x)


class Attended(nn.Module):
    """Any network, with a rectangle behind one of its modules.

    Attributes:
      network: the network.
      after: name of the module (a child of the network) whose output is gated.
    """

    network: nn.Module
    after: str

    @nn.compact
    def __call__(self, *arguments):
        """Calls the network; takes and returns what it does."""
        attention = RectangularAttention(name="attention")
        place, gated = (*self.path, "network", self.after), []

        def gate(call, args, kwargs, context):
            output = call(*args, **kwargs)
            if context.module.path != place or context.method_name != "__call__":
                return output
            gated.append(place)
            return attention(output)

        with nn.intercept_methods(gate):
            output = self.network(*arguments)
        if not gated:
            raise ValueError(f"The network calls no module named {self.after!r}.")
        return output


def main():
    """Both networks on the same images with the same weights; returns their logits."""
    images = jax.random.uniform(jax.random.key(0), (4, 28, 28, 1))
    bare, attended = CNN(), Attended(CNN(), after="Conv_1")
    weights = jax.jit(bare.init)(jax.random.key(1), images)["params"]
    params = jax.jit(attended.init)(jax.random.key(2), images)["params"]
    # The weights you already have go in as they are; the layer starts nearly open.
    params = {**params, "network": weights}
    before = jax.jit(bare.apply)({"params": weights}, images)
    apply = jax.jit(functools.partial(attended.apply, mutable=["intermediates"]))
    after, seen = apply({"params": params}, images)
    (rectangle,) = attended_rectangles(seen).values()
    change = jnp.abs(after - before).max() / jnp.abs(before).max()
    print(f"The nearly open mask changes the logits by {float(change):.1%}.")
    print(f"Rectangle of the first image: {rectangle.as_array()[0]}")
    return before, after, rectangle


if __name__ == "__main__":
    main()
