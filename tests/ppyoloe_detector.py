"""What the recipe of the Paddle detector does. For workers: Paddle never enters the process of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"
ELSEWHERE = (0.5, 0.25)  # height and width of the resized picture over the original's


def facts() -> dict:
    """How far the deployed form is from the one that learns, and what the committed model and the assigner say."""
    train, recipe = _recipe()
    import numpy as np
    import paddle

    paddle.seed(3)
    model = recipe.Detector()
    for norm in (part for part in model.sublayers() if isinstance(part, paddle.nn.BatchNorm2D)):
        # as after training: nothing is left at its first value
        for tensor, low, high in ((norm.weight, 0.5, 1.5), (norm.bias, -0.5, 0.5), (norm._mean, -0.5, 0.5),
                                  (norm._variance, 0.5, 2.0)):
            tensor.set_value(paddle.uniform(tensor.shape, min=low, max=high))
    model.eval()
    image = paddle.randn([2, 3, recipe.SIZE, recipe.SIZE])
    with paddle.no_grad():
        learning = [part.numpy() for part in model(image)]
        count = recipe.parameter_count(model)
        deployed = recipe.Deployed(model, nms=False)
        fused = [part.numpy() for part in deployed.model(image)]
    kinds = {type(part).__name__ for part in deployed.sublayers()}
    return {
        "farthest": max(float(np.abs(one - two).max()) for one, two in zip(learning, fused, strict=True)),
        "largest": min(float(np.abs(part).max()) for part in learning),
        "spread": min(float(part.std()) for part in learning),
        "kinds": kinds,
        "parameters": (count, recipe.parameter_count(deployed)),
        "points": recipe.points(),
        "assigned": _assigned(train, recipe),
        "near": train.NEAR,
        "giou": _overlaps(train),
        "committed": _committed(train, recipe),
        "nms": recipe.NMS,
    }


def scores(split: str) -> dict[str, float]:
    """mAP of the committed model on a split, by Paddle Inference."""
    train, recipe = _recipe()
    return train.evaluate(train.predictor(recipe.FOLDER), split)


def heads(image, scale_factor) -> list:
    """Boxes and scores before the NMS, of the committed weights in the recipe's layer."""
    _, recipe = _recipe()
    import paddle

    layer = recipe.raw_detector()
    with paddle.no_grad():
        return [part.numpy() for part in layer(paddle.to_tensor(image), paddle.to_tensor(scale_factor))]


def _recipe():
    sys.path.insert(0, str(DATA / "recipes"))
    import ppyoloe
    import train_ppyoloe

    return train_ppyoloe, ppyoloe


def _committed(train, recipe) -> dict:
    """One picture through the committed model, as it is and as if it had been resized."""
    import cv2
    import numpy as np

    picture = cv2.imread(str(DATA / "defects" / "images" / "steel_001.jpg"), cv2.IMREAD_GRAYSCALE)
    image, run = train.prepared([picture, picture[:, ::-1]]), train.predictor(recipe.FOLDER)
    return {"image": image, "plain": run(image, np.ones((2, 2), np.float32)),
            "resized": run(image, np.float32([ELSEWHERE, ELSEWHERE]))}


def _assigned(train, recipe) -> dict:
    """Which points learn two boxes, where the model guesses the first of them quite well and the other badly."""
    import numpy as np

    middles, strides = recipe.points()
    boxes = np.float32([[2, 40, 60, 130, 150], [0, 150, 20, 190, 80]])
    guessed = np.concatenate([middles - 1.5, middles + 1.5], axis=1) * strides
    guessed[:1024] = boxes[0, 1:] + 5  # all points of the finest level
    wanted, owners = train.assign(middles * strides, guessed, np.full((len(middles), 4), 0.1, np.float32), boxes)
    empty = train.assign(middles * strides, guessed, np.full((len(middles), 4), 0.1, np.float32), boxes[:0])
    return {"boxes": boxes, "places": middles * strides, "wanted": wanted, "owners": owners, "empty": empty}


def _overlaps(train) -> dict:
    """GIoU loss of four pairs: equal, half, apart, and a box without area; and whether it can be learnt from them."""
    import numpy as np
    import paddle

    found = paddle.to_tensor([[1.0, 1, 3, 3], [0, 0, 2, 4], [5, 0, 6, 2], [1, 1, 1, 1]], stop_gradient=False)
    loss = train._giou_loss(found, paddle.to_tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2]]))
    loss.sum().backward()
    return {"loss": loss.numpy(), "finite": bool(np.isfinite(found.grad.numpy()).all())}
