"""What quantization hands back: the model, what became of every node beside what was asked for, and what was tried."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from kit.card import Card, Table, bytes_text
from kit.model import Model
from kit.record import Provenance


@dataclass(frozen=True)
class NodeSetting:
    """What became of one node.

    Attributes:
        node: its name.
        operator: its type.
        setting: ``INT8``, ``INT8 weights`` (computed in float), ``float`` and so on, as the written file has it.
        why: the reason, where it stays in float or is not as asked for.
        weights: bytes of its weights in the float model.
        asked: ``INT8`` or ``float`` where the options name the node or its type; "" where the kit chose.
    """

    node: str
    operator: str
    setting: str
    why: str
    weights: int
    asked: str = ""

    @property
    def is_as_asked(self) -> bool:
        """Whether the written file follows the request, or there was none."""
        return self.asked in ("", self.setting) or (self.asked == "float" and self.setting == "INT8 weights")


@dataclass(frozen=True)
class Trial:
    """One range method tried: signal-to-noise ratio of the outputs against float, in dB, over the probe samples."""

    method: str
    sqnr: float


@dataclass(frozen=True)
class BiasCorrection:
    """The bias of one node, changed by what rounding its weights shifts its output on average.

    Attributes:
        node: its name.
        before: mean over the output channels of the size of the shift, in units of the output, that rounding the
            weights alone causes.
        after: what is left of it, by the same sum, with the bias as it was stored.
        why: the reason, where the bias was left alone.
    """

    node: str
    before: float
    after: float
    why: str = ""


@dataclass(frozen=True)
class Quantized(Card):
    """A model of lower precision and how it came about.

    Attributes:
        model: the model; for INT8 in QDQ form.
        method: how its ranges were chosen; "" where there are none.
        activation_type: ``uint8`` or ``int8``; ``float32`` or ``float16`` where activations are not rounded to bytes.
        reason: why activations are stored so.
        per_channel: weights have a scale for each output channel.
        reduce_range: weights use 7 bits.
        nodes: what became of every node.
        trials: the range methods tried, best first; empty when one was asked for.
        sqnr: output signal-to-noise ratio against float on the probe samples, dB; None without probes.
        size_before: bytes of the float file.
        size_after: bytes of the written file.
        weights_before: bytes of its constants.
        weights_after: bytes of the written model's constants.
        float_model: digest of the float model.
        notes: sentences for the reader.
        precision: as asked for.
        runtime: the runtime it was laid out for.
        weight_type: how weights are stored.
        biases: nodes whose bias was looked at to make up for rounded weights.
        range_methods: tensor -> method, where each was chosen by itself (``method="tensor"``).
    """

    model: Model
    method: str
    activation_type: str
    reason: str
    per_channel: bool
    reduce_range: bool
    nodes: tuple[NodeSetting, ...] = field(repr=False)
    trials: tuple[Trial, ...]
    sqnr: float | None
    size_before: int
    size_after: int
    weights_before: int
    weights_after: int
    float_model: str
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = field(default=None, compare=False)
    precision: str = "int8"
    runtime: str = "onnxruntime"
    weight_type: str = "int8"
    biases: tuple[BiasCorrection, ...] = field(default=(), repr=False)
    range_methods: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def ratio(self) -> float:
        """Size of the written file over that of the float file."""
        return self.size_after / self.size_before

    @property
    def kept_float(self) -> tuple[str, ...]:
        """Names of the nodes that compute in float."""
        return tuple(node.node for node in self.nodes if node.setting != "INT8")

    @property
    def not_as_asked(self) -> tuple[NodeSetting, ...]:
        """The nodes that the options name and that came out otherwise, each with the reason."""
        return tuple(node for node in self.nodes if not node.is_as_asked)

    def title(self) -> str:
        counts = Counter(node.setting for node in self.nodes if node.setting != "float")
        parts = [f"{count} of {len(self.nodes)} nodes are {name}" for name, count in counts.most_common()]
        return (f"{', '.join(parts) or f'all {len(self.nodes)} nodes are float'}; "
                f"{bytes_text(self.size_before)} became {bytes_text(self.size_after)} ({self.ratio:.2f})")

    def facts(self) -> dict[str, object]:
        notes = {"note": " ".join(self.notes)} if self.notes else {}
        if self.precision != "int8":
            return {"precision": self.precision, **notes}
        weights = "one scale a channel" if self.per_channel else "one scale a tensor"
        changed = [b for b in self.biases if not b.why]
        return {
            "weights": f"{self.weight_type}, {weights}" + (", 7 bits" if self.reduce_range else ""),
            "activations": f"{self.activation_type}: {self.reason}",
            "laid out for": {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}.get(self.runtime, self.runtime),
            "ranges": self.method + (", best of those tried" if self.trials else ""),
            **({"output against float": f"{self.sqnr:.1f} dB"} if self.sqnr is not None else {}),
            **({"biases corrected": f"{len(changed)}: the mean shift of their outputs fell by "
                                    f"{_fall(changed):.0%}"} if changed else {}),
            **({"not as asked": f"{len(self.not_as_asked)} nodes, see below"} if self.not_as_asked else {}),
            **notes,
        }

    def tables(self) -> tuple[Table, ...]:
        by_kind = Counter((n.operator, n.setting, n.why) for n in self.nodes)
        rows = tuple((count, *kind) for kind, count in sorted(by_kind.items(), key=lambda item: (item[0][1], -item[1])))
        found = [Table("What became of the nodes", ("nodes", "operator", "now", "why"), rows)]
        if self.not_as_asked:
            found.append(Table("Not as asked for", ("node", "operator", "asked", "now", "why"),
                               tuple((n.node, n.operator, n.asked, n.setting, n.why) for n in self.not_as_asked)))
        if self.trials:
            found.append(Table("Range methods tried", ("method", "output against float, dB"),
                               tuple((t.method, f"{t.sqnr:.2f}") for t in self.trials)))
        if self.biases:
            found.append(Table("Biases against the shift of rounded weights",
                               ("node", "mean shift before", "after", "why not"),
                               tuple((b.node, f"{b.before:.3g}", f"{b.after:.3g}", b.why) for b in self.biases)))
        return tuple(found)


def _fall(biases: list[BiasCorrection]) -> float:
    before = sum(b.before for b in biases)
    return 1 - sum(b.after for b in biases) / before if before else 0.0
