"""Two descriptions side by side: which nodes belong together, and what each pair and each lone node differ in.

Nodes are paired by the best common subsequence of the two canonical orders, where a pair of the same operator counts
more when attributes and shapes agree too (Needleman and Wunsch 1970, without a price for gaps; in Hirschberg's linear
memory). What only moves numbers about is told apart from what computes something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kit.card import Card, Table
from kit.describing.result import DescribedNode, Description, attributes_text
from kit.describing.vocabulary import words
from kit.errors import BadInput
from kit.inspection.findings import counted

Kind = Literal["operator", "attribute", "shape", "dtype", "connection", "layout", "weights"]
_SMALL = 64  # nodes on a side from which the alignment is split in two
_MOVING = ("reshape", "transpose")
_WORDS = {"same": "with the same bytes", "alike": "with the same numbers in another order",
          "different": "with other numbers", "folded": "folded into others on one side, so not compared",
          "unread": "not read, so compared by shape only"}


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same.

    Attributes:
        kind: ``layout`` and ``weights`` leave the computation as it is; any other kind changes it.
        left: name of the node on the left; "" where it has none.
        right: likewise.
        operator: by the vocabulary.
        what: in words, left before right.
    """

    kind: Kind
    left: str
    right: str
    operator: str
    what: str


@dataclass(frozen=True)
class DescriptionDiff(Card):
    """What differs between two descriptions. True when nothing but layout and weights does.

    Attributes:
        left: file of the first.
        right: file of the second.
        pairs: names of the nodes that belong together.
        differences: in canonical order, those of the computation before those of layout and weights.
        weights: how the constants of the pairs compare: ``same``, ``alike``, ``different``, ``folded``, ``unread``.
    """

    left: str
    right: str
    pairs: tuple[tuple[str, str], ...] = field(repr=False)
    differences: tuple[Difference, ...]
    weights: dict[str, int]

    def __bool__(self) -> bool:
        return not self.structural

    @property
    def structural(self) -> tuple[Difference, ...]:
        """Those that change what is computed."""
        return tuple(d for d in self.differences if d.kind not in ("layout", "weights"))

    def of(self, kind: Kind) -> tuple[Difference, ...]:
        """Those of one kind."""
        return tuple(d for d in self.differences if d.kind == kind)

    def title(self) -> str:
        files = f"{self.left} and {self.right}"
        if self.structural:
            return f"{files}: {counted(len(self.structural), 'difference')} in what they compute"
        return f"{files}: the same net" + (", but for its layout" if self.of("layout") else "")

    def facts(self) -> dict[str, object]:
        kinds = Counter(d.kind for d in self.differences)
        return {
            "nodes paired": len(self.pairs),
            "differences": ", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "none",
            "weights": "; ".join(f"{count} {_WORDS[word]}" for word, count in self.weights.items() if count) or "none",
        }

    def tables(self) -> Sequence[Table]:
        if not self.differences:
            return ()
        return (Table("What differs", ("kind", "left", "right", "operator", "what"), tuple(
            (d.kind, d.left, d.right, d.operator, d.what) for d in self.differences)),)


def difference(left: Description, right: Description) -> DescriptionDiff:
    """Compare two descriptions.

    Raises:
        BadInput: one of the two is no Description.
    """
    for thing in (left, right):
        if not isinstance(thing, Description):
            raise BadInput(f"A {type(thing).__name__} is no description.",
                           remedy="give what kit.describe(...) returned")
    pairs = _align(left.nodes, right.nodes)
    made = _Comparer(left, right, pairs)
    found = [*made.nodes(), *made.ports(), *made.layout()]
    found += made.weights()
    return DescriptionDiff(left.file, right.file, tuple((left.nodes[i].name, right.nodes[j].name) for i, j in pairs),
                           tuple(sorted(found, key=lambda d: d.kind in ("layout", "weights"))), dict(made.counts))


# ---- which nodes belong together -------------------------------------------------------------------------------------


def _align(left: Sequence[DescribedNode], right: Sequence[DescribedNode]) -> list[tuple[int, int]]:
    """Pairs of places, rising on both sides."""
    codes: dict[object, int] = {}
    rows, columns = (np.array([[codes.setdefault(key, len(codes)) for key in _keys(node)] for node in side],
                              np.int64).reshape(len(side), 3) for side in (left, right))
    return _split(rows, columns, 0, 0)


def _keys(node: DescribedNode) -> tuple[object, ...]:
    shapes = str([port.sizes for port in node.outputs])
    return node.operator, ("a", node.operator, attributes_text(node.attributes)), ("s", node.operator, shapes)


def _row_scores(row: np.ndarray, columns: np.ndarray) -> np.ndarray:
    same = row == columns
    return np.where(same[:, 0], 4 + same[:, 1] + same[:, 2], 0)


def _last_row(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Best score of all rows against every beginning of the columns."""
    best = np.zeros(len(columns) + 1, np.int64)
    for row in rows:
        paired = best[:-1] + _row_scores(row, columns)
        best[1:] = np.maximum.accumulate(np.maximum(best[1:], paired))
    return best


def _split(rows: np.ndarray, columns: np.ndarray, top: int, start: int) -> list[tuple[int, int]]:
    if not len(rows) or not len(columns):
        return []
    if len(rows) <= _SMALL:
        return _small(rows, columns, top, start)
    half = len(rows) // 2
    both = _last_row(rows[:half], columns) + _last_row(rows[half:][::-1], columns[::-1])[::-1]
    cut = int(both.argmax())
    return [*_split(rows[:half], columns[:cut], top, start),
            *_split(rows[half:], columns[cut:], top + half, start + cut)]


def _small(rows: np.ndarray, columns: np.ndarray, top: int, start: int) -> list[tuple[int, int]]:
    best = np.zeros((len(rows) + 1, len(columns) + 1), np.int64)
    scores = np.stack([_row_scores(row, columns) for row in rows])
    for i in range(len(rows)):
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], best[i, :-1] + scores[i]))
    i, j, found = len(rows), len(columns), []
    while i and j:
        if scores[i - 1, j - 1] and best[i, j] == best[i - 1, j - 1] + scores[i - 1, j - 1]:
            i, j = i - 1, j - 1
            found.append((top + i, start + j))
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] == "-"


# ---- what they differ in ---------------------------------------------------------------------------------------------


class _Comparer:
    def __init__(self, left: Description, right: Description, pairs: list[tuple[int, int]]) -> None:
        self.sides = left, right
        self.pairs = [(left.nodes[i], right.nodes[j]) for i, j in pairs]
        self.partner = {a.name: b.name for a, b in self.pairs}
        paired = ({i for i, _ in pairs}, {j for _, j in pairs})
        self.lone = tuple([node for at, node in enumerate(side.nodes) if at not in taken]
                          for side, taken in zip(self.sides, paired, strict=True))
        self.makers = tuple({port.name: node for node in side.nodes for port in node.outputs} for side in self.sides)
        self.counts: Counter[str] = Counter()

    def nodes(self) -> list[Difference]:
        found = []
        for side, nodes in enumerate(self.lone):
            for node in nodes:
                names = (node.name, "") if side == 0 else ("", node.name)
                kind: Kind = "layout" if node.operator in _MOVING else "operator"
                result = ", ".join(map(str, node.outputs))
                found.append(Difference(kind, *names, node.operator, f"only in {self.sides[side].file}: {result} "
                                        f"{attributes_text(node.attributes)}".rstrip()))
        for a, b in self.pairs:
            found += self._pair(a, b)
        return found

    def _pair(self, a: DescribedNode, b: DescribedNode) -> list[Difference]:
        found = []

        def note(kind: Kind, what: str) -> None:
            found.append(Difference(kind, a.name, b.name, a.operator, what))

        for name in sorted({*a.attributes, *b.attributes}):
            mine, theirs = a.attributes.get(name, "not given"), b.attributes.get(name, "not given")
            if mine != theirs:
                note("layout" if name in ("reads", "writes") else "attribute", f"{name} {mine} against {theirs}")
        for mine, theirs in zip(a.outputs, b.outputs, strict=False):
            if mine.sizes != theirs.sizes:
                note("shape", f"{mine} against {theirs}")
            elif mine.layout != theirs.layout and "last" in (mine.layout, theirs.layout):
                note("layout", f"{mine} against {theirs}")
            if mine.dtype != theirs.dtype:
                note("dtype", f"{mine.dtype} against {theirs.dtype}")
        if len(a.outputs) != len(b.outputs):
            note("connection", f"{len(a.outputs)} results against {len(b.outputs)}")
        numbers = [[name for name in node.inputs if _is_number(name)] for node in (a, b)]
        if numbers[0] != numbers[1]:
            note("attribute", "constant {} against {}".format(*(", ".join(side) or "none" for side in numbers)))
        mine, theirs = self._sources(a, 0), self._sources(b, 1)
        wanted = [self.partner.get(name, name) for name in mine]
        if a.operator in words()["commutative"]:
            wanted, theirs = sorted(wanted), sorted(theirs)
        if wanted != theirs:
            note("connection", f"reads {', '.join(mine) or 'nothing'} against {', '.join(theirs) or 'nothing'}")
        return found

    def _sources(self, node: DescribedNode, side: int) -> list[str]:
        """What makes the computed inputs of a node; lone nodes that only move numbers are looked through."""
        lone = {other.name for other in self.lone[side] if other.operator in _MOVING}
        found = []
        for name in node.inputs:
            maker = self.makers[side].get(name)
            while maker is not None and maker.name in lone:
                name = maker.inputs[0]
                maker = self.makers[side].get(name)
            if maker is not None or name.startswith("in"):
                found.append(maker.name if maker is not None else name)
        return found

    def ports(self) -> list[Difference]:
        """Inputs and outputs of the models, by place."""
        found: list[Difference] = []
        left, right = self.sides
        for word in ("inputs", "outputs"):
            mine, theirs = getattr(left, word), getattr(right, word)
            if len(mine) != len(theirs):
                found.append(Difference("connection", "", "", "model", f"{len(mine)} {word} against {len(theirs)}"))
            for a, b in zip(mine, theirs, strict=False):
                names = a.source, b.source, f"model {word[:-1]}"
                if a.sizes != b.sizes:
                    found.append(Difference("shape", *names, f"{a} against {b}"))
                elif a.shape != b.shape or (a.layout != b.layout and "last" in (a.layout, b.layout)):
                    found.append(Difference("layout", *names, f"{a} against {b}"))
                if a.dtype != b.dtype:
                    found.append(Difference("dtype", *names, f"{a.dtype} against {b.dtype}"))
        return found

    def layout(self) -> list[Difference]:
        left, right = (side.layout_changes for side in self.sides)
        if len(left) == len(right):
            return []
        return [Difference("layout", "", "", "transpose", f"{len(left)} nodes that only change the layout against "
                           f"{len(right)}")]

    def weights(self) -> list[Difference]:
        known = tuple({weight.name: weight for weight in side.weights} for side in self.sides)
        found = []
        for a, b in self.pairs:
            mine, theirs = ([known[side][name] for name in node.inputs if name in known[side]]
                            for side, node in enumerate((a, b)))
            if len(mine) != len(theirs):
                self.counts["folded"] += max(len(mine), len(theirs))
                continue
            for one, other in zip(mine, theirs, strict=True):
                word = "unread" if not (one.digest and other.digest) else "same" if one.digest == other.digest else (
                    "alike" if one.alike(other) else "different")
                self.counts[word] += 1
                if word == "different":
                    found.append(Difference("weights", a.name, b.name, a.operator, f"{one.source} and {other.source} "
                                            "hold other numbers"))
        return found
