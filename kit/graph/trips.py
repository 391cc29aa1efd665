"""How often does a Loop or Scan run? Known where constants alone decide, however the condition is written.

Exporters write ``while i < n`` as a Loop without a trip count, whose condition is computed from a counter. What the
condition depends on is cut out of the body and run, turn by turn, as long as it needs nothing that the model computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.graph.values import constant, is_op, kind, shape

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_TRIPS = 64


@dataclass(frozen=True)
class Trips:
    """``count`` turns, or the reason why that is not known or too many."""

    count: int = 0
    reason: str = ""


def loop_trips(node: ir.Node, opset: int) -> Trips:
    """How often a Loop's body runs.

    Args:
        opset: of the model, for running the condition.
    """
    most, first = (node.inputs[at] if len(node.inputs) > at else None for at in (0, 1))
    limit, go_on = None, True
    if most is not None:
        if (found := constant(most)) is None:
            return Trips(reason=f"its trip count {most.name} is computed at run time: fix the input shapes and fold "
                         "constants, or iterate on the host")
        limit = max(0, int(found.reshape(())))
    if first is not None:
        if (found := constant(first)) is None:
            return Trips(reason=f"whether it starts depends on {first.name}, which is computed at run time")
        go_on = bool(found.reshape(()))
    if limit == 0 or not go_on:
        return Trips(0)
    control = _control(node)
    if isinstance(control, str):
        return Trips(reason=control)
    return _simulated(control, limit, opset)


def scan_trips(node: ir.Node, axes: list[int]) -> Trips:
    """How often a Scan's body runs: as long as the sequences are.

    Args:
        axes: of each sequence, the axis it goes along.
    """
    sequences = node.inputs[len(node.inputs) - len(axes):]
    for value, axis in zip(sequences, axes, strict=True):
        sizes = shape(value)
        if sizes is not None and sizes[axis] is not None:
            size = sizes[axis]
            return Trips(size) if size <= MOST_TRIPS else Trips(reason=_too_many(size))
    return Trips(reason=f"the length of its sequence {sequences[0].name} is not known: fix the input shapes")


def _too_many(count: int | None = None) -> str:
    how = f"{count:,} times" if count is not None else f"more than {MOST_TRIPS} times"
    return f"it runs {how}, and up to {MOST_TRIPS} are unrolled: split the model there and iterate on the host"


@dataclass(frozen=True)
class _Control:
    """What decides whether a Loop goes on.

    Attributes:
        nodes: of the body, in order.
        carried: number of a carried value -> what it is at first.
        constants: name -> value of what is read besides.
    """

    loop: ir.Node
    nodes: tuple[ir.Node, ...]
    carried: dict[int, np.ndarray]
    constants: dict[str, np.ndarray]


def _control(loop: ir.Node) -> _Control | str:
    """Cut out of the body what its condition depends on; or say what that is beside constants."""
    body = loop.attributes["body"].as_graph()
    inputs = {value: at for at, value in enumerate(body.inputs)}
    nodes: set[ir.Node] = set()
    carried: dict[int, np.ndarray] = {}
    constants: dict[str, np.ndarray] = {}
    waiting, seen = [body.outputs[0]], set()
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        node, at = value.producer(), inputs.get(value)
        if at is not None:
            if at >= 2:
                first = constant(loop.inputs[at])
                if first is None:
                    return _data_dependent(loop.inputs[at])
                carried[at] = first
                waiting.append(body.outputs[at - 1])
        elif node is None or node.graph is not body:
            if (found := constant(value)) is None:
                return _data_dependent(value)
            constants[value.name] = found
        elif any(not attribute.is_ref() and attribute.type.name in ("GRAPH", "GRAPHS")
                 for attribute in node.attributes.values()):
            return f"whether it goes on is decided inside {node.op_type} {node.name}"
        elif kind(value).startswith("Random") or is_op(node, "Bernoulli", "Multinomial"):
            return f"whether it goes on is drawn by {node.op_type} {node.name}"
        else:
            nodes.add(node)
            waiting += [other for other in node.inputs if other is not None]
    return _Control(loop, tuple(node for node in body if node in nodes), carried, constants)


def _data_dependent(value: ir.Value) -> str:
    return (f"whether it goes on depends on {value.name}, which is computed from the data: no rule can unroll it; "
            "iterate on the host")


def _simulated(control: _Control, limit: int | None, opset: int) -> Trips:
    """Run the condition turn by turn; at once where nothing computes it."""
    body = control.loop.attributes["body"].as_graph()
    last = body.outputs[0]
    if not control.nodes or all(is_op(node, "Identity", "Constant") for node in control.nodes):
        found = _through(last)
        if found is body.inputs[1] or (constant(found) is not None and bool(constant(found).reshape(()))):
            if limit is None:
                return Trips(reason="it has no trip count and never stops")
            return Trips(limit) if limit <= MOST_TRIPS else Trips(reason=_too_many(limit))
        if constant(found) is not None:
            return Trips(1)
    try:
        return _run(control, limit, opset)
    except Exception as error:  # what the reference evaluator raises is up to each operator
        return Trips(reason=f"whether it goes on could not be computed ahead: {error!r}"[:200])


def _run(control: _Control, limit: int | None, opset: int) -> Trips:
    body = control.loop.attributes["body"].as_graph()
    step = _runner(control, opset)
    state = {body.inputs[at].name: value for at, value in control.carried.items()}
    for turn in range(MOST_TRIPS + 1):
        if turn == limit:
            return Trips(turn)
        feeds = {body.inputs[0].name: np.int64(turn), body.inputs[1].name: np.bool_(True), **state}
        go_on, *rest = step(feeds)
        state = dict(zip(state, rest, strict=True))
        if not np.asarray(go_on).reshape(()):
            return Trips(turn + 1) if turn < MOST_TRIPS else Trips(reason=_too_many())
    return Trips(reason=_too_many())


def _through(value: ir.Value) -> ir.Value:
    while kind(value) == "Identity":
        value = value.producer().inputs[0]
    return value


def _runner(control: _Control, opset: int) -> Any:
    """A function that runs the control once: feeds -> [condition, carried values ...]."""
    import onnx
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    body = control.loop.attributes["body"].as_graph()
    wanted = [body.outputs[0], *(body.outputs[at - 1] for at in control.carried)]
    known = {body.inputs[0].name: np.int64(0), body.inputs[1].name: np.bool_(True),
             **{body.inputs[at].name: value for at, value in control.carried.items()}}

    def spec(name: str, like: Any) -> Any:
        array = np.asarray(like)
        return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), None)

    # An Identity each, so that an output may be an input, a constant, or another output.
    nodes = [ir.to_proto(node) for node in control.nodes]
    nodes += [onnx.helper.make_node("Identity", [value.name], [f"kit:out{at}"]) for at, value in enumerate(wanted)]
    graph = onnx.helper.make_graph(
        nodes, "control", [spec(name, value) for name, value in known.items()],
        [onnx.helper.make_empty_tensor_value_info(f"kit:out{at}") for at in range(len(wanted))],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in control.constants.items()])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    evaluator = ReferenceEvaluator(model)
    return lambda feeds: evaluator.run(None, {name: np.asarray(value) for name, value in feeds.items()})
