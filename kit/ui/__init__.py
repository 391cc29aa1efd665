"""Views for notebooks. They show results and start work; they compute nothing.

``panel(stage, ...)`` runs a stage, ``preview(samples)`` shows what the model sees, ``ranges(calibration)`` and
``layers(sensitivity)`` let a person look and choose, ``search(model, samples)`` searches and shows what it finds,
``detections(comparison)`` shows the pictures in which a detector finds other things than before,
``pictures(comparison)`` those of two diffusion pipelines over each other.
Nothing else in the kit imports this package, so a stage never needs a widget library.
"""

from __future__ import annotations

from kit.ui.detection_view import DetectionView, detections
from kit.ui.diffusion_view import PictureView, pictures
from kit.ui.layer_view import LayerView, layers
from kit.ui.panel import Panel, panel
from kit.ui.preview import Preview, preview
from kit.ui.range_view import RangeView, ranges
from kit.ui.search_view import SearchPanel, search

__all__ = ["DetectionView", "LayerView", "Panel", "PictureView", "Preview", "RangeView", "SearchPanel", "detections",
           "layers", "panel", "pictures", "preview", "ranges", "search"]
