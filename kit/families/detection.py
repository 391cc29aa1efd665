"""Detectors: what their raw outputs mean, which boxes stay, and post-processing put into a graph or taken out of it.

``Heads`` describes raw outputs; ``decode`` and ``nms`` turn them into ``Detections`` in numpy, ``add_nms`` does the
same in the graph. Boxes are (x1, y1, x2, y2) in pixels of the network's input; ``scale_boxes`` brings them to the
picture's.
"""

from __future__ import annotations

from kit.families.detection_adding import add_nms
from kit.families.detection_boxes import Detections, read_detections, scale_boxes
from kit.families.detection_comparison import Comparison, compare
from kit.families.detection_cutting import cut_nms
from kit.families.detection_found import FoundNms, find_nms
from kit.families.detection_heads import Anchors, Heads, decode
from kit.families.detection_nms import AddNmsOptions, NmsOptions, detect, nms, select
from kit.families.detection_result import Edited, GraphEdit
from kit.families.detection_scale import fold_scale_factor
from kit.families.detection_tasks import FOR_MAP, DetectionTask, images

__all__ = [
    "FOR_MAP", "AddNmsOptions", "Anchors", "Comparison", "DetectionTask", "Detections", "Edited", "FoundNms",
    "GraphEdit", "Heads", "NmsOptions", "add_nms", "compare", "cut_nms", "decode", "detect", "find_nms",
    "fold_scale_factor", "images", "nms", "read_detections", "scale_boxes", "select",
]  # fmt: skip
