"""What torch calls the parameters of inverted residuals: MobileNetV3, EfficientNet.

The functions map the path of one of our leaves, e.g. `("block3_1", "expand", "conv",
"kernel")`, to the name in a torch state dict. `modules` are the paths of all modules.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from cram_jax.backbones.published import TORCH_LEAVES, Path


def is_inverted(modules: Collection[Path]) -> bool:
    """Whether the modules are those of a network of inverted residuals."""
    return any(path[:1] == ("block0_0",) for path in modules)


def is_mobilenet(modules: Collection[Path]) -> bool:
    """Whether the modules are a MobileNetV3's: its head has a hidden layer.

    Without a head the number of groups tells: EfficientNets have seven.
    """
    if not is_inverted(modules):
        return False
    if any(path[:1] == ("head",) for path in modules):
        return ("head", "hidden") in modules
    return not any(path[:1] == ("block6_0",) for path in modules)


def is_efficientnet(modules: Collection[Path]) -> bool:
    """Whether the modules are an EfficientNet's."""
    return is_inverted(modules) and not is_mobilenet(modules)


def _blocks(modules: Collection[Path]) -> list[tuple[int, int]]:
    """(group, index) of every inverted residual, in order."""
    names = {module[0] for module in modules}
    found = (re.fullmatch(r"block(\d+)_(\d+)", name) for name in names)
    return sorted((int(match[1]), int(match[2])) for match in found if match)


def _parts(block: str, modules: Collection[Path]) -> list[str]:
    """Which parts an inverted residual has, in order."""
    order = ("expand", "depthwise", "squeeze", "project")
    return [part for part in order if any(m[:2] == (block, part) for m in modules)]


def _place(block: str) -> tuple[int, int]:
    group, index = block.removeprefix("block").split("_")
    return int(group), int(index)


def torchvision_name(path: Path, modules: Collection[Path]) -> str:
    """Torchvision's names of a MobileNetV3's or EfficientNet's leaves."""
    *module, leaf = path
    mobilenet = is_mobilenet(modules)
    blocks = _blocks(modules)
    if module[0] == "head":
        order = {"hidden": 0, "dense": 3} if mobilenet else {"dense": 1}
        return f"classifier.{order[module[1]]}.{TORCH_LEAVES[leaf]}"
    if module[0] in ("stem", "last"):
        last = len(blocks) if mobilenet else blocks[-1][0] + 1
        place = f"features.{0 if module[0] == 'stem' else last + 1}"
    else:
        group, index = _place(module[0])
        flat = f"features.{blocks.index((group, index)) + 1}"
        block = flat if mobilenet else f"features.{group + 1}.{index}"
        place = f"{block}.block.{_parts(module[0], modules).index(module[1])}"
        if module[1] == "squeeze":
            layer = {"reduce": "fc1", "expand": "fc2"}[module[2]]
            return f"{place}.{layer}.{TORCH_LEAVES[leaf]}"
    return f"{place}.{0 if module[-1] == 'conv' else 1}.{TORCH_LEAVES[leaf]}"


def timm_name(path: Path, modules: Collection[Path]) -> str:
    """Timm's names of a MobileNetV3's or EfficientNet's leaves."""
    *module, leaf = path
    mobilenet = is_mobilenet(modules)
    if module[0] == "head":
        name = {"hidden": "conv_head", "dense": "classifier"}[module[1]]
    elif module[0] == "stem":
        name = {"conv": "conv_stem", "norm": "bn1"}[module[1]]
    elif module[0] == "last" and mobilenet:
        last = _blocks(modules)[-1][0] + 1
        name = f"blocks.{last}.0." + {"conv": "conv", "norm": "bn1"}[module[1]]
    elif module[0] == "last":
        name = {"conv": "conv_head", "norm": "bn2"}[module[1]]
    else:
        group, index = _place(module[0])
        block = f"blocks.{group}.{index}"
        convs = [part for part in _parts(module[0], modules) if part != "squeeze"]
        if module[1] == "squeeze":
            name = f"{block}.se.conv_{module[2]}"
        elif module[2] == "norm":
            name = f"{block}.bn{convs.index(module[1]) + 1}"
        else:
            project = "conv_pwl" if "expand" in convs else "conv_pw"
            parts = {"expand": "conv_pw", "depthwise": "conv_dw", "project": project}
            name = f"{block}.{parts[module[1]]}"
    return f"{name}.{TORCH_LEAVES[leaf]}"


def lite_name(path: Path, modules: Collection[Path]) -> str:
    """The names of EfficientNet-PyTorch and efficientnet-lite-pytorch."""
    *module, leaf = path
    if module[0] == "head":
        name = "_fc"
    elif module[0] == "stem":
        name = {"conv": "_conv_stem", "norm": "_bn0"}[module[1]]
    elif module[0] == "last":
        name = {"conv": "_conv_head", "norm": "_bn1"}[module[1]]
    else:
        block = f"_blocks.{_blocks(modules).index(_place(module[0]))}"
        if module[1] == "squeeze":
            name = f"{block}._se_{module[2]}"
        elif module[2] == "norm":
            order = {"expand": 0, "depthwise": 1, "project": 2}
            name = f"{block}._bn{order[module[1]]}"
        else:
            name = f"{block}._{module[1]}_conv"
    return f"{name}.{TORCH_LEAVES[leaf]}"
