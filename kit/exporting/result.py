"""What an export says: the ONNX model, what it was made from, and whether both answer alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kit.card import Card, Table, bytes_text
from kit.comparison import CAUSES, PARITY_COLUMNS, TensorParity, worst
from kit.exporting.custom_operators import CustomOperator
from kit.exporting.pir import Unsupported
from kit.exporting.resizing import RESIZE_COLUMNS, ResizeRow, resize_cells
from kit.exporting.transposes import LayoutCost
from kit.model import Model
from kit.record import Provenance


@dataclass(frozen=True)
class Exported(Card):
    """An ONNX model and the proof of what it is worth. True unless its answers differ from the source's.

    Attributes:
        model: the ONNX file.
        source: what was exported, as it was asked for.
        kind: ``paddle`` (a saved inference model), ``dygraph`` (a layer from a factory), ``savedmodel``, ``keras``
            (a file or a factory), ``graphdef`` (a frozen graph), ``tflite``, ``diffusers`` (a part of a pipeline),
            ``torch`` (a module from a factory) or ``onnx`` (brought along).
        opset: of the default domain.
        opset_reason: why this one.
        size: bytes of the ONNX file, external weights included.
        dynamic_axes: input -> its axes, a word where dynamic, such as ``N, 3, H, W``.
        parity: the source against the ONNX file in ONNX Runtime, one row an output.
        dygraph_parity: the layer or Keras model itself against what was saved from it; empty for other kinds.
        verdict: ``equal``, ``warning`` or ``failed``: the worst row, or that the ONNX file could not run.
        reference_runtime: what ran the source.
        candidate_runtime: what ran the ONNX file.
        compared: the inputs both sides were run on; the first index of a row's ``where`` counts them.
        failures: inputs that the source takes and the ONNX file does not.
        unsupported: operators in the file that no standard runtime defines.
        notes: sentences for the reader: what was repaired, named, left out.
        operators_source: operator of the source -> how often.
        operators_onnx: operator of the ONNX file -> how often.
        inference_model: for a layer or Keras model, the folder with the inference model or SavedModel saved on the way.
        tools: what did it: package -> version.
        layouts: order of axes asked for, of inputs and of outputs.
        layout: how many Transposes the file holds, and what they cost in ONNX Runtime.
        resizes: every resize of a TensorFlow source, its ONNX node, and how far the pixels are apart.
        custom: operators of one's own that nodes were made into.
        memory_forecast: bytes that the conversion was forecast to take; None where nothing forecasts it.
        memory_peak: bytes that it took; None where it was not measured.
        seconds: of the conversion alone, without loading and comparing; None where it was not measured.
    """

    model: Model
    source: str
    kind: Literal["paddle", "dygraph", "savedmodel", "keras", "graphdef", "tflite", "diffusers", "torch", "onnx"]
    opset: int
    opset_reason: str
    size: int
    dynamic_axes: dict[str, str]
    parity: tuple[TensorParity, ...]
    dygraph_parity: tuple[TensorParity, ...]
    verdict: Literal["equal", "warning", "failed"]
    reference_runtime: str
    candidate_runtime: str
    compared: tuple[str, ...]
    failures: tuple[str, ...]
    unsupported: tuple[Unsupported, ...]
    notes: tuple[str, ...]
    operators_source: dict[str, int]
    operators_onnx: dict[str, int]
    inference_model: Path | None
    tools: dict[str, str]
    layouts: tuple[str, str] = ("as is", "as is")
    layout: LayoutCost | None = field(default=None, compare=False)  # measured: never twice the same
    resizes: tuple[ResizeRow, ...] = ()
    custom: tuple[CustomOperator, ...] = ()
    memory_forecast: int | None = None
    memory_peak: int | None = field(default=None, compare=False)
    seconds: float | None = field(default=None, compare=False)
    provenance: Provenance | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return self.verdict != "failed"

    def title(self) -> str:
        if not self.compared:
            return f"{self.source} exported to ONNX; not compared"
        row = worst((*self.parity, *self.dygraph_parity))
        gap = ""
        if row:
            place = f" {list(row.where[1:])} of {self.compared[row.where[0]]}" if row.where else ""
            gap = f"largest difference {row.max_abs:.1e} at {row.name}{place}"
        return {
            "equal": f"{self.source} exported: source and ONNX answer alike ({gap})",
            "warning": f"{self.source} exported, with a small difference to look at: {gap}",
            "failed": f"{self.source} exported, but the ONNX model does not answer like its source: "
            + (self.failures[0] if self.failures else gap),
        }[self.verdict]

    def facts(self) -> dict[str, object]:
        return {
            "verdict": self.verdict,
            "file": f"{self.model.path.name}, {bytes_text(self.size)}, {self.model.nodes} nodes",
            "opset": f"{self.opset}: {self.opset_reason}",
            "inputs": "; ".join(map(str, self.model.inputs)),
            "outputs": "; ".join(map(str, self.model.outputs)),
            "reference": self.reference_runtime,
            "compared with": self.candidate_runtime,
            "compared on": "; ".join(self.compared) or "nothing",
            **({"layout": f"inputs {self.layouts[0]}, outputs {self.layouts[1]}"}
               if self.layouts != ("as is", "as is") else {}),
            **({"Transposes": self.layout.words()} if self.layout and self.layout.count else {}),
            "made by": ", ".join(f"{name} {version}" for name, version in self.tools.items()),
            **({"took": f"{self.provenance.seconds:.1f} s" + (
                f", of which the exporter {self.seconds:.1f} s" if self.seconds is not None else "")}
               if self.provenance else {}),
            **({"memory of the conversion": f"{bytes_text(self.memory_peak)} at the peak" + (
                f", {bytes_text(self.memory_forecast)} forecast" if self.memory_forecast else "")}
               if self.memory_peak else {}),
            **{f"note {at}" if len(self.notes) > 1 else "note": note for at, note in enumerate(self.notes, 1)},
        }

    def tables(self) -> tuple[Table, ...]:
        tables = []
        if self.dygraph_parity:
            caption = "Keras model and SavedModel" if self.kind == "keras" else "Layer and saved inference model"
            tables.append(Table(caption, PARITY_COLUMNS,
                                tuple(row.row() for row in self.dygraph_parity)))
        if self.parity:
            caption = {"dygraph": "Saved inference model and ONNX", "keras": "SavedModel and ONNX"}.get(
                self.kind, "Source and ONNX")
            tables.append(Table(caption, PARITY_COLUMNS, tuple(row.row() for row in self.parity)))
        if self.failures:
            tables.append(Table("Inputs the ONNX model does not take", ("what happened",),
                                tuple((text,) for text in self.failures)))
        if self.verdict == "failed":
            tables.append(Table("Usual causes", ("cause", "how to tell"), CAUSES))
        if self.resizes:
            tables.append(Table("Resizes, on a picture from 0 to 1", RESIZE_COLUMNS,
                                tuple(map(resize_cells, self.resizes))))
        if self.custom:
            tables.append(Table("Operators of your own", ("asked for", "operator", "nodes", "inputs", "attributes",
                                                          "standard form"), tuple(
                (row.asked, row.operator, row.count, row.inputs, ", ".join(row.attributes) or "-",
                 ", ".join(row.body)) for row in self.custom)))
        if self.unsupported:
            tables.append(unsupported_table(self.unsupported))
        return tuple(tables)


def unsupported_table(rows: tuple[Unsupported, ...]) -> Table:
    """All operators without a counterpart, at once."""
    return Table("Operators without a counterpart", ("operator", "count", "where", "what to do"),
                 tuple((row.operator, row.count, row.where, row.advice) for row in rows))
