"""Graph fixing: named, justified, verified and undoable edits of an ONNX graph.

``fix`` is the stage; ``rules_*.py`` hold the rules, each file ending in ``RULES = (...)``; ``applicable`` asks the same
rules without keeping any edit, for the audit. Reading a rule needs no framework: onnx-ir is imported when one runs.
"""

from __future__ import annotations

from kit.graph.fixing import Change, Fixed, FixOptions, LeftAlone, Rejected, applicable, fix
from kit.graph.table import RULES, default_rules

__all__ = ["RULES", "Change", "FixOptions", "Fixed", "LeftAlone", "Rejected", "applicable", "default_rules", "fix"]
