"""FAKE ``atc``: reads its flags as the real one does, looks every operator up, refuses with the documented codes.

What it accepts it writes as a FAKE .om (``rehearsing/om.py``). Rules between flags, parsers by opset and chips are the
carried facts of ``kit/targets/ascend``: what they do not know, this does not either. It never compiles an operator.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from kit.ascend.box.rehearsing import LABEL, environment

START = "ATC start working now, please wait for a moment."
SUCCESS = "ATC run success, welcome to the next use."
FAILED = "ATC run failed, Please check the detail log, Try 'atc --help' for more information"
OUTPUT_TYPES = {"FP32": "float32", "FP16": "float16", "UINT8": "uint8", "INT8": "int8", "INT32": "int32",
                "INT64": "int64", "DOUBLE": "float64"}
WRITTEN = ("--output", "--check_report", "--json")
EXACT = ("must_keep_origin_dtype", "origin")
LEFT_BEHIND = "kernel_meta"  # where the real one leaves its kernels: in the folder it is started in


class Refused(Exception):
    """ATC ends with an error; the text as it would stand in the log."""


def main(argv: list[str]) -> int:
    """``atc --flag=value ...``."""
    print(f"{LABEL} atc of the migration notebook kit: no part of CANN, it compiles nothing.\n{START}", flush=True)
    try:
        given = parsed(argv)
        build(given)
    except Refused as error:
        print(f"{FAILED}\n{error}", flush=True)
        return 1
    print(SUCCESS, flush=True)
    return 0


def parsed(argv: list[str]) -> dict[str, str]:
    """Flags as the table spells them, with their values: ``--flag=value`` or ``--flag value``."""
    from kit.ascend.atc.flag_table import flags, spelt

    found, words = {}, iter(argv)
    for word in words:
        name, equal, value = word.partition("=")
        if not word.startswith("-") or spelt(name) not in flags():
            raise Refused(f"ERROR: unknown command line flag '{name.lstrip('-')}'")
        found[spelt(name)] = value if equal else next(words, "")
    return found


def build(given: dict[str, str]) -> None:
    """Check, then write the FAKE .om and what ATC leaves in its folder.

    Raises:
        Refused: with the documented code.
    """
    from kit.ascend.atc.flag_rules import problems
    from kit.ascend.atc.flag_table import chip
    from kit.errors import BadInput
    from kit.model import read

    for name in ("--model", "--output", "--framework", "--soc_version"):
        if not given.get(name):
            raise Refused(f"E10007: [PID: 1] required flag [{name}] is missing or empty.")
    try:
        wanted = chip(given["--soc_version"])
    except BadInput as error:
        raise Refused(f"E10001: Value [{given['--soc_version']}] for parameter [--soc_version] is invalid. "
                      f"{error.remedy}") from error
    for problem in problems(given, wanted):
        raise Refused(f"{problem.error or 'E10001'}: {problem.what}. Solution: {problem.remedy}")
    _files(given)
    path = Path(given["--model"])
    if given["--framework"] != "5":
        raise Refused(f"{LABEL} atc reads ONNX only (--framework=5); the real one reads Caffe, TensorFlow and AIR too.")
    try:
        model = read(path, weights=False)
    except BadInput as error:
        raise Refused(f"E13005: Failed to parse file [{path}]. {error.what}") from error
    _graph(model, given["--soc_version"].lower())
    about = _about(given, model, path, wanted.soc_version)
    _written(given["--output"], about, path)


def _files(given: dict[str, str]) -> None:
    from kit.ascend.atc.flag_table import flags

    for name, value in given.items():
        if flags()[name].get("kind") == "file" and name not in WRITTEN and not Path(value).is_file():
            raise Refused(f"E13000: Path [{value}] of parameter [{name}] does not exist.")
    conf = given.get("--compression_optimize_conf", "")
    if conf:
        for folder in re.findall(r"input_data_dir\s*:\s*[\"']?([^\"'\s}]+)", Path(conf).read_text(encoding="utf-8")):
            if not Path(folder.strip(",")).exists():
                raise Refused(f"E10410: {folder} of input_data_dir in [{conf}] does not exist.")


def _graph(model: Any, soc: str) -> None:
    """What the ONNX parser of ATC refuses, and what it crashes on."""
    from kit.ascend.atc.atc_model import nodes_of
    from kit.ascend.box.rehearsing.amct_onnx import PRODUCER
    from kit.inspection.graph import Node
    from kit.targets.ascend import AscendTarget, chips

    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) > 1:
        raise Refused(f"E16005: The model has {len(versions)} [domain_version] fields, but only one is allowed.")
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    names = Counter(node.name for node in model.graph.node if node.name)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise Refused(f"E13009: Op name [{twice[0]}] is not unique.")
    target = AscendTarget(soc if soc in chips() else "ascend310p3")  # the parser is the same for every chip
    refused = []
    for node in nodes_of(model.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        version = opsets.get(domain, versions[0] if versions else 0)
        about = Node(node.name, node.op_type, domain, version, (), (), {}, None)
        quantized = node.op_type in ("QuantizeLinear", "DequantizeLinear") and model.producer_name == PRODUCER
        if not quantized and target.looked_up(about, version).state == "not":
            kind = f"{domain or 'ai.onnx'}::{version}::{node.op_type}"
            refused.append(f"E16002: No parser is registered for Op [{node.name or node.output[0]}, optype [{kind}]].")
        if node.op_type == "NonMaxSuppression" and len([name for name in node.input if name]) < 5:
            sys.stdout.flush()
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)  # so does ATC 9.0.1, without a word
    if refused:
        raise Refused("\n".join(refused))


# ---- what is built ------------------------------------------------------------------------------------------------


def _about(given: dict[str, str], model: Any, path: Path, soc: str) -> dict[str, Any]:
    from kit.ascend.atc.flag_rules import profiles_of, shapes_of
    from kit.ascend.box.rehearsing import om
    from kit.model import Model

    specs = Model.open(path).inputs
    asked = shapes_of(given.get("--input_shape", "")) if given.get("--input_shape") else {}
    for name in asked:
        if name not in {spec.name for spec in specs}:
            raise Refused(f"E10016: Operator name [{name}] of parameter [--input_shape] is not in the model.")
    flag = next((one for one in given if one.startswith("--dynamic_")), "")
    kind = {"": "static", "--dynamic_batch_size": "batch", "--dynamic_image_size": "image",
            "--dynamic_dims": "dims"}[flag]
    inputs = [{"name": spec.name, "dtype": spec.dtype, "shape": _shape(spec, asked.get(spec.name), kind)}
              for spec in specs]
    profiles = [tuple(value) for value in profiles_of(flag, given[flag])] if flag else [()]
    mode = given.get("--precision_mode", given.get("--precision_mode_v2", ""))
    about = {"soc": soc, "cann": environment()[1], "inputs": inputs, "half": mode not in EXACT, "aipp": {},
             "profiles": {"kind": kind, "values": profiles if flag else []}, "outputs": [], "shapes": []}
    runner = om.session(path)
    for profile in profiles:
        shapes = om.filled(inputs, kind, profile)
        feeds = {spec["name"]: np.zeros(shapes[spec["name"]], spec["dtype"]) for spec in inputs}
        try:
            answers = runner.run(None, feeds)
        except Exception as error:  # of many kinds; each means that the model does not take this profile
            raise Refused(f"E89999: inner error: the model does not take {shapes}. {str(error)[:300]}") from error
        about["shapes"].append([list(answer.shape) for answer in answers])
    about["outputs"] = _outputs(given, model, answers, about["shapes"])
    if given.get("--insert_op_conf"):
        _aipp(about, Path(given["--insert_op_conf"]).read_text(encoding="utf-8"), given, soc)
    return about


def _shape(spec: Any, asked: tuple[str, ...] | None, kind: str) -> list[int]:
    """Sides of an input; -1 is left where a profile fills it."""
    sides = asked if asked is not None else [str(side) if isinstance(side, int) else "-1" for side in spec.shape]
    if asked is not None and len(asked) != len(spec.shape):
        raise Refused(f"E10011: --input_shape gives [{spec.name}] {len(asked)} sides, it has {len(spec.shape)}.")
    for want, have in zip(sides, spec.shape, strict=True):
        if isinstance(have, int) and want != str(have):
            raise Refused(f"E10011: --input_shape gives [{spec.name}] {','.join(sides)}, the model has "
                          f"{','.join(map(str, spec.shape))}.")
    if "~" in "".join(sides) or (kind == "static" and "-1" in sides):
        raise Refused(f"{LABEL} atc does not build open shapes ({spec.name}: {','.join(sides)}); the real one does for "
                      "some chips, slowly.")
    return [int(side) for side in sides]


def _outputs(given: dict[str, str], model: Any, answers: list[np.ndarray], shapes: list[list[list[int]]]
             ) -> list[dict[str, Any]]:
    made, kind = [], given.get("--output_type", "")
    nodes = {name: node for node in model.graph.node for name in node.output}
    for number, (value, answer) in enumerate(zip(model.graph.output, answers, strict=True)):
        seen = [of_profile[number] for of_profile in shapes]
        sides = [sides[0] if len(set(sides)) == 1 else -1 for sides in zip(*seen, strict=True)]
        dtype = OUTPUT_TYPES.get(kind, answer.dtype.name) if answer.dtype.kind == "f" else answer.dtype.name
        node = nodes.get(value.name)
        port = list(node.output).index(value.name) if node else 0
        called = f"{(node.name if node else '') or value.name}:{port}:{value.name}"
        made.append({"name": value.name, "called": called, "dtype": dtype, "shape": sides})
    return made


def _aipp(about: dict[str, Any], text: str, given: dict[str, str], soc: str) -> None:
    """The inputs with AIPP take bytes, channels last."""
    from kit.ascend.preprocessing.aipp_reading import read_aipp
    from kit.errors import BadInput

    fp16 = given.get("--input_fp16_nodes", "").split(";")
    try:
        reading = read_aipp(text, soc_version=soc)
    except BadInput as error:
        raise Refused(f"E10052: The AIPP configuration is invalid: {error.what}") from error
    if reading.mistakes:
        first = reading.mistakes[0]
        raise Refused(f"E10052: The AIPP configuration is invalid: {first.key} in line {first.line}: {first.why}")
    for number, block in enumerate(reading.blocks):
        rank = int(block.get("related_input_rank", 0))
        if rank >= len(about["inputs"]) or len(about["inputs"][rank]["shape"]) != 4:
            raise Refused(f"E10052: related_input_rank {rank} is no picture of this model.")
        spec = about["inputs"][rank]
        if spec["name"] in fp16:
            raise Refused(f"E10034: Input [{spec['name']}] has AIPP and is in --input_fp16_nodes.")
        batch, channels, height, width = spec["shape"]
        spec.update(dtype="uint8", shape=[batch, int(block.get("src_image_size_h") or height),
                                          int(block.get("src_image_size_w") or width), channels])
        about["aipp"][spec["name"]] = {"text": text, "block": number}


def _written(output: str, about: dict[str, Any], model: Path) -> None:
    from kit.ascend.box.rehearsing import om

    target = Path(output)
    if not target.parent.is_dir():
        raise Refused(f"E13000: Path [{target.parent}] of parameter [--output] does not exist.")
    ending = f"_{platform.system().lower()}_{platform.machine()}.om" if environment()[2] == "host-code" else ".om"
    om.write(target.with_name(target.name + ending), about, model)
    Path(LEFT_BEHIND).mkdir(exist_ok=True)
    (Path(LEFT_BEHIND) / f"{LABEL}_kernel.json").write_text("{}\n", encoding="utf-8")
    Path("fusion_result.json").write_text(f'{{"{LABEL}": "no fusion was done"}}\n', encoding="utf-8")
