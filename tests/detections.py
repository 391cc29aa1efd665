"""Detectors for tests: functions and small ONNX graphs that answer about made-up plates, and the plates' COCO file."""

import json
from dataclasses import replace

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kit.families.detection_heads import Heads
from kit.families.detection_tasks import DetectionTask, images
from kit.samples import Preprocess

CLASSES = ("scratch", "pit")
# Bytes as they are, so that a function can read the number of a plate from its first pixel.
PLAIN = Preprocess(size=(64, 64), channels="RGB", scale=1.0, mean=(0, 0, 0), std=(1, 1, 1), layout="NHWC")
HEADS = Heads(classes=CLASSES, size=(64, 64), scores="class_logits", boxes="corners", activation="sigmoid",
              image="image", preprocess=PLAIN)


def plates(folder, count=12, size=128):
    """Write ``test.json`` and pictures; plate n has its number in the first pixels, a scratch, a pit where n > 2."""
    (folder / "images").mkdir(parents=True)
    told, number = {"images": [], "annotations": [], "categories": [
        {"id": 7, "name": "scratch"}, {"id": 9, "name": "pit"}]}, 0
    for n in range(count):
        picture = np.full((size, size, 3), 90, np.uint8)
        picture[:8, :8] = 10 * n
        told["images"].append({"id": n + 1, "file_name": f"plate_{n:02d}.png", "width": size, "height": size})
        for kind, box in truth(n, size):
            number += 1
            x, y, w, h = (int(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1]))
            cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), (200, 200, 200) if kind else (30, 30, 30), -1)
            told["annotations"].append({"id": number, "image_id": n + 1, "category_id": (7, 9)[kind],
                                        "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
        cv2.imwrite(str(folder / "images" / f"plate_{n:02d}.png"), picture)
    (folder / "test.json").write_text(json.dumps(told))
    return folder


def truth(n, size=128):
    """(class, (x1, y1, x2, y2)) of what is on plate n, pixels of a picture of this size."""
    unit = size / 128
    boxes = [(0, (20 + 2 * n, 16, 60 + 2 * n, 40))] + ([(1, (70, 70 + n, 94, 94 + n))] if n > 2 else [])
    return [(kind, tuple(unit * edge for edge in box)) for kind, box in boxes]


def samples(folder, **more):
    return images(folder, "test", heads=HEADS, **more)


def task(**more):
    return DetectionTask(HEADS, **more)


def number_of(feed):
    """Which plate is fed, in either layout."""
    return round(float(next(array for array in feed.values() if array.ndim == 4).reshape(-1)[0]) / 10)


def heads_of(rows, size=64, anchors=6):
    """Raw outputs that decode to rows of class, score, x1, y1, x2, y2 in pixels of the input."""
    logits = np.full((1, anchors, len(CLASSES)), -12.0, np.float32)
    corners = np.zeros((1, anchors, 4), np.float32)
    for at, (kind, score, *box) in enumerate(rows):
        logits[0, at, kind] = np.log(score / (1 - score))
        corners[0, at] = box
    return {"class_logits": logits, "corners": corners}


def right(feed):
    """Finds everything, in pixels of the 64 x 64 input."""
    return heads_of([(kind, 0.9 - 0.02 * number_of(feed), *box) for kind, box in truth(number_of(feed), 64)])


def worse(feed):
    """Loses the pit of plate 5, finds one that is not there on plate 0, and moves the scratch of plate 8."""
    n, rows = number_of(feed), []
    for kind, box in truth(n, 64):
        if not (n == 5 and kind == 1):
            rows.append((kind, 0.88 - 0.02 * n, *(edge + 6 * (n == 8 and kind == 0 and at % 2 == 0)
                                                  for at, edge in enumerate(box))))
    return heads_of(rows + ([(1, 0.7, 40, 40, 52, 52)] if n == 0 else []))


def blind(feed):
    return heads_of([])


def paddle_like(feed):
    """The same as ``right`` in Paddle's form, in pixels of the picture where the scale factor is fed."""
    n = number_of(feed)
    factor = feed["scale_factor"][0] if "scale_factor" in feed else np.ones(2)
    rows = [(kind, 0.9 - 0.02 * n, *(np.array(box) / factor[[1, 0, 1, 0]])) for kind, box in truth(n, 64)]
    return {"fetch_name_0": np.float32(rows), "fetch_name_1": np.int32([len(rows)])}


def told_factor(heads=HEADS):
    return replace(heads, scale_factor="scale_factor")


def graph(path, *, layout="NCHW", input="pixels", shift=0.0):
    """An ONNX model with raw heads: one box, whose score follows the first byte of the picture."""
    shape = ["N", 3, 64, 64] if layout == "NCHW" else ["N", 64, 64, 3]
    constants = {"steps": np.float32([[[0.05, 0.0]]]), "low": np.float32([[[-2 + shift, -9]]]),
                 "box": np.float32([[[10, 10, 30, 30]]]), "zero": np.float32([0]),
                 "corner": np.int64([0, 0, 0, 0]), "end": np.int64([2**31 - 1, 1, 1, 1]), "rank": np.int64([-1, 1, 1])}
    nodes = [
        helper.make_node("Slice", [input, "corner", "end"], ["pixel"]),
        helper.make_node("Reshape", ["pixel", "rank"], ["level"]),
        helper.make_node("Mul", ["level", "steps"], ["raised"]), helper.make_node("Add", ["raised", "low"], ["b"]),
        helper.make_node("Mul", ["level", "zero"], ["nothing"]), helper.make_node("Add", ["nothing", "box"], ["a"])]
    made = helper.make_graph(
        nodes, "heads", [helper.make_tensor_value_info(input, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 1, 4]),
         helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 1, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def merged(path, *, one_scale):
    """Heads that pass through one tensor: boxes of up to 600 pixels beside scores of up to 1, perhaps in INT8."""
    constants = {"steps": np.float32([[[0.008, 0.001]]]), "box": np.float32([[[10, 10, 30, 600]]]),
                 "zero": np.float32([0]), "corner": np.int64([0, 0, 0, 0]), "end": np.int64([2**31 - 1, 1, 1, 1]),
                 "rank": np.int64([-1, 1, 1]), "scale": np.float32(600 / 255), "point": np.uint8(0),
                 "parts": np.int64([4, 2])}
    nodes = [
        helper.make_node("Slice", ["image", "corner", "end"], ["pixel"]),
        helper.make_node("Reshape", ["pixel", "rank"], ["level"]), helper.make_node("Mul", ["level", "steps"], ["s"]),
        helper.make_node("Mul", ["level", "zero"], ["nothing"]), helper.make_node("Add", ["nothing", "box"], ["b"]),
        helper.make_node("Concat", ["b", "s"], ["both"], axis=2)]
    if one_scale:
        nodes += [helper.make_node("QuantizeLinear", ["both", "scale", "point"], ["bytes"]),
                  helper.make_node("DequantizeLinear", ["bytes", "scale", "point"], ["rounded"])]
    nodes.append(helper.make_node("Split", ["rounded" if one_scale else "both", "parts"], ["corners", "class_logits"],
                                  axis=2))
    made = helper.make_graph(
        nodes, "merged", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 64, 64, 3])],
        [helper.make_tensor_value_info("corners", TensorProto.FLOAT, ["N", 1, 4]),
         helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, ["N", 1, 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
