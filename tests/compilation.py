"""XLA flags of all tests, also of the programs that tests start.

Most of a test's time is compilation of what runs once. Unoptimised code takes half of
it; so do, before jax 0.12, the older of XLA's two ways to emit loops on CPU.
`XLA_FLAGS=--xla_backend_optimization_level=3 make test` tests the code as users run it.
"""

import os
from importlib.metadata import version

QUICK_COMPILATION = "--xla_backend_optimization_level=0"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 12):
    QUICK_COMPILATION += " --xla_cpu_use_fusion_emitters=false"


def flags(devices: int = 1) -> str:
    """What XLA_FLAGS should be for so many virtual devices."""
    given = os.environ.get("XLA_FLAGS", "")
    if "--xla_backend_optimization_level" not in given:
        given = f"{given} {QUICK_COMPILATION}"
    return f"{given} --xla_force_host_platform_device_count={devices}"
