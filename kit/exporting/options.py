"""What an export can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from kit.errors import BadInput
from kit.exporting.custom_operators import pairs_of
from kit.options import Help, Options, Range

#: Target -> the opset it gets by default, and why.
OPSETS = {
    "onnxruntime": (17, "ONNX Runtime takes it since 1.12; HardSwish and LayerNormalization are one operator in it"),
    "openvino": (17, "it does not look at the number; HardSwish and LayerNormalization are one operator in it"),
    "ascend310p3": (16, "ATC reads opset 11 to 17; private and quantised operators only up to 16"),
}


@dataclass(frozen=True)
class ExportOptions(Options):
    """How to export. Everything left alone gives a model for ONNX Runtime, checked and compared."""

    target: Annotated[Literal["onnxruntime", "openvino", "ascend310p3"],
                      Help("Where the model will run; decides the opset")] = "onnxruntime"
    opset: Annotated[int | None, Range(7, 21, 1),
                     Help("Version of the ONNX operators; empty: what suits the target")] = None
    framework: Annotated[Literal["auto", "paddle", "tensorflow", "torch"], Help(
        "Of a factory's model; auto: what its module imports")] = "auto"
    exporter: Annotated[Literal["dynamo", "classic"], Help(
        "Which of PyTorch's two: dynamo writes opset 18 and later, classic (TorchScript) up to 20")] = "dynamo"
    part: Annotated[Literal["decoder", "encoder"], Help("Of an autoencoder's folder: which half")] = "decoder"
    operators: Annotated[tuple[tuple[str, str], ...], Help(
        "From PyTorch: class of a module, or a pattern such as GroupNorm+SiLU -> name of an operator of your own, or "
        "domain::name; its standard form stays in the file as a function")] = ()
    signature: Annotated[str, Help("Of a SavedModel or TFLite: which of its signatures")] = "serving_default"
    inputs: Annotated[tuple[str, ...], Help(
        'Of a layer, Keras model or frozen graph: its inputs, such as "x:float32[N,3,H,W]"')] = ()
    outputs: Annotated[tuple[str, ...], Help("Of a frozen graph: nodes to read; empty: those nothing else reads")] = ()
    axes: Annotated[tuple[str, ...], Help('Names of dynamic axes, such as "x=N,3,H,W"; a number fixes one')] = ()
    input_layout: Annotated[Literal["as is", "NCHW", "NHWC"], Help(
        "Order of the axes of picture inputs; the result counts the Transposes that it costs")] = "as is"
    output_layout: Annotated[Literal["as is", "NCHW", "NHWC"], Help("The same for outputs with four axes")] = "as is"
    dequantize: Annotated[bool, Help("Of a quantized TFLite: make a float model")] = False
    check: Annotated[bool, Help("Run the ONNX checker, types and shapes included")] = True
    compare: Annotated[bool, Help("Run source and ONNX model on the same inputs")] = True
    samples: Annotated[int, Range(1, 64, 1), Help("How many of the samples given to compare on")] = 4
    probe: Annotated[tuple[str, ...], Help('Sizes of made-up inputs to compare on, such as "x=1,3,640,640"')] = ()
    seed: Annotated[int, Range(0, 2**31 - 1), Help("Of the made-up inputs")] = 0
    config: Annotated[Path | None, Help("An inference.yml whose text and characters go into the model's metadata; "
                                        "empty: the one beside the source")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "operators", pairs_of(self.operators))
        for name in ("inputs", "outputs", "axes", "probe"):
            if isinstance(value := getattr(self, name), str):
                raise BadInput(f"ExportOptions.{name} takes several texts, not one.",
                               remedy=f"write {name}=({value!r},)")

    def choose_opset(self) -> tuple[int, str]:
        """The opset to write, and why this one."""
        return (self.opset, "asked for") if self.opset else OPSETS[self.target]
