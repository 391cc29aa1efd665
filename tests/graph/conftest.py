from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import kit
from kit.graph import Fixed, FixOptions


class Bench:
    """Makes tiny models, fixes them, and checks what every rule promises."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def text(self, body: str, *, opset: int = 17, ir_version: int = 8, domains: str = "",
             inputs: str = "float[N,4,6,6] x", outputs: str = "float[N,4,6,6] y", name: str = "net.onnx") -> Path:
        """A model in onnx's text form; nodes are named after their outputs."""
        import onnx

        head = f'<ir_version: {ir_version}, opset_import: ["": {opset}{domains}]>'
        proto = onnx.parser.parse_model(f"{head} net ({inputs}) => ({outputs}) {body}")
        for node in proto.graph.node:
            node.name = f"{node.op_type}_{node.output[0]}"
        return self.save(proto, name)

    def save(self, proto, name: str = "net.onnx") -> Path:
        import onnx

        path = self.folder / name
        onnx.save(proto, str(path))
        return path

    def fix(self, path, *, samples=None, **options) -> Fixed:
        return kit.fix(path, FixOptions(**options), samples=samples, runs=self.folder / "runs")

    def promises(self, path: Path, rule: str, **options) -> Fixed:
        """Rewritten by ``rule``, still a valid model with the same answers, and a second time nothing is left to do."""
        import onnx

        asked = {"rules": (rule,), **options}
        fixed = self.fix(path, **asked)
        assert rule in fixed.counts(), fixed
        onnx.checker.check_model(str(fixed.model.path), full_check=True)
        self.same_answers(path, fixed.model.path)
        again = self.fix(fixed.model.path, **asked)
        assert again.changes == ()
        assert again.model.path.read_bytes() == fixed.model.path.read_bytes()
        return fixed

    def reason(self, path: Path, rule: str, **options) -> str:
        """Why ``rule`` leaves its only match alone."""
        fixed = self.fix(path, **{"rules": (rule,), **options})
        assert rule not in fixed.counts(), fixed
        (found,) = [row.reason for row in fixed.left_alone if row.rule == rule]
        assert fixed.model.path.read_bytes() == path.read_bytes()
        return found

    @staticmethod
    def same_answers(left: Path, right: Path, tolerance: float = 2e-5, size: int = 5) -> None:
        """Compared by a plain session of the test's own, at a size the stage does not use."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        sessions = [ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
                    for path in (left, right)]
        random = np.random.default_rng(7)
        feeds = {}
        for spec in sessions[0].get_inputs():
            fixed = {i.name: i.shape for i in sessions[1].get_inputs()}[spec.name]
            shape = [want if isinstance(want, int) else have if isinstance(have, int) else size
                     for have, want in zip(spec.shape, fixed, strict=True)]
            kind = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}[spec.type]
            feeds[spec.name] = (random.standard_normal(shape) * 3).astype(kind)
        names = [output.name for output in sessions[0].get_outputs()]
        assert names == [output.name for output in sessions[1].get_outputs()]
        for a, b in zip(*(session.run(names, feeds) for session in sessions), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)
