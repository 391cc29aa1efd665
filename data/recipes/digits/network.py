"""The digits CNN: a small MobileNetV2, and the wide channels planted in it.

Blocks expand (1x1), filter each channel alone (3x3 depthwise) and project (1x1); two of three add their input. ReLU,
not ReLU6, so that a channel may be made smaller before it and larger after it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CLASSES = 10
PLANTED = 2  # wide channels a layer
WIDE = {"depthwise": 64.0, "project": 8.0}  # layer of a block -> how much wider they are made


class Block(nn.Module):
    """Expand, filter, project; add the input where the shape stays."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, factor: int = 3):
        super().__init__()
        inner = inputs * factor
        self.expand, self.expand_bn = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(inner)
        self.project, self.project_bn = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = torch.relu(self.expand_bn(self.expand(x)))
        y = torch.relu(self.depthwise_bn(self.depthwise(y)))
        y = self.project_bn(self.project(y))
        return x + y if self.adds else y


class DigitsNet(nn.Module):
    """``image`` float32 [N, 1, 8, 8] in [0, 1] to ``logits`` float32 [N, 10]."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.stem, self.stem_bn = nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(
            Block(width, width), Block(width, 2 * width, stride=2), Block(2 * width, 2 * width)
        )
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits, not normalised."""
        x = self.blocks(torch.relu(self.stem_bn(self.stem(image))))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


@torch.no_grad()
def plant_wide_channels(net: DigitsNet, seed: int) -> dict[str, list[int]]:
    """Make the weights of a few channels wider, without changing an answer.

    What such a channel receives is made smaller by the same factor, in the batch norm before the ReLU before it:
    ``relu(a / s) * (w * s) == relu(a) * w`` for every positive s. Trained MobileNets are like this by nature, because
    batch norm divides a channel that hardly moves by its tiny deviation (Nagel et al. 2019, "Data-free quantization
    through weight equalization and bias correction", https://arxiv.org/abs/1906.04721, figure 2). Cross-layer
    equalization is the way back.

    A depthwise layer has one filter a channel, so one scale a tensor fails there and one a channel repairs it. A 1x1
    layer sums over channels, so a wide one coarsens every output: bearable with 8 bits, not with 4.

    Returns:
        For each layer the input channels chosen.
    """
    random = np.random.default_rng(seed)
    chosen = {}
    for number, block in enumerate(net.blocks):
        for name, norm, by_channel in (
            ("depthwise", block.expand_bn, block.depthwise.weight),
            ("project", block.depthwise_bn, block.project.weight.transpose(0, 1)),
        ):
            channels = sorted(int(at) for at in random.choice(len(by_channel), PLANTED, replace=False))
            by_channel[channels] *= WIDE[name]
            norm.weight[channels] /= WIDE[name]
            norm.bias[channels] /= WIDE[name]
            chosen[f"blocks.{number}.{name}"] = channels
    return chosen
