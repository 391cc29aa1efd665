"""What MindSpore Lite's ``converter_lite`` is given: its command line, and the ``[ascend_context]`` of its file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kit.ascend.neighbouring.folder import Route
from kit.errors import BadInput
from kit.model import TensorSpec
from kit.targets import ascend

if TYPE_CHECKING:
    from kit.ascend.neighbours import MindSporeLiteOptions
    from kit.source import Source

SCRIPT, CONFIG, AIPP = "convert.sh", "convert.cfg", "aipp.cfg"
CONVERT = """#!/bin/sh
# Converts the model with MindSpore Lite; put its tools/converter/converter/ on the PATH and its
# tools/converter/lib/ into LD_LIBRARY_PATH first, and source CANN's set_env.sh.
set -eu
cd "$(dirname "$0")"
mkdir -p mindir
status=0
{command} >convert.log 2>&1 || status=$?
cat convert.log
if [ "$status" -eq 0 ] && grep -q {success} convert.log; then
    echo "converted: mindir/{name}.mindir"
else
    echo "not converted: the log above says why (convert.log)" >&2
    exit 1
fi
"""


def route(source: Source, inputs: Sequence[TensorSpec], options: MindSporeLiteOptions) -> Route:
    """Command and configuration for an ONNX file.

    Raises:
        BadInput: profiles that the converter does not take.
    """
    facts = ascend.facts("neighbours")["mindspore_lite"]
    name, profiles = source.name, _profiles(inputs, options, facts["profiles"])
    argv = ["converter_lite", "--fmk=ONNX", f"--modelFile=model/{source.graph.name}", f"--outputFile=mindir/{name}",
            "--saveType=MINDIR", "--optimize=ascend_oriented", f"--configFile={CONFIG}"]
    if options.input_format != "ND":
        argv.append(f"--inputDataFormat={options.input_format}")
    if not profiles:
        argv.append("--inputShape=" + ";".join(f"{s.name}:{','.join(map(str, s.shape))}" for s in inputs))
    command = " \\\n    ".join(shlex.quote(word) for word in argv)
    lines = [f"input_format={options.input_format}", *profiles, f"precision_mode={options.precision}",
             f"op_select_impl_mode={options.implementation}"]
    lines += [f"output_type={options.output_type}"] if options.output_type else []
    lines += [f"insert_op_config_file_path={AIPP}"] if options.aipp else []
    texts = {SCRIPT: CONVERT.format(command=command, success=shlex.quote(facts["success"]), name=name),
             CONFIG: "[ascend_context]\n" + "\n".join(lines) + "\n"}
    return Route("mindspore_lite", facts["title"], f"sh {SCRIPT}",
                 f"calls converter_lite with {CONFIG}; it has worked when the log ends with \"{facts['success']}\" and "
                 f"mindir/{name}.mindir is there. The .mindir is then run by MindSpore Lite's own runtime.",
                 facts["needs"], tuple(facts["unverified"]), tuple(facts["source"]),
                 {"converter": {"argv": argv, "success": facts["success"]}}, (), texts,
                 {AIPP: options.aipp} if options.aipp else {})


def words(options: MindSporeLiteOptions) -> dict[str, str]:
    """The options, for the card."""
    return {"precision": options.precision, "kernels": options.implementation,
            "profiles": ", ".join(map(str, options.batches or options.sizes)) or "none: fixed sizes"}


def _profiles(inputs: Sequence[TensorSpec], options: MindSporeLiteOptions, facts: dict) -> list[str]:
    """``input_shape`` and ``dynamic_dims``; nothing for fixed sizes."""
    count = len(options.batches or options.sizes)
    if not count:
        return []
    if count > facts["most"]:
        raise BadInput(f"{count} profiles are more than the {facts['most']} that the converter takes.",
                       remedy="give fewer")
    given = options.batches or options.sizes
    if len(set(given)) < count:
        raise BadInput(f"{', '.join(map(str, given))}: a profile is given twice.", remedy="give each once")
    axes, entries = ((0,), _batches(options.batches, facts)) if options.batches else ((2, 3), _sizes(options.sizes))
    shapes = []
    for spec in inputs:
        if len(spec.shape) <= axes[-1] or (options.sizes and options.input_format != "NCHW"):
            raise BadInput(f"Input {spec.name!r} has the shape {list(spec.shape)} in {options.input_format}: these "
                           "profiles do not fit it.", remedy="profiles of picture sizes are for NCHW inputs")
        shape = ",".join("-1" if at in axes else str(size) for at, size in enumerate(spec.shape))
        shapes.append(f"{spec.name}:[{shape}]")
    return [f"input_shape={';'.join(shapes)}", f"dynamic_dims={';'.join([','.join(entries)] * len(inputs))}"]


def _batches(batches: Sequence[int], facts: dict) -> list[str]:
    wrong = [n for n in batches if not 1 <= n <= facts["largest_batch"]]
    if wrong:
        raise BadInput(f"A batch of {wrong[0]} cannot be a profile.", remedy=f"give 1 to {facts['largest_batch']}")
    return [f"[{n}]" for n in batches]


def _sizes(sizes: Sequence[str]) -> list[str]:
    found = [re.fullmatch(r"(\d+)x(\d+)", text.strip()) for text in sizes]
    for text, match in zip(sizes, found, strict=True):
        if match is None or "0" in match.groups():
            raise BadInput(f"{text!r} is no picture size.", remedy="write height x width, such as 640x640")
    return [f"[{match[1]},{match[2]}]" for match in found if match]
