"""A small detector of PP-YOLOE's kind in Paddle: CSPRepResNet backbone, PAN neck, task-aligned head with DFL.

The one idea: everything that makes PP-YOLOE hard to move is here (branches that become one convolution, effective
squeeze-and-excitation, a distribution per side of a box, two inputs, NMS inside the graph), and nothing that only
makes it big. ``scale_factor`` says by how much a picture was resized; the graph divides its boxes by it.

``detector()`` returns the layer in its deployed form, trained where ``data/models/defects_ppyoloe`` holds weights, so
that an export can name it as ``data/recipes/ppyoloe.py:detector``; ``raw_detector()`` stops before the NMS.
``train_ppyoloe.py`` trains it and writes the inference model.

Sources: Xu et al. 2022, "PP-YOLOE" (https://arxiv.org/abs/2203.16250); Ding et al. 2021, "RepVGG"
(https://arxiv.org/abs/2101.03697); Li et al. 2020, "Generalized focal loss" (https://arxiv.org/abs/2006.04388); inputs'
names and order of outputs as PaddleDetection exports them. Written afresh for this kit.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import paddle
from paddle import _C_ops, nn
from paddle.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent))
from defects import CLASSES

FOLDER = Path(__file__).resolve().parents[1] / "models" / "defects_ppyoloe"
SIZE = 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, after division by 255
STRIDES = (8, 16, 32)
WIDTHS = (16, 24, 48, 80, 112)  # stem, then the stages at stride 4, 8, 16, 32
BLOCKS = (1, 1, 2, 1)
NECK = (40, 56, 80)  # at stride 8, 16, 32
BINS = 9  # distances from a point to a side of its box: 0 to 8 strides
NMS = {"score_threshold": 0.01, "nms_top_k": 400, "keep_top_k": 100, "nms_threshold": 0.6}


def detector() -> Deployed:
    """The whole detector in eval mode, NMS included.

    Returns:
        Deployed. Inputs ``image`` float32 [N, 3, 256, 256], RGB, normalised with `MEAN` and `STD`; ``scale_factor``
        float32 [N, 2], height and width of the resized picture over those of the original. Outputs: float32 [M, 6], a
        row a box (class, score, x1, y1, x2, y2 in pixels of the original), pictures one after the other; int32 [N],
        how many boxes each picture has.
    """
    return _trained(nms=True)


def raw_detector() -> Deployed:
    """As `detector`, up to the NMS: boxes float32 [N, A, 4] as corners, scores float32 [N, classes, A] in 0 to 1."""
    return _trained(nms=False)


class ConvBN(nn.Layer):
    """A convolution without bias, batch normalisation, and swish unless told otherwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, active: bool = True):
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias_attr=False)
        self.norm = nn.BatchNorm2D(outputs, momentum=0.97)
        self.active = active

    def forward(self, x):
        x = self.norm(self.conv(x))
        return functional.swish(x) if self.active else x

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights and bias of the one convolution that does the same in eval mode."""
        norm = self.norm
        factor = (norm.weight / paddle.sqrt(norm._variance + norm._epsilon)).numpy()
        weights = self.conv.weight.numpy() * factor[:, None, None, None]
        return weights, norm.bias.numpy() - norm._mean.numpy() * factor


class RepConv(nn.Layer):
    """3x3 and 1x1 side by side while it learns; one 3x3 when deployed."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.three, self.one = ConvBN(inputs, outputs, 3, active=False), ConvBN(inputs, outputs, 1, active=False)

    def forward(self, x):
        return functional.swish(self.three(x) + self.one(x))

    def folded(self) -> tuple[np.ndarray, np.ndarray]:
        """Both branches as one 3x3: a 1x1 is a 3x3 with a border of zeros."""
        (three, bias), (one, other) = self.three.folded(), self.one.folded()
        return three + np.pad(one, ((0, 0), (0, 0), (1, 1), (1, 1))), bias + other


class Plain(nn.Layer):
    """What `fuse` puts in the place of a `ConvBN` or `RepConv`: one convolution with a bias."""

    def __init__(self, source: ConvBN | RepConv):
        super().__init__()
        conv = source.conv if isinstance(source, ConvBN) else source.three.conv
        outputs, inputs, kernel, _ = conv.weight.shape
        self.conv = nn.Conv2D(inputs, outputs, kernel, stride=conv._stride, padding=kernel // 2)
        weights, bias = source.folded()
        self.conv.weight.set_value(weights)
        self.conv.bias.set_value(bias)
        self.active = isinstance(source, RepConv) or source.active

    def forward(self, x):
        x = self.conv(x)
        return functional.swish(x) if self.active else x


def fuse(layer: nn.Layer) -> nn.Layer:
    """Fold every batch normalisation and every pair of branches, in place; the answers in eval mode stay the same."""
    for name, child in list(layer.named_children()):
        if isinstance(child, ConvBN | RepConv):
            setattr(layer, name, Plain(child))
        else:
            fuse(child)
    return layer


class Excite(nn.Layer):
    """Effective squeeze-and-excitation: one 1x1 convolution on the mean of each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Conv2D(channels, channels, 1)

    def forward(self, x):
        return x * functional.hardsigmoid(self.fc(functional.adaptive_avg_pool2d(x, 1)))


class Block(nn.Layer):
    """A plain 3x3 and a re-parameterised one, with or without a shortcut."""

    def __init__(self, channels: int, *, shortcut: bool):
        super().__init__()
        self.first, self.second, self.shortcut = ConvBN(channels, channels), RepConv(channels, channels), shortcut

    def forward(self, x):
        y = self.second(self.first(x))
        return x + y if self.shortcut else y


class Stage(nn.Layer):
    """Cross-stage partial: half of the channels go through the blocks, half go past them."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, shortcut: bool, excite: bool, pool: bool = False):
        super().__init__()
        half = outputs // 2
        self.past, self.through = ConvBN(inputs, half, 1), ConvBN(inputs, half, 1)
        self.blocks = nn.Sequential(*(Block(half, shortcut=shortcut) for _ in range(blocks)))
        self.pool = Pyramid(half) if pool else None
        self.excite = Excite(2 * half) if excite else None
        self.out = ConvBN(2 * half, outputs, 1)

    def forward(self, x):
        y = self.blocks(self.through(x))
        y = self.pool(y) if self.pool is not None else y
        y = paddle.concat([self.past(x), y], axis=1)
        return self.out(self.excite(y) if self.excite is not None else y)


class Pyramid(nn.Layer):
    """Spatial pyramid pooling: what is around, at three distances."""

    def __init__(self, channels: int):
        super().__init__()
        self.out = ConvBN(4 * channels, channels, 1)

    def forward(self, x):
        around = [functional.max_pool2d(x, side, 1, side // 2) for side in (3, 5, 7)]
        return self.out(paddle.concat([x, *around], axis=1))


class Backbone(nn.Layer):
    """CSPRepResNet; answers with the features at stride 8, 16 and 32."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, WIDTHS[0] // 2, 3, 2), ConvBN(WIDTHS[0] // 2, WIDTHS[0]))
        self.down = nn.LayerList(ConvBN(WIDTHS[k], WIDTHS[k + 1], 3, 2) for k in range(4))
        self.stages = nn.LayerList(Stage(WIDTHS[k + 1], WIDTHS[k + 1], BLOCKS[k], shortcut=True, excite=True)
                                   for k in range(4))

    def forward(self, x):
        x, levels = self.stem(x), []
        for k in range(len(BLOCKS)):  # Paddle cannot trace zip(strict=True)
            x = self.stages[k](self.down[k](x))
            levels.append(x)
        return levels[1:]


class Neck(nn.Layer):
    """Path aggregation: coarse features come down to the fine ones, and go up again."""

    def __init__(self):
        super().__init__()
        _, _, *wide = WIDTHS
        self.top = Stage(wide[2], NECK[2], 1, shortcut=False, excite=False, pool=True)
        self.narrow = nn.LayerList(ConvBN(NECK[k + 1], NECK[k + 1] // 2, 1) for k in range(2))
        self.descend = nn.LayerList(Stage(wide[k] + NECK[k + 1] // 2, NECK[k], 1, shortcut=False, excite=False)
                                    for k in range(2))
        self.shrink = nn.LayerList(ConvBN(NECK[k], NECK[k], 3, 2) for k in range(2))
        self.climb = nn.LayerList(Stage(NECK[k] + NECK[k + 1], NECK[k + 1], 1, shortcut=False, excite=False)
                                  for k in range(2))

    def forward(self, levels):
        levels = [*levels[:2], self.top(levels[2])]
        for k in (1, 0):
            lower = functional.interpolate(self.narrow[k](levels[k + 1]), scale_factor=2, mode="nearest")
            levels[k] = self.descend[k](paddle.concat([lower, levels[k]], axis=1))
        for k in (0, 1):
            levels[k + 1] = self.climb[k](paddle.concat([self.shrink[k](levels[k]), levels[k + 1]], axis=1))
        return levels


class Align(nn.Layer):
    """The head's attention: channels weighted by what the whole picture holds."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc, self.conv = nn.Conv2D(channels, channels, 1), ConvBN(channels, channels, 1)

    def forward(self, x, mean):
        return self.conv(x * functional.sigmoid(self.fc(mean)))


class Head(nn.Layer):
    """For each point a logit per class, and for each side of its box a distribution of distances."""

    def __init__(self):
        super().__init__()
        few = nn.initializer.Constant(-math.log(99))  # one point in a hundred has a box
        self.align_class, self.align_box = (nn.LayerList(map(Align, NECK)) for _ in range(2))
        self.classes = nn.LayerList(nn.Conv2D(width, len(CLASSES), 3, padding=1, bias_attr=few) for width in NECK)
        self.sides = nn.LayerList(nn.Conv2D(width, 4 * BINS, 3, padding=1) for width in NECK)

    def forward(self, levels):
        logits, sides = [], []
        for k, x in enumerate(levels):
            mean = functional.adaptive_avg_pool2d(x, 1)
            logits.append(self.classes[k](self.align_class[k](x, mean) + x).flatten(2))
            sides.append(self.sides[k](self.align_box[k](x, mean)).reshape([-1, 4, BINS, (SIZE // STRIDES[k]) ** 2]))
        return logits, sides


class Detector(nn.Layer):
    """Backbone, neck and head as they learn: logits float32 [N, classes, A], distributions [N, 4, bins, A]."""

    def __init__(self):
        super().__init__()
        self.backbone, self.neck, self.head = Backbone(), Neck(), Head()

    def forward(self, image):
        logits, sides = self.head(self.neck(self.backbone(image)))
        return paddle.concat(logits, axis=2), paddle.concat(sides, axis=3)


class Deployed(nn.Layer):
    """A detector with what comes after the head: boxes from distances, ``scale_factor``, NMS.

    Attributes:
        nms: whether the NMS is part of it.
    """

    def __init__(self, model: Detector, *, nms: bool):
        super().__init__()
        self.model, self.nms = fuse(model), nms
        # the mean of a distribution as a convolution with fixed weights, as PP-YOLOE has it
        self.mean = nn.Conv2D(BINS, 1, 1, bias_attr=False)
        self.mean.weight.set_value(np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
        middles, strides = points()
        self.register_buffer("middles", paddle.to_tensor(middles))
        self.register_buffer("strides", paddle.to_tensor(strides))
        # a saved model knows its weights by these names alone: "model.backbone.stem.0.conv.weight", not "conv2d_7.w_0"
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            tensor.name = name
        self.eval()

    def forward(self, image, scale_factor):
        logits, sides = self.model.head(self.model.neck(self.model.backbone(image)))
        scores = paddle.concat([functional.sigmoid(level) for level in logits], axis=2)
        distances = [self.mean(functional.softmax(level.transpose([0, 2, 3, 1]), axis=1)).squeeze(1) for level in sides]
        before, after = paddle.split(paddle.concat(distances, axis=1), 2, axis=-1)
        boxes = paddle.concat([self.middles - before, self.middles + after], axis=-1) * self.strides
        height, width = paddle.split(scale_factor, 2, axis=-1)
        boxes = boxes / paddle.concat([width, height, width, height], axis=-1).reshape([-1, 1, 4])
        if not self.nms:
            return boxes, scores
        found, _, count = _C_ops.multiclass_nms3(boxes, scores, None, NMS["score_threshold"], NMS["nms_top_k"],
                                                 NMS["keep_top_k"], NMS["nms_threshold"], True, 1.0, -1)
        return found, count


def points() -> tuple[np.ndarray, np.ndarray]:
    """Where the head's A points lie: centres float32 [A, 2] (x, y) in strides, and strides float32 [A, 1] in pixels."""
    middles, strides = [], []
    for stride in STRIDES:
        row = np.arange(SIZE // stride, dtype=np.float32) + 0.5
        middles.append(np.stack(np.meshgrid(row, row), axis=-1).reshape(-1, 2))
        strides.append(np.full((len(middles[-1]), 1), stride, np.float32))
    return np.concatenate(middles), np.concatenate(strides)


def parameter_count(layer: nn.Layer) -> int:
    """How many weights a layer holds."""
    return sum(int(parameter.size) for parameter in layer.parameters())


def write(layer: Deployed, folder: Path) -> None:
    """Save a deployed detector as an inference model, ``folder/inference.json`` and ``.pdiparams``."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = [paddle.static.InputSpec([None, 3, SIZE, SIZE], "float32", "image"),
             paddle.static.InputSpec([None, 2], "float32", "scale_factor")]
    paddle.jit.save(layer, str(folder / "inference"), input_spec=specs)


def _trained(*, nms: bool) -> Deployed:
    """Deployed, with the weights of the inference model in `FOLDER` where there is one."""
    layer = Deployed(Detector(), nms=nms)
    if (FOLDER / "inference.json").is_file():
        stored = paddle.jit.load(str(FOLDER / "inference")).state_dict().values()
        lacking, _ = layer.set_state_dict({part.name.rpartition("_")[0]: part for part in stored})  # "name_0" there
        if lacking:
            raise ValueError(f"{FOLDER} holds another model: {', '.join(lacking[:3])} are missing")
    return layer
