"""What an operation on a detector's graph answers: the new file, every edit, and the proof that it says the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from kit.card import Card, Table
from kit.comparison import PARITY_COLUMNS, TensorParity, worst
from kit.errors import BadInput, ToolFailed
from kit.families.detection_heads import Heads, from_told
from kit.families.detection_nms import AddNmsOptions, NmsOptions
from kit.inspection.findings import counted
from kit.model import Model
from kit.record import Provenance

METADATA = "kit.detection"  # key under which a graph with post-processing tells its heads and options


@dataclass(frozen=True)
class GraphEdit:
    """One edit: what was done, and to which node or tensor."""

    what: str
    where: str


@dataclass(frozen=True)
class Edited(Card):
    """A detector whose graph was edited.

    Attributes:
        model: the new file.
        source: what it was made from.
        edits: every edit, in order.
        heads: what the raw outputs mean; None where the operation does not know.
        options: how boxes are suppressed, in the graph or, after a cut, in numpy; None where it does not know.
        parity: of tensors, new graph against source or numpy.
        detections: how many found boxes were compared, all of them equal to the last bit.
        checked_on: what was fed, in words.
        notes: sentences for the reader.
    """

    model: Model
    source: Model
    edits: tuple[GraphEdit, ...]
    heads: Heads | None
    options: AddNmsOptions | None
    parity: tuple[TensorParity, ...]
    detections: int
    checked_on: str
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = field(default=None, compare=False)

    def title(self) -> str:
        found = worst(self.parity)
        moved = f", tensors within {found.relative:.1e}" if found else ""
        same = f", {counted(self.detections, 'detection')} equal" if self.detections else ""
        return f"{self.model.path.name}: {counted(len(self.edits), 'edit')}{moved}{same}"

    def facts(self) -> dict[str, object]:
        return {
            "inputs": "; ".join(map(str, self.model.inputs)), "outputs": "; ".join(map(str, self.model.outputs)),
            **({"suppression": suppression(self.options)} if self.options else {}),
            "compared on": self.checked_on,
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        return (Table("Edits", ("what", "where"), tuple((edit.what, edit.where) for edit in self.edits)),
                Table("Tensors", PARITY_COLUMNS, tuple(row.row() for row in self.parity)))


def suppression(options: NmsOptions) -> str:
    """The options in words."""
    among = "all classes together" if options.class_agnostic else "each class"
    total = f", {options.total} in all" if options.total else ""
    return (f"score above {options.score_threshold:g}, IoU up to {options.iou:g}, at most {options.most} of "
            f"{among}{total}")


def require_equal(rows: tuple[TensorParity, ...], name: str) -> None:
    """Refuse a graph whose tensors moved.

    Raises:
        ToolFailed: names the worst tensor.
    """
    if any(row.verdict == "failed" for row in rows):
        row = worst(rows)
        raise ToolFailed(f"The edited graph of {name} does not give what the source gives: {row.name!r} differs by "
                         f"{row.relative:.1e}.", remedy="check that the heads (detection.json) belong to this model",
                         detail="\t".join(row.row()))


@dataclass(frozen=True)
class Told:
    """What ``add_nms`` left in a graph.

    Attributes:
        heads: with the names that the raw heads have in this graph.
        options: of the suppression.
        names: what the raw boxes and scores were called before.
    """

    heads: Heads
    options: AddNmsOptions
    names: tuple[str, str]


def write_metadata(heads: Heads, options: AddNmsOptions, raw: Sequence[str]) -> str:
    """The metadata of a graph that holds its post-processing.

    Args:
        heads: as they were.
        options: of the suppression.
        raw: what boxes and scores are called in the graph now.
    """
    now = replace(heads, boxes=raw[0], scores=raw[1])
    return json.dumps({**now.told(), "nms": asdict(options), "names": [heads.boxes, heads.scores]})


def read_metadata(metadata: Mapping[str, str], path: Path) -> Told | None:
    """What ``add_nms`` left in a graph; None in any other.

    Raises:
        BadInput: the metadata is damaged.
    """
    if METADATA not in metadata:
        return None
    try:
        told = json.loads(metadata[METADATA])
        boxes, scores = told["names"]
        return Told(from_told(told, path), AddNmsOptions(**told["nms"]), (boxes, scores))
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"The metadata {METADATA!r} of {path.name} is damaged.", remedy="add the post-processing anew",
                       detail=repr(error)) from error
