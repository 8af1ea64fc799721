"""How tests compile, and how they count what was compiled.

XLA's flags are those of all tests, also of the programs that tests start.

Most of a test's time is compilation of what runs once. Unoptimised code takes half of
it; so do, before jax 0.12, the older of XLA's two ways to emit loops on CPU.
`XLA_FLAGS=--xla_backend_optimization_level=3 make test` tests the code as users run it.
"""

import collections
import contextlib
import os
from collections.abc import Iterator
from importlib.metadata import version

QUICK_COMPILATION = "--xla_backend_optimization_level=0"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 12):
    QUICK_COMPILATION += " --xla_cpu_use_fusion_emitters=false"

BACKEND_COMPILE = "/jax/core/compile/backend_compile_duration"


def flags(devices: int = 1) -> str:
    """What XLA_FLAGS should be for so many virtual devices."""
    given = os.environ.get("XLA_FLAGS", "")
    if "--xla_backend_optimization_level" not in given:
        given = f"{given} {QUICK_COMPILATION}"
    return f"{given} --xla_force_host_platform_device_count={devices}"


@contextlib.contextmanager
def counted() -> Iterator[collections.Counter[str]]:
    """Counts XLA's compilations in the block by name: {"jit(train_step)": 1}.

    The cache of a compiled function says less: other functions of a long process can
    push its entries out.
    """
    # Not at the top: tests set XLA's flags with this module before they import jax.
    import jax

    count: collections.Counter[str] = collections.Counter()

    def listen(event: str, duration_secs: float, **kwargs: str | int):
        if event == BACKEND_COMPILE:
            count[str(kwargs["fun_name"])] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
