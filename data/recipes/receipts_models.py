"""The two small Paddle networks of the bank-slip example: where is text, and what does it say.

``detector()`` is a text detector with differentiable binarisation (DB); ``recogniser()`` reads one text line with
CTC. Both are of the kind PP-OCR's mobile models are, only smaller: they can be trained on two CPU cores in under an
hour and still hold the operators that make a migration interesting (HardSwish, HardSigmoid in squeeze-and-excite,
nearest up-sampling, transposed convolution, softmax over a dynamic length).

Most parameters sit in a few wide convolutions on purpose: an INT8 file is only about a quarter of the FP32 one when
weights, not graph text, fill it.

Both factories return the layer in eval mode, with the trained weights where ``data/models/`` holds them, so that an
export can name them as ``data/recipes/receipts_models.py:detector``. Training is in ``train_receipts.py``.

Sources: Liao et al. 2020, "Real-time scene text detection with differentiable binarization"
(https://arxiv.org/abs/1911.08947); Cui et al. 2021, "PP-LCNet" (https://arxiv.org/abs/2109.15099); Graves et al. 2006,
"Connectionist temporal classification". Written afresh for this kit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import paddle
from paddle import nn
from paddle.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent))
from receipts import CHARACTERS

MODELS = Path(__file__).resolve().parents[1] / "models"


def detector(weights: str | Path | None = None) -> Detector:
    """Build the text detector, trained where weights are at hand.

    Args:
        weights: a ``.pdparams`` file; without it ``data/models/receipts_det/weights.pdparams`` when that exists.

    Returns:
        Detector in eval mode. Input ``x`` float32 [N, 3, H, W], BGR, normalised with ImageNet's mean and deviation,
        H and W multiples of 32; output float32 [N, 1, H, W], probability of a (shrunken) text region in [0, 1].
    """
    return _with_weights(Detector(), weights or MODELS / "receipts_det" / "weights.pdparams", asked=bool(weights))


def recogniser(weights: str | Path | None = None) -> Recogniser:
    """Build the line recogniser, trained where weights are at hand.

    Args:
        weights: a ``.pdparams`` file; without it ``data/models/receipts_rec/weights.pdparams`` when that exists.

    Returns:
        Recogniser in eval mode. Input ``x`` float32 [N, 3, 48, W], BGR, in [-1, 1], W a multiple of 4; output float32
        [N, W/4, C], softmax over C classes: blank first, then `receipts.CHARACTERS` in order, a space last.
    """
    classes = len(CHARACTERS) + 2  # the blank in front, the space behind, as PP-OCR counts
    return _with_weights(
        Recogniser(classes), weights or MODELS / "receipts_rec" / "weights.pdparams", asked=bool(weights)
    )


class ConvBN(nn.Layer):
    """A convolution without bias, batch normalisation, and HardSwish unless told otherwise."""

    def __init__(self, channels_in, channels_out, kernel=3, stride=1, *, groups=1, padding=None, active=True):
        super().__init__()
        if padding is None:
            padding = kernel // 2
        self.conv = nn.Conv2D(
            channels_in, channels_out, kernel, stride=stride, padding=padding, groups=groups, bias_attr=False
        )
        self.norm = nn.BatchNorm2D(channels_out)
        self.activation = nn.Hardswish() if active else None

    def forward(self, x):
        x = self.norm(self.conv(x))
        return self.activation(x) if self.activation is not None else x


class SqueezeExcite(nn.Layer):
    """Weigh channels by what the whole picture holds: pool, two 1x1 convolutions, HardSigmoid."""

    def __init__(self, channels, reduction=4):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.squeeze = nn.Conv2D(channels, channels // reduction, 1)
        self.relu = nn.ReLU()
        self.excite = nn.Conv2D(channels // reduction, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x):
        return x * self.gate(self.excite(self.relu(self.squeeze(self.pool(x)))))


class Separable(nn.Layer):
    """PP-LCNet's block: depthwise convolution, perhaps squeeze-and-excite, pointwise convolution.

    A block that keeps its shape adds its input, which PP-LCNet does not: it trains faster in the little time given.
    """

    def __init__(self, channels_in, channels_out, kernel=3, stride=1, *, excite=False):
        super().__init__()
        self.depthwise = ConvBN(channels_in, channels_in, kernel, stride, groups=channels_in)
        self.excite = SqueezeExcite(channels_in) if excite else None
        self.pointwise = ConvBN(channels_in, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x):
        y = self.depthwise(x)
        if self.excite is not None:
            y = self.excite(y)
        y = self.pointwise(y)
        return x + y if self.residual else y


class DetectorHead(nn.Layer):
    """From a quarter of the size to full size: one convolution, two transposed ones, a sigmoid."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.smooth = ConvBN(channels, hidden, 3)
        self.up1 = nn.Conv2DTranspose(hidden, hidden, 2, stride=2)
        self.norm = nn.BatchNorm2D(hidden)
        self.relu = nn.ReLU()
        self.up2 = nn.Conv2DTranspose(hidden, 1, 2, stride=2)

    def forward(self, x):
        return functional.sigmoid(self.up2(self.relu(self.norm(self.up1(self.smooth(x))))))


class Detector(nn.Layer):
    """DB text detector: PP-LCNet-like backbone, feature pyramid, a probability map at full size.

    In training mode it returns [N, 2, H, W]: probability and threshold map. In eval mode the probability map alone:
    the threshold branch only shapes the loss (see the paper's section 3.4), so it is not exported.
    """

    def __init__(self, neck=64, hidden=24):
        super().__init__()
        self.stem = ConvBN(3, 16, 3, 2)
        self.stage2 = nn.Sequential(Separable(16, 32), Separable(32, 48, 3, 2), Separable(48, 48))
        self.stage3 = nn.Sequential(Separable(48, 96, 3, 2), Separable(96, 96))
        self.stage4 = nn.Sequential(
            Separable(96, 192, 3, 2),
            Separable(192, 192, 5),
            Separable(192, 192, 5),
            Separable(192, 192, 5, excite=True),
        )
        self.stage5 = nn.Sequential(
            Separable(192, 640, 5, 2, excite=True),
            Separable(640, 640, 5, excite=True),
            Separable(640, 640, 5, excite=True),
        )
        widths = (48, 96, 192, 640)
        self.lateral = nn.LayerList([nn.Conv2D(width, neck, 1, bias_attr=False) for width in widths])
        self.out = nn.LayerList([nn.Conv2D(neck, neck // 4, 3, padding=1, bias_attr=False) for _ in widths])
        self.up2 = nn.Upsample(scale_factor=2, mode="nearest")
        self.up4 = nn.Upsample(scale_factor=4, mode="nearest")
        self.up8 = nn.Upsample(scale_factor=8, mode="nearest")
        self.probability = DetectorHead(neck, hidden)
        self.threshold = DetectorHead(neck, hidden // 2)

    def forward(self, x):
        c2 = self.stage2(self.stem(x))
        c3 = self.stage3(c2)
        c4 = self.stage4(c3)
        c5 = self.stage5(c4)
        p5 = self.lateral[3](c5)
        p4 = self.lateral[2](c4) + self.up2(p5)
        p3 = self.lateral[1](c3) + self.up2(p4)
        p2 = self.lateral[0](c2) + self.up2(p3)
        fused = paddle.concat(
            [self.up8(self.out[3](p5)), self.up4(self.out[2](p4)), self.up2(self.out[1](p3)), self.out[0](p2)], axis=1
        )
        probability = self.probability(fused)
        if not self.training:
            return probability
        return paddle.concat([probability, self.threshold(fused)], axis=1)


class Recogniser(nn.Layer):
    """CTC line reader: PP-LCNet-like backbone at a quarter of the width, height collapsed by one tall convolution.

    The neck mixes neighbours along the line with two wide 1-D convolution blocks instead of an LSTM or attention:
    it exports to plain Conv nodes and its length stays free. In training mode logits are returned, not softmax.
    """

    def __init__(self, classes, width=320):
        super().__init__()
        self.stem = ConvBN(3, 16, 3, 2)
        self.backbone = nn.Sequential(
            Separable(16, 32, 3, 1),
            Separable(32, 64, 3, 2),
            Separable(64, 64, 3, 1),
            Separable(64, 128, 3, (2, 1)),
            Separable(128, 128, 3, 1),
            Separable(128, 256, 3, (2, 1), excite=True),
            Separable(256, 256, 5, 1, excite=True),
        )
        self.collapse = ConvBN(256, width, (3, 1), 1, padding=0)
        self.neck = nn.LayerList(
            [
                nn.Sequential(
                    ConvBN(width, width, (1, 7), 1, groups=width, padding=(0, 3), active=False),
                    ConvBN(width, width * 3 // 2, 1),
                    ConvBN(width * 3 // 2, width, 1, active=False),
                )
                for _ in range(2)
            ]
        )
        self.dropout = nn.Dropout(0.1)
        self.classify = nn.Linear(width, classes)

    def forward(self, x):
        x = self.collapse(self.backbone(self.stem(x)))
        for block in self.neck:
            x = x + block(x)
        x = self.dropout(x.squeeze(2).transpose([0, 2, 1]))
        logits = self.classify(x)
        return logits if self.training else functional.softmax(logits, axis=2)


def parameter_count(layer: nn.Layer, *, exported: bool = True) -> int:
    """Count the weights of a layer; with ``exported`` those of the training-only threshold branch are left out."""
    return sum(
        int(parameter.size)
        for name, parameter in layer.named_parameters()
        if not (exported and name.startswith("threshold."))
    )


def _with_weights(layer: nn.Layer, path: str | Path, *, asked: bool) -> nn.Layer:
    path = Path(path)
    if asked or path.exists():
        layer.set_state_dict(paddle.load(str(path)))
    layer.eval()
    return layer
