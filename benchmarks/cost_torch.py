"""timm's attention layers under `torch.compile`, to be timed beside ours.

They need torch and timm (`make test-torch` sets up an environment that has both) and,
on CPU, a C++ compiler. Tensors are channels-last in memory, as ours are.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

# Name in the tables, and timm's module and class.
LAYERS = {
    "timm cbam": ("cbam", "CbamModule"),
    "timm squeeze-excite": ("squeeze_excite", "SEModule"),
    "timm efficient-channel": ("eca", "EcaModule"),
    "timm coordinate": ("coord_attn", "CoordAttn"),
}
_OPERATORS: list[Any] = []  # They live as long as their library.


def import_torchvision() -> Any:
    """Torchvision, also beside a CPU build of torch.

    Its wheel registers fake versions of two operators, and fails where the compiled
    ones are missing; no classifier or layer uses them.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        library = importlib.import_module("torch").library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float t) -> Tensor")
        _OPERATORS.append(library)
        return importlib.import_module("torchvision")


def import_torch() -> Any:
    """torch, such that timm can be imported, which imports torchvision.

    Raises:
      SystemExit: without torch, torchvision or timm.
    """
    try:
        torch = importlib.import_module("torch")
        import_torchvision()
        importlib.import_module("timm.layers")
    except ImportError as error:
        raise SystemExit(
            f"--torch compares with timm's layers and needs torch, torchvision and timm"
            f" ({error}). `make test-torch` sets up an environment that has them:"
            " .venv-torch/bin/python -m benchmarks.attention_cost --torch"
        ) from None
    return torch


def _draw(torch: Any, shape: tuple[int, ...], dtype: str, device: str) -> list[Any]:
    """A map and its cotangent."""
    batch, height, width, channels = shape
    generator = torch.Generator().manual_seed(0)
    drawn = [
        torch.randn(batch, channels, height, width, generator=generator)
        for _ in range(2)
    ]
    return [
        values.to(device, getattr(torch, dtype)).contiguous(
            memory_format=torch.channels_last
        )
        for values in drawn
    ]


def torch_functions(
    name: str, shape: tuple[int, ...], dtype: str
) -> tuple[Callable[[], Any], Callable[[], Any], dict[str, Any]]:
    """One layer on one map, compiled and run once.

    Args:
      name: in `LAYERS`.
      shape: `(batch, height, width, channels)`.
      dtype: "float32" or "bfloat16", of the features; parameters stay float32 and
        torch's autocast mixes them.

    Returns:
      `forward()`, `both()` (with the gradients of map and parameters), and what a
      record says of the layer: its parameters and the seconds of both compilations.
    """
    torch = import_torch()
    module, cls = LAYERS[name]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = getattr(importlib.import_module(f"timm.layers.{module}"), cls)(shape[-1])
    layer = layer.to(device).train()
    x, cotangent = _draw(torch, shape, dtype, device)
    inputs = [x.requires_grad_(), *layer.parameters()]
    # Of one class, the second map would be compiled for every shape, and fail.
    compiled = torch.compile(layer, dynamic=False)

    def apply():
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            return compiled(x)

    def finished(result):
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    def forward():
        with torch.no_grad():
            return finished(apply())

    def both():
        y = apply()
        return finished((y, torch.autograd.grad(y, inputs, cotangent.to(y.dtype))))

    facts: dict[str, Any] = {
        "parameters": sum(leaf.numel() for leaf in layer.parameters())
    }
    for phase, run in (("forward", forward), ("both", both)):
        start = time.perf_counter()
        run()
        facts[f"{phase}_compile_seconds"] = time.perf_counter() - start
    return forward, both, facts
