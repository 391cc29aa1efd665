"""Logs of atc, ACL and ais_bench: the root cause first, the node, and the next step."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kit
import kit.ascend
from kit.ascend import explain
from kit.ascend.logs.explaining import tables
from kit.ascend.logs.log_reading import LONGEST, MOST, read_log
from kit.errors import BadInput
from kit.graph.table import RULES
from kit.targets.ascend import facts

OPSET = """ATC start working now, please wait for a moment.
ATC run failed, Please check the detail log, Try 'atc --help' for more information
E19010: No parser is registered for Op [model1 div node, optype [ai.onnx::23::Div]].
        Solution: Submit an issue
        TraceBack (most recent call last):
E19999: Inner Error!
E19999  [PID: 7] 2025-03-18-09:02:18.501.341 parse model failed[FUNC:Parse][FILE:a.cc][LINE:1]
"""
TYPES = """ATC run failed, Please check the detail log, Try 'atc --help' for more information
E89999: Inner Error!
E89999 op[Add_718], The Add_718 op dtype is not same, type1:DT_INT64, type2:DT_INT32[FUNC:Check][FILE:util.cc][LINE:103]
Verifying Add_718 failed.[FUNC:InferShapeAndType][FILE:infershape_pass.cc][LINE:135]
Call InferShapeAndType for node:Add_718(Add) failed[FUNC:Infer][FILE:infershape_pass.cc][LINE:117]
build graph failed, graph id:0, ret:1343242270[FUNC:BuildModel][FILE:ge_generator.cc][LINE:1426]
"""
KERNEL = """[ERROR] AMCT(757013,atc.bin):2023-03-14-14:15:54[process.cpp:299]execute model failed, errorCode is 507011
[ERROR] AMCT(757013,atc.bin):2023-03-14-14:15:54[sample.cpp:320]execute inference failed
EZ9999: Inner Error!
EZ9999  Aicore kernel execute failed, device_id=0, fault kernel_name=177-1_0_1_vgg/conv1_2/Conv2D, program id=206
        TraceBack (most recent call last):
        rtModelExecute execute failed, reason=[the model stream execute failed][FUNC:F][FILE:e.cc][LINE:49]
"""


# The tables

def test_every_code_has_a_meaning_a_next_step_and_a_source():
    table = tables()
    assert {"E10001", "E16002", "E19999", "EZ3003", "EE1001", "EC0010", "107002", "507008"} <= set(table["codes"])
    assert sum(code.isdigit() for code in table["codes"]) == 250
    for code, row in table["codes"].items():
        assert all((row["meaning"], row["next"], row["source"])), code
        assert not row["next"].startswith("@"), code
    for name in ("atc_errors", "acl_errors"):
        assert facts(name)["checked"].startswith("2026")


def test_patterns_have_all_that_a_reader_needs():
    for row in [*tables()["patterns"], *tables()["signs"]]:
        assert all((row["cause"], row["next"], row["source"], row["has"])), row["id"]
        named = set(re.compile(row["match"]).groupindex)
        assert set(re.findall(r"{(\w+)}", row["cause"])) <= named | {"node", "operator"}, row["id"]


def test_rules_and_functions_that_are_named_exist():
    table = tables()
    text = json.dumps(table, ensure_ascii=False)
    rules = set(table["operators"].values()) | set(re.findall(r"the rules? ([\w-]+)", text))
    assert rules - {"of"} <= set(RULES)
    text += json.dumps([facts("history"), facts("atc_flags")], ensure_ascii=False)
    for name in re.findall(r"\bkit\.(\w+)\(", text):
        assert name in {*kit.__all__, "explain"}, name
    for name in re.findall(r"\bkit\.ascend\.(\w+)", text):
        assert name in kit.ascend.__all__, name


def test_what_people_reported_about_an_operator_is_told_with_it():
    assert set(facts("atc_errors")["breakers"].values()) <= set(facts("breakers")["breakers"])
    made = explain("E19010: No parser is registered for Op [l, optype [ai.onnx::11::DeformConv]].")
    assert facts("breakers")["breakers"]["deformconv"]["fix"] in made.root.next


def test_the_tables_are_plain_json():
    assert json.loads(json.dumps(tables())) == tables()


# What logs say

@pytest.mark.parametrize(("log", "code", "node", "operator", "next_step"), [
    (OPSET, "E19010", "model1 div node", "ai.onnx::23::Div", "lower-opset"),
    (TYPES, "E89999", "Add_718", "", "topk-int32"),
    (KERNEL, "EZ9999", "vgg/conv1_2/Conv2D", "", "run_on_box.py"),
    ("E16002: No ONNX parser is registered for optype ai.onnx::20::Gelu.", "E16002", "", "ai.onnx::20::Gelu",
     "lower-opset"),
    ("E16002: No ONNX parser is registered for optype [ai.onnx::17::GroupNormalization].", "E16002", "",
     "ai.onnx::17::GroupNormalization", "split-groupnorm"),
    ("E19010: No parser is registered for Op [Relu_1, optype [ai.onnx::7::Relu]].", "E19010", "Relu_1",
     "ai.onnx::7::Relu", "raise-opset"),
    ("EZ9010: No parser is registered for Op [q1, optype [ai.onnx::13::QuantizeLinear]].", "EZ9010", "q1",
     "ai.onnx::13::QuantizeLinear", "strip-qdq"),
    ("EZ3002: 2024-11-05-22:31:29.035.909 Optype [TopK] of Ops kernel [AIcoreEngine] is unsupported. Reason: x.",
     "EZ3002", "", "TopK", "topk-int32"),
    ("EZ3003: No supported Ops kernel and engine are found for [MyOp_111], optype [MyOp].", "EZ3003", "MyOp_111",
     "MyOp", "ops (kernels) package"),
    ("E10016: [PID: 5] Opname [xxx] specified in [--input_shape] is not found in the model.", "E10016", "xxx", "",
     "names"),
    ("E13009: Operator conv_3 already exists in the graph.", "E13009", "conv_3", "", "its own name"),
    ("E40021: Failed to compile Op [Index1]. (oppath: [Compile index.py", "E40021", "Index1", "", "fewer profiles"),
    ("E10001: Value [-1] for parameter [In] is invalid. Reason: maybe you should set input_shape to specify its shape",
     "E10001", "In", "", "shapes="),
    ("E10001: Value [linux] for parameter [--host_env_os] is invalid.", "E10001", "", "", "set_env.sh"),
    ("E10001: Value [allow_quantize] for parameter [--precision_mode] is invalid. Reason: x", "E10001", "", "",
     "--precision_mode takes force_fp16"),
    ("E10036: --dynamic_dims has 200 profiles, which is greater than the maximum 100.", "E10036", "", "", "profiles="),
    ("E10052: AIPP configuration is invalid. Reason: x.", "E10052", "", "", "kit.ascend.aipp"),
    ("EC0010: [PID: 1] Failed to import Python module [ModuleNotFoundError: No module named 'decorator'.].", "EC0010",
     "", "", "python3"),
    ("EC0010: [AttributeError: `np.float_` was removed in the NumPy 2.0 release]", "EC0010", "", "", "numpy below 2"),
    ("EE1001: The argument is invalid.Reason: Set device failed, set device=8", "EE1001", "", "", "npu-smi"),
    ("RuntimeError: acl.mdl.load_from_file failed: 507008 path=x.om", "507008", "", "", "chip that npu-smi info shows"),
    ("assert ret == 0, acl.rt.set_device failed, ret=107001", "107001", "", "", "device number"),
    ("[ERROR] call failed, errorCode[145013]", "145013", "", "", "profile"),
    ("推理失败，错误码：107002", "107002", "", "", "set_device"),
    ("aclError ACL_ERROR_RT_DEVICE_OOM", "207018", "", "", "npu-smi"),
    ("atc.bin: error while loading shared libraries: libascend_hal.so: cannot open shared object file: No such file",
     "", "", "", "stub"),
    ("bash: atc: command not found", "", "", "", "set_env.sh"), ("bash: atc：未找到命令", "", "", "", "set_env.sh"),
    ("ERROR: unknown command line flag 'quant_type'", "", "", "", "kit.ascend.translate"),
    ("段错误 (核心已转储)", "", "", "", "nms-five-inputs"),
    ("child exited with code 139", "", "", "", "nms-five-inputs"),
    ("OSError: [Errno 28] No space left on device", "", "", "", "free some space"),
    ("atc ended with exit code 137", "", "", "", "memory"), ("bash: npu-smi: command not found", "", "", "", "npu-smi"),
    ("已杀死", "", "", "", "memory"), ("/dev/davinci0: Permission denied", "", "", "", "HwHiAiUser"),
    ("ModuleNotFoundError: No module named 'acl'", "", "", "", "set_env.sh"),
    ("input image size[600] is not equal to model input size[1200]", "", "", "", "write_calibration"),
    ("layer a/b/Conv2D-op311 run WeightFakeQuantArq failed", "", "a/b/Conv2D-op311", "", "skip_layers"),
    ("Dynamic shape is not supported on this chip", "", "", "", "fix-shapes"),
    ("E19999 The opp version of the model does not match the current opp run package", "E19999", "", "",
     "build it again")])
def test_a_log_gives_its_cause_node_and_next_step(log, code, node, operator, next_step):
    made = explain(log)
    assert not made
    assert (made.root.code, made.root.node, made.root.operator) == (code, node, operator)
    assert next_step in made.root.next
    assert made.root.cause
    assert made.root.source
    assert made.root.cause in str(made)


def test_the_first_error_comes_first_and_the_trailer_last():
    made = explain(OPSET)
    assert [one.code for one in made.errors] == ["E19010", "", "E19999"]
    assert [one.level for one in made.errors] == ["error", "trailer", "trailer"]
    assert made.errors[-1].message == "parse model failed", "the text of an inner error stands in its second line"
    assert made.root.line == 3


def test_two_causes_keep_the_order_of_the_log():
    made = explain("E10016: Opname [a] specified\nE10011: Value [x:0] for parameter --input_shape is invalid")
    assert [one.code for one in made.errors] == ["E10016", "E10011"]


def test_a_bare_inner_error_is_the_root_when_there_is_no_other():
    made = explain("E19999: Inner Error!\n        Unknown thing broke at node:Conv_1(Conv2D)\n")
    assert made.root.code == "E19999"
    assert (made.root.message, made.root.node) == ("Unknown thing broke at node:Conv_1(Conv2D)", "Conv_1")


def test_the_same_error_again_is_counted():
    made = explain("ret=507015\n" * 30)
    assert [(one.code, one.count) for one in made.causes] == [("507015", 30)]


def test_success_is_told_and_warnings_beside_it():
    made = explain("ATC run success, welcome to the next use.\nW11001: Op [a/b] does not hit the library\n")
    assert made
    assert made.title() == "ATC ended well, with 1 warning"
    assert [one.level for one in made.causes] == ["warning", "success"]


@pytest.mark.parametrize("log", [
    "size 100000 bytes, 200000 items, id 507011", "sha E10001abc XE10001 a/E10001/b", "step 107002 of 200000",
    "loss 1.23 [INFO] all is well"])
def test_numbers_that_only_look_like_codes_are_none(log):
    made = explain(log)
    assert made
    assert made.causes == ()
    assert "No error that is known" in made.title()


def test_an_unknown_error_is_said_to_be_unknown_and_the_last_lines_are_shown():
    made = explain("starting\nsomething failed badly\nlast words\n")
    assert not made
    assert made.root.level == "unknown"
    assert "nothing here knows" in made.title()
    assert "last words" in str(made)


def test_a_code_that_is_not_in_the_table_is_told_by_its_family():
    made = explain("EE8123: something new")
    assert not made
    assert "runtime" in made.root.cause
    assert "aclnn" in explain("call aclnnFoo failed, error code is 561002").root.cause


def test_an_exit_status_speaks_where_the_log_is_silent():
    assert "crashed" in explain("", returncode=139).title()
    assert "crashed" in explain("ATC start working now\n", returncode=-11).title()
    assert "killed" in explain("", returncode=137).title()
    made = explain("nothing much\n", returncode=3)
    assert not made
    assert made.root.message == "exit status 3"
    assert explain(OPSET, returncode=255).root.code == "E19010"


@pytest.mark.parametrize("log", ["", "\n\n  \n"])
def test_an_empty_log_is_said_to_be_empty_or_without_errors(log):
    made = explain(log)
    assert made
    assert "empty" in made.title() or "No error" in made.title()


# Files

def test_a_file_and_a_folder_are_read(tmp_path):
    (tmp_path / "plog").mkdir()
    for number, text in enumerate(("ATC start working now\n", OPSET)):
        path = tmp_path / "plog" / f"plog-{number}.log"
        path.write_text(text)
        os.utime(path, (number, number))
    assert explain(tmp_path / "plog" / "plog-1.log").log == "plog-1.log"
    made = explain(str(tmp_path / "plog"))
    assert made.root.code == "E19010"
    assert made.root.line == 4, "counted through the files, oldest first"


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_chinese_logs_are_read_in_their_encodings(tmp_path, encoding):
    path = tmp_path / "a.log"
    path.write_text("模型转换失败，请检查\nE10016：算子 [images] 未找到\n", encoding=encoding)
    made = explain(path)
    assert made.root.code == "E10016"
    assert "未找到" in made.root.message


def test_colours_and_carriage_returns_are_passed_over(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(b"\x1b[31m[ERROR]\x1b[0m E10016: Opname [x] specified\r\n")
    assert explain(path).root.node == "x"


def test_binary_garbage_is_survived_and_shown_harmlessly(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 400 + b"\nE10016: Opname [x] specified\n" + b"\xff\xfe\x00" * 50)
    made = explain(path)
    assert made.root.code == "E10016"
    assert all(letter.isprintable() or letter == "\n" for letter in str(explain(path)))
    path.write_bytes(os.urandom(50_000))
    assert all(line.isprintable() for line in explain(path).last)


def test_a_huge_log_is_read_in_bounded_memory(tmp_path):
    path = tmp_path / "a.log"
    with path.open("w") as stream:
        stream.write("x" * 2_000_000 + "\n")  # one line far too long
        for number in range(5_000):
            stream.write(f"[INFO] GE(1,atc):2023-01-10-09:25:45 line {number}\n")
            if number % 25 == 0:
                stream.write(f"EZ3003: No supported Ops kernel and engine are found for [op_{number}], optype [Foo].\n")
    explain("warm up, so that tables count as loaded")
    tracemalloc.start()
    made = explain(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000, f"{peak} bytes for a file of {path.stat().st_size}"
    assert len(made.causes) == MOST
    assert sum(one.count for one in made.causes) == 200
    assert made.lines == 5_201
    assert made.root.node == "op_0"


@pytest.mark.parametrize("thing", ["runs/missing.log", "/no/such/folder", Path("nothing here"), "missing.txt"])
def test_a_path_that_is_not_there_is_refused(thing):
    with pytest.raises(BadInput, match="no log at"):
        explain(thing)


def test_what_is_no_log_is_refused(tmp_path):
    with pytest.raises(BadInput, match="not int"):
        explain(5)
    with pytest.raises(BadInput, match="has no log"):
        explain(tmp_path)
    with pytest.raises(BadInput):
        explain(Path("a\0b"))


def test_a_code_alone_is_explained():
    assert explain("507015").root.code == explain("ret = 507015").root.code == "507015"
    assert explain(" 507899 \n").root.cause == explain("error code 507899").root.cause


# The reader alone

def test_the_reader_needs_the_standard_library_only():
    place = str(Path(kit.__file__).parent / "ascend" / "logs" / "log_reading.py")
    code = ("import sys; before = set(sys.modules); import importlib.util as u;"
            f"s = u.spec_from_file_location('log_reading', {place!r});"
            "m = u.module_from_spec(s); s.loader.exec_module(m);"
            "print(m.read_log('E10001: x', {'codes': {'E10001': {'meaning': 'bad', 'next': 'n'}}})[0]['cause'],"
            "sorted({n.partition('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "bad []"


def test_the_reader_takes_any_lines_and_few_tables():
    rows = read_log(iter(["E10001: a", "failed with ret=5"]), {"codes": {}, "trailers": ["E10001"]}, 1)
    assert rows[0]["code"] == "E10001"
    assert set(rows[0]) == {"code", "cause", "node", "operator", "next", "line", "level", "message", "count", "source"}
    assert read_log("", {"codes": {}}) == []


@settings(max_examples=150)
@given(st.text(max_size=300))
def test_no_text_makes_the_reader_fail(text):
    for row in read_log(text, tables()):
        assert row["cause"]
        assert len(row["message"]) <= LONGEST


@settings(max_examples=60)
@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xfe", b"\xef\xbb\xbf"]))
def test_no_bytes_make_the_stage_fail(tmp_path_factory, data, mark):
    path = tmp_path_factory.getbasetemp() / "any.log"
    path.write_bytes(mark + data)
    assert isinstance(str(explain(path)), str)
