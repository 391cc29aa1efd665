"""What float16, in which ATC computes by default, cannot hold: constants in the file, and tensors seen in data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kit.inspection.findings import Finding, Severity
from kit.inspection.graph import Graph

if TYPE_CHECKING:
    from kit.collecting.result import Calibration, TensorStatistics

LARGEST = 65504.0
SMALLEST = 2.0**-14  # normal number: 6.1e-05; below it digits are lost one by one
# Operators for which an infinity in a constant's place says the same: limits, and thresholds to compare with.
LIMITS = frozenset({"Clip", "Max", "Min", "NonMaxSuppression", "Less", "LessOrEqual", "Greater", "GreaterOrEqual",
                     "Equal", "IsInf", "Cast"})
_KEEP = ("keep its node in float32 (--precision_mode_v2=mixed_float16 with --modify_mixlist, or --keep_dtype), or the "
         "whole model with --precision_mode_v2=origin")


def constants(graph: Graph) -> Iterator[Finding]:
    """Constants beyond float16, unless all that read them take an infinity as well."""
    from kit.targets.ascend import breaker, breaker_source

    for name, tensor in graph.weights:
        values = graph.array(tensor) if tensor.data_type in (1, 11) else None
        if values is None or not values.size or not (worst := _worst(values)):
            continue
        readers = graph.readers.get(name, [])
        operators = {node.operator for node in readers}
        if operators <= LIMITS:
            continue
        if operators == {"BatchNormalization"}:
            fix, advice, nodes = "fold-batchnorm", "folded into the convolution it is gone", (name,)
        else:
            fix, advice, nodes = "fp16-constants", breaker("fp16-range")["fix"], tuple(node.name for node in readers)
        yield Finding("warning", "", nodes, f"the constant {name} holds {worst:.3g}, more than float16 can (65504); "
                      "ATC computes in float16 by default", breaker_source("fp16-range"), fix, advice)


def _worst(values: np.ndarray) -> float:
    """The number that is furthest beyond float16; 0 where none is."""
    # fmin and fmax pass over NaN, which is another finding.
    low, high = float(np.fmin.reduce(values, None)), float(np.fmax.reduce(values, None))
    worst = high if high >= -low else low
    return worst if abs(worst) > LARGEST else 0.0


def beyond(graph: Graph, calibration: Calibration) -> Iterator[Finding]:
    """Tensors that the calibration data leads beyond float16, near its end, or wholly below its normal numbers."""
    from kit.targets.ascend import breaker_source

    source = (f"calibration of {calibration.model_name} over {calibration.samples} samples; "
              f"{breaker_source('fp16-range')}")
    for tensor in calibration.tensors:
        made = graph.producers.get(tensor.name)
        node = (made.name,) if made is not None else ()
        if said := _said(tensor):
            severity, what = said
            yield Finding(severity, tensor.operator if made else "", node, what, source,
                          "fp16-constants" if made else "", _KEEP)


def _said(tensor: TensorStatistics) -> tuple[Severity, str] | None:
    worst = max(tensor.maximum, -tensor.minimum) if tensor.elements else 0.0
    place = "" if tensor.node else "input "
    if worst > LARGEST:
        return "warning", (f"{place}{tensor.name} reaches {worst:.4g} in the data, more than float16 can hold (65504): "
                           "it becomes infinite, and what follows is wrong although ATC succeeds")
    if worst > LARGEST / 2:
        return "note", (f"{place}{tensor.name} reaches {worst:.4g} in the data: other data may lead it beyond float16 "
                        "(65504)")
    if 0 < worst < SMALLEST:
        return "warning", (f"{place}{tensor.name} stays below {worst:.3g} in the data, and the smallest normal number "
                           f"of float16 is {SMALLEST:.3g}: digits are lost, or all of it")
    if tensor.infinite:
        return "note", f"{place}{tensor.name} held {tensor.infinite:,} infinities in the data"
    return None
