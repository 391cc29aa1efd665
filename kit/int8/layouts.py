"""Which operators are worth INT8 in which runtime, and where values are rounded for it: facts as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Operators that only move values: they work on bytes as they are, and keep the scale of their input.
MOVERS = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "MaxPool", "Resize", "Slice", "Gather", "Pad",
          "Split")
#: Operators that compute on bytes, but gain nothing by it: worth it only where values come and go as bytes anyway.
BETWEEN = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu")
#: What is made INT8 when nothing else is asked for: where ONNX Runtime's CPU provider has an integer kernel, and the
#: loss is known to be small. Read off its QDQ selectors, 1.31.
DEFAULT_TYPES = ("Conv", "Gemm", "MatMul", "Relu", "Clip", *BETWEEN, *MOVERS)
#: What ONNX Runtime's quantizer can write at all.
KNOWN_TYPES = (*DEFAULT_TYPES, "ConvTranspose", "Sigmoid", "Softmax", "Where", "InstanceNormalization",
               "LayerNormalization", "BatchNormalization", "GatherElements")
NO_KERNEL = "ONNX Runtime has no integer kernel for it on a CPU: INT8 would only be converted back and forth"
WHY_FLOAT = {  # types that can be written but are left alone unless asked for
    "ConvTranspose": NO_KERNEL,
    "InstanceNormalization": NO_KERNEL,
    "LayerNormalization": "means and variances of INT8 values are coarse, and there is no integer kernel",
    "BatchNormalization": "kit.fix folds it into the convolution before it, which costs nothing",
    "Sigmoid": "most of its output lies near 0 and 1, where 256 even steps are coarse",
    "Softmax": "most of its output lies near 0, where 256 even steps are coarse",
    "Where": "seldom worth a conversion",
    "GatherElements": "seldom worth a conversion",
}


@dataclass(frozen=True)
class Layout:
    """Where a runtime wants values rounded.

    Attributes:
        title: of the runtime.
        types: operator types that are made INT8 when nothing else is asked for.
        round_outputs: results are rounded too, not only what goes into a node.
        why_not: the reason why other types are left in float.
        depthwise: why depthwise convolutions stay in float where the processor has BF16; "" if they do not.
    """

    title: str
    types: tuple[str, ...]
    round_outputs: bool
    why_not: str
    depthwise: str = ""

    def quantizer_options(self, types: list[str]) -> dict[str, Any]:
        """The extra options of ONNX Runtime's quantizer that write this layout, for the types that become INT8."""
        if self.round_outputs:
            return {}
        return {"OpTypesToExcludeOutputQuantization": types, "QDQKeepRemovableActivations": True}


LAYOUTS = {
    "onnxruntime": Layout("ONNX Runtime", DEFAULT_TYPES, True, NO_KERNEL),
    # Measured with OpenVINO 2026.4 on a processor with VNNI and BF16, on a detector of 42 convolutions at 640x640: with
    # the inputs of convolutions rounded and nothing else, all 42 run on bytes. What follows a convolution (HardSwish,
    # Add, Mul) is fused into it and reads its 32-bit sums unrounded. Rounding Add, Concat or Resize too gained no
    # time and cost 1 dB; transposed convolutions in INT8 were 5% slower; rounding depthwise convolutions saved no time
    # beside BF16 and cost 3 dB. NNCF's layout took 5% longer in BF16 and 16% longer in FP32.
    "openvino": Layout(
        "OpenVINO", ("Conv", "Gemm", "MatMul"), False,
        "OpenVINO fuses it into the integer node before it, or computes it in float as fast",
        "beside BF16 bytes save no time on depthwise convolutions, and they cost accuracy"),
}
