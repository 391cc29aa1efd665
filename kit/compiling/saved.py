"""What compile() takes and gives for a TensorFlow SavedModel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from kit.card import Table, bytes_text
from kit.comparison import CAUSES, PARITY_COLUMNS, TensorParity
from kit.errors import BadInput
from kit.options import Help, Options, Range

SAVED = "savedmodel"
#: What makes a SavedModel answer differently, most frequent first.
SAVED_CAUSES = (
    ("layout", "an axis was exchanged where onnx2tf moved the channels to the end: the first layer that differs is a "
     "Reshape, Transpose, Concat or a sum with a constant; kit.fix folds most of those"),
    ("padding", "SAME pads more at the end, ONNX where pads says: look at strided Conv, pools and ConvTranspose"),
    ("resize", "coordinate and rounding modes of Resize have no exact counterpart: see kit.audit"),
    ("preprocessing", CAUSES[0][1]),
    ("dynamic shapes", CAUSES[2][1]),
    ("precision", "a server may compute in bfloat16 or with TF32: compare on the CPU first"),
)


@dataclass(frozen=True)
class SavedModelOptions(Options):
    """How to write a SavedModel. ``kit.compile(model, SavedModelOptions(...))`` writes it."""

    how: Annotated[Literal["convert", "call"], Help(
        "convert: every operator becomes TensorFlow's (onnx2tf). call: one Python function in it calls the artefact as "
        "it is, which runs only where Python is.")] = "convert"
    layout: Annotated[Literal["NCHW", "NHWC"], Help(
        "Pictures in the signature: NCHW as in the ONNX model, or NHWC, TensorFlow's own.")] = "NCHW"
    batch: Annotated[int, Range(0, 1024, 1), Help(
        "Items a call takes; 0 leaves it open where the model does.")] = 0
    version: Annotated[int, Range(1, 1_000_000_000, 1), Help("Number of the version directory.")] = 1
    name: Annotated[str, Help("Name of the model and of the folder above; empty for its own.")] = ""
    signature: Annotated[str, Help("Name of the signature.")] = "serving_default"
    warm_up: Annotated[int, Range(0, 1000, 1), Help("Requests that a server answers before it takes others.")] = 3
    bind: Annotated[tuple[str, ...], Help("Sizes for open axes, such as x=1,3,48,320; only the batch stays.")] = ()
    reference: Annotated[Path | None, Help(
        "The model that the ONNX file came from, such as a Paddle folder: compared with it too.")] = None
    checks: Annotated[int, Range(1, 20), Help("Inputs on which the answers are compared.")] = 3
    threads: Annotated[int, Range(1, 64), Help("Threads of one run.")] = 2
    install: Annotated[bool, Help(
        "Make the environment that onnx2tf needs where it is missing; off says what it would download.")] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.name, str) or "/" in self.name or "\\" in self.name or self.name.startswith("."):
            raise BadInput(f"SavedModelOptions.name cannot be {self.name!r}.",
                           remedy="give a plain word: it becomes a folder and the name that a server uses")
        if not self.signature:
            raise BadInput("SavedModelOptions.signature is empty.", remedy='give a name, such as "serving_default"')


@dataclass(frozen=True)
class LayerGap:
    """How far one tensor of the SavedModel is from the ONNX model's.

    Attributes:
        tensor: its name in the ONNX model.
        node: what makes it.
        operator: its type.
        relative: largest difference over the largest magnitude, where that is above 1.
    """

    tensor: str
    node: str
    operator: str
    relative: float


@dataclass(frozen=True)
class Saved:
    """A SavedModel that was written.

    Attributes:
        how: ``convert`` or ``call``.
        name: of the model, as a server takes it.
        version: number of its directory.
        signature: name of its signature.
        inputs: name -> how it lies: ``NCHW``, ``NHWC`` or ``as in the ONNX model``.
        outputs: likewise.
        batch: ``open``, ``open, one after the other``, or the number.
        warm_up: records in the warm-up file, as read back.
        tools: what wrote it: package -> version.
        environment: bytes of the environment of onnx2tf; 0 where none was needed.
        needs: what must be installed where it runs.
        diverging: the first layer that differs, when the answers do; None otherwise, or where it could not be told.
        layers: around it.
        looked: why no layer could be named; "" otherwise.
        onnx: one row an output, against the ONNX model, where the result's own rows are against what it came from.
    """

    how: Literal["convert", "call"]
    name: str
    version: int
    signature: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    batch: str
    warm_up: int
    tools: dict[str, str]
    environment: int
    needs: str
    diverging: LayerGap | None = None
    layers: tuple[LayerGap, ...] = field(default=(), repr=False)
    looked: str = ""
    onnx: tuple[TensorParity, ...] = field(default=(), repr=False)

    def title(self) -> str:
        """How it came about, in a few words."""
        said = "converted" if self.how == "convert" else "calls the artefact from Python"
        return f"SavedModel {self.name}, version {self.version}, {said}"

    def facts(self) -> dict[str, object]:
        """For the card of the result."""
        gap = self.diverging
        return {
            "signature": self.signature,
            "takes": "; ".join(f"{name} {how}" for name, how in self.inputs.items()),
            "gives": "; ".join(f"{name} {how}" for name, how in self.outputs.items()),
            "batch": self.batch,
            "warm-up requests": self.warm_up or "none",
            "needs": self.needs,
            "made by": ", ".join(f"{name} {version}" for name, version in self.tools.items()),
            **({"environment of onnx2tf": bytes_text(self.environment)} if self.environment else {}),
            **({"first layer that differs": f"{gap.operator} {gap.node!r} (tensor {gap.tensor!r}, "
                f"{gap.relative:.1e})"} if gap else {}),
            **({"no layer named": self.looked} if self.looked else {}),
        }

    def tables(self, verdict: str) -> list[Table]:
        """Layers around the first that differs, and causes, where the answers are not equal."""
        made = []
        if self.onnx:
            made.append(Table("Answers, compiled against the ONNX model in between", PARITY_COLUMNS,
                              tuple(row.row() for row in self.onnx)))
        if self.layers:
            rows = tuple((row.tensor, row.operator, row.node, f"{row.relative:.1e}") for row in self.layers)
            columns = ("tensor", "made by", "node", "relative")
            made.append(Table("Layer by layer, ONNX against TensorFlow", columns, rows))
        if verdict != "equal":
            made.append(Table("Usual causes", ("cause", "what to check"), SAVED_CAUSES))
        return made


def readme(saved: Saved, folder: Path) -> str:
    """What to do with the folder, in Markdown."""
    rows = [f"- `{name}`: {how}" for name, how in saved.inputs.items()]
    gives = [f"- `{name}`: {how}" for name, how in saved.outputs.items()]
    base = f"/models/{saved.name}"
    lines = [f"# {saved.title()}", "", f"Version directory: `{saved.name}/{saved.version}`, signature "
             f"`{saved.signature}`, batch: {saved.batch}.", "", "Takes:", "", *rows, "", "Gives:", "", *gives, "",
             "Needs: " + saved.needs, ""]
    if saved.how == "convert":
        lines += ["With TensorFlow Serving, after copying this folder's model to the server:", "",
                  f"    tensorflow_model_server --model_name={saved.name} --model_base_path={base} "
                  "--port=8500 --rest_api_port=8501", ""]
    else:
        lines += ["TensorFlow Serving cannot run it: it holds no Python, and the operator that does the work here is a "
                  "Python function (PyFunc). In a Python process:", "",
                  f"    python {saved.name}/{saved.version}/assets.extra/kit_call.py feeds.npz answers.npz", "",
                  "or, with that folder on the path, `import kit_call; model = kit_call.load()`: it registers the "
                  "function, which a SavedModel cannot hold, and loads the SavedModel.", ""]
    return "\n".join(lines)
