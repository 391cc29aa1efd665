"""OpenVINO behind open_runner: answers, names, precision as taken, layers."""

import numpy as np
import onnx
import pytest
import quantization_models
from onnx_graphs import FLOAT, INT64, line, node, save

from kit.errors import BadInput, MissingTool, UnsupportedModel
from kit.runner import open_runner
from kit.runtimes import openvino as runtime

FEED = {"x": np.random.default_rng(0).normal(size=(2, 3, 32, 64)).astype(np.float32)}


@pytest.fixture
def run(tiny_onnx):
    with open_runner(tiny_onnx, runtime="openvino", precision="f32") as opened:
        yield opened


def qdq(path):
    """Two quantized convolutions with weights in int8."""
    random = np.random.default_rng(0)
    weights = {"s": np.float32(0.05), "z": np.uint8(128), "ws": np.float32(0.01), "wz": np.int8(0),
               "w": random.integers(-90, 90, (8, 4, 3, 3)).astype(np.int8),
               "v": random.integers(-90, 90, (8, 8, 3, 3)).astype(np.int8)}
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"]),
             node("DequantizeLinear", ["w", "ws", "wz"], ["dw"]), node("Conv", ["d", "dw"], ["c"]),
             node("QuantizeLinear", ["c", "s", "z"], ["q2"]), node("DequantizeLinear", ["q2", "s", "z"], ["d2"]),
             node("DequantizeLinear", ["v", "ws", "wz"], ["dv"]), node("Conv", ["d2", "dv"], ["e"]),
             node("QuantizeLinear", ["e", "s", "z"], ["q3"]), node("DequantizeLinear", ["q3", "s", "z"], ["y"])]
    return line(path, *nodes, weights=weights, shape=(1, 4, 16, 16))


def test_in_float32_it_answers_as_onnx_runtime_does_at_any_size(run, tiny_onnx):
    with open_runner(tiny_onnx) as other:
        for shape in ((1, 3, 32, 32), (2, 3, 64, 32)):
            feed = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
            # Another order of float32 sums: 1e-5 is the kit's bound for equal.
            np.testing.assert_allclose(run(feed)["y"], other(feed)["y"], atol=1e-5)
    assert (run.inputs, run.outputs) == (other.inputs, other.outputs), "names and axes as in the ONNX file"


def test_it_says_how_it_runs(run):
    assert run.settings["runtime"].startswith("openvino 20")
    assert (run.settings["threads"], run.settings["precision"], run.settings["streams"]) == (2, "f32", 1)
    assert len(run.time(FEED, 3)) == 3
    assert run.memory() > 1_000_000


def test_the_threads_asked_for_are_taken(tiny_onnx):
    with open_runner(tiny_onnx, runtime="openvino", threads=1) as run:
        assert run.settings["threads"] == 1


def test_the_answer_is_the_callers_to_keep(run):
    first = run(FEED)["y"]
    kept = first.copy()
    run({"x": FEED["x"] * 5})
    assert (first == kept).all()
    assert (run(FEED)["y"] == kept).all()


def test_auto_shows_the_precision_that_was_taken(tiny_onnx):
    with open_runner(tiny_onnx, runtime="openvino") as run:
        assert run.settings["precision"] == runtime.float_precision()
        assert run.settings["precision"] in ("f32", "bf16", "f16")


def test_a_precision_that_the_processor_lacks_is_refused_and_not_replaced(tiny_onnx, monkeypatch):
    monkeypatch.setattr(runtime, "capabilities", lambda: ("FP32", "INT8"))
    for precision in ("bf16", "f16"):
        with pytest.raises(BadInput, match=f"does not compute in {precision}: .* names FP32, INT8") as caught:
            open_runner(tiny_onnx, runtime="openvino", precision=precision)
        assert caught.value.remedy == "use precision='auto' or 'f32'"


@pytest.mark.parametrize(("setting", "words"), [
    ({"precision": "fp32"}, "no precision named 'fp32'"), ({"hint": "LATENTCY"}, "no hint named"),
    ({"precison": "f32"}, "no setting named 'precison'"), ({"graph_level": "all"}, "no setting named 'graph_level'"),
])
def test_misspelt_settings_are_answered_with_the_known(tiny_onnx, setting, words):
    with pytest.raises(BadInput, match=words) as caught:
        open_runner(tiny_onnx, runtime="openvino", **setting)
    assert caught.value.remedy


def test_an_unknown_runtime_is_answered_with_the_closest(tiny_onnx):
    with pytest.raises(BadInput, match="no runtime named 'openvin'") as caught:
        open_runner(tiny_onnx, runtime="openvin")
    assert "openvino" in caught.value.remedy


def test_a_runtime_that_does_not_take_the_kind_says_which_does(tiny_onnx):
    with pytest.raises(BadInput, match=r"paddle does not run tiny\.onnx") as caught:
        open_runner(tiny_onnx, runtime="paddle")
    assert "'onnxruntime' or 'openvino'" in caught.value.remedy


def test_operators_that_cannot_be_converted_are_named(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["a"]), node("Frobnicate", ["a"], ["b"], domain="my.own"),
                node("Det", ["b"], ["y"]), domains={"my.own": 1})
    with pytest.raises(UnsupportedModel, match=r"Det, my\.own::Frobnicate cannot be converted") as caught:
        open_runner(path, runtime="openvino")
    assert 'target="openvino"' in caught.value.remedy


def test_without_the_package_its_name_and_extra_are_said(tiny_onnx, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    runtime.core.cache_clear()
    try:
        with pytest.raises(MissingTool, match="OpenVINO, the kit needs openvino") as caught:
            open_runner(tiny_onnx, runtime="openvino")
    finally:
        runtime.core.cache_clear()
    assert caught.value.remedy


def test_an_xml_is_run_with_its_own_names_and_a_foreign_runtime_is_refused(tiny_onnx, tmp_path, run):
    import openvino as ov

    ov.save_model(runtime.read(tiny_onnx), tmp_path / "tiny.xml", compress_to_fp16=False)
    with open_runner(tmp_path / "tiny.xml", precision="f32") as stored:
        assert stored.inputs[0].shape == ("?", 3, "?", "?")
        assert [spec.name for spec in (*stored.inputs, *stored.outputs)] == ["x", "y"]
        np.testing.assert_allclose(stored(FEED)["y"], run(FEED)["y"], atol=1e-6)
    with pytest.raises(BadInput, match=r"onnxruntime does not run tiny\.xml"):
        open_runner(tmp_path / "tiny.xml", runtime="onnxruntime")


def test_several_inputs_and_outputs_of_several_types_keep_their_names(tmp_path):
    path = save(tmp_path / "m.onnx", [node("Gather", ["table", "ids"], ["rows"]), node("Mul", ["rows", "scale"], ["y"]),
                                      node("Shape", ["ids"], ["size"])],
                {"ids": (INT64, ["N"]), "scale": (FLOAT, [1])}, {"y": (FLOAT, None), "size": (INT64, None)},
                {"table": np.arange(8, dtype=np.float32).reshape(4, 2)})
    with open_runner(path, runtime="openvino", precision="f32") as run:
        answers = run({"ids": np.int64([3, 0]), "scale": np.float32([2])})
        assert list(answers) == ["y", "size"]
        assert answers["y"].tolist() == [[12, 14], [0, 2]]
        assert answers["size"].tolist() == [2]
        with pytest.raises(BadInput, match="takes int64, not float32"):
            run({"ids": np.float32([3]), "scale": np.float32([2])})


def test_a_shape_that_breaks_inside_the_model_is_the_callers_to_mend(tmp_path):
    path = line(tmp_path / "m.onnx", node("Add", ["x", "w"], ["y"]), shape=("N", "C"),
                weights={"w": np.ones((1, 5), np.float32)})
    with open_runner(path, runtime="openvino") as run, pytest.raises(BadInput, match=r"could not run m\.onnx"):
        run({"x": np.ones((1, 4), np.float32)})


# ---- layers -------------------------------------------------------------------------------------------------------


def test_layers_tell_kind_precision_and_time_of_what_was_run(tmp_path):
    feed = {"x": np.random.default_rng(0).normal(size=(1, 4, 16, 16)).astype(np.float32)}
    with open_runner(qdq(tmp_path / "int8.onnx"), runtime="openvino", precision="f32") as run:
        layers = run.layers(feed, 5)
    convolutions = [layer for layer in layers if layer.kind == "Convolution"]
    assert [layer.precision for layer in convolutions] == ["u8", "u8"], "integers in, integers computed"
    assert any("c" in layer.made_of.split(",") for layer in convolutions), "the nodes it stands for are named"
    assert [layer.ms for layer in layers] == sorted((layer.ms for layer in layers), reverse=True)
    assert not any(layer.kind == "Const" for layer in layers)


def test_weights_that_are_converted_once_are_not_counted_in_every_run(tmp_path):
    path = quantization_models.conv_net(tmp_path / "m.onnx", channels=64)
    with open_runner(path, runtime="openvino") as run:
        layers = run.layers(quantization_models.feeds(1)[0], 5)
    stored = {tensor.name for tensor in onnx.load(path).graph.initializer}
    assert layers
    assert not any(layer.name.startswith(tuple(f"{name}_" for name in stored)) for layer in layers)


def test_layers_come_from_another_process_too_and_from_onnx_runtime(tmp_path):
    path = qdq(tmp_path / "int8.onnx")
    feed = {"x": np.ones((1, 4, 16, 16), np.float32)}
    for name, kind in (("openvino", "Convolution"), ("onnxruntime", "QLinearConv")):
        with open_runner(path, runtime=name, isolated=True) as run:
            found = [layer for layer in run.layers(feed, 3) if layer.kind == kind]
        assert {layer.precision for layer in found} == {"u8"}
