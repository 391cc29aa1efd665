"""Which layer of a SavedModel differs first: every tensor of the ONNX model is made an output and compared.

The graph with all tensors as outputs is converted once more, so what is compared is onnx2tf's conversion of the same
nodes; where a pattern of several nodes was converted as one before, it is not now. Runs in the environment of onnx2tf.
"""

from __future__ import annotations

import numpy as np

from kit.comparison import FAILED, Parity
from kit.compiling.onnx2tf_model import TO_FIRST, call_model, fits, keras_model, readers
from kit.compiling.saved import LayerGap
from kit.compiling.savedmodel_convert import Plan
from kit.progress import Report, Tick

AROUND = 3  # layers shown on either side of the first that differs


def trace(plan: Plan, report: Report) -> tuple[LayerGap, ...]:
    """Compare every float tensor, in the order in which they are computed.

    Raises:
        ToolFailed: onnx2tf cannot convert the graph with all its outputs.
    """
    import onnx
    import onnxruntime as ort

    report(Tick(0, 3, "making every tensor an output"))
    proto = onnx.shape_inference.infer_shapes(onnx.load(str(plan.work / "simplified.onnx")))
    kinds = {value.name: value for value in (*proto.graph.value_info, *proto.graph.output)}
    wanted = [(output, node) for node in proto.graph.node if node.op_type != "Constant" for output in node.output
              if output in kinds and kinds[output].type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    del proto.graph.output[:]
    proto.graph.output.extend(kinds[name] for name, _ in wanted)
    path = plan.work / "exposed.onnx"
    onnx.save(proto, str(path))
    feed = dict(np.load(plan.feed))
    plain = {f"input_{at}": feed[port.name] for at, port in enumerate(plan.inputs)}
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    want = session.run([name for name, _ in wanted], {spec.name: plain[spec.name] for spec in session.get_inputs()})
    report(Tick(1, 3, "converting it once more"))
    model = keras_model(path, plan.inputs, feed, plan.work)
    report(Tick(2, 3, "comparing layers"))
    have = call_model(model, readers(model, plan.inputs), [feed[port.name] for port in plan.inputs])
    names = {f"output_{at}": port.name for at, port in enumerate(plan.outputs)}
    rows = tuple(LayerGap(names.get(name, name), node.name, node.op_type, _relative(left, right.numpy()))
                 for (name, node), left, right in zip(wanted, want, have, strict=True))
    report(Tick(3, 3, "compared"))
    return rows


def first(rows: tuple[LayerGap, ...]) -> tuple[LayerGap | None, tuple[LayerGap, ...]]:
    """The first row that is not rounding any more, and those around it."""
    at = next((at for at, row in enumerate(rows) if row.relative > FAILED), None)
    if at is None:
        return None, ()
    return rows[at], rows[max(0, at - AROUND): at + AROUND + 1]


def _relative(want: np.ndarray, have: np.ndarray) -> float:
    """The smaller difference of the two ways in which it may lie; inf where neither fits."""
    found = [float("inf")]
    for by in {None, TO_FIRST.get(have.ndim)}:
        if want.ndim == have.ndim and fits(want, have, by):
            gap = Parity()
            gap.add({"": want}, {"": have if by is None else have.transpose(by)})
            found.append(gap.result()[0].relative)
    return min(found)

