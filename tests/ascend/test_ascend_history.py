"""History: what articles say, and the real command with a reason for each change."""

import shlex
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kit.ascend import AtcOptions, history, translate
from kit.ascend.atc.command import AtcCommand
from kit.ascend.atc.flag_table import choices, flags
from kit.ascend.atc.pasted import commands
from kit.errors import BadInput
from kit.targets.ascend import facts

FINE = "atc --model=a.onnx --framework=5 --output=a --soc_version=Ascend310P3"


def words(text):
    """The last atc command of a text, as a shell parts it."""
    last = [one for one in commands(text, 0, len(text)) if one.words[0].value == "atc"][-1]
    return [word.value for word in last.words]


def shell(text):
    """The words that a shell hands to a FAKE atc, a shell function that prints them."""
    done = subprocess.run(["sh", "-c", "atc() { for word in atc \"$@\"; do printf '%s\\0' \"$word\"; done; }\n" + text],
                          capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def became(text):
    return translate(text).text


def reasons(text):
    return " ".join(change.reason for change in translate(text).changes)


# The page

@pytest.mark.parametrize("name", [
    "--enable_paddle_opt", "--enable_tf_opt", "--quant_type", "--calibrate_tool_path",
    "--precision_mode=allow_quantize", "--auto_tune_mode", "--encrypt_mode", "--private_key", "cann-onnx-fixer",
    "cann-tf-postproc", "cross_framework_checker", "AclModel", "PaddleModel", "TorchConverter", "CANNInferenceSession",
    "ops-nn/converter"])
def test_the_page_has_every_name_with_reason_counterpart_and_source(name):
    claim = next(one for one in history().claims if one.name == name)
    assert all((claim.says, claim.really, claim.instead, claim.sources))


def test_the_page_can_be_printed_and_shown():
    page = history()
    assert "no proof" in page.checked
    assert "kit.ascend.translate" in str(page)
    assert page.html().count("<table>") == 4, "facts and three groups"
    assert sum(len(table.rows) for table in page.tables()) == len(page.claims)


def test_no_name_of_the_page_is_a_flag_that_atc_has():
    for row in facts("history")["entries"]:
        known = flags().get(row["name"])
        assert known is None or known.get("deprecated"), row["name"]


# Commands

ARTICLE = """# 步骤 3
atc \\
  --model=ocr_det_fixed.onnx \\
  --framework=5 \\
  --output=ocr_det_cann \\
  --soc_version=Ascend310P3 \\
  --precision_mode=allow_quantize \\
  --quant_type=INT8 \\
  --enable_paddle_opt=true  # 启用 Paddle 专属融合规则
"""


def test_the_command_of_an_article_becomes_the_real_one_with_reasons():
    made = translate(ARTICLE)
    assert words(made.text) == ["atc", "--model=ocr_det_fixed.onnx", "--framework=5", "--output=ocr_det_cann",
                                "--soc_version=Ascend310P3", "--compression_optimize_conf=calibration.cfg"]
    assert made.text.startswith("# 步骤 3\n")
    assert {change.was for change in made.changes} >= {"--quant_type=INT8", "--enable_paddle_opt=true"}
    assert all(change.reason and change.source for change in made.changes)
    assert "NPU" in " ".join(made.steps)
    assert "AMCT" in str(made)


@pytest.mark.parametrize("text", [
    FINE, f"{FINE} --log=info", "atc -model a.onnx -framework 5 -output a -soc-version Ascend310P3",
    f"{FINE} --input-shape='x:1,3,8,8;y:2'", f"source set_env.sh && sudo {FINE} 2>&1 | tee log.txt",
    "atc --model=$MODEL --framework=5 --output=${OUT} --soc_version=$SOC --input_shape=\"x:$N,3\"",
    "# atc --quant_type=INT8\nls -l", "atc --help", "atc 是一个工具 — “模型转换”", "", "   \n\n",
    "atc --mode=1 --om=a.om --json=a.json", "paddle2onnx --model_dir a --save_file b.onnx",
    f"$ {FINE}", f"{FINE} --soc_version=Ascend950PR_9589".replace(" --soc_version=Ascend310P3", ""),
    "import kit\nmodel = kit.fix('a.onnx')", "print('AclModel is not there')"[:5]])
def test_what_is_fine_stays_to_the_letter(text):
    made = translate(text)
    assert made.text == text
    assert not made.changes
    assert made


@pytest.mark.parametrize(("flags_given", "wanted", "why"), [
    ("--enable_paddle_opt=1", "", "no flag of atc"), ("--enable_tf_opt true", "", "no flag of atc"),
    ("--encrypt_mode=0 --encrypt_key=k", "", "gone from GE 8.5"), ("--auto_tune_mode=\"RL,GA\"", "", "aoe"),
    ("--calibrate_tool_path=/opt/amct", "--compression_optimize_conf=calibration.cfg", "calibration{"),
    ("--precision_mode=int8", "--compression_optimize_conf=calibration.cfg", "never a precision mode"),
    ("--precision_mode=fp16", "--precision_mode_v2=fp16", "a value of --precision_mode_v2"),
    ("--precision_mode_v2=force_fp16", "--precision_mode=force_fp16", "a value of --precision_mode"),
    ("--precision_mode=allow_mix_precison", "--precision_mode=allow_mix_precision", "takes"),
    ("--output_type=fp16", "--output_type=FP16", "takes"), ("--log=ERROR", "--log=error", "takes"),
    ("--disable_reuse_memory=true", "--disable_reuse_memory=1", "takes"),
    ("--input_format=nhwc", "--input_format=ND", "for ONNX"),
    ("--inptu_shape=x:1,3", "--input_shape=x:1,3", "is meant"), ("--make_it_fast=1", "", "stops at an unknown flag"),
    ("--core_type=VectorCore --soc_version=Ascend310B1", "--soc_version=Ascend310B1", "is not for"),
    ("--dynamic_batch_size=4 --input_shape=x:-1,3", "--input_shape=x:4,3", "one profile is a fixed shape"),
    ("--dynamic_image_size=8,9 --input_shape='x:1,3,-1,-1;y:2'", "--input_shape='x:1,3,8,9;y:2'", "fixed shape"),
    ("--dynamic_batch_size=1,2,2 --input_shape=x:-1,3", "--dynamic_batch_size=1,2 --input_shape=x:-1,3", "twice"),
    ("--dynamic_batch_size=1,2 --input_shape=x:1,3", "--dynamic_batch_size=1,2 --input_shape=x:-1,3", "no -1 axis"),
    ("--dynamic_dims='1;2' --input_shape=x:-1", "--dynamic_dims='1;2' --input_shape=x:-1 --input_format=ND", "ND"),
    ("--insert_op_conf=a.cfg --input_format=ND", "--insert_op_conf=a.cfg --input_format=NCHW", "insert_op_conf"),
    ("--precision_mode=force_fp16 --precision_mode_v2=fp16", "--precision_mode_v2=fp16", "the same here"),
    ("--keep_dtype=k.cfg --precision_mode_v2=origin", "--precision_mode_v2=origin", "does nothing"),
    ("--op_compiler_cache_dir=c", "--op_compiler_cache_dir=c --op_compiler_cache_mode=enable", "needs"),
    ("--output_type=n:0:FP16", "--output_type=n:0:FP16 --out_nodes=n:0", "for n:0"),
    ("--log=info --log=debug", "--log=debug", "the last one counts"),
    ("--weight=a.caffemodel", "", "is for Caffe")])
def test_flags_are_repaired_one_by_one(flags_given, wanted, why):
    base = FINE.replace(" --soc_version=Ascend310P3", "") if "soc_version" in flags_given else FINE
    made = translate(f"{base} {flags_given}")
    assert words(made.text) == [*shlex.split(base), *shlex.split(wanted)]
    assert why in reasons(f"{base} {flags_given}")
    assert made


@pytest.mark.parametrize(("given_name", "wanted", "why"), [
    ("ascend310p3", "Ascend310P3", "this spelling"), ("Ascend310P", "Ascend310P3", "npu-smi info shows which"),
    ("310B4", "Ascend310B4", "knows no 310B4"), ("Ascend910b2", "Ascend910B2", "this spelling")])
def test_chips_are_put_right(given_name, wanted, why):
    made = translate(f"atc --model=a.onnx --framework=5 --output=a --soc_version={given_name}")
    assert f"--soc_version={wanted}" in words(made.text)
    assert why in made.changes[0].reason


@pytest.mark.parametrize(("model", "framework", "first", "model_now"), [
    ("det/inference.pdmodel", "paddle", "paddle2onnx --model_dir det --model_filename inference.pdmodel "
     "--params_filename inference.pdiparams --save_file det.onnx --opset_version 17", "det.onnx"),
    ("PP-OCRv4_det_infer", "paddle", "paddle2onnx --model_dir PP-OCRv4_det_infer", "PP-OCRv4_det_infer.onnx"),
    ("det/inference.json", "5", "paddle2onnx --model_dir det --model_filename inference.json", "det.onnx"),
    ("resnet.pth", "5", "# First in Python: torch.onnx.export", "resnet.onnx"),
    ("resnet.pt", "pytorch", "# First in Python: torch.onnx.export", "resnet.onnx"),
    ("net.h5", "3", "python3 -m tf2onnx.convert --keras net.h5 --output net.onnx", "net.onnx"),
    ("net.tflite", "tflite", "python3 -m tf2onnx.convert --tflite net.tflite", "net.onnx")])
def test_what_atc_does_not_read_becomes_onnx_first(model, framework, first, model_now):
    made = translate(f"atc --model={model} --framework={framework} --output=a --soc_version=Ascend310P3")
    above, _, rest = made.text.partition("\natc")
    assert above.startswith(first)
    assert words(f"atc{rest}")[1:3] == [f"--model={model_now}", "--framework=5"]


@pytest.mark.parametrize(("text", "wanted"), [
    ("--model=a.onnx --framework=3", "--framework=5"), ("--model=a.pb --framework=5", "--framework=3"),
    ("--model=a.onnx --framework=onnx", "--framework=5"), ("--model=a.onnx", "--framework=5"),
    ("--model=a.air --framework=MindSpore", "--framework=1")])
def test_the_framework_is_what_the_file_is(text, wanted):
    assert wanted in words(became(f"atc {text} --output=a --soc_version=Ascend310P3"))


def test_a_suffix_on_the_output_and_a_missing_output_are_put_right():
    assert "--output=x" in words(became(FINE.replace("--output=a", "--output=x.om")))
    assert "--output=a" in words(became(FINE.replace(" --output=a", "")))


@pytest.mark.parametrize(("flags_given", "words_said"), [
    ("--dynamic_batch_size=1,2 --dynamic_dims='1;2' --input_shape=x:-1,3 --input_format=ND", "exclude each other"),
    ("--dynamic_dims='1;2' --input_shape=x:-1 --insert_op_conf=a --input_format=ND", "exclude each other"),
    ("--dynamic_dims='1,2;3' --input_shape=x:-1,-1 --input_format=ND", "the same number of sizes"),
    ("--compression_optimize_conf=a --precision_mode_v2=origin", "calibration excludes"),
    ("--modify_mixlist=a.json", "mixed precision"), ("--optypelist_for_implmode=Pow", "op_select_implmode"),
    ("--precision_mode=force_fp32 --precision_mode_v2=fp16", "keep one"), ("--op_debug_level=9", "choose one of 0, 1"),
    ("--input_shape=x:0,3", "above 0")])
def test_what_only_a_person_can_decide_is_named_and_left(flags_given, words_said):
    made = translate(f"{FINE} {flags_given}")
    assert not made
    assert words_said in " ".join(one.reason for one in made.refused)
    assert words(made.text) == shlex.split(f"{FINE} {flags_given}")


@pytest.mark.parametrize("text", ["atc --framework=5 --output=a --soc_version=Ascend310P3",
                                  "atc --model=a.onnx --framework=5 --output=a"])
def test_what_is_missing_and_cannot_be_guessed_is_asked_for(text):
    made = translate(text)
    assert not made
    assert "is missing" in made.refused[0].reason


def test_a_subcommand_goes():
    assert words(became(FINE.replace("atc ", "atc convert ")))[1] == "--model=a.onnx"


def test_int8_for_a_chip_without_calibration_is_sent_to_amct():
    made = translate("atc --model=a.onnx --framework=5 --output=a --soc_version=Ascend910_95 --quant_type=INT8")
    assert "compression_optimize_conf" not in made.text
    assert "AMCT" in " ".join(made.steps)


# How commands are written

BROKEN = """atc --model=a.onnx \\   # 模型
  --framework=5 \\
  # a comment in between
  --output=a \\
  --soc_version=Ascend310P3
"""


@pytest.mark.parametrize("text", [
    BROKEN, "atc --model=a.onnx\n--framework=5\n--output=a\n--soc_version=Ascend310P3\n",
    "atc —model=a.onnx ——framework=5 –output=a --soc_version＝“Ascend310P3”",
    "atc --model=a.onnx ^\n  --framework=5 ^\n --output=a --soc_version=Ascend310P3"])
def test_breaks_that_a_shell_would_not_take_are_read_as_they_were_meant(text):
    made = translate(text)
    assert [word.lstrip("-") for word in shell(made.text)] == [word.lstrip("-") for word in shlex.split(FINE)]
    assert made.changes


def test_comments_inside_a_broken_command_are_kept_above_it():
    assert became(BROKEN).splitlines()[:2] == ["# 模型", "# a comment in between"]


def test_a_bare_semicolon_gets_its_quotes():
    made = translate(f"{FINE} --input_shape=x:1,3,8,8;y:2 ; ls")
    assert shell(made.text)[5] == "--input_shape=x:1,3,8,8;y:2"
    assert made.text.endswith(" ; ls")
    assert "quotes" in made.changes[0].was


def test_the_rest_of_the_line_stays():
    made = translate(f"cd out && ASCEND_GLOBAL_LOG_LEVEL=1 sudo {FINE} --quant_type=INT8 > log.txt 2>&1; echo done")
    assert made.text.startswith("cd out && ASCEND_GLOBAL_LOG_LEVEL=1 sudo atc")
    assert made.text.endswith(" > log.txt 2>&1; echo done")


def test_variables_are_left_alone_and_not_checked():
    made = translate('atc --model=$M --framework=5 --output=$O.om --soc_version=Ascend$C --precision_mode="$P" '
                     "--precision_mode_v2=origin --quant_type=$Q")
    assert {"--soc_version=Ascend$C", "--output=$O.om", "--precision_mode=$P"} <= set(words(made.text))
    assert [change.was for change in made.changes] == ["--quant_type=$Q", ""]


def test_two_commands_are_translated_each():
    made = translate(f"{FINE} --enable_tf_opt=1\n{FINE} --enable_paddle_opt=1\n")
    assert len(made.changes) == 2
    assert made.text == f"{FINE.replace(' --', ' ' + chr(92) + chr(10) + '  --')}\n" * 2


# Tools and Python

def test_tools_that_nobody_has_become_what_there_is():
    made = translate("cann-onnx-fixer --input=a.onnx --output=b.onnx")
    assert "kit.fix('a.onnx'" in made.text
    assert "'b.onnx'" in made.text
    compared = became("python cross_framework_checker.py --onnx a.onnx --om a.om")
    assert compared == "msprobe compare -m offline_model -gp a.onnx -tp a.om -o compared"


@pytest.mark.parametrize(("text", "real"), [
    ('from cann_inference import AclModel\nm = AclModel("det.om")\nout = m.run(x)\n', 'InferSession(0, "det.om")'),
    ("from cann_paddle import PaddleModel\nm = PaddleModel('a')", 'enable_custom_device("npu")'),
    ("from cann.converter import TorchConverter\nTorchConverter(net).convert('n.onnx')", '"n.onnx", opset_version=17'),
    ("from cann.tf_adapter import CANNInferenceSession\ns = CANNInferenceSession()", "npu_device.open().as_default()")])
def test_python_gets_real_classes_and_keeps_the_old_lines_as_comments(text, real):
    made = translate(text)
    code = [row for row in made.text.splitlines() if not row.lstrip().startswith("#")]
    assert any(real in row for row in code)
    compile("\n".join(code), "pasted", "exec")
    assert all(f"# {row.strip()}" in made.text for row in text.splitlines())
    assert translate(made.text).text == made.text


def test_nothing_of_the_text_becomes_a_command_of_its_own():
    fixed = became("cann-onnx-fixer --input=\"a'); evil('.onnx\" --output=b.onnx")
    assert "evil" not in fixed
    exported = became("atc --model='a\nevil.pth' --framework=5 --output=a --soc_version=Ascend310P3")
    assert shell(exported)[1] == "--model=a_evil.onnx"
    commented = became("python ops-nn/converter/run.py \\\n  --x \\\n  --y")
    assert commented.startswith("#")
    assert "\n" not in commented


def test_a_quote_that_is_not_closed_is_refused():
    text = "atc --model='a.pth --framework=5\nls\n"
    made = translate(text)
    assert not made
    assert made.text == text
    assert "not closed" in made.refused[0].reason


def test_modules_of_ops_nn_are_named():
    made = translate("python ops-nn/converter/convert.py --model a.pth\nfrom ops_nn.graph_optimizer import Optimizer\n")
    assert len(made.changes) == 2
    assert all(row.startswith("#") for row in made.text.splitlines())


# Properties

FLAG_VALUES = st.one_of(*[
    st.builds(lambda value, flag=flag: f"{flag}={value}", st.sampled_from(sorted(choices(flag) or {})))
    for flag in ("--log", "--deterministic", "--op_debug_level", "--buffer_optimize", "--jit_compile")])


@settings(max_examples=60)
@given(soc=st.sampled_from(["Ascend310P3", "Ascend310B1", "Ascend910B3", "Ascend910_9391"]),
       precision=st.sampled_from(["fp16", "origin", "mixed_float16", "allow_fp32_to_fp16"]),
       profiles=st.sampled_from(["static", "batch 1,4", "image 8x8 16x16", "dims 1,8,8 2,16,16"]),
       extra=st.dictionaries(st.sampled_from(["--virtual_type", "--display_model_info"]), st.sampled_from(["0", "1"])),
       name=st.sampled_from(["x", "in put", "a:0", "x'y", "n$1"]))
def test_a_command_of_the_kit_needs_no_translation(soc, precision, profiles, extra, name):
    options = AtcOptions(soc_version=soc, precision=precision, profiles=profiles,
                         extra=tuple(f"{flag}={value}" for flag, value in extra.items()))
    shape = {"static": "1,3,8,8", "batch": "-1,3,8,8", "image": "1,3,-1,-1", "dims": "-1,3,-1,-1"}[options.sizes.kind]
    given_flags = {"--model": "m.onnx", "--framework": "5", "--input_shape": f"{name}:{shape};size:2",
                   "--output": "om/m", **options.flags()}
    text = AtcCommand(("atc", *(f"{flag}={value}" for flag, value in given_flags.items())), "m.onnx", soc, "om/m", (),
                      ()).text
    made = translate(text)
    assert made.text == text
    assert not made.changes
    assert made


@settings(max_examples=60)
@given(st.lists(st.one_of(FLAG_VALUES, st.sampled_from([
    "--quant_type=INT8", "--precision_mode=int8", "--dynamic_batch_size=4", "--input_shape=x:-1,3",
    "--output_type=fp16", "--soc_version=310p3", "--framework=paddle", "convert", "--enable_tf_opt", "--outptu=a",
    "--input_shape=x:1;y:2",
    "--dynamic_dims=1;2", "--input_format=nhwc", "--keep_dtype=k", "--precision_mode_v2=origin", "$FLAGS", "'"])),
    max_size=7))
def test_translating_twice_is_translating_once(parts):
    once = translate(" ".join(["atc", "--model=a.onnx", *parts]))
    again = translate(once.text)
    assert again.text == once.text
    assert not again.changes


@settings(max_examples=80)
@given(st.text(max_size=80))
@example("atc --model='a")
@example("atc --a=\\")
@example("atc --input_shape=x:1;")
@example("atc \\\n\\\n--x")
@example("`atc --model=$(ls)`")
def test_no_text_makes_it_fail(text):
    made = translate(text)
    if "atc" not in text:
        assert made.text == text


PLAIN = st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp"))


@settings(max_examples=60)
@given(st.lists(st.text(PLAIN, min_size=1, max_size=8), min_size=1, max_size=5))
def test_quoted_words_are_read_as_a_shell_reads_them(given_words):
    text = " ".join(["atc", *map(shlex.quote, given_words)])
    read, = commands(text, 0, len(text))
    assert [word.value for word in read.words] == ["atc", *given_words]


@pytest.mark.parametrize("thing", [None, 5, "x" * 1_000_001])
def test_what_is_no_command_is_refused(thing):
    with pytest.raises(BadInput, match="takes a command as text"):
        translate(thing)


def test_the_shell_mark_of_a_notebook_cell_is_read_and_stays():
    made = translate("!atc --model=a.onnx --framework=5 --output=a --soc_version=Ascend310P3 --enable_paddle_opt=true")
    assert made.text.startswith("!atc")
    assert "--enable_paddle_opt" not in made.text
    made = translate("! atc --model=./inference.pdmodel --soc_version=Ascend310P3")
    first, second, *_ = made.text.splitlines()
    assert first.startswith("!paddle2onnx")
    assert "--save_file inference.onnx" in first
    assert second.startswith("! atc")


@pytest.mark.parametrize("text", ["", "hello world", "omg --model=a.onnx", "atc", "trtexec --onnx=a.onnx"])
def test_what_holds_no_command_is_not_called_fine(text):
    made = translate(text)
    assert made.text == text
    assert made.title().startswith("Nothing checked")
    assert translate(FINE).title().startswith("Nothing to change")
