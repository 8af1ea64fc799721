"""What torchvision, timm and efficientnet-lite-pytorch call our parameters.

Every function here maps the path of one of our leaves, e.g.
`("block3_1", "expand", "conv", "kernel")`, to the name in a torch state dict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

Path = tuple[str, ...]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def resnet(path: Path, modules: Collection[Path]) -> str:
    """Torchvision's and timm's names of a ResNet's leaves."""
    del modules
    *module, leaf = path
    if module[0] == "head":
        name = "fc"
    elif module[0] == "stem":
        name = "conv1" if module[1] == "conv" else "bn1"
    else:
        block = module[0].replace("_", ".")
        conv, part = module[1], module[2]
        if conv == "downsample":
            name = f"{block}.downsample.{0 if part == 'conv' else 1}"
        else:
            name = f"{block}.{conv if part == 'conv' else conv.replace('conv', 'bn')}"
    return f"{name}.{_LEAVES[leaf]}"


def convnext_torchvision(path: Path, modules: Collection[Path]) -> str:
    """Torchvision's names of a ConvNeXt's leaves."""
    del modules
    *module, leaf = path
    if module[0] == "head":
        name = {"norm": "classifier.0", "dense": "classifier.2"}[module[1]]
    elif module[0].startswith("stem"):
        name = f"features.0.{0 if module[0] == 'stem_conv' else 1}"
    elif found := re.fullmatch(r"shrink(\d+)_(norm|conv)", module[0]):
        part = 0 if found[2] == "norm" else 1
        name = f"features.{2 * int(found[1]) - 2}.{part}"
    else:
        stage, index = module[0].removeprefix("stage").split("_")
        block = f"features.{2 * int(stage) - 1}.{index}"
        if leaf == "layer_scale":
            return f"{block}.layer_scale"
        order = {"depthwise": 0, "norm": 2, "expand": 3, "project": 5}
        name = f"{block}.block.{order[module[1]]}"
    return f"{name}.{_LEAVES[leaf]}"


def convnext_timm(path: Path, modules: Collection[Path]) -> str:
    """Timm's names of a ConvNeXt's leaves."""
    del modules
    *module, leaf = path
    if module[0] == "head":
        name = {"norm": "head.norm", "dense": "head.fc"}[module[1]]
    elif module[0].startswith("stem"):
        name = f"stem.{0 if module[0] == 'stem_conv' else 1}"
    elif found := re.fullmatch(r"shrink(\d+)_(norm|conv)", module[0]):
        part = 0 if found[2] == "norm" else 1
        name = f"stages.{int(found[1]) - 1}.downsample.{part}"
    else:
        stage, index = module[0].removeprefix("stage").split("_")
        block = f"stages.{int(stage) - 1}.blocks.{index}"
        if leaf == "layer_scale":
            return f"{block}.gamma"
        parts = {
            "depthwise": "conv_dw",
            "norm": "norm",
            "expand": "mlp.fc1",
            "project": "mlp.fc2",
        }
        name = f"{block}.{parts[module[1]]}"
    return f"{name}.{_LEAVES[leaf]}"


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


def inverted_torchvision(path: Path, modules: Collection[Path]) -> str:
    """Torchvision's names of a MobileNetV3's or EfficientNet's leaves."""
    *module, leaf = path
    mobilenet = ("head", "hidden") in modules
    blocks = _blocks(modules)
    if module[0] == "head":
        order = {"hidden": 0, "dense": 3} if mobilenet else {"dense": 1}
        return f"classifier.{order[module[1]]}.{_LEAVES[leaf]}"
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
            return f"{place}.{layer}.{_LEAVES[leaf]}"
    return f"{place}.{0 if module[-1] == 'conv' else 1}.{_LEAVES[leaf]}"


def inverted_timm(path: Path, modules: Collection[Path]) -> str:
    """Timm's names of a MobileNetV3's or EfficientNet's leaves."""
    *module, leaf = path
    mobilenet = ("head", "hidden") in modules
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
    return f"{name}.{_LEAVES[leaf]}"


def inverted_lite(path: Path, modules: Collection[Path]) -> str:
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
    return f"{name}.{_LEAVES[leaf]}"


def own(path: Path, modules: Collection[Path]) -> str:
    """Our own names, with dots."""
    del modules
    return ".".join(path)


Naming = Callable[[Path, Collection[Path]], str]

# By the family that a module of ours gives away: a name that a file of the style holds,
# and the naming. The first is the one that `save_safetensors` writes.
STYLES: dict[str, tuple[tuple[str, Naming], ...]] = {
    "layer1_0": (("conv1.weight", resnet),),
    "stem_conv": (
        ("features.0.0.weight", convnext_torchvision),
        ("stem.0.weight", convnext_timm),
    ),
    "block0_0": (
        ("features.0.0.weight", inverted_torchvision),
        ("conv_stem.weight", inverted_timm),
        ("_conv_stem.weight", inverted_lite),
    ),
    "stage1_conv1": (("stage1_conv1.conv.kernel", own),),
}
