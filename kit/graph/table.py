"""All rules in the order in which they are applied, and which of them a target gets by default."""

from __future__ import annotations

from kit.errors import BadInput, unknown
from kit.graph import rules_activation, rules_fold, rules_layernorm, rules_shape, rules_split, rules_tidy, rules_whole
from kit.graph.rule import Rule

_ORDER = (
    # what the others need first: a plain graph, its opset, its shapes, its constants
    "inline-functions", "raise-opset", "fix-shapes", "name-axes", "lift-constants", "drop-identity", "fold-constants",
    "drop-neutral", "drop-dropout", "drop-casts", "drop-reshapes", "drop-transposes", "drop-flatten",
    # merges before folds: the 3 of clip(conv + 3, 0, 6) / 6 would end up in the bias
    "merge-hardswish", "merge-hardsigmoid", "merge-swish", "merge-gelu", "merge-layernorm",
    "fold-batchnorm", "fold-affine",
    "split-hardswish", "split-hardsigmoid", "split-swish", "split-gelu", "split-layernorm", "split-groupnorm",
    "merge-initializers", "drop-unused", "lower-ir-version",
)  # fmt: skip
_MODULES = (rules_activation, rules_fold, rules_layernorm, rules_shape, rules_split, rules_tidy, rules_whole)
_ALL = {rule.name: rule for module in _MODULES for rule in module.RULES}
_COMMON = tuple(name for name in _ORDER if not name.startswith(("split-", "merge-")))

RULES: dict[str, Rule] = {name: _ALL[name] for name in _ORDER}

# merge-swish is in ONNX Runtime's set to say why it is left alone. For ATC, LayerNormalization stays in parts: it fuses
# them itself, and takes the merged operator at opset 17 and 18 only, best with fixed shapes (CANN 8.1 fusion passes).
DEFAULTS: dict[str, tuple[str, ...]] = {
    "onnxruntime": (*_COMMON, "merge-hardswish", "merge-hardsigmoid", "merge-swish", "merge-gelu", "merge-layernorm",
                    "split-swish", "merge-initializers"),
    # OpenVINO merges x * Sigmoid(x) itself, and need not know operators that are ONNX Runtime's own.
    "openvino": (*_COMMON, "merge-hardswish", "merge-hardsigmoid", "merge-gelu", "merge-layernorm", "split-swish",
                 "merge-initializers"),
    "ascend310p3": (*_COMMON, "merge-hardswish", "merge-hardsigmoid", "split-swish", "split-gelu", "split-groupnorm",
                    "merge-initializers"),
}


def default_rules(target: str) -> tuple[str, ...]:
    """Names of the rules a target gets when none are asked for, in order.

    Raises:
        BadInput: no such target.
    """
    if target not in DEFAULTS:
        raise unknown("target", target, DEFAULTS)
    return tuple(name for name in _ORDER if name in DEFAULTS[target])


def chosen(names: tuple[str, ...], target: str) -> tuple[Rule, ...]:
    """The rules of these names, or the target's default, in the order in which they are applied.

    Raises:
        BadInput: an unknown name, or a merge and its split together.
    """
    for name in names:
        if name not in RULES:
            raise unknown("rule", name, RULES)
    wanted = names or default_rules(target)
    for name in names:
        other = name.replace("merge-", "split-")
        if name.startswith("merge-") and other in names:
            raise BadInput(f"{name} and {other} undo each other.", remedy="ask for one of them")
    return tuple(rule for name, rule in RULES.items() if name in wanted)
