"""EfficientNet-Lite0: features of pictures, pre-trained on ImageNet.

The network of Tan and Le (arXiv 1905.11946), without squeeze and excitation and with ReLU6.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

_FILE = "models/efficientnet-lite0-57934424.pth"
_STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_EPSILON = 1e-3
WIDTH = 1280
"""Channels of the features."""
CONFIG: Mapping[str, Any] = {"architecture": "efficientnet-lite0", "width": WIDTH, "stride": 32}
"""What ``config.json`` says of it."""


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding ``same``: the output has ⌈side / stride⌉ places."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D I J"]:
        """Return the convolved maps."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(nn.functional.pad(x, pads))


class InvertedBottleneck(nn.Module):
    """Widens, convolves each channel for itself, and narrows; added to its input where that fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [SameConv(inputs, wide, 1), nn.BatchNorm2d(wide, _EPSILON), nn.ReLU6()]
        layers += [SameConv(wide, wide, kernel, stride, groups=wide), nn.BatchNorm2d(wide, _EPSILON), nn.ReLU6()]
        layers += [SameConv(wide, outputs, 1), nn.BatchNorm2d(outputs, _EPSILON)]
        self.inner = nn.Sequential(*layers)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D I J"]:
        """Return the maps of the next block."""
        inner: Tensor = self.inner(x)
        return x + inner if self.is_residual else inner


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier, frozen, in evaluation mode.

    ::

        uint8 [B, 3, S, S] ─► (x - 127) / 128 ─► conv 3×3 / 2 ─► 16 blocks ─► conv 1×1 ─► [B, 1280, S/32, S/32]
    """

    def __init__(self) -> None:
        super().__init__()
        blocks, inputs = [], 32
        for kernel, stride, expansion, outputs, count in _STAGES:
            for number in range(count):
                blocks.append(InvertedBottleneck(inputs, outputs, kernel, stride if number == 0 else 1, expansion))
                inputs = outputs
        self.stem = nn.Sequential(SameConv(3, 32, 3, 2), nn.BatchNorm2d(32, _EPSILON), nn.ReLU6())
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(SameConv(inputs, WIDTH, 1), nn.BatchNorm2d(WIDTH, _EPSILON), nn.ReLU6())
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, folder: Path) -> "EfficientNetLite0":
        """Load the weights of a converted part: ``part_folder("efficientnet-lite0")``; channels lie last, for speed."""
        from safetensors.torch import load_file

        model = cls()
        model.load_state_dict(load_file(folder / "model.safetensors"))
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return model

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, pictures: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B 1280 P P"]:
        """Return the features of pictures, P = ⌈S / 32⌉ places to each side."""
        x = (pictures.to(next(self.parameters()).dtype) - 127) / 128
        maps: Tensor = self.head(self.blocks(self.stem(x)))
        return maps


def read_weights(packages: Sequence[Path]) -> dict[str, Tensor]:
    """Return the weights by their names in :class:`EfficientNetLite0`, without the classifier.

    Args:
        packages: the folder of the package.

    Raises:
        ValueError: if the file holds another model.
    """
    saved: dict[str, Tensor] = torch.load(packages[0] / _FILE, map_location="cpu", weights_only=True)
    found = {_name(name): tensor for name, tensor in saved.items() if not name.startswith("_fc.")}
    if found.keys() != EfficientNetLite0().state_dict().keys():
        raise ValueError("the weights are not those of EfficientNet-Lite0")
    return found


def _name(name: str) -> str:
    """``_blocks.3._bn1.weight`` → ``blocks.3.inner.4.weight``: conv and norm of widening, channels and narrowing."""
    layers = {"_expand_conv": 0, "_bn0": 1, "_depthwise_conv": 3, "_bn1": 4, "_project_conv": 6, "_bn2": 7}
    if found := re.match(r"_blocks\.(\d+)\.(\w+?)\.(.*)", name):
        block, layer, rest = found.groups()
        return f"blocks.{block}.inner.{layers[layer] - (3 if block == '0' else 0)}.{rest}"
    ends = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1"}
    stem, _, rest = name.partition(".")
    return f"{ends[stem]}.{rest}"
