"""Half precision (FP16), all of the model or the part of it that FP16 can hold.

FP16 reaches 65504 and has full precision down to 6.1e-5. Nodes that read or make values outside of that, and those
whose operator has no FP16 form, stay in float32; inputs and outputs of the model do too. Which operators take FP16 is
asked of ONNX's own schemas.

ONNX Runtime's converter is not used: it casts to FP16 and back between two nodes that stay in float, where the values
overflow again, and it needs all weights in memory (float16.py, 1.31).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.calibration import Calibration, short_name
from kit.errors import UnsupportedModel
from kit.int8.exposed import exposed
from kit.int8.preparing import prepare
from kit.int8.quantizable import Network
from kit.model import Model
from kit.precisions import Written
from kit.precisions.matrices import reads
from kit.progress import Report, Tick
from kit.weights_file import Weights, read_light, save_streamed

if TYPE_CHECKING:
    from kit.quantization import QuantizeOptions

LARGEST = 65504.0
SMALLEST = 2.0**-14  # below, FP16 loses a bit of precision with every halving
FLOAT, FLOAT16 = 1, 10
#: Operators whose answer depends on tiny differences or on exact counting, and those that say their type themselves.
KEPT = {
    "CumSum": "its sums lose what is small", "Range": "its steps would be rounded",
    "TopK": "values that FP16 makes equal would change places",
    "NonMaxSuppression": "boxes that FP16 makes equal would change places",
    **dict.fromkeys(("Bernoulli", "ConstantOfShape", "EyeLike", "Multinomial", "RandomNormal", "RandomNormalLike",
                     "RandomUniform", "RandomUniformLike"), "it says its type itself"),
}
NOTE = ("FP16 is for targets that compute in it: GPUs, OpenVINO on a GPU or ARM, Ascend. ONNX Runtime's CPU provider "
        "casts most of it back to float32 on every run, which is slower than float32.")


def write(model: Model, folder: Path, options: QuantizeOptions, calibration: Calibration | None,
          report: Report) -> Written:
    """Write a model whose nodes compute in FP16 where that is safe; inputs and outputs keep their types.

    Args:
        model: the float32 model.
        folder: where the file goes.
        options: which nodes stay in float.
        calibration: of this model; without one, only weights can tell that FP16 is too narrow.
        report: hears the progress.

    Raises:
        BadInput: an unknown node name or operator type.
        StaleResult: the calibration is of another model.
        UnsupportedModel: no node can be made FP16.
    """
    proto = prepare(read_light(model.path), model.path.name)
    network = Network(proto, model.path.name)
    network.check_names(options.keep_float)
    network.check_types(options.keep_float_types)
    if calibration is not None:
        calibration.check(model)
    stored = Weights(model.path, proto)
    report(Tick(0, 3, "looking at values"))
    extremes = weight_extremes(network, stored) | (value_extremes(network, model, calibration) if calibration else {})
    why = {node.name: _reason(network, node, options, extremes) for node in network.nodes}
    if all(why.values()):
        raise UnsupportedModel(f"No node of {model.path.name} can be made FP16.", remedy="leave it in float32",
                               detail="\n".join(f"{name}: {reason}" for name, reason in why.items()))
    report(Tick(1, 3, "writing"))
    halves = _Rewriting(proto, network, {name for name, reason in why.items() if not reason}).run()
    path = folder / f"{short_name(model)}.fp16.onnx"

    def values(name: str) -> np.ndarray:
        # Nothing overflows here: constants beyond FP16 keep their node in float; infinities (masks) stay what they are.
        return stored.array(halves[name]).astype(np.float16) if name in halves else stored.array(name)

    save_streamed(proto, path, values)
    report(Tick(3, 3, "writing"))
    notes = [NOTE]
    if calibration is None:
        notes.append("Without a calibration nothing is known of the values: give one to find those beyond FP16.")
    kept = [name for name, reason in why.items() if "FP16 ends" in reason or "loses precision" in reason]
    if kept:
        notes.append(f"{len(kept)} nodes stay in float32 because of their values.")
    nodes = {name: ("float" if reason else "FP16", reason) for name, reason in why.items()}
    return Written(path, nodes, tuple(notes))


def weight_extremes(network: Network, stored: Weights) -> dict[str, float]:
    """The largest finite magnitude in each float constant."""
    found = {}
    for name, tensor in network.constants.items():
        if tensor.data_type == FLOAT:
            values = np.asarray(stored.array(name)).ravel()
            finite = values if not values.size or np.isfinite(values.min() + values.max()) else \
                values[np.isfinite(values)]
            found[name] = float(max(abs(finite.min()), abs(finite.max()))) if finite.size else 0.0
    return found


def value_extremes(network: Network, model: Model, calibration: Calibration) -> dict[str, float]:
    """The largest finite magnitude of each float tensor: calibrated, and of all others on the probe samples."""
    found = {t.name: max(abs(t.minimum), abs(t.maximum)) for t in calibration.tensors if t.elements}
    rest = [name for node in network.nodes for name in node.output if name in network.floats and name not in found]
    probes = list(calibration.probes())
    if rest and probes:
        with exposed(network, model, rest) as run:
            for feeds, _ in probes:
                for name, values in run(feeds).items():
                    finite = values[np.isfinite(values)] if values.dtype == np.float32 else values[:0]
                    if name in rest and finite.size:
                        found[name] = max(found.get(name, 0.0), float(np.abs(finite).max()))
    return found


def _reason(network: Network, node: Any, options: QuantizeOptions, extremes: dict[str, float]) -> str:
    """Why a node stays in float32; "" when it becomes FP16."""
    if asked := options.spares(node):
        return asked
    if node.op_type in KEPT:
        return KEPT[node.op_type]
    slots = half_slots(node, network.proto)
    if slots is None:
        return "ONNX has no FP16 form of it"
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return "it holds a graph of its own"
    names = [name for name, takes in zip((*node.input, *node.output), slots, strict=True) if takes and name]
    known = {value.name for value in (*network.proto.graph.input, *network.proto.graph.value_info,
                                      *network.proto.graph.output)} | set(network.constants)
    if any(name not in known for name in names):
        return "the types of its values are not known"
    floats = [name for name in names if _is_float(network, name)]
    if not floats:
        return "its values are not float32"
    for name in floats:
        size = extremes.get(name, 1.0)
        if size > LARGEST:
            return f"{name!r} reaches {size:.3g}; FP16 ends at {LARGEST:.0f}"
        if 0 < size < SMALLEST:
            return f"{name!r} reaches only {size:.3g}; FP16 loses precision below {SMALLEST:.2g}"
    return ""


def half_slots(node: Any, proto: Any) -> list[bool] | None:
    """For each input and output of a node, whether ONNX lets it be FP16; None when no output may be."""
    from onnx import defs

    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if node.domain not in ("", "ai.onnx") or not defs.has(node.op_type, opset):
        return None
    schema = defs.get_schema(node.op_type, opset)
    found = []
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        takes = ["tensor(float16)" in parameter.types for parameter in formal]
        found.append([takes[min(at, len(takes) - 1)] for at in range(len(names))])
    return [*found[0], *found[1]] if any(found[1]) else None


def _is_float(network: Network, name: str) -> bool:
    return name in network.floats or (name in network.constants and network.constants[name].data_type == FLOAT)


class _Rewriting:
    """Gives the chosen nodes FP16 tensors, with a cast wherever FP16 and float32 meet, one a tensor."""

    def __init__(self, proto: Any, network: Network, chosen: set[str]) -> None:
        self.proto, self.network, self.chosen = proto, network, chosen
        self.nodes: list[Any] = []
        self.made: dict[tuple[str, int], str] = {}  # (tensor of the float model, type) -> its name now
        self.halves: dict[str, str] = {}  # new constant -> the float one it is made from
        self.taken = {name for node in network.nodes for name in (*node.input, *node.output)} | set(network.constants)

    def run(self) -> dict[str, str]:
        """Rewrite the graph; returns the constants that are to be written in FP16 -> those they are made from."""
        import onnx

        graph, outputs = self.proto.graph, set(self.network.outputs)
        floats = set(self.network.floats) | {n for n, t in self.network.constants.items() if t.data_type == FLOAT}
        for node in self.network.nodes:
            twin = onnx.NodeProto()
            twin.CopyFrom(node)
            chosen = node.name in self.chosen
            slots = half_slots(node, self.proto) if chosen else []
            for at, name in enumerate(node.input):
                if name in floats:
                    twin.input[at] = self._as(name, FLOAT16 if chosen and slots[at] else FLOAT)
            for name in set(reads(node)) - set(node.input):  # a body reads tensors from outside by name
                if name in floats and (name, FLOAT) not in self.made and (name, FLOAT16) in self.made:
                    self._cast(name, name, FLOAT)
            self.nodes.append(twin)
            for at, name in enumerate(node.output):
                if name not in floats:
                    continue
                if not (chosen and slots[len(node.input) + at]):
                    self.made[name, FLOAT] = name
                    continue
                twin.output[at] = self.made[name, FLOAT16] = self._free(f"{name}_f16")
                if name in outputs:
                    self._cast(name, name, FLOAT)
            if chosen and node.op_type == "Cast":
                for attribute in twin.attribute:
                    if attribute.name == "to" and attribute.i == FLOAT:
                        attribute.i = FLOAT16
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.value_info[:]
        self._store()
        return self.halves

    def _as(self, name: str, kind: int) -> str:
        """The tensor in this type; a cast or a constant is added when there is none yet."""
        if (name, kind) in self.made:
            return self.made[name, kind]
        if name in self.network.constants:
            self.made[name, kind] = name if kind == FLOAT else self._free(f"{name}_f16")
            if kind == FLOAT16:
                self.halves[self.made[name, kind]] = name
            return self.made[name, kind]
        if kind == FLOAT and (name, FLOAT16) not in self.made:  # an input
            self.made[name, FLOAT] = name
            return name
        return self._cast(name, self._free(f"{name}_f16") if kind == FLOAT16 else name, kind)

    def _cast(self, name: str, target: str, kind: int) -> str:
        import onnx

        source = self.made.get((name, FLOAT + FLOAT16 - kind), name)
        self.nodes.append(onnx.helper.make_node("Cast", [source], [target], self._free(f"{target}_cast"), to=kind))
        self.made[name, kind] = target
        return target

    def _free(self, name: str) -> str:
        found, count = name, 1
        while found in self.taken:
            count += 1
            found = f"{name}_{count}"
        self.taken.add(found)
        return found

    def _store(self) -> None:
        import onnx

        graph = self.proto.graph
        used = {name for node in graph.node for name in reads(node)} | set(self.network.outputs)
        shapes = {new: tuple(self.network.constants[old].dims) for new, old in self.halves.items()}
        for at in reversed(range(len(graph.initializer))):
            if graph.initializer[at].name not in used:
                del graph.initializer[at]
        for name, shape in shapes.items():
            graph.initializer.add(name=name, data_type=FLOAT16, dims=shape,
                                  data_location=onnx.TensorProto.EXTERNAL)
