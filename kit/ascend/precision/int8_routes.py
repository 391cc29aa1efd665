"""The ways to INT8 on Ascend that exist: AMCT on the float model, AMCT on a QDQ model, atc's own calibration.

ATC reads no QuantizeLinear. ``amct_onnx`` (a package of CANN, it needs no NPU) writes a ``*_deploy_model.onnx`` that it
reads; atc can also calibrate by itself, on a host with an NPU. Here come the files and commands of each; the models
themselves are made where those tools are.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from kit.ascend.chip_family import family_of
from kit.ascend.precision.amct_layers import AmctLayer, Layers, name_nodes
from kit.ascend.precision.calibration_files import CalibrationFiles
from kit.ascend.precision.own_calibration import CompressionConf, compression_conf
from kit.ascend.precision.precision_evidence import ranking_evidence
from kit.ascend.precision.qat_route import QatCheck, QatModel, qat_check, qat_model
from kit.calibration import model_of
from kit.card import Card, Listing, Table
from kit.errors import BadInput, UnsupportedModel
from kit.inspection.findings import counted
from kit.layers import Sensitivity, suggest_float
from kit.options import Help, Options, Range, expect
from kit.targets.ascend import facts

__all__ = ["AmctConfig", "AmctOptions", "CompressionConf", "Int8Steps", "QatCheck", "QatModel", "amct_config",
           "amct_steps", "compression_conf", "name_nodes", "qat_check", "qat_model", "qat_steps"]

_AFTERWARDS = ("An INT8 model takes no dynamic profiles of atc.",
               "On the precision_mode for a deploy model the sources do not agree: leave it out first.")


@dataclass(frozen=True)
class AmctOptions(Options):
    """How AMCT rounds; the defaults are its own."""

    reader: Annotated[
        Literal["amct_onnx", "atc"], Help("who reads the file: the two differ in keys and in names of layer types")
    ] = "amct_onnx"
    soc_version: Annotated[str, Help("the chip, as npu-smi names it")] = "Ascend310P3"
    batches: Annotated[int, Range(1, 10_000), Help("files of calibration data that are run (amct_onnx)")] = 1
    activation_offset: Annotated[bool, Help("data may lie off zero: asymmetric INT8")] = True
    channel_wise: Annotated[bool, Help("one scale for each output channel of convolution weights")] = True
    weight_bits: Annotated[Literal[8, 7, 6], Help("of weights; fewer for convolutions of 4 axes only")] = 8
    search_start: Annotated[float, Range(0.01, 1), Help("ranges are tried from so much of the measured one")] = 0.7
    search_end: Annotated[float, Range(1, 10), Help("up to so much")] = 1.3
    search_step: Annotated[float, Range(0.0001, 1), Help("in such steps")] = 0.01
    max_percentile: Annotated[float, Range(0.5, 1), Help("share of the values that counts for the upper end")] = \
        0.999999
    min_percentile: Annotated[float, Range(0.5, 1), Help("the same for the lower end")] = 0.999999
    do_fusion: Annotated[bool, Help("fold BatchNormalization into convolutions first")] = True
    joint_quant: Annotated[bool, Help("one scale for both inputs of an addition: faster, less accurate")] = False
    keep_float: Annotated[tuple[str, ...], Help("names of nodes that stay in float")] = ()


@dataclass(frozen=True)
class AmctConfig(Card):
    """AMCT's configuration for a model.

    Attributes:
        text: of the file.
        layers: every node that AMCT looks at, with why it stays in float.
        kept: nodes listed in skip_layers -> the evidence.
        model_name: the file it is for.
        options: see there.
        notes: sentences for the reader.
    """

    text: str = field(repr=False)
    layers: tuple[AmctLayer, ...] = field(repr=False)
    kept: dict[str, str]
    model_name: str
    options: AmctOptions
    notes: tuple[str, ...] = ()

    def title(self) -> str:
        whole = sum(not layer.why_float for layer in self.layers)
        return (f"AMCT makes {whole - len(self.kept)} layers of {self.model_name} INT8, {len(self.kept)} are kept in "
                "float")

    def facts(self) -> dict[str, object]:
        counts = Counter(layer.operator for layer in self.layers if not layer.why_float and layer.node not in self.kept)
        return {"INT8": ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing",
                "read by": self.options.reader,
                **({"note": " ".join(self.notes)} if self.notes else {})}

    def tables(self) -> tuple[Table, ...]:
        why = Counter((layer.operator, layer.why_float) for layer in self.layers if layer.why_float)
        rows = tuple((count, *kind) for kind, count in why.most_common())
        kept = tuple(self.kept.items())
        return (*((Table("Kept in float", ("node", "evidence"), kept),) if kept else ()),
                Table("AMCT leaves in float", ("nodes", "operator", "why"), rows),
                Listing("Configuration", self.text))


@dataclass(frozen=True)
class Int8Steps(Card):
    """Commands for the machine with AMCT, in order.

    Attributes:
        route: ``amct`` or ``qat``.
        argv: one list a command.
        outputs: what comes out: its part -> path.
        notes: sentences for the reader.
    """

    route: str
    argv: tuple[tuple[str, ...], ...]
    outputs: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def deploy(self) -> str:
        """The model that atc reads."""
        return self.outputs["deploy"]

    @property
    def text(self) -> str:
        """The commands for a shell."""
        return "\n".join(" \\\n    ".join(_shell(word) for word in words) for words in self.argv) + "\n"

    def title(self) -> str:
        return f"INT8 by {self.route}: {len(self.argv)} command{'s' * (len(self.argv) != 1)}, then atc on {self.deploy}"

    def facts(self) -> dict[str, object]:
        meant = facts("amct")["outputs_note"]
        return {**{path: meant[part] for part, path in self.outputs.items()},
                **({"note": " ".join(self.notes)} if self.notes else {})}

    def tables(self) -> tuple[Table, ...]:
        return (Listing("Commands", self.text),)


def amct_config(model: Any, options: AmctOptions = AmctOptions(), *, ranking: Sensitivity | None = None,
                share: float = 0.8, target: float | None = None, groups: int | None = None) -> AmctConfig:
    """AMCT's configuration with the layers to keep in float: those asked for and those a ranking names.

    Args:
        model: the float model that AMCT will read: a path, a Model or a result that carries one.
        options: see there.
        ranking: of ``kit.sensitivity``; the dearest layers are kept in float.
        share: until this share of the noise is gone.
        target: instead, until the output should reach so many dB.
        groups: instead, so many layers.

    Raises:
        BadInput: an unknown node; or nothing would be left in INT8.
        UnsupportedModel: AMCT can make no layer of this model INT8.
    """
    expect(AmctOptions, options)
    model = model_of(model)
    layers = Layers(model, family_of(options.soc_version))
    possible = {layer.node for layer in layers.layers if not layer.why_float}
    if not possible:
        raise UnsupportedModel(f"AMCT can make nothing of {model.path.name} INT8.", remedy="leave it in fp16",
                               detail="\n".join(f"{one.operator} {one.node!r}: {one.why_float}"
                                                for one in layers.layers))
    evidence = {name: "asked for" for name in options.keep_float}
    if ranking is not None:
        evidence |= ranking_evidence(ranking, suggest_float(ranking, share=share, target=target, groups=groups))
    layers.check_names(evidence)
    kept = {name: why for name, why in evidence.items() if name in possible}
    if len(kept) == len(possible):
        raise BadInput(f"All {len(possible)} layers that AMCT could make INT8 would be kept in float.",
                       remedy="keep fewer: a smaller share, or fewer names")
    notes = []
    beside = [name for name in options.keep_float if name not in possible]
    if beside:
        notes.append(f"Not listed, because AMCT leaves them in float anyway: {', '.join(beside)}.")
    if "" in possible:
        notes.append("Layers without a name can be kept in float only by type: see kit.ascend.name_nodes.")
    if model.opset > facts("amct")["opset"]["best"]:
        notes.append(_opset_note(model.opset))
    return AmctConfig(_amct_text(options, kept, layers), layers.layers, kept, model.path.name, options, tuple(notes))


def amct_steps(model: str, files: CalibrationFiles, config: AmctConfig, *, config_path: str = "config/amct.cfg",
               save: str = "amct/model", data: str = "calibration") -> Int8Steps:
    """The command that calibrates and writes the INT8 model for atc. All paths are those on the machine with AMCT.

    Args:
        model: the float .onnx file.
        files: calibration samples.
        config: written to ``config_path``.
        config_path: see there.
        save: where results go: folder and the first part of their names.
        data: the folder of ``files``.

    Raises:
        BadInput: the configuration asks for more batches than there are, or is for atc.
    """
    if config.options.reader != "amct_onnx":
        raise BadInput("This configuration is written for atc.", remedy="AmctOptions(reader='amct_onnx')")
    there = len(files.of(files.inputs[0].name))
    if config.options.batches > there:
        raise BadInput(f"The configuration asks for {config.options.batches} batches; there are {there} files an "
                       "input.", remedy=f"AmctOptions(batches={there})")
    folders = [f"{data}/{files.of(spec.name)[0].path.rpartition('/')[0]}" for spec in files.inputs]
    argv = ("amct_onnx", "calibration", "--model", model, "--save_path", save, "--input_shape", files.input_shape(),
            "--data_dir", ";".join(folders), "--data_types", files.data_types(), "--calibration_config", config_path)
    return Int8Steps("amct", (argv,), _outputs(save), (
        "amct_onnx is a package of its own beside CANN; it runs on the processor and needs no NPU.", *_AFTERWARDS,
        f"Calibrated on {counted(there, 'file')} of {counted(files.batch, 'sample')}; "
        f"preprocessing {files.preprocess[:12] or 'of plain feeds'}."))


def qat_steps(model: Any, path: str, *, save: str = "amct/model") -> Int8Steps:
    """The command that turns a QDQ model into one for atc.

    Args:
        model: the QDQ model, for its conditions: a path, a Model or a result that carries one.
        path: where that file lies on the machine with AMCT.
        save: where results go: folder and the first part of their names.

    Raises:
        UnsupportedModel: it does not meet AMCT's conditions; names the nodes.
    """
    found = qat_check(model)
    if not found:
        first = found.problems[0]
        raise UnsupportedModel(
            f"AMCT cannot convert {found.model_name}: {first.operator} {first.node!r}: {first.what}"
            f"{f', and {len(found.problems) - 1} more' if len(found.problems) > 1 else ''}.",
            remedy="write it in the form that AMCT takes: kit.ascend.qat_model(model, path)",
            detail="\n".join(f"{one.operator} {one.node!r}: {one.what}" for one in found.problems))
    argv = ("amct_onnx", "convert", "--model", path, "--save_path", save)
    return Int8Steps("qat", (argv,), {part: made for part, made in _outputs(save).items() if part != "fusion"},
                     (*found.notes, *_AFTERWARDS))


def _amct_text(options: AmctOptions, kept: dict[str, str], layers: Layers) -> str:
    data = facts("amct")
    dialect = data["dialects"][options.reader]
    lines = [f"# for {layers.name}, read by {options.reader}"]
    lines += [f"batch_num : {options.batches}"] if dialect["batch_num"] else []
    lines += ["version : 1"] if dialect["version"] else []
    lines += [f"activation_offset : {_bool(options.activation_offset)}",
              f"joint_quant : {_bool(options.joint_quant)}", f"do_fusion : {_bool(options.do_fusion)}"]
    lines += [f'skip_layers : "{_escaped(name)}"' for name in kept]
    bits = [f"        quant_bits : {options.weight_bits}"] if options.weight_bits != 8 else []
    lines += ["common_config : {", "    arq_quantize : {", f"        channel_wise : {_bool(options.channel_wise)}",
              *bits, "    }", "    ifmr_quantize : {",
              f"        search_range_start : {options.search_start:g}",
              f"        search_range_end : {options.search_end:g}", f"        search_step : {options.search_step:g}",
              f"        max_percentile : {options.max_percentile:.10g}",
              f"        min_percentile : {options.min_percentile:.10g}", "    }", "}"]
    if options.channel_wise:  # a scale a channel is there for convolutions alone
        present = {layer.operator for layer in layers.layers if not layer.why_float}
        for operator in sorted(name for name in present if not data["layers"][name]["channel_wise"]
                               and name != "AveragePool"):
            types = data["layers"][operator]["ascend"] if options.reader == "atc" else [operator]
            for kind in types:
                lines += ["override_layer_types : {", f'    layer_type : "{kind}"', "    calibration_config : {",
                          "        arq_quantize : {", "            channel_wise : false", "        }", "    }", "}"]
    return "\n".join(lines) + "\n"


def _outputs(save: str) -> dict[str, str]:
    return {part: form.format(prefix=save) for part, form in facts("amct")["outputs"].items()}


def _opset_note(opset: int) -> str:
    about = facts("amct")["opset"]
    return f"The model has opset {opset}; {about['why']}: {about['best']} is safer for older CANN."


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _shell(word: str) -> str:
    return word if re.fullmatch(r"[\w./=,:+-]+", word) else "'" + word.replace("'", "'\\''") + "'"
