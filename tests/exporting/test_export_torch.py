"""Whole exports from PyTorch, with PyTorch in workers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import sd_random

from kit import weights_file
from kit.description import describe
from kit.errors import BadInput, UnsupportedModel
from kit.exporting import ExportOptions, export, torch_memory, torch_route
from kit.exporting.factories import framework_of
from kit.exporting.specs import LayerSource, layer_source
from kit.exporting.torch_route import choose_opset
from kit.graph import FixOptions, fix
from kit.model import read
from kit.operators import AuditOptions, audit
from kit.runner import open_runner

TINY = f"{Path(__file__).parent.parent / 'torch_tiny.py'}:"
INPUT = ("x:float32[N,3,H,W]",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def dynamo(runs):
    return export(f"{TINY}net", ExportOptions(inputs=INPUT, outputs=("deep", "flat"),
                                              operators={"GroupNormSiLU": "groupnorm_silu", "GELU": "own::gelu"}),
                  runs=runs)


@pytest.fixture(scope="module")
def classic(runs):
    return export(f"{TINY}net", ExportOptions(inputs=INPUT, exporter="classic", target="ascend310p3",
                                              operators={"GroupNorm+SiLU": "groupnorm_silu"}), runs=runs)


@pytest.fixture(scope="module")
def lowered(runs):
    return export(sd_random.folder() / "vae", ExportOptions(target="ascend310p3", part="encoder"), runs=runs)


def test_a_module_becomes_onnx_that_answers_alike_at_every_size(dynamo):
    assert dynamo.verdict == "equal"
    assert dynamo.kind == "torch"
    assert dynamo.opset == 18
    assert len(dynamo.compared) == 2, "two batches and two sizes, so that a frozen one shows"
    assert [str(spec) for spec in dynamo.model.inputs] == ["x float32[N, 3, H, W]"]
    assert [str(spec) for spec in dynamo.model.outputs] == ["deep float32[N, 6, H, W]", "flat float32[N, 8]"]
    assert dynamo.reference_runtime.startswith("PyTorch 2")
    assert dynamo.seconds > 0
    assert dynamo.memory_peak > 100e6
    assert "aten.conv2d" in dynamo.operators_source


def test_a_class_of_modules_becomes_one_operator_with_its_differences_as_attributes(dynamo):
    row = next(row for row in dynamo.custom if row.asked == "GroupNormSiLU")
    assert (row.operator, row.count, row.inputs) == ("kit.custom::groupnorm_silu", 2, 3)
    assert "epsilon" in row.attributes
    assert {"InstanceNormalization", "Sigmoid"} <= set(row.body)
    assert dynamo.operators_onnx["kit.custom::groupnorm_silu"] == 2
    assert dynamo.operators_onnx["own::gelu"] == 1
    assert not dynamo.unsupported, "the file brings what the operators stand for"
    nodes = [node for node in read(dynamo.model.path).graph.node if node.op_type == "groupnorm_silu"]
    epsilons = [attribute.f for node in nodes for attribute in node.attribute if attribute.name == "epsilon"]
    assert epsilons == pytest.approx([1e-5, 1e-3])


def test_the_classic_exporter_writes_low_opsets_itself_and_its_patterns_are_found(classic):
    assert classic.verdict == "equal"
    assert classic.opset == 16
    assert [(row.operator, row.count) for row in classic.custom] == [("kit.custom::groupnorm_silu", 2)]
    assert classic.operators_source["GroupNorm"] == 2
    assert "Identity" not in classic.operators_onnx


def test_the_audit_names_custom_operators_and_the_rule_that_writes_them_out(classic, runs):
    seen = audit(classic.model, AuditOptions(target="ascend310p3"), runs=runs)
    rows = [finding for finding in seen.findings if "groupnorm_silu" in finding.operator]
    assert rows
    assert {finding.fix for finding in rows} == {"inline-functions"}
    plain = fix(classic.model, FixOptions(target="ascend310p3", rules=("inline-functions",)), runs=runs)
    assert "groupnorm_silu" not in " ".join(plain.operators_after)
    assert all(row.verdict == "equal" for row in plain.parity)
    assert not [finding for finding in audit(plain.model, AuditOptions(target="ascend310p3"), runs=runs).findings
                if "groupnorm_silu" in finding.operator]


def test_a_description_names_custom_operators(classic):
    assert "kit.custom::groupnorm_silu" in str(describe(classic.model))


def test_large_weights_lie_beside_the_file_and_are_compared_there(monkeypatch, runs):
    monkeypatch.setattr(torch_route, "EXTERNAL_ABOVE", 1000)
    monkeypatch.setattr(weights_file, "_PAGE", 64)
    found = export(f"{TINY}net", ExportOptions(inputs=INPUT, exporter="classic"), runs=runs)
    assert found.verdict == "equal"
    assert found.model.path.with_name("net.onnx.data").is_file()
    assert found.model.path.stat().st_size + found.model.path.with_name("net.onnx.data").stat().st_size == found.size
    assert sorted(path.name for path in found.model.path.parent.iterdir()) == [
        "log.txt", "net.onnx", "net.onnx.data", "result.json"]


def test_what_dynamo_writes_is_brought_down_for_ascend_and_compared(lowered):
    assert lowered.verdict == "equal"
    assert lowered.opset == 17
    assert "lower-opset" in " ".join(lowered.notes)
    assert lowered.memory_forecast > 400e6
    assert lowered.kind == "diffusers"
    assert lowered.source == "vae (encoder)"
    assert lowered.model.path.name == "vae_encoder.onnx"
    assert [str(spec) for spec in lowered.model.inputs] == ["picture float32[N, 3, 32, 32]"]
    assert [str(spec) for spec in lowered.model.outputs] == ["latents float32[N, 4, 8, 8]"]


def test_nodes_and_weights_are_called_after_their_modules(lowered):
    graph = read(lowered.model.path).graph
    assert "/encoder/down_blocks.0/resnets.0/conv1/Conv" in {node.name for node in graph.node}
    assert "encoder.down_blocks.0.resnets.0.conv1.weight" in {tensor.name for tensor in graph.initializer}
    kinds = {entry.value for node in graph.node for entry in node.metadata_props}
    assert "aten.group_norm.default" in kinds, "describe tells the source's operators by it"
    with open_runner(sd_random.onnx_parts()["vae_encoder"]) as other, open_runner(lowered.model) as run:
        feed = {"picture": np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)}
        np.testing.assert_allclose(run(feed)["latents"], other(feed)["latents"], atol=2e-5)


def test_a_batch_that_the_module_fixes_is_refused_before_it_surprises(runs):
    with pytest.raises(UnsupportedModel, match="takes only 2 for axis 'N'"):
        export(f"{TINY}batch_of_two", ExportOptions(inputs=("x:float32[N,4]",)), runs=runs)


@pytest.mark.parametrize("exporter", ["dynamo", "classic"])
def test_every_operator_without_a_counterpart_is_named(exporter, runs):
    with pytest.raises(UnsupportedModel, match=r"bessel_y0.*bessel_j0|bessel_j0.*bessel_y0") as caught:
        export(f"{TINY}strange", ExportOptions(inputs=("x:float32[N,4]",), exporter=exporter), runs=runs)
    assert exporter in caught.value.what


def test_a_factory_must_give_a_module(runs):
    with pytest.raises(BadInput, match="gave a str, not a torch"):
        export(f"{TINY}not_a_module", ExportOptions(inputs=("x:float32[N,4]",)), runs=runs)


@pytest.mark.parametrize(("options", "expected"), [
    (ExportOptions(), (18, 18)),
    (ExportOptions(opset=21), (21, 21)),
    (ExportOptions(opset=13), (18, 13)),
    (ExportOptions(target="ascend310p3"), (18, 17)),
    (ExportOptions(exporter="classic"), (17, 17)),
    (ExportOptions(exporter="classic", target="ascend310p3"), (16, 16)),
])
def test_the_opset_follows_target_and_exporter(options, expected):
    written, final, reason = choose_opset(options)
    assert (written, final) == expected
    assert reason


def test_the_classic_exporter_does_not_write_above_its_highest():
    with pytest.raises(BadInput, match="up to 20"):
        choose_opset(ExportOptions(exporter="classic", opset=21))


def test_the_framework_is_told_by_what_the_module_imports():
    assert framework_of(layer_source(f"{TINY}net")) == "torch"
    assert isinstance(layer_source(f"{TINY}net"), LayerSource)


def test_options_of_pytorch_are_refused_elsewhere(tmp_path):
    path = tmp_path / "m.onnx"
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [
        onnx.helper.make_tensor_value_info("y", 1, [1])])
    onnx.save(onnx.helper.make_model(graph), path)
    for options in (ExportOptions(exporter="classic"), ExportOptions(operators={"A": "b"}),
                    ExportOptions(part="encoder")):
        with pytest.raises(BadInput, match="has no use for it"):
            export(path, options)


def test_memory_is_forecast_from_the_weights_and_told_where_it_is_short():
    small, large = (torch_memory.forecast(size, "dynamo") for size in (10**6, 10**9))
    assert large - small > 999e6
    assert torch_memory.words(10**15)
    assert torch_memory.words(1) == ""
