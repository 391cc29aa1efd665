"""Views for notebooks: ``panel(stage, ...)`` and ``preview(samples)``. They show and start work; they compute nothing.

Nothing else in the kit imports this package, so a stage never needs a widget library.
"""

from __future__ import annotations

from kit.ui.panel import Panel, panel
from kit.ui.preview import Preview, preview

__all__ = ["Panel", "Preview", "panel", "preview"]
