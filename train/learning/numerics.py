"""Numbers as this program means them, whatever the environment says.

A checkpoint holds float32, int32 and the two words of a threefry key. `JAX_ENABLE_X64`
or `JAX_DEFAULT_PRNG_IMPL` in the environment would make it look otherwise, and no
start without them could read it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

GENERATOR = "threefry2x32"
_OWN = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": GENERATOR,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}


@contextlib.contextmanager
def own_numerics() -> Iterator[None]:
    """A context in which jax has the program's settings; the caller's come back."""
    before = {name: getattr(jax.config, name) for name in _OWN}
    for name, value in _OWN.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
