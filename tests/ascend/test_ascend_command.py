"""The atc command: what cannot be asked for, what is refused with the valid choices, and what comes out."""

import dataclasses
import subprocess

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_graphs import FLOAT, INT64, line, node, save

import kit.ascend
from kit.ascend import AtcOptions, Profiles, atc_command
from kit.ascend.atc.flag_rules import problems
from kit.ascend.atc.flag_table import chip, choices, flags, flags_file, release, soc_versions
from kit.card import Card
from kit.errors import BadInput
from kit.model import Model
from kit.targets.ascend import facts
from kit.ui.panel import Panel

P3 = "Ascend310P3"


@pytest.fixture
def net(tmp_path):
    """x [N, 3, H, W] and a scalar-like size [2]; two outputs."""
    nodes = [node("Relu", ["x"], ["y"], name="relu"), node("Abs", ["size"], ["z"], name="abs")]
    return save(tmp_path / "net.onnx", nodes,
                {"x": (FLOAT, ["N", 3, "H", "W"]), "size": (FLOAT, [2])}, {"y": (FLOAT, None), "z": (FLOAT, None)})


@pytest.fixture
def fixed(tmp_path):
    return line(tmp_path / "fixed.onnx", node("Relu", ["x"], ["y"], name="relu"), shape=(1, 3, 8, 8))


def refused(call, *args, **kwargs):
    with pytest.raises(BadInput) as error:
        call(*args, **kwargs)
    assert error.value.remedy
    return f"{error.value.what} {error.value.remedy} {error.value.detail}"


def command(model, output="", path="", folder=None, **options):
    return atc_command(model, AtcOptions(**options), output=output, path=path, folder=folder)


# The table

def test_every_flag_says_what_it_does_and_who_says_so():
    assert len(flags()) == 90
    assert flags_file()["checked"].startswith("2026")
    for flag, row in flags().items():
        assert row["does"], flag
        assert row["source"], flag
        assert set(row.get("only", {})) <= set(choices(flag) or {}), flag


def test_every_rule_says_who_says_so_and_names_flags_that_exist():
    rules = flags_file()["rules"]
    assert len({row["id"] for row in rules}) == len(rules)
    for row in rules:
        assert all((row["source"], row["says"])), row["id"]
        named = {row.get("flag", "--model"), row.get("needs", "--model"), row.get("without", "--model"),
                 *row.get("exclusive", ()), *row.get("needs_any", ())}
        assert named <= set(flags()), row["id"]


def test_every_name_of_the_chip_list_is_taken_in_any_case():
    assert len(soc_versions()) == 34
    for low, exact in soc_versions().items():
        assert AtcOptions(soc_version=low.upper()).soc_version == exact
    assert chip("ascend910b3").product == "A2"
    assert chip("Ascend910B").product == "910"


@pytest.mark.parametrize(("name", "names"), [
    ("Ascend310P", "Ascend310P3 or Ascend310P1"), ("310P3", "Ascend310P3"), ("Ascend310 P3", "Ascend310P3"),
    ("Ascned310P3", "Ascend310P3"), ("Ascend910B5", "Ascend910B"), ("", "npu-smi"), ("H100", "npu-smi")])
def test_a_wrong_chip_is_answered_with_the_closest(name, names):
    assert names in refused(AtcOptions, soc_version=name)


@pytest.mark.parametrize(("text", "expected"), [("", ()), ("8.1.RC1", (8, 1, 0)), ("CANN 9.0.0", (9, 0, 0)),
                                                ("7.0.RC1.alpha003", (7, 0, 0)), ("8.0", (8, 0, 0))])
def test_releases_are_read(text, expected):
    assert release(text) == expected


def test_a_text_that_is_no_release_is_refused():
    assert "8.1.RC1" in refused(AtcOptions, cann="newest")


# Profiles

@pytest.mark.parametrize(("text", "kind", "values", "flag"), [
    ("static", "static", (), None), ("batch 1,4,8", "batch", ((1,), (4,), (8,)), ("--dynamic_batch_size", "1,4,8")),
    ("image 640x640 960x480", "image", ((640, 640), (960, 480)), ("--dynamic_image_size", "640,640;960,480")),
    ("dims: 1,32; 2,64", "dims", ((1, 32), (2, 64)), ("--dynamic_dims", "1,32;2,64"))])
def test_profiles_are_one_thing_with_its_flag(text, kind, values, flag):
    read = Profiles.read(text)
    assert (read.kind, read.values, read.flag) == (kind, values, flag)
    assert Profiles.read(str(read)) == read
    assert AtcOptions(profiles=read).profiles == str(read), "an object is taken too"


@pytest.mark.parametrize(("text", "words"), [
    ("batch", "2 are the least"), ("batch 4", "2 are the least"), ("batch 1,1", "twice"), ("batch 0,1", "above 0"),
    ("batch " + ",".join(map(str, range(1, 300))), "most"), ("image 640 960x960", "has 2 sizes"),
    ("dims 1,2 3", "1 and 2 sizes"), ("batch a,b", "no number"), ("several 1,2", "static"), ("", "static")])
def test_profiles_that_no_chip_takes_are_refused(text, words):
    assert words in refused(AtcOptions, profiles=text)


def test_the_most_profiles_depend_on_the_chip():
    many = "batch " + ",".join(map(str, range(1, 102)))
    assert "100 are the most" in refused(AtcOptions, profiles=many)
    assert AtcOptions(profiles=many, soc_version="Ascend910_95").sizes.kind == "batch"


@given(st.sampled_from(["batch", "image", "dims"]),
       st.lists(st.integers(1, 4096), min_size=2, max_size=40, unique=True))
def test_profiles_survive_being_written(kind, sizes):
    made = Profiles(kind, tuple((size, size + 1) if kind == "image" else (size,) for size in sizes))
    assert Profiles.read(str(made)) == made


# Precision

@pytest.mark.parametrize(("precision", "cann", "flag"), [
    ("fp16", "", None), ("origin", "", "--precision_mode_v2=origin"),
    ("origin", "7.0", "--precision_mode=must_keep_origin_dtype"),
    ("mixed_float16", "8.1.RC1", "--precision_mode_v2=mixed_float16"),
    ("mixed_float16", "6.0.1", "--precision_mode=allow_mix_precision"),
    ("cube_fp16in_fp32out", "7.0", "--precision_mode=force_fp32"),
    ("allow_fp32_to_fp16", "", "--precision_mode=allow_fp32_to_fp16")])
def test_precision_becomes_the_flag_that_the_release_has(fixed, precision, cann, flag):
    words = [word for word in command(fixed, precision=precision, cann=cann).argv if word.startswith("--precision")]
    assert words == ([flag] if flag else [])


@pytest.mark.parametrize(("precision", "soc", "fine"), [
    ("mixed_bfloat16", P3, False), ("mixed_bfloat16", "Ascend910B3", True), ("mixed_hif8", "Ascend910B3", False),
    ("mixed_hif8", "Ascend910_95", True), ("allow_fp32_to_bf16", "Ascend310B1", True)])
def test_precisions_depend_on_the_chip(precision, soc, fine):
    if fine:
        assert AtcOptions(precision=precision, soc_version=soc).precision == precision
    else:
        assert "not for Ascend" in refused(AtcOptions, precision=precision, soc_version=soc)


def test_a_value_that_atc_never_had_is_refused_with_those_it_has():
    assert "mixed_float16" in refused(AtcOptions, precision="allow_quantize")


def test_a_mode_of_950_has_no_older_spelling(fixed):
    assert "first seen in CANN 8.0" in refused(
        AtcOptions, precision="mixed_hif8", soc_version="Ascend910_95", cann="5.0.1")


# Extra flags

@pytest.mark.parametrize(("extra", "words"), [
    ("--quant_type=int8", "quant_dumpable"), ("--enable_single_strem=true", "--enable_single_stream"),
    ("--precision_mode=force_fp16", "use precision"), ("--framework=3", "always 5"),
    ("--target=mini", "documented flag"), ("--deterministic", "without a value"),
    ("--deterministic=2", "choose one of 0, 1"), ("--buffer_optimize=l9", "l2_optimize"),
    ("--cluster_config=a.json", "is not for"), ("--aicore_num=all", "a number"), ("--debug_dir=a b", "letters")])
def test_an_extra_flag_is_checked_like_any_other(extra, words):
    assert words in refused(AtcOptions, extra=(extra,))


def test_extra_flags_are_passed_on(fixed):
    made = command(fixed, extra=("--deterministic=1", "-op-debug-level=1"))
    assert {"--deterministic=1", "--op_debug_level=1"} <= set(made.argv)
    assert "twice" in refused(AtcOptions, extra=("--deterministic=1", "--deterministic=0"))


def test_a_text_where_several_are_meant_is_refused():
    assert "give a tuple" in refused(AtcOptions, out_nodes="relu:0")


# Rules of the table, each broken once

BETWEEN = [
    ("one-kind", {"--dynamic_batch_size": "1,2", "--dynamic_dims": "1;2"}),
    ("one-kind", {"--dynamic_batch_size": "1,2", "--input_shape_range": "x:[1~2]"}),
    ("two-profiles", {"--dynamic_batch_size": "4", "--input_shape": "x:-1,3"}),
    ("most-profiles", {"--dynamic_dims": ";".join(map(str, range(1, 102))), "--input_shape": "x:-1",
                       "--input_format": "ND"}),
    ("equal-length", {"--dynamic_dims": "1,2;3", "--input_shape": "x:-1,-1", "--input_format": "ND"}),
    ("no-twin", {"--dynamic_image_size": "8,8;8,8", "--input_shape": "x:1,3,-1,-1"}),
    ("positive", {"--input_shape": "x:0,3"}), ("positive", {"--input_shape": "x:4~2,3"}),
    ("positive", {"--dynamic_batch_size": "0,2", "--input_shape": "x:-1,3"}),
    ("open-axes", {"--dynamic_batch_size": "1,2", "--input_shape": "x:1,3"}),
    ("open-axes", {"--dynamic_batch_size": "1,2", "--input_shape": "x:1~4,3"}),
    ("batch-first", {"--dynamic_batch_size": "1,2", "--input_shape": "x:1,-1"}),
    ("image-axes", {"--dynamic_image_size": "8,8;9,9", "--input_shape": "x:-1,3,-1,-1"}),
    ("dims-count", {"--dynamic_dims": "1;2", "--input_shape": "x:-1,-1", "--input_format": "ND"}),
    ("dims-nd", {"--dynamic_dims": "1;2", "--input_shape": "x:-1"}),
    ("dims-aipp", {"--dynamic_dims": "1;2", "--input_shape": "x:-1", "--insert_op_conf": "a.cfg"}),
    ("image-format", {"--dynamic_image_size": "8,8;9,9", "--input_format": "ND"}),
    ("aipp-format", {"--insert_op_conf": "a.cfg", "--input_format": "ND"}),
    ("one-precision", {"--precision_mode": "force_fp16", "--precision_mode_v2": "origin"}),
    ("caffe-weight", {"--framework": "0"}), ("weight-caffe", {"--framework": "5", "--weight": "a.caffemodel"}),
    ("map-caffe", {"--framework": "5", "--op_name_map": "a"}),
    ("scope-tf", {"--framework": "5", "--enable_scope_fusion_passes": "A"}),
    ("types-need-mode", {"--optypelist_for_implmode": "Pow"}),
    ("types-need-mode", {"--optypelist_for_implmode": "Pow", "--op_select_implmode": "high_precision_for_all"}),
    ("calibration-v1", {"--compression_optimize_conf": "a", "--precision_mode": "force_fp32"}),
    ("calibration-v2", {"--compression_optimize_conf": "a", "--precision_mode_v2": "origin"}),
    ("mixlist-mode", {"--modify_mixlist": "a", "--precision_mode_v2": "origin"}),
    ("keep-v1", {"--keep_dtype": "a", "--precision_mode": "must_keep_origin_dtype"}),
    ("keep-v2", {"--keep_dtype": "a", "--precision_mode_v2": "origin"}),
    ("cache-dir", {"--op_compiler_cache_dir": "a"}), ("input-layout", {"--is_input_adjust_hw_layout": "true"}),
    ("output-layout", {"--is_output_adjust_hw_layout": "true"}),
    ("one-compression", {"--enable_compress_weight": "true", "--compress_weight_conf": "a"}),
    ("streams", {"--multi_stream_parallel_mode": "cv", "--enable_single_stream": "true"}),
    ("bank-buffer", {"--mdl_bank_path": "a", "--buffer_optimize": "off_optimize"}),
    ("typed-outputs", {"--output_type": "relu:0:FP16", "--out_nodes": "abs:0"}),
]
# Those that need a model, a file or another chip are broken further down.
MODELS = {"input-names", "node-names", "one-opset", "parser", "aipp-fp16", "aipp-file", "calibration-high",
          "int8-static", "int8-precision", "rank", "out-names", "aipp-image", "aipp-open", "two-gigabytes",
          "range-310b", "range-310"}


@pytest.mark.parametrize(("rule", "given_flags"), BETWEEN)
def test_a_broken_rule_between_flags_is_found(rule, given_flags):
    found = list(problems(given_flags, chip("Ascend910A" if rule == "one-precision" else P3)))
    assert rule in [one.rule for one in found]
    one = next(one for one in found if one.rule == rule)
    assert one.remedy
    error = next(row["error"] for row in flags_file()["rules"] if row["id"] == rule)
    assert one.error == error
    assert error in str(one.exception())


def test_table_and_tests_know_the_same_rules():
    assert {row["id"] for row in flags_file()["rules"]} == {rule for rule, _ in BETWEEN} | MODELS


@pytest.mark.parametrize("given_flags", [
    {"--dynamic_batch_size": "1,2", "--input_shape": "x:-1,3;size:2"}, {"--input_shape": "x:0:1,3,-1,8~16;n:"},
    {"--dynamic_image_size": "8,8;9,9", "--input_shape": "x:1,-1,-1,3", "--input_format": "NHWC", "--framework": "3"},
    {"--precision_mode": "allow_mix_precision", "--modify_mixlist": "a.json"},
    {"--mdl_bank_path": "a"}, {"--optypelist_for_implmode": "Pow", "--op_select_implmode": "high_precision"}])
def test_flags_that_go_together_are_left_alone(given_flags):
    assert list(problems(given_flags, chip(P3))) == []


# With a model

def test_a_static_command_names_every_shape_and_leaves_defaults_out(net):
    made = command(net, shapes=("x=1,3,8,8",), output="om/net", path="model/net.onnx")
    assert made.argv == ("atc", "--model=model/net.onnx", "--framework=5", "--input_shape=x:1,3,8,8;size:2",
                         "--output=om/net", f"--soc_version={P3}")
    assert made.outputs == ("om/net.om", "om/net_*_*.om")
    assert "composed and checked, not run" in made.title()
    assert "float16" in " ".join(made.notes)


@pytest.mark.parametrize(("profiles", "shapes", "flags_made"), [
    ("batch 1,4", ("x=-1,3,8,8",), {"--input_shape": "x:-1,3,8,8;size:2", "--dynamic_batch_size": "1,4"}),
    ("batch 1,4", ("x=?,3,8,8",), {"--input_shape": "x:-1,3,8,8;size:2"}),
    ("image 8x8 16x16", ("x=1,3,-1,-1",), {"--dynamic_image_size": "8,8;16,16"}),
    ("dims 1,8,8 2,16,16", (), {"--dynamic_dims": "1,8,8;2,16,16", "--input_format": "ND",
                                "--input_shape": "x:-1,3,-1,-1;size:2"}),
    ("static", ("x=1~4,3,8,8",), {"--input_shape": "x:1~4,3,8,8;size:2"})])
def test_profiles_and_ranges_reach_the_command(net, profiles, shapes, flags_made):
    made = command(net, profiles=profiles, shapes=shapes).flags
    assert flags_made.items() <= made.items()


@pytest.mark.parametrize(("options", "words"), [
    ({}, "leaves N, H, W open"), ({"profiles": "batch 1,2"}, "leaves H, W open"),
    ({"shapes": ("y=1,3,8,8",)}, "no input named 'y'"), ({"shapes": ("x=1,3,8",)}, "E10049"),
    ({"shapes": ("x=1,4,8,8",)}, "the model has 3 there"), ({"shapes": ("x 1,3,8,8",)}, "no name and sizes"),
    ({"shapes": ("x=0,3,8,8",)}, "E10011"), ({"shapes": ("x=1,3,a,8",)}, "cannot be"),
    ({"profiles": "dims 1,8 2,16"}, "3 axes of -1"), ({"profiles": "batch 1,2", "shapes": ("x=1,3,8,8",)}, "E10040"),
    ({"profiles": "image 8x8 9x9", "shapes": ("x=-1,3,-1,-1",)}, "E10019"),
    ({"shapes": ("x=1~4,3,8,8",), "soc_version": "Ascend310B1"}, "takes no open shapes"),
    ({"shapes": ("x=-1,3,8,8",), "soc_version": "Ascend310"}, "EZ3002"),
    ({"shapes": ("x=1,3,8,8",), "fp16_inputs": ("z",)}, "E10016"),
    ({"shapes": ("x=1,3,8,8",), "out_nodes": ("rely:0",)}, "did you mean relu"),
    ({"shapes": ("x=1,3,8,8",), "out_nodes": ("relu:1",)}, "count from 0"),
    ({"shapes": ("x=1,3,8,8",), "out_nodes": ("relu:0", "z")}, "mixes nodes and tensors"),
    ({"shapes": ("x=1,3,8,8",), "output_type": "relu:0:FP99"}, "node:index:TYPE"),
    ({"shapes": ("x=1,3,8,8",), "output_type": "HIF8"}, "is for 950"),
    ({"shapes": ("x=1,3,8,8",), "input_format": "ND", "aipp": "a.cfg"}, "insert_op_conf needs input_format"),
    ({"shapes": ("x=1,3,8,8",), "mixlist": "mix.json"}, "precision_mode_v2=mixed_float16"),
    ({"shapes": ("x=1,3,8,8",), "implementation_types": ("Pow",)}, "op_select_implmode"),
    ({"shapes": ("x=1,3,8,8",), "cache_dir": "cache"}, "enable | force"),
    ({"shapes": ("x=1,3,8,8",), "compression": "c.cfg", "precision": "origin"}, "calibration excludes"),
    ({"shapes": ("x=1,3,8,8",), "compression": "c.cfg", "soc_version": "Ascend910_95"}, "is not for Ascend910_95")])
def test_what_does_not_fit_the_model_or_the_chip_is_refused_with_what_does(net, options, words):
    assert words in refused(command, net, **options)


def test_all_that_is_wrong_is_told_at_once(net):
    said = refused(command, net, shapes=("x=1,3,8,8",), out_nodes=("nothing:0",), fp16_inputs=("nobody",))
    assert "nothing" in said
    assert "nobody" in said


def test_a_model_with_a_path_that_atc_does_not_take_needs_a_name(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    path = line(folder / "m.onnx", node("Relu", ["x"], ["y"]))
    assert "letters, digits" in refused(command, path)
    assert "--model=model/m.onnx" in command(path, path="model/m.onnx").argv


def test_names_and_types_of_single_outputs_go_together(net):
    made = command(net, shapes=("x=1,3,8,8",), output_type="relu:0:FP16")
    assert made.flags["--out_nodes"] == "relu:0"


def test_nodes_with_the_same_name_are_refused(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["a"], name="twin"), node("Relu", ["a"], ["y"], name="twin"))
    assert "E13009" in refused(command, path)


def test_a_second_import_of_the_standard_domain_is_refused(fixed):
    proto = onnx.load(str(fixed))
    proto.opset_import.add(domain="ai.onnx", version=17)
    onnx.save(proto, str(fixed))
    assert "E16005" in refused(command, fixed)


def test_an_operator_without_a_parser_is_refused_unless_a_plugin_has_it(tmp_path):
    path = line(tmp_path / "m.onnx", node("Mystery", ["x"], ["y"], domain="my.own"), domains={"my.own": 1})
    assert "E16002" in refused(command, path)
    assert command(path, plugins=True).argv[0] == "atc"
    newer = line(tmp_path / "n.onnx", node("Relu", ["x"], ["y"]), opset=21, ir_version=10)
    assert "21" in refused(command, newer)


def test_operators_in_the_bodies_of_branches_count_too(tmp_path):
    def body(name):
        return onnx.helper.make_graph([node("Mystery", ["x"], [name], domain="my.own")], name, [],
                                      [onnx.helper.make_tensor_value_info(name, FLOAT, [1, 4, 8, 8])])

    path = line(tmp_path / "m.onnx", node("If", ["c"], ["y"], then_branch=body("a"), else_branch=body("b")),
                weights={"c": np.array(True)}, domains={"my.own": 1})
    assert "Mystery" in refused(command, path)


def test_a_deployed_int8_model_takes_no_profiles_and_no_float_modes(tmp_path):
    path = save(tmp_path / "m.onnx", [node("AscendQuant", ["x"], ["y"])], {"x": (FLOAT, ["N", 3, 8, 8])},
                {"y": (FLOAT, None)}, opset=11)
    assert "deploy model" in refused(command, path, profiles="batch 1,2", plugins=True)
    assert "deploy model" in refused(command, path, precision="origin", shapes=("x=1,3,8,8",), plugins=True)
    assert command(path, shapes=("x=1,3,8,8",), plugins=True).flags["--input_shape"] == "x:1,3,8,8"


def test_weights_beyond_two_gigabytes_go_outside(fixed):
    large = dataclasses.replace(Model.open(fixed), size=3_000_000_000)
    assert command(large).flags["--external_weight"] == "1"
    assert command(large, external_weight="one").flags["--external_weight"] == "2"
    assert "too much for one .om" in refused(command, large, external_weight="inside")
    assert "--external_weight" not in command(fixed).flags


def test_an_input_name_that_cannot_be_written_is_refused(tmp_path):
    path = save(tmp_path / "m.onnx", [node("Relu", ["a;b"], ["y"])], {"a;b": (FLOAT, [1, 3, 8, 8])},
                {"y": (FLOAT, None)})
    assert "rename the input" in refused(command, path)


@pytest.mark.parametrize(("shape", "wanted"), [((1, 3, 8, 8), None), ((1, 3, 4, 8, 8), "NCDHW"), ((1, 16), "ND")])
def test_the_layout_follows_from_the_inputs(tmp_path, shape, wanted):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]), shape=shape)
    assert command(path).flags.get("--input_format") == wanted


def test_integer_inputs_are_taken(tmp_path):
    path = save(tmp_path / "m.onnx", [node("Cast", ["ids"], ["y"], to=FLOAT)], {"ids": (INT64, [1, 16])},
                {"y": (FLOAT, None)})
    assert command(path).flags["--input_shape"] == "ids:1,16"


# Files beside the model

AIPP = """aipp_op {
  aipp_mode: static
  related_input_rank: 0
  input_format: RGB888_U8
  src_image_size_w: %d
  src_image_size_h: %d
  var_reci_chn_0: 0.0171247
  var_reci_chn_1: 0.0175070
  var_reci_chn_2: 0.0174292
}
"""


def test_files_are_looked_into_where_they_are_here(net, tmp_path):
    (tmp_path / "a.cfg").write_text(AIPP % (64, 64))
    (tmp_path / "c.cfg").write_text("calibration:\n{\n input_data_dir: d.bin\n}\n")
    (tmp_path / "first.cfg").write_text("enable_first_layer_quantization: true\n")
    (tmp_path / "p.ini").write_text("[ByOpType]\nConv2D=high_precision\n")
    shapes = {"shapes": ("x=1,3,64,64",), "folder": tmp_path}
    assert command(net, aipp="a.cfg", **shapes).flags["--insert_op_conf"] == "a.cfg"
    assert "E10034" in refused(command, net, aipp="a.cfg", fp16_inputs=("x",), **shapes)
    assert "high_precision" in refused(command, net, compression="c.cfg", op_precision="p.ini", **shapes)
    made = command(net, compression="first.cfg", precision="origin", **shapes)
    assert "needs an NPU" not in " ".join(made.notes), "nothing is calibrated by this file"
    assert "needs an NPU" in " ".join(command(net, compression="c.cfg", **shapes).notes)


def test_static_aipp_and_picture_profiles_need_a_file_without_sizes(net, tmp_path):
    (tmp_path / "sized.cfg").write_text(AIPP % (64, 64))
    (tmp_path / "free.cfg").write_text(AIPP % (0, 0))
    with_profiles = {"profiles": "image 64x64 96x96", "shapes": ("x=1,3,-1,-1",), "folder": tmp_path}
    assert "src_image_size" in refused(command, net, aipp="sized.cfg", **with_profiles)
    assert command(net, aipp="free.cfg", **with_profiles).flags["--dynamic_image_size"] == "64,64;96,96"


def test_static_aipp_for_an_only_open_input_is_refused(tmp_path):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]), shape=("N", 3, 64, 64))
    (tmp_path / "a.cfg").write_text(AIPP % (64, 64))
    assert "only input" in refused(command, path, aipp="a.cfg", shapes=("x=1~4,3,64,64",), folder=tmp_path)


def test_a_wrong_aipp_file_is_refused_with_its_line(net, tmp_path):
    (tmp_path / "bad.cfg").write_text(AIPP.replace("RGB888_U8", "BGR888_U8") % (64, 64))
    said = refused(command, net, aipp="bad.cfg", shapes=("x=1,3,64,64",), folder=tmp_path)
    assert "E10052" in said
    assert "input_format" in said


# What comes out

def run_with_fake_atc(text):
    """The words that a shell hands to a FAKE atc, a shell function that prints them."""
    done = subprocess.run(["sh", "-c", "atc() { for word in atc \"$@\"; do printf '%s\\0' \"$word\"; done; }\n" + text],
                          capture_output=True, text=True, check=True)
    return tuple(done.stdout.split("\0")[:-1])


def test_the_text_gives_a_shell_the_same_words(net):
    made = command(net, shapes=("x=1,3,-1,-1",), profiles="image 8x8 9x9", out_nodes=("relu:0", "abs:0"))
    assert run_with_fake_atc(made.text) == made.argv
    assert made.text.count("\n") == len(made.argv) - 1, "one flag a line"


@settings(max_examples=25)
@given(st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters=";"), min_size=1, max_size=12))
def test_names_with_quotes_and_dollars_reach_the_shell_unharmed(name):
    from kit.ascend.atc.command import AtcCommand

    made = AtcCommand(("atc", f"--input_shape={name}:1,3", f"--out_nodes={name};$HOME"), "m.onnx", P3, "m", (), ())
    assert run_with_fake_atc(made.text) == made.argv


def test_the_script_makes_atc_known_and_says_that_it_was_not_run(fixed):
    old, new, either = (command(fixed, cann=cann).script for cann in ("8.1.RC1", "9.0.0", ""))
    assert "\n. /usr/local/Ascend/ascend-toolkit/set_env.sh\n" in old
    assert "\n. /usr/local/Ascend/cann/set_env.sh\n" in new
    assert all(place in either for place in ("ascend-toolkit/set_env.sh", "cann/set_env.sh"))
    assert "it was not run" in either.splitlines()[0]
    assert subprocess.run(["sh", "-n"], input=either, text=True, check=False).returncode == 0


def test_the_card_explains_each_flag_from_the_table(fixed):
    made = command(fixed, precision="mixed_float16", log="error")
    assert isinstance(made, Card)
    shown = str(made)
    assert "operators that ATC lists as harmless drop to float16" in shown
    assert facts("atc_flags")["success"] in shown
    assert "--log=error" in made.html()


@pytest.mark.parametrize(("options", "words"), [
    ({"extra": ("--h2d_overlapped_with_compute=1",)}, "first seen in CANN 9.2"),
    ({"implementation": "high_precision"}, "deprecated"), ({"soc_version": "Ascend910B"}, "first generation"),
    ({"soc_version": "Ascend035"}, "do not say"), ({"output_type": "INT64"}, "the source code does not")])
def test_what_is_worth_knowing_is_noted(fixed, options, words):
    assert words in " ".join(command(fixed, **options).notes)


def test_an_opset_outside_the_documents_of_the_release_is_noted(fixed):
    assert "9 to 13" in " ".join(command(fixed, cann="6.0.1").notes)
    assert "speak of opset" not in " ".join(command(fixed, cann="9.0.0").notes)


def test_options_of_another_stage_are_refused(fixed):
    from kit.graph import FixOptions

    assert "takes AtcOptions" in refused(atc_command, fixed, FixOptions())


def test_a_panel_takes_the_stage(fixed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = Panel(atc_command, (fixed,), {}, options=AtcOptions(),
                  call=lambda stage, *args, report=None, pass_report=False, **kwargs: stage(*args, **kwargs))
    panel.controls["soc_version"].value = "ascend910b3"
    panel.controls["precision"].value = "mixed_float16"
    made = panel.get()
    assert made.soc_version == "Ascend910B3"
    assert made.flags["--precision_mode_v2"] == "mixed_float16"


def test_names_are_found_without_loading_the_whole_room():
    assert {"AtcOptions", "atc_command", "history", "translate", "explain"} <= set(dir(kit.ascend))
    with pytest.raises(AttributeError, match="atc_command"):
        kit.ascend.atc_comand  # noqa: B018


@pytest.mark.parametrize("values", [{"soc_version": None}, {"soc_version": 310}, {"cann": 8.1}, {"cann": None}])
def test_a_number_for_a_name_is_refused(values):
    with pytest.raises(BadInput, match="cannot be") as caught:
        AtcOptions(**values)
    assert "text" in caught.value.remedy


@pytest.mark.parametrize(("profiles", "shape"), [("batch 1,2", "x=-1,3,640,640"), ("image 64x64 32x32", "x=1,3,-1,-1"),
                                                 ("static", "x=1,3,640,640")])
def test_the_shape_that_an_open_axis_is_answered_with_can_be_used(tmp_path, profiles, shape):
    path = line(tmp_path / "m.onnx", node("Relu", ["x"], ["y"]), shape=["N", 3, "H", "W"])
    with pytest.raises(BadInput, match="open") as caught:
        atc_command(path, AtcOptions(profiles=profiles))
    assert f'shapes=("{shape}",)' in caught.value.remedy
    assert atc_command(path, AtcOptions(profiles=profiles, shapes=(shape,)))


def test_an_input_given_twice_is_refused(net):
    with pytest.raises(BadInput, match="x twice"):
        atc_command(net, AtcOptions(shapes=("x=1,3,8,8", "x=1,3,16,16")))
