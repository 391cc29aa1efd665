"""The three files that tell atc which operators to keep precise: by node, by type, and inside an operator.

``keep_dtype`` names nodes and is the sharpest. ``mixlist`` names types of operators and works under mixed precision
alone. ``op_precision_mode`` chooses the implementation inside an operator. All are made from ``float_candidates``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kit.ascend.chip_family import family_of
from kit.ascend.precision.amct_layers import Layers
from kit.ascend.precision.precision_evidence import FloatCandidates, FloatNode, float_candidates
from kit.calibration import model_of
from kit.card import Card, Listing, Table
from kit.errors import BadInput
from kit.targets.ascend import facts

__all__ = ["FloatCandidates", "PrecisionFile", "float_candidates", "keep_dtype", "mixlist", "op_precision_mode"]

RAISING = ("high_precision", "enable_float_32_execution")  # the other values give precision away, or check indices


@dataclass(frozen=True)
class PrecisionFile(Card):
    """One of atc's files about precision.

    Attributes:
        flag: of atc that reads it.
        name: a good name for the file.
        text: of the file.
        entries: what stands in it -> the evidence.
        left_out: nodes that it cannot help -> why.
        notes: sentences for the reader.
    """

    flag: str
    name: str
    text: str = field(repr=False)
    entries: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def title(self) -> str:
        count = len(self.entries)
        return f"{self.flag} with {count} entr{'y' if count == 1 else 'ies'}"

    def facts(self) -> dict[str, object]:
        return {"note": " ".join(self.notes)} if self.notes else {}

    def tables(self) -> tuple[Table, ...]:
        left = tuple(self.left_out.items())
        return (Table("Entries", ("entry", "evidence"), tuple(self.entries.items())),
                *((Table("Left out", ("node", "why"), left),) if left else ()),
                Listing(self.name, self.text))


def keep_dtype(model: Any, candidates: FloatCandidates, *, by: Literal["node", "type"] = "node",
               precision: str = "fp16") -> PrecisionFile:
    """The file for ``--keep_dtype``: nodes, or types, that keep the type they have in the model.

    Args:
        model: that atc reads: a path, a Model or a result that carries one.
        candidates: what to keep, and why.
        by: ``type`` where fusion changes the names; it keeps all nodes of the type.
        precision: as given to atc.

    Raises:
        BadInput: nothing to keep, a precision without effect, nodes without a name.
    """
    about = facts("mixed_precision")["keep_dtype"]
    _check_way(by)
    if precision in (value for values in about["without_effect"].values() for value in values):
        raise BadInput(f"--keep_dtype has no effect with precision={precision!r}: all operators keep their type.",
                       remedy="leave one of them out")
    if by == "type":
        entries, left = _by_type(candidates)
        text, entries = _lines(entries, "OpType::{}".format), {f"OpType::{kind}": why for kind, why in entries.items()}
    else:
        entries, left = _by_node(model, candidates, forbidden="\n\r"), {}
        text = _lines(entries, str)
    notes = ["Where the chip has no kernel of that type, atc takes the next precise one.",
             *(["Every node of these types stays in float32, not only those with evidence."] if by == "type" else [])]
    return PrecisionFile("--keep_dtype", "keep_dtype.cfg", text, entries, left, (*notes, *candidates.notes))


def mixlist(candidates: FloatCandidates, *, precision: str = "mixed_float16") -> PrecisionFile:
    """The file for ``--modify_mixlist``: types of operators that must not drop to 16 bits.

    Args:
        candidates: what to keep, and why.
        precision: as given to atc; one of the mixed ones.

    Raises:
        BadInput: a precision that reads no such file, or nothing to keep.
    """
    about = facts("mixed_precision")
    modes = [mode for modes in about["modify_mixlist"]["modes"].values() for mode in modes]
    if precision not in modes:
        raise BadInput(f"--modify_mixlist has no effect with precision={precision!r}.",
                       remedy=f"take one of {', '.join(modes)}, or keep_dtype, which goes with fp16")
    family, entries, already = family_of(candidates.chip), {}, []
    chosen, left = _by_type(candidates, without_kernel=f"no float32 kernel on AI Core of {candidates.chip}: black, it "
                            "would go to AI CPU or stop atc")
    for kind, why in chosen.items():
        colours = about["colours"].get(kind, {})
        colour = next((name for name, families in colours.items() if families == "all" or family in families.split()),
                      "grey")
        if colour == "black":
            already.append(kind)
        else:
            entries[kind] = f"{why}; {colour} by default"
    if not entries:
        raise BadInput(f"Nothing to write: on {candidates.chip} {', '.join(already)} never drop to 16 bits under mixed "
                       "precision.", remedy="leave --modify_mixlist out")
    text = json.dumps({"black-list": {"to-add": list(entries)}}, indent=2) + "\n"
    notes = ["The list goes by type: every node of these types stays in float32.",
             "Grey operators follow the node before them, so what comes after one of these may stay in float32 too.",
             *([f"Never dropped anyway: {', '.join(already)}."] if already else [])]
    return PrecisionFile("--modify_mixlist", "mixlist.json", text, entries, left, (*notes, *candidates.notes))


def op_precision_mode(model: Any, candidates: FloatCandidates, *, by: Literal["node", "type"] = "node",
                      mode: str = "high_precision") -> PrecisionFile:
    """The file for ``--op_precision_mode``: the more precise implementation inside an operator.

    Args:
        model: that atc reads: a path, a Model or a result that carries one.
        candidates: which, and why.
        by: nodes, or types of operators.
        mode: ``high_precision``, or ``enable_float_32_execution`` on chips that would round float32 to HF32.

    Raises:
        BadInput: a mode that is not there for the chip or is not precise, nothing to keep, names that do not fit.
    """
    about = facts("mixed_precision")["op_precision_mode"]
    _check_way(by)
    if mode not in RAISING:
        raise BadInput(f"mode={mode!r} makes no operator more precise.", remedy=f"take {' or '.join(RAISING)}")
    if mode == "enable_float_32_execution" and family_of(candidates.chip) not in about["float_32_families"]:
        raise BadInput(f"{mode} is not there for {candidates.chip}, only for Atlas A2 and A3.",
                       remedy="take high_precision")
    if by == "type":
        entries, left = _by_type(candidates)
    else:
        entries, left = _by_node(model, candidates, forbidden="\n\r=[];#"), {}
    text = f"[{'ByNodeName' if by == 'node' else 'ByOpType'}]\n" + _lines(entries, f"{{}}={mode}".format)
    notes = ("It chooses the implementation inside an operator; the type of its inputs stays what the precision says.",
             "Which operators have one stands in opp/built-in/op_impl/ai_core/tbe/impl_mode/all_ops_impl_mode.ini of "
             "the installed CANN.", *(["atc's own INT8 calibration excludes it."] if mode == "high_precision" else []))
    return PrecisionFile("--op_precision_mode", "op_precision.ini", text, entries, left, notes)


def _check_way(by: str) -> None:
    if by not in ("node", "type"):
        raise BadInput(f"by={by!r} is neither.", remedy="give 'node' or 'type'")


def _by_node(model: Any, candidates: FloatCandidates, forbidden: str) -> dict[str, str]:
    """Names -> evidence.

    Raises:
        BadInput: there are none, the file has no such names, or one cannot stand in the file.
    """
    _check_some(candidates.nodes, candidates)
    model = model_of(model)
    Layers(model, family_of(candidates.chip)).check_names(candidates.names)
    for name in candidates.names:
        if set(name) & set(forbidden) or name.startswith(("OpType::", "#")) or name != name.strip():
            raise BadInput(f"The node name {name!r} cannot stand in the file.",
                           remedy="name it otherwise, or choose by='type'")
    return {one.node: "; ".join(one.evidence) for one in candidates.nodes}


def _by_type(candidates: FloatCandidates, without_kernel: str = "") -> tuple[dict[str, str], dict[str, str]]:
    """Ascend IR types -> evidence; and nodes that are left out -> why.

    Args:
        candidates: what to keep, and why.
        without_kernel: why nodes are left out that the chip has no float32 kernel for; "" to take them.

    Raises:
        BadInput: nothing is left.
    """
    _check_some(candidates.nodes, candidates)
    left: dict[str, str] = {}
    wanted: dict[str, list[FloatNode]] = {}
    for one in candidates.nodes:
        if not one.types:
            left[one.node] = f"the Ascend IR type of {one.operator} is not known"
        elif without_kernel and one.float32 is False:
            left[one.node] = without_kernel
        else:
            for kind in one.types:
                wanted.setdefault(kind, []).append(one)
    if not wanted:
        name, why = next(iter(left.items()))
        raise BadInput(f"Nothing to write by type: of {len(left)} nodes the first is {name!r}: {why}.",
                       remedy="take keep_dtype by node, or precision='cube_fp16in_fp32out'")
    return {kind: _type_evidence(nodes, candidates.types.get(kind, 0)) for kind, nodes in wanted.items()}, left


def _type_evidence(nodes: Sequence[FloatNode], there: int) -> str:
    first = nodes[0]
    count = f"{len(nodes)} of {max(there, len(nodes))} nodes: "
    more = f", and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return f"{count}{first.node} {first.evidence[0]}{more}"


def _check_some(found: Any, candidates: FloatCandidates) -> None:
    if not found:
        raise BadInput(f"No node of {candidates.model_name} has to stay in float32, so there is nothing to write.",
                       remedy="leave the flag out")


def _lines(entries: Iterable[str], form: Callable[[str], str]) -> str:
    return "".join(f"{form(name)}\n" for name in entries)
