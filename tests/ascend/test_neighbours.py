"""Folders for other ways to a device: what lies in them, what they say of themselves, and that wrong ones are refused.

Where a tool cannot exist here, a FAKE of it shows that the script calls it as documented.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle_tiny
import pytest
from onnx_graphs import FLOAT, line, node, save

import kit
from kit.ascend.neighbouring.folder import Neighbour
from kit.ascend.neighbours import (
    KunlunxinOptions,
    MindSporeLiteOptions,
    PaddleNpuOptions,
    kunlunxin,
    mindspore_lite,
    paddle_npu,
)
from kit.compiled_files import sha256
from kit.errors import BadInput, UnsupportedModel
from kit.record import load
from kit.targets.ascend import facts
from kit.worker import Process

FEEDS = [{"x": np.random.default_rng(n).normal(size=(1, 3, 32, 32)).astype(np.float32)} for n in range(3)]


@pytest.fixture
def net(tmp_path):
    """Open in batch, height and width."""
    from tiny import conv_net

    return conv_net(tmp_path / "net.onnx")


def paddle_files(folder, graph="inference.json"):
    """What looks like a saved model from outside; nothing here opens it."""
    folder.mkdir()
    (folder / graph).write_text('{"base_code": {"magic": "pir"}}')
    (folder / "inference.pdiparams").write_bytes(b"weights")
    return folder


@pytest.fixture
def paddle_net(tmp_path):
    return paddle_files(tmp_path / "saved")


def manifest(made):
    return json.loads((made.folder / "neighbour.json").read_text(encoding="utf-8"))


def convert(made, folder, answer):
    """Run the script with a FAKE converter that notes its arguments and prints ``answer``."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    fake = tools / "converter_lite"
    fake.write_text(f'#!/bin/sh\n# FAKE\nprintf "%s\\n" "$@" > arguments.txt\necho "{answer}"\n')
    fake.chmod(0o755)
    return subprocess.run(["sh", str(made.folder / "convert.sh")], capture_output=True, text=True,
                          env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"})


# ---- every folder ----------------------------------------------------------------------------------------------------


def test_every_folder_says_what_nobody_has_seen_and_where_it_is_from(net, paddle_net, tmp_path):
    made = [mindspore_lite(net, MindSporeLiteOptions(bind=("x=1,3,32,32",)), runs=tmp_path),
            paddle_npu(paddle_net, runs=tmp_path), kunlunxin(paddle_net, runs=tmp_path),
            kunlunxin(net, KunlunxinOptions(route="xtcl", bind=("x=1,3,32,32",)), runs=tmp_path)]
    for one in made:
        readme = one.readme.read_text(encoding="utf-8")
        assert "never run by us on that hardware" in readme
        assert "never run by us on that hardware" in one.title()
        assert one.sources
        assert one.unverified
        assert all(line in readme for line in (*one.sources, *one.unverified, one.command))
        assert all(line in str(one) for line in one.unverified)
        told = manifest(one)
        assert (told["format"], told["version"]) == ("kit-neighbour", 1)
        assert told["files"] == {path.relative_to(one.folder).as_posix(): sha256(path)
                                 for path in one.folder.rglob("*")
                                 if path.is_file() and path.name not in ("neighbour.json", "result.json", "log.txt")}
        assert str(tmp_path) not in readme + (one.folder / "neighbour.json").read_text(encoding="utf-8")
        assert load(Neighbour, one.folder) == one


def test_golden_inputs_travel_with_the_answers_of_the_float_model(net, tmp_path):
    made = mindspore_lite(net, MindSporeLiteOptions(bind=("x=1,3,32,32",), goldens=2), samples=FEEDS, runs=tmp_path)
    assert made.goldens == 2
    assert [entry["file"] for entry in manifest(made)["goldens"]] == ["goldens/000.npz", "goldens/001.npz"]
    with np.load(made.folder / "goldens/001.npz") as kept, kit.open_runner(net, graph_level="none") as run:
        assert (kept["in:x"] == FEEDS[1]["x"]).all()
        assert np.allclose(kept["out:y"], run(FEEDS[1])["y"])
    with pytest.raises(BadInput, match="no samples"):
        mindspore_lite(net, MindSporeLiteOptions(bind=("x=1,3,32,32",)), samples=[], runs=tmp_path)


def test_weights_beside_the_model_travel_too(tmp_path):
    import onnx

    path = line(tmp_path / "in.onnx", node("MatMul", ["x", "w"], ["y"]), weights={"w": np.ones((64, 64), np.float32)},
                shape=(1, 64))
    big = tmp_path / "big.onnx"
    onnx.save(onnx.load(path), big, save_as_external_data=True, location="big.data", size_threshold=0)
    made = mindspore_lite(big, runs=tmp_path)
    assert {"model/big.onnx", "model/big.data"} <= set(manifest(made)["files"])
    assert kit.Model.open(made.folder / "model/big.onnx").nodes == 1


def test_the_facts_name_their_sources_and_no_index_of_packages():
    told = facts("neighbours")
    assert told["checked"].startswith("2026")
    text = json.dumps(told)
    assert not re.search(r"packages/|pypi|conda|-i http|registry", text)
    for part in (told["mindspore_lite"], told["paddle_npu"], told["kunlunxin"]["paddle"], told["kunlunxin"]["xtcl"]):
        assert part["source"]
        assert part["unverified"]


# ---- MindSpore Lite --------------------------------------------------------------------------------------------------


def test_fixed_sizes_go_to_the_command_and_precision_to_the_file(net, tmp_path):
    made = mindspore_lite(net, MindSporeLiteOptions(bind=("x=1,3,32,48",), precision="enforce_fp32"), runs=tmp_path)
    config = (made.folder / "convert.cfg").read_text()
    assert config.startswith("[ascend_context]\n")
    assert "precision_mode=enforce_fp32" in config
    assert "input_shape" not in config, "it works for dynamic sizes only"
    done = convert(made, tmp_path, "CONVERT RESULT SUCCESS:0")
    assert done.returncode == 0, done.stderr
    assert "converted: mindir/net.mindir" in done.stdout
    arguments = (made.folder / "arguments.txt").read_text().splitlines()
    assert arguments == manifest(made)["converter"]["argv"][1:]
    assert {"--fmk=ONNX", "--modelFile=model/net.onnx", "--optimize=ascend_oriented",
            "--inputShape=x:1,3,32,48"} <= set(arguments)


def test_the_script_believes_the_converters_last_word_and_not_its_exit(net, tmp_path):
    made = mindspore_lite(net, MindSporeLiteOptions(bind=("x=1,3,32,48",)), runs=tmp_path)
    done = convert(made, tmp_path, "CONVERT RESULT FAILED:-1")
    assert done.returncode == 1
    assert "CONVERT RESULT FAILED:-1" in done.stdout
    assert "not converted" in done.stderr


@pytest.mark.parametrize(("options", "lines"), [
    ({"batches": (1, 4, 8), "bind": ("H=32", "W=32")}, ["input_shape=x:[-1,3,32,32]", "dynamic_dims=[1],[4],[8]"]),
    ({"sizes": ("640x640", "960x1280"), "bind": ("N=1",)},
     ["input_shape=x:[1,3,-1,-1]", "dynamic_dims=[640,640],[960,1280]"])])
def test_profiles_are_written_as_documented(net, tmp_path, options, lines):
    made = mindspore_lite(net, MindSporeLiteOptions(**options), runs=tmp_path)
    config = (made.folder / "convert.cfg").read_text().splitlines()
    assert all(one in config for one in lines)
    assert not any(word.startswith("--inputShape") for word in manifest(made)["converter"]["argv"])


@pytest.mark.parametrize(("options", "words"), [
    ({}, "Axis 0 \\(N\\) of input 'x' of net.onnx is open"),
    ({"batches": (1, 4)}, "Axis 2 \\(H\\)"),
    ({"batches": (1,), "sizes": ("8x8",)}, "exclude each other"),
    ({"batches": (1, 1), "bind": ("H=8", "W=8")}, "twice"),
    ({"batches": (4096,), "bind": ("H=8", "W=8")}, "4096"),
    ({"batches": tuple(range(1, 102)), "bind": ("H=8", "W=8")}, "more than the 100"),
    ({"sizes": ("640*640",), "bind": ("N=1",)}, "no picture size"),
    ({"bind": ("z=1",)}, "no input or axis named 'z'")])
def test_sizes_that_cannot_be_are_refused(net, tmp_path, options, words):
    with pytest.raises(BadInput, match=words):
        mindspore_lite(net, MindSporeLiteOptions(**options), runs=tmp_path)
    assert not list(tmp_path.glob("net/*")), "nothing was written"


def test_profiles_for_a_fixed_axis_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"Axis 0 of input 'x' of m\.onnx is fixed"):
        mindspore_lite(line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"])), MindSporeLiteOptions(batches=(1, 2)),
                       runs=tmp_path)


def test_the_same_profiles_go_to_every_input(tmp_path):
    path = save(tmp_path / "two.onnx", [node("Add", ["a", "b"], ["y"])],
                {"a": (FLOAT, ["N", 4]), "b": (FLOAT, ["N", 4])}, {"y": (FLOAT, None)})
    config = (mindspore_lite(path, MindSporeLiteOptions(batches=(1, 2)), runs=tmp_path).folder / "convert.cfg")
    assert "input_shape=a:[-1,4];b:[-1,4]\ndynamic_dims=[1],[2];[1],[2]\n" in config.read_text()


def test_an_aipp_file_travels_and_is_named(net, tmp_path):
    aipp = tmp_path / "mine.cfg"
    aipp.write_text("aipp_op { }\n")
    made = mindspore_lite(net, MindSporeLiteOptions(bind=("x=1,3,32,32",), aipp=aipp), runs=tmp_path)
    assert (made.folder / "aipp.cfg").read_text() == "aipp_op { }\n"
    assert "insert_op_config_file_path=aipp.cfg" in (made.folder / "convert.cfg").read_text()


def test_typed_choices_are_those_of_the_documents():
    from typing import get_args

    from kit.options import fields

    kinds = {field.name: set(get_args(field.kind)) for field in fields(MindSporeLiteOptions)}
    told = facts("neighbours")["mindspore_lite"]["ascend_context"]
    for name, key in (("precision", "precision_mode"), ("implementation", "op_select_impl_mode"),
                      ("input_format", "input_format"), ("output_type", "output_type")):
        assert kinds[name] - {""} == set(told[key])
    with pytest.raises(BadInput, match="precision"):
        MindSporeLiteOptions(precision="force_fp16")


# ---- Paddle on Ascend and Kunlunxin ----------------------------------------------------------------------------------


def test_the_script_runs_the_model_here_on_the_cpu_and_meets_the_golden_answers(tmp_path):
    made = paddle_npu(paddle_tiny.saved("net"), samples=FEEDS[:2], runs=tmp_path)
    assert {"model/inference.json", "model/inference.pdiparams", "run_paddle.py", "golden_checks.py"} <= set(
        manifest(made)["files"])
    done = subprocess.run([sys.executable, "run_paddle.py", "--device", "cpu", "--runs", "2"], cwd=made.folder,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ok") == 2
    results = json.loads((made.folder / "results.json").read_text())
    assert (results["device"], results["route"]) == ("cpu", "paddle_npu")
    assert len(results["times_ms"]) == 2


def test_the_script_says_what_the_machine_lacks(paddle_net, tmp_path):
    fake = tmp_path / "fake" / "paddle"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("# FAKE: a Paddle for the CPU alone\nfrom types import SimpleNamespace\n"
                                      "device = SimpleNamespace(get_all_custom_device_type=list)\n"
                                      "inference = None\ndef is_compiled_with_xpu(): return False\n")
    for made, words in ((paddle_npu(paddle_net, runs=tmp_path), "paddle-custom-npu"),
                        (kunlunxin(paddle_net, runs=tmp_path), "paddlepaddle-xpu")):
        done = subprocess.run([sys.executable, "run_paddle.py"], cwd=made.folder, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(fake.parent)})
        assert done.returncode == 1
        assert words in done.stderr


def test_what_the_script_tells_an_xpu_is_there_in_paddles_own_configuration(paddle_net, tmp_path):
    with Process(framework="paddle") as process:
        for api in ("XpuConfig", "enable_xpu"):
            told = manifest(kunlunxin(paddle_net, KunlunxinOptions(api=api), runs=tmp_path))
            assert (told["device"], told["xpu"]["api"]) == ("xpu", api)
            assert process.call(_tell_paddle, told["xpu"]) == []


def _tell_paddle(told):
    """Runs in a worker: what of the script's words this Paddle does not know."""
    from paddle import inference

    unknown = [name for name in ("enable_custom_device", "enable_xpu", "set_xpu_config", "set_xpu_device_id",
                                 "disable_glog_info", "disable_gpu") if not hasattr(inference.Config(), name)]
    if told["api"] == "XpuConfig":
        return unknown + [name for name in told["arguments"] if not hasattr(inference.XpuConfig(), name)]
    said = inference.Config.enable_xpu.__doc__
    return unknown + [name for name in told["arguments"] if f"{name}:" not in said]


@pytest.mark.parametrize("chip", ["ascend310p3", "Ascend310B4", "ascend310"])
def test_the_310_family_is_sent_to_the_om_route(paddle_net, tmp_path, chip):
    with pytest.raises(UnsupportedModel, match="no Paddle kernels") as caught:
        paddle_npu(paddle_net, PaddleNpuOptions(chip=chip), runs=tmp_path)
    assert "README_cn.md" in caught.value.what
    assert f'BundleOptions(target="{chip.lower()}")' in caught.value.remedy


def test_a_first_generation_910_needs_the_old_format(paddle_net, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"Paddle 2\.6 does not read inference\.json"):
        paddle_npu(paddle_net, PaddleNpuOptions(chip="ascend910a"), runs=tmp_path)
    old = paddle_files(tmp_path / "old", "inference.pdmodel")
    made = paddle_npu(old, PaddleNpuOptions(chip="ascend910a"), runs=tmp_path)
    assert "2.6" in made.settings["software"]


def test_a_wrong_chip_or_kind_of_model_is_refused(paddle_net, net, tmp_path):
    with pytest.raises(BadInput, match="910b9"):
        paddle_npu(paddle_net, PaddleNpuOptions(chip="ascend910b9"), runs=tmp_path)
    with pytest.raises(BadInput, match="takes a Paddle model") as caught:
        paddle_npu(net, runs=tmp_path)
    assert "mindspore_lite" in caught.value.remedy
    with pytest.raises(BadInput, match="works on ONNX"):
        mindspore_lite(paddle_net, runs=tmp_path)


@pytest.mark.parametrize(("generation", "most"), [("kunlun1", 16773120), ("kunlun2", 67104768)])
def test_l3_memory_is_checked_against_the_generation(paddle_net, tmp_path, generation, most):
    made = kunlunxin(paddle_net, KunlunxinOptions(generation=generation), runs=tmp_path)
    assert manifest(made)["xpu"]["arguments"] == {"l3_size": most, "l3_autotune_size": most}
    with pytest.raises(BadInput, match="more than") as caught:
        kunlunxin(paddle_net, KunlunxinOptions(generation=generation, l3_bytes=most + 1), runs=tmp_path)
    assert str(most) in caught.value.remedy


def test_what_no_document_says_is_not_made_up(paddle_net, net, tmp_path):
    made = kunlunxin(paddle_net, KunlunxinOptions(generation="p800"), runs=tmp_path)
    assert manifest(made)["xpu"]["arguments"] == {}
    with pytest.raises(BadInput, match="No size of the L3 memory is documented"):
        kunlunxin(paddle_net, KunlunxinOptions(generation="p800", l3_bytes=1024), runs=tmp_path)
    for generation in ("p800", "kunlun1"):
        with pytest.raises(UnsupportedModel, match="XTCL was seen on kunlun2 only"):
            kunlunxin(net, KunlunxinOptions(route="xtcl", generation=generation), runs=tmp_path)


# ---- XTCL ------------------------------------------------------------------------------------------------------------

FAKE_TVM = '''"""A FAKE of the part of XTCL's tvm that the script calls: ONNX's reference implementation answers."""
import contextlib, os
from types import SimpleNamespace
assert os.environ["XPUSIM_DEVICE_MODEL"] == "KUNLUN2" and int(os.environ["XTCL_L3_SIZE"]) > 0
__version__ = "FAKE"
configs = []
def device(kind, at):
    assert (kind, at) == ("xpu", 0)
    return "FAKE xpu"
@contextlib.contextmanager
def pass_context(opt_level, config):
    configs.append(config)
    yield
transform = SimpleNamespace(PassContext=pass_context)
'''
FAKE_RELAY = '''from types import SimpleNamespace
def from_onnx(model, shapes):
    assert shapes == {"x": [1, 3, 32, 32]}, shapes
    return model, {"w": 1}
frontend = SimpleNamespace(from_onnx=from_onnx)
def build(module, target, params):
    assert target == "xpu -libs=xdnn -split-device-funcs -device-type=xpu2"
    return module, "library", params
'''
FAKE_EXECUTOR = '''from onnx.reference import ReferenceEvaluator
class Engine:
    def __init__(self, graph): self.graph, self.feed = ReferenceEvaluator(graph), {}
    def set_input(self, *named, **params):
        if named: self.feed[named[0]] = named[1].astype("float32")
    def run(self): self.found = self.graph.run(None, self.feed)
    def get_num_outputs(self): return len(self.found)
    def get_output(self, at):
        array = self.found[at]
        class Tensor:
            def asnumpy(self): return array
        return Tensor()
def create(graph, library, device): return Engine(graph)
'''
FAKE_CONFIG = '''from types import SimpleNamespace
def XPUOutDtypeConfig(default_precision, config_last_node, config_map, config_var_dtype_map):
    assert (default_precision, config_var_dtype_map) == ("float16", {"x": "float16"})
    return SimpleNamespace(value=lambda: "half")
'''


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_xtcl_script_calls_the_compiler_as_flagperf_does(net, tmp_path, precision):
    made = kunlunxin(net, KunlunxinOptions(route="xtcl", bind=("x=1,3,32,32",), precision=precision),
                     samples=FEEDS[:1], runs=tmp_path)
    fake = tmp_path / "fake" / "tvm"
    (fake / "contrib").mkdir(parents=True)
    for name, text in (("__init__.py", FAKE_TVM), ("relay.py", FAKE_RELAY), ("contrib/__init__.py", ""),
                       ("contrib/graph_executor.py", FAKE_EXECUTOR), ("contrib/xpu_config.py", FAKE_CONFIG)):
        (fake / name).write_text(text)
    done = subprocess.run([sys.executable, "run_xtcl.py"], cwd=made.folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(fake.parent)})
    assert done.returncode == 0, done.stderr
    assert "y: cosine 1.000000" in done.stdout
    assert json.loads((made.folder / "results.json").read_text())["runtime"] == "XTCL FAKE"


def test_without_xtcl_the_script_says_so(net, tmp_path):
    made = kunlunxin(net, KunlunxinOptions(route="xtcl", bind=("x=1,3,32,32",)), runs=tmp_path)
    done = subprocess.run([sys.executable, "run_xtcl.py"], cwd=made.folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "XTCL is not installed here" in done.stderr
    with pytest.raises(BadInput, match="Axis 0"):
        kunlunxin(net, KunlunxinOptions(route="xtcl"), runs=tmp_path)


def test_scripts_need_nothing_newer_than_python_3_8():
    import ast

    folder = Path(kit.__file__).parent / "ascend" / "neighbouring"
    for name in ("run_paddle.py", "run_xtcl.py", "golden_checks.py"):
        ast.parse((folder / name).read_text(encoding="utf-8"), feature_version=(3, 8))
