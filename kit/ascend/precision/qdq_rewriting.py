"""Brings a QDQ graph into the form that ``amct_onnx convert`` takes; see ``kit.ascend.precision.qat_route``."""

from __future__ import annotations

from typing import Any

import numpy as np

from kit.ascend.precision.qdq_graph import DQ, Q, QdqGraph
from kit.errors import UnsupportedModel
from kit.targets.ascend import facts


class Rewriting:
    """Edits a graph in place.

    Args:
        graph: of the QDQ model.
    """

    def __init__(self, graph: QdqGraph) -> None:
        self.graph = graph
        self.floated: dict[str, str] = {}
        self.unrounded: list[str] = []
        self._clips: dict[str, str] = {}  # output of a QuantizeLinear -> its input, only cut off as rounding does
        self._kept: set[str] = set()  # QuantizeLinear of data that a node in INT8 reads

    def run(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Do all of it.

        Returns:
            Nodes that are float now -> why; nodes that read values before their rounding.
        """
        graph = self.graph
        self._unstore()
        graph.wire()
        nodes = [node for node in graph.proto.graph.node if node.op_type not in (Q, DQ)]
        keeps = {id(node): self._weighted(node) for node in nodes}
        for node in nodes:
            for at, name in enumerate(node.input):
                before = graph.pair(name)
                if before is None or at in keeps[id(node)] or self._stays(node, before):
                    continue
                if before.input[0] in graph.constants:
                    node.input[at] = before.input[0]
                else:
                    node.input[at] = self._unrounded(before)
                    if not graph.weighted(node):
                        self.unrounded.append(node.name)
        self._outputs()
        self._sweep()
        return self.floated, tuple(dict.fromkeys(self.unrounded))

    def _weighted(self, node: Any) -> tuple[int, ...]:
        """Which inputs of a convolution or product stay behind a pair."""
        graph = self.graph
        if not graph.weighted(node) or not any(graph.pair(name) is not None for name in node.input[:2]):
            return ()
        why = graph.weight_trouble(node) or ("" if graph.rounded_data(node.input[0]) else "its data is not rounded")
        if why:
            self.floated[node.name] = why
            return ()
        self._kept.add(graph.pair(node.input[0]).output[0])
        return 0, 1

    def _stays(self, node: Any, before: Any) -> bool:
        """An addition may read a pair that is there for a convolution anyway."""
        return node.op_type in facts("amct")["qat"]["only_data"] and before.output[0] in self._kept

    def _unrounded(self, before: Any) -> str:
        """The tensor before a rounding. What the rounding cut off stays cut off: a ReLU may have been left to it."""
        import onnx

        graph = self.graph
        scale, zero = graph.factors(before) or (np.float32(0), np.int8(0))
        if scale.size != 1 or (zero.dtype == np.int8 and not zero.any()):
            return before.input[0]
        if before.output[0] not in self._clips:
            limits = np.iinfo(zero.dtype)
            name = self._free(f"{before.input[0]}_cut")
            bounds = []
            for word, end in (("low", limits.min), ("high", limits.max)):
                bound = self._free(f"{name}_{word}")
                value = np.float32((float(end) - float(zero)) * float(scale))
                graph.proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), bound))
                bounds.append(bound)
            clip = onnx.helper.make_node("Clip", [before.input[0], *bounds], [name], name)
            place = list(graph.proto.graph.node).index(before)
            graph.proto.graph.node.insert(place, clip)
            self._clips[before.output[0]] = name
        return self._clips[before.output[0]]

    def _unstore(self) -> None:
        """Integers behind a lone DequantizeLinear become floats: weights with a pair behind them, the rest plainly."""
        import onnx

        graph = self.graph
        nodes = []
        for node in graph.proto.graph.node:
            found = graph.factors(node) if node.op_type == DQ and node.input[0] in graph.constants else None
            if found is None:
                nodes.append(node)
                continue
            stored, (scale, zero) = graph.array(node.input[0]), found
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            if any(a.name == "block_size" and a.i for a in node.attribute):
                raise UnsupportedModel(f"{node.name!r} holds weights in blocks with a scale each; AMCT has none.",
                                       remedy="quantize with precision='int8'")
            wide = [-1 if at == axis % max(stored.ndim, 1) else 1 for at in range(stored.ndim)] \
                if scale.size > 1 else []
            values = ((stored.astype(np.float32) - zero.astype(np.float32).reshape(wide))
                      * scale.astype(np.float32).reshape(wide)).astype(np.float32)
            name = self._free(f"{node.output[0]}_float")
            pair = stored.dtype.itemsize == 1
            graph.proto.graph.initializer.append(onnx.numpy_helper.from_array(
                values, name if pair else node.output[0]))
            if pair:
                rounded = self._free(f"{node.output[0]}_bytes")
                inputs = [name, *node.input[1:]]
                nodes.append(onnx.helper.make_node(Q, inputs, [rounded], f"{node.name}_Q", **(
                    {"axis": axis} if scale.size > 1 else {})))
                node.input[0] = rounded
                nodes.append(node)
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.proto.graph.node[:]
        graph.proto.graph.node.extend(kept)

    def _outputs(self) -> None:
        """An output behind a pair is no longer rounded; it keeps its name."""
        graph = self.graph
        for name in graph.outputs:
            before = graph.pair(name)
            if before is None:
                continue
            source = self._unrounded(before)
            after = graph.makers[name]
            after.op_type = "Identity"
            del after.input[:]
            after.input.append(source)
            del after.attribute[:]

    def _sweep(self) -> None:
        """Take out pairs that nothing reads any more, and constants of theirs."""
        graph = self.graph.proto.graph
        outputs = {value.name for value in graph.output}
        while True:
            used = {name for node in graph.node for name in node.input} | outputs
            dead = [node for node in graph.node if node.op_type in (Q, DQ) and not set(node.output) & used]
            if not dead:
                break
            for node in dead:
                graph.node.remove(node)
        for at in reversed(range(len(graph.initializer))):
            if graph.initializer[at].name not in used:
                del graph.initializer[at]
        del graph.value_info[:]

    def _free(self, name: str) -> str:
        taken = {n for node in self.graph.proto.graph.node for n in (*node.input, *node.output)}
        taken |= {tensor.name for tensor in self.graph.proto.graph.initializer}
        found, count = name, 1
        while found in taken:
            count += 1
            found = f"{name}_{count}"
        return found
