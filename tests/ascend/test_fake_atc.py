"""The FAKE atc refuses what the real one is documented to refuse, with its codes, and crashes where it crashes."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from box_bundles import AIPP
from onnx import TensorProto, helper
from onnx_graphs import FLOAT, INT64, line, node, save

from kit.ascend.atc.atc_model import nodes_of
from kit.ascend.box.rehearsing import amct_onnx, atc, msprof, npu_smi, om

BASE = {"--framework": "5", "--output": "net", "--soc_version": "Ascend310P3", "--input_shape": "x:1,3,8,8"}


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(scratch):
    return tiny.conv_net(scratch / "m.onnx")


def run(model, *more, **changes):
    flags = {**BASE, "--model": str(model), **{f"--{name}": value for name, value in changes.items()}}
    return atc.main([f"{name}={value}" for name, value in flags.items() if value is not None] + list(more))


def test_a_model_is_built_and_leaves_what_atc_leaves(model, scratch, capsys):
    assert run(model) == 0
    said = capsys.readouterr().out
    assert said.startswith("FAKE atc")
    assert said.rstrip().endswith("ATC run success, welcome to the next use.")
    assert (scratch / "net.om").read_bytes().startswith(b"FAKE OM")
    assert (scratch / "kernel_meta").is_dir()
    assert "FAKE" in (scratch / "fusion_result.json").read_text()


def test_flags_are_read_as_atc_reads_them(model, scratch):
    assert atc.main(["-model", str(model), "--framework=5", "--output", "net", "--soc-version=Ascend310P3",
                     "--input_shape", "x:1,3,8,8"]) == 0


@pytest.mark.parametrize(("flags", "words"), [
    (["--enable_paddle_opt=true"], "ERROR: unknown command line flag 'enable_paddle_opt'"),
    (["--quant_type=int8"], "unknown command line flag 'quant_type'"),
    (["positional"], "unknown command line flag 'positional'"),
    (["--precision_mode=allow_quantize"], "E10001"),
    (["--precision_mode=force_fp16", "--precision_mode_v2=fp16"], "E10056"),
    (["--dynamic_batch_size=1,2", "--dynamic_image_size=8,8;16,16"], "E10009"),
    (["--insert_op_conf=none.cfg"], "E13000: Path [none.cfg] of parameter [--insert_op_conf]"),
    (["--input_shape=z:1,3,8,8"], "E10016: Operator name [z]"),
    (["--input_shape=x:1,4,8,8"], "E10011"),
    (["--soc_version=Ascend310P"], "E10001"),
    (["--soc_version=Ascend310Q"], "E10001"),
    (["--model=none.onnx"], "E13000"),
    (["--framework=3"], "FAKE atc reads ONNX only"),
    (["--output="], "E10007: [PID: 1] required flag [--output]"),
])
def test_a_wrong_command_is_refused_with_its_code(model, capsys, flags, words):
    assert run(model, *flags) == 1
    said = capsys.readouterr().out
    assert "ATC run failed, Please check the detail log" in said
    assert words in said


@pytest.mark.parametrize(("batches", "shape", "code"), [
    ("4", "x:-1,3,8,8", "E10035"), ("4,4", "x:-1,3,8,8", "E10039"), ("1,4", "x:1,3,8,8", "E10040")])
def test_profiles_that_do_not_fit_are_refused(model, capsys, batches, shape, code):
    assert run(model, dynamic_batch_size=batches, input_shape=shape) == 1
    assert code in capsys.readouterr().out


def test_an_operator_without_a_parser_is_named_with_its_opset(scratch, capsys):
    path = line(scratch / "m.onnx", node("Relu", ["x"], ["a"], name="r"), node("Gelu", ["a"], ["y"], name="g"),
                shape=(1, 4), opset=20)
    assert run(path, input_shape="x:1,4") == 1
    said = capsys.readouterr().out
    assert "E16002: No parser is registered for Op [g, optype [ai.onnx::20::Gelu]]." in said


def test_quantized_nodes_have_no_parser_unless_amct_made_the_model(scratch, capsys):
    weights = {"s": np.float32(0.1), "z": np.uint8(128)}
    path = line(scratch / "m.onnx", node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                node("DequantizeLinear", ["q", "s", "z"], ["y"]), weights=weights, shape=(1, 4))
    assert run(path, input_shape="x:1,4") == 1
    assert "ai.onnx::17::QuantizeLinear" in capsys.readouterr().out
    assert amct_onnx.main(["convert", f"--model={path}", "--save_path=int8/net"]) == 0
    assert "nothing was quantized" in capsys.readouterr().out
    assert run("int8/net_deploy_model.onnx", input_shape="x:1,4") == 0


def test_fewer_than_five_inputs_of_non_max_suppression_crash_it_without_a_word(scratch):
    path = save(scratch / "m.onnx", [node("NonMaxSuppression", ["boxes", "scores", "n"], ["y"])],
                {"boxes": (FLOAT, [1, 4, 4]), "scores": (FLOAT, [1, 1, 4])}, {"y": (INT64, None)}, {"n": np.int64([3])})
    argv = ["--framework=5", "--output=net", "--soc_version=Ascend310P3", f"--model={path}"]
    done = subprocess.run([sys.executable, "-c", "import sys; from kit.ascend.box.rehearsing.atc import main; "
                           f"sys.exit(main({argv!r}))"], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGSEGV
    assert "ATC run" not in done.stdout


def test_names_that_are_there_twice_and_two_opsets_are_refused(model, scratch, capsys):
    proto = onnx.load(model)
    proto.graph.node[2].name = proto.graph.node[0].name
    onnx.save(proto, scratch / "twice.onnx")
    assert run(scratch / "twice.onnx") == 1
    assert "E13009: Op name [conv1] is not unique" in capsys.readouterr().out
    proto = onnx.load(model)
    proto.opset_import.append(helper.make_opsetid("", 13))
    (scratch / "opsets.onnx").write_bytes(proto.SerializeToString())
    assert run(scratch / "opsets.onnx") == 1
    assert "E16005" in capsys.readouterr().out


def test_an_input_left_open_is_the_fakes_own_limit_and_says_so(model, capsys):
    assert run(model, input_shape=None) == 1
    assert "FAKE atc does not build open shapes" in capsys.readouterr().out


def test_aipp_makes_the_input_bytes_with_channels_last(model, scratch, capsys):
    (scratch / "aipp.cfg").write_text(AIPP.format(h=8, w=8))
    assert run(model, insert_op_conf="aipp.cfg") == 0
    about = om.FakeOm(scratch / "net.om").about
    assert about["inputs"] == [{"name": "x", "dtype": "uint8", "shape": [1, 8, 8, 3]}]
    (scratch / "aipp.cfg").write_text(AIPP.format(h=8, w=8).replace("mean_chn_0 : 0", "mean_chn_0 : 123.675"))
    assert run(model, insert_op_conf="aipp.cfg") == 1
    assert "E10052" in capsys.readouterr().out


def test_answers_are_rounded_to_float16_unless_the_model_keeps_its_types(model, scratch):
    feed = {"x": np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    exact = om.session(model).run(None, feed)[0]
    assert run(model) == 0
    half = om.FakeOm(scratch / "net.om").run(feed)["y"]
    assert run(model, precision_mode="must_keep_origin_dtype") == 0
    kept = om.FakeOm(scratch / "net.om").run(feed)["y"]
    np.testing.assert_array_equal(kept, exact)
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.01
    np.testing.assert_array_equal(half, half.astype(np.float16).astype(np.float32))


def test_output_type_changes_what_comes_out(model, scratch):
    assert run(model, output_type="FP16") == 0
    assert om.FakeOm(scratch / "net.om").run({"x": np.zeros((1, 3, 8, 8), np.float32)})["y"].dtype == np.float16


def test_an_external_weight_comes_along(scratch):
    path = tiny.conv_net(scratch / "m.onnx")
    proto = onnx.load(path)
    onnx.save(proto, scratch / "big.onnx", save_as_external_data=True, location="big.bin", size_threshold=0)
    assert run(scratch / "big.onnx") == 0
    (scratch / "big.bin").unlink()
    assert om.FakeOm(scratch / "net.om").run({"x": np.zeros((1, 3, 8, 8), np.float32)})["y"].shape == (1, 1, 8, 8)


def test_names_in_bodies_of_if_are_looked_up_too():
    inner = helper.make_graph([node("Frobnicate", [], ["z"], domain="my.own")], "then", [],
                              [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])])
    graph = helper.make_graph([node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)], "g", [], [])
    assert [one.op_type for one in nodes_of(graph)] == ["If", "Frobnicate", "Frobnicate"]


def test_the_other_fakes_say_fake_and_refuse_what_they_do_not_know(scratch, capsys):
    assert npu_smi.main(["info"]) == 0
    assert capsys.readouterr().out.count("FAKE") >= 3
    assert npu_smi.main(["info", "-t", "board"]) == 1
    assert msprof.main(["--output=prof"]) == 1
    assert msprof.main(["--output=prof", "--ai-core=on", sys.executable, "-c", "0"]) == 0
    assert [path.name for path in (scratch / "prof").rglob("*.csv")] == ["op_summary_FAKE.csv"]
    assert msprof.main(["--output=prof2", sys.executable, "-c", "import sys; sys.exit(3)"]) == 3
    assert amct_onnx.main(["calibration", "--model=none.onnx", "--save_path=p"]) == 1
