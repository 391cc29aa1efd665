"""All rules in the order in which they are applied, and which of them a target gets by default."""

from __future__ import annotations

from kit import targets
from kit.errors import BadInput, unknown
from kit.graph import (
    rules_activation,
    rules_attention,
    rules_attributes,
    rules_einsum,
    rules_fold,
    rules_forms,
    rules_fuse,
    rules_indices,
    rules_integers,
    rules_layernorm,
    rules_loop,
    rules_masks,
    rules_nms,
    rules_opset,
    rules_pools,
    rules_qdq,
    rules_recurrent,
    rules_resize,
    rules_resize_tf,
    rules_shape,
    rules_split,
    rules_tidy,
    rules_whole,
)
from kit.graph.rule import Rule

_ORDER = (
    # what the others need first: a plain graph, its opset, its shapes, its constants
    "inline-functions", "raise-opset", "fix-shapes", "name-axes", "lift-constants", "drop-identity", "strip-qdq",
    "resize-like-tensorflow", "if-constant", "unroll-loop", "fold-constants",
    "drop-neutral", "drop-dropout", "drop-casts", "drop-reshapes", "drop-transposes", "drop-flatten",
    # merges before folds: the 3 of clip(conv + 3, 0, 6) / 6 would end up in the bias
    "merge-hardswish", "merge-hardsigmoid", "merge-swish", "merge-gelu", "merge-layernorm", "merge-groupnorm",
    "fuse-gelu", "fuse-attention", "fuse-skip-layernorm", "fold-batchnorm", "fold-affine",
    "split-hardswish", "split-hardsigmoid", "split-swish", "split-gelu", "split-mish", "split-layernorm",
    "split-groupnorm",
    # one form of several equal ones; those that came with a later opset before the opset is lowered
    "slice-shape", "plain-split", "plain-pad", "plain-slice", "plain-gather", "plain-resize", "plain-attributes",
    "einsum-to-matmul", "plain-gru", "plain-gathernd", "plain-scatternd", "plain-maxpool", "global-pool",
    "nms-five-inputs", "nms-rows", "lower-opset", "topk-int32", "int64-to-int32", "fp16-constants",
    "merge-initializers", "drop-unused", "lower-ir-version",
)  # fmt: skip
_MODULES = (rules_activation, rules_attention, rules_attributes, rules_einsum, rules_fold, rules_forms, rules_fuse,
            rules_indices, rules_integers, rules_layernorm, rules_loop, rules_masks, rules_nms, rules_opset,
            rules_pools, rules_qdq, rules_recurrent, rules_resize, rules_resize_tf, rules_shape, rules_split,
            rules_tidy, rules_whole)
_ALL = {rule.name: rule for module in _MODULES for rule in module.RULES}
_FORMS = ("slice-shape", "plain-split", "plain-pad", "plain-slice", "plain-gather", "plain-resize", "plain-attributes",
          "einsum-to-matmul", "plain-gru", "plain-gathernd", "plain-scatternd", "plain-maxpool", "global-pool",
          "nms-five-inputs", "nms-rows", "if-constant", "unroll-loop", "topk-int32", "int64-to-int32", "fp16-constants")
_BY_NAME = ("strip-qdq", "resize-like-tensorflow")  # they move the answer: only where asked for
_COMMON = tuple(name for name in _ORDER if not name.startswith(("split-", "merge-", "fuse-"))
                and name not in (*_FORMS, *_BY_NAME))

RULES: dict[str, Rule] = {name: _ALL[name] for name in _ORDER}

# fuse-skip-layernorm and merge-groupnorm are in no set: they gain nothing here (benchmarks/fusions.py).
# merge-swish is in ONNX Runtime's set to say why it is left alone. For ATC, LayerNormalization stays in parts: it fuses
# them itself, and takes the merged operator at opset 17 and 18 only, best with fixed shapes (CANN 8.1 fusion passes).
DEFAULTS: dict[str, tuple[str, ...]] = {
    "onnxruntime": (*_COMMON, "merge-hardswish", "merge-hardsigmoid", "merge-swish", "merge-gelu", "merge-layernorm",
                    "fuse-gelu", "fuse-attention", "split-swish", "merge-initializers"),
    # OpenVINO merges x * Sigmoid(x) itself, and need not know operators that are ONNX Runtime's own.
    "openvino": (*_COMMON, "merge-hardswish", "merge-hardsigmoid", "merge-gelu", "merge-layernorm", "split-swish",
                 "merge-initializers"),
    # every chip: what ATC takes is decided by its parser
    "ascend": (*_COMMON, "merge-hardswish", "merge-hardsigmoid", "split-swish", "split-gelu", "split-mish",
               "split-groupnorm", *_FORMS, "merge-initializers"),
}

# ONNX Runtime's CANN provider has CANN read each piece, but LayerNormalization is not in its list.
DEFAULTS["onnxruntime-cann"] = (*DEFAULTS["ascend"], "split-layernorm")


def default_rules(target: str) -> tuple[str, ...]:
    """Names of the rules a target gets when none are asked for, in order; ``ascend`` stands for every chip.

    Raises:
        BadInput: no such target.
    """
    family = "ascend" if target in targets.ascend.NAMES else target
    if family not in DEFAULTS:
        raise unknown("target", target, targets.NAMES)
    return tuple(name for name in _ORDER if name in DEFAULTS[family])


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
