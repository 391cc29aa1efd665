"""Neighbours: other ways to an Ascend or Kunlunxin device than ATC, each as one folder that is finished there.

MindSpore Lite converts ONNX on the box; Paddle runs its own models through a custom device (Ascend 910) or an XPU build
(Kunlunxin); XTCL compiles ONNX for Kunlunxin. What is written follows documents and source that are named in the
folder's README. None of it was run on that hardware, and each folder says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from kit.ascend.neighbouring import mindspore_lite as converting
from kit.ascend.neighbouring.folder import Neighbour, Route, write
from kit.errors import BadInput, UnsupportedModel
from kit.inspection.graph import graph_of, onnx_source
from kit.inspection.shape_arithmetic import dtype_name
from kit.model import TensorSpec
from kit.options import Help, Options, Range, expect
from kit.progress import Report, silent
from kit.record import run_stage
from kit.source import NAMES as KINDS
from kit.source import Source, recognise
from kit.targets import ascend

__all__ = ["KunlunxinOptions", "MindSporeLiteOptions", "Neighbour", "PaddleNpuOptions", "kunlunxin", "mindspore_lite",
           "paddle_npu"]

STAGE, VERSION = "neighbour", 1
_PADDLE = ("run_paddle.py", "golden_checks.py")


@dataclass(frozen=True)
class _Common(Options):
    goldens: Annotated[int, Range(1, 1000, 1), Help("Samples that travel with the float model's answers.")] = 8
    cosine: Annotated[float, Range(0, 1, 0.001), Help("Least cosine of an answer there.")] = 0.99
    relative: Annotated[float, Range(0, 10, 0.001), Help("Largest error there, over the largest value.")] = 0.02


@dataclass(frozen=True)
class MindSporeLiteOptions(_Common):
    """How ``converter_lite`` is to convert. Sizes of open axes must be given: fixed, or as profiles."""

    bind: Annotated[tuple[str, ...], Help("Sizes for open axes, such as x=1,3,640,640.")] = ()
    batches: Annotated[tuple[int, ...], Help("Batch sizes as profiles, such as 1, 4, 8; empty: one fixed size.")] = ()
    sizes: Annotated[tuple[str, ...], Help("Picture sizes as profiles, height x width, such as 640x640.")] = ()
    input_format: Annotated[Literal["NCHW", "NHWC", "ND"], Help("Order of the input's axes.")] = "NCHW"
    precision: Annotated[Literal["enforce_fp16", "enforce_fp32", "preferred_fp32", "enforce_origin",
                                 "preferred_optimal"], Help("precision_mode of [ascend_context].")] = "enforce_fp16"
    implementation: Annotated[Literal["high_performance", "high_precision"], Help(
        "Which kernels are taken where there are two.")] = "high_performance"
    output_type: Annotated[Literal["", "FP16", "FP32", "UINT8"], Help("Type of the outputs; empty: its own.")] = ""
    aipp: Annotated[Path | None, Help("A configuration for AIPP, such as kit.ascend.aipp(...) writes.")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batches and self.sizes:
            raise BadInput("batches and sizes exclude each other: one kind of profile at a time.",
                           remedy="give one of them")


@dataclass(frozen=True)
class PaddleNpuOptions(_Common):
    """Where a Paddle model runs as it is, by paddle-custom-npu."""

    chip: Annotated[str, Help("As npu-smi names it: one of the 910 families.")] = "ascend910b3"


@dataclass(frozen=True)
class KunlunxinOptions(_Common):
    """How a Kunlunxin card is to run the model."""

    route: Annotated[Literal["paddle", "xtcl"], Help("paddle: a Paddle model by paddlepaddle-xpu. xtcl: an ONNX model "
                                                     "by Kunlunxin's compiler.")] = "paddle"
    generation: Annotated[Literal["kunlun1", "kunlun2", "p800"], Help(
        "kunlun1: K100, K200. kunlun2: R200, R300, RG800.")] = "kunlun2"
    l3_bytes: Annotated[int | None, Range(0, 1_000_000_000, 1), Help(
        "Of the L3 memory to use; empty: as much as is documented for the generation.")] = None
    api: Annotated[Literal["XpuConfig", "enable_xpu"], Help(
        "How Paddle is told: XpuConfig since 3.0, arguments of enable_xpu before.")] = "XpuConfig"
    precision: Annotated[Literal["fp32", "fp16"], Help("Of XTCL; Paddle keeps that of the model.")] = "fp32"
    bind: Annotated[tuple[str, ...], Help("For XTCL: sizes for open axes, such as x=1,3,224,224.")] = ()


def mindspore_lite(model: Any, options: MindSporeLiteOptions = MindSporeLiteOptions(), *, samples: Any = None,
                   runs: Path | str | None = None, report: Report = silent) -> Neighbour:
    """Write a folder with the model, the configuration and the command that MindSpore Lite's converter takes.

    Args:
        model: an .onnx file, a Model, or a result that carries one.
        options: sizes, precision, kernels.
        samples: Samples or feeds; some travel with the float model's answers.
        runs: where results are kept.
        report: hears the progress.

    Raises:
        BadInput: an axis is open, or profiles that the converter does not take.
    """
    expect(MindSporeLiteOptions, options)
    source = onnx_source(model, "ascend.mindspore_lite")
    profiled = (0,) if options.batches else (2, 3) if options.sizes else ()
    inputs = _specs(source, options.bind, "batches, sizes or bind", profiled)
    route = converting.route(source, inputs, options)
    return _write(source, route, inputs, options, samples, runs, report)


def paddle_npu(model: Any, options: PaddleNpuOptions = PaddleNpuOptions(), *, samples: Any = None,
               runs: Path | str | None = None, report: Report = silent) -> Neighbour:
    """Write a folder with a Paddle model and the script that runs it on an Ascend 910 by paddle-custom-npu.

    Args:
        model: a Paddle inference folder.
        options: the chip.
        samples, runs, report: as for ``mindspore_lite``.

    Raises:
        BadInput: no such chip, or no Paddle model.
        UnsupportedModel: the chip has no Paddle kernels: says which way there is instead.
    """
    expect(PaddleNpuOptions, options)
    source = _paddle_source(model, "paddle_npu")
    facts = ascend.facts("neighbours")["paddle_npu"]
    chip = ascend.known_chips()[ascend.known(options.chip)]
    version = facts["families"].get(chip.get("opp_dir", ""))
    if version is None:
        raise UnsupportedModel(
            f"Paddle does not run on {chip['soc_version']}: {facts['instead']} ({facts['source'][0]}).",
            remedy=f'kit.export(model, kit.ExportOptions(target="ascend310p3")), then kit.compile(exported, '
            f'kit.ascend.BundleOptions(target="{chip["soc_version"].lower()}"))')
    if chip["opp_dir"] == "ascend910" and source.graph.suffix == ".json":
        raise UnsupportedModel(
            f"{chip['soc_version']} needs {version}, and Paddle 2.6 does not read {source.graph.name}, which Paddle 3 "
            "wrote.", remedy="save the model in the old format (FLAGS_enable_pir_api=0, giving .pdmodel), or build an "
            f'.om: kit.compile(exported, kit.ascend.BundleOptions(target="{chip["soc_version"].lower()}"))')
    route = Route("paddle_npu", f"{facts['title']}, {chip['soc_version']}", "python3 run_paddle.py",
                  "runs the golden inputs on device npu, compares, and writes results.json; --runs 100 measures, "
                  "--device cpu tries folder and script on the CPU.", f"{facts['packages']}: {version}",
                  tuple(facts["unverified"]), tuple(facts["source"]), {"device": facts["device"]}, _PADDLE)
    return _write(source, route, (), options, samples, runs, report, {"chip": chip["soc_version"], "software": version})


def kunlunxin(model: Any, options: KunlunxinOptions = KunlunxinOptions(), *, samples: Any = None,
              runs: Path | str | None = None, report: Report = silent) -> Neighbour:
    """Write a folder for a Kunlunxin card: a Paddle model with its script, or an ONNX model for XTCL.

    Args:
        model: a Paddle inference folder, or for route xtcl an ONNX model.
        options: the way, the generation of the card, its L3 memory.
        samples, runs, report: as for ``mindspore_lite``.

    Raises:
        BadInput: more L3 memory than is documented, an open axis, or a model of the wrong kind.
        UnsupportedModel: a generation that XTCL was never seen on.
    """
    expect(KunlunxinOptions, options)
    facts = ascend.facts("neighbours")["kunlunxin"]
    card = facts["generations"][options.generation]
    l3 = _l3(options, card)
    told = {"card": f"{options.generation}: {card['cards']}", "L3 memory": f"{l3} bytes" if l3 else "left alone"}
    if options.route == "paddle":
        source, inputs = _paddle_source(model, "kunlunxin"), ()
        route = _paddle_xpu(options, facts, card, l3)
    else:
        _check_xtcl(options, facts, card)
        source = onnx_source(model, "ascend.kunlunxin")
        inputs = _specs(source, options.bind, "bind")
        route = _xtcl(options, facts, l3)
        told["precision"] = options.precision
    return _write(source, route, inputs, options, samples, runs, report, told)


def _l3(options: KunlunxinOptions, card: Mapping[str, Any]) -> int:
    """Bytes of L3 memory to ask for; 0 leaves it alone."""
    most = card["l3_most"]
    if options.l3_bytes is None:
        return most
    if options.l3_bytes and not most:
        raise BadInput(f"No size of the L3 memory is documented for {card['cards']}, so {options.l3_bytes} cannot be "
                       "checked.", remedy="leave l3_bytes out: Paddle then chooses")
    if options.l3_bytes > most:
        raise BadInput(f"{options.l3_bytes} bytes of L3 memory are more than {card['cards']} has ({most}).",
                       remedy=f"give at most {most}, or leave l3_bytes out")
    return options.l3_bytes


def _paddle_xpu(options: KunlunxinOptions, facts: Mapping[str, Any], card: Mapping[str, Any], l3: int) -> Route:
    names = {"XpuConfig": {"l3_size": l3, "l3_autotune_size": l3}, "enable_xpu": {"l3_size": l3}}[options.api]
    about = facts["paddle"]
    return Route("kunlunxin_paddle", f"{about['title']}, {card['cards']}", "python3 run_paddle.py",
                 "runs the golden inputs on device xpu, compares, and writes results.json; --device cpu tries folder "
                 f"and script on the CPU. {facts['check'][options.generation]} shows whether the card is there.",
                 f"{card['paddle']}, {facts['packages']}", tuple(about["unverified"]), tuple(about["source"]),
                 {"device": "xpu", "xpu": {"api": options.api, "arguments": names if l3 else {}}}, _PADDLE)


def _check_xtcl(options: KunlunxinOptions, facts: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    if card["xtcl"] != "xpu2":
        raise UnsupportedModel(
            f"XTCL was seen on kunlun2 only ({facts['xtcl']['seen'].partition(':')[0]}), not on {card['cards']}.",
            remedy='use route="paddle" for this card, or generation="kunlun2"')


def _xtcl(options: KunlunxinOptions, facts: Mapping[str, Any], l3: int) -> Route:
    about = facts["xtcl"]
    environment = {"XPUSIM_DEVICE_MODEL": "KUNLUN2", "XTCL_L3_SIZE": str(l3)}
    return Route("kunlunxin_xtcl", about["title"], "python3 run_xtcl.py",
                 "compiles the model with XTCL, runs the golden inputs, compares, and writes results.json; --runs 100 "
                 "measures. " + facts["not_there"][:1].upper() + facts["not_there"][1:] + ".",
                 f"{about['what']}. {about['packages']}. Seen: {about['seen']}", tuple(about["unverified"]),
                 tuple(about["source"]), {"xtcl": {"generation": options.generation, "precision": options.precision,
                                                   "target": about["target"]["graph"], "environment": environment}},
                 ("run_xtcl.py", "golden_checks.py"))


def _paddle_source(model: Any, stage: str) -> Source:
    source = recognise(model)
    if source.kind != "paddle":
        raise BadInput(f"ascend.{stage} takes a Paddle model as it is; {source.path} is "
                       f"{KINDS.get(source.kind, 'an ONNX model')}.", remedy="give the Paddle inference folder "
                       "(inference.json or *.pdmodel, with *.pdiparams); for ONNX there are kit.compile, "
                       "kit.ascend.mindspore_lite and kunlunxin with route=\"xtcl\"")
    return source


def _specs(source: Source, bind: tuple[str, ...], options: str, profiled: tuple[int, ...] = ()) -> tuple[
        TensorSpec, ...]:
    """The inputs with their sizes. An axis that nobody bound is refused; -1 stands for one that has profiles."""
    graph = graph_of(source.graph, bind)
    named = {part.partition("=")[0].strip() for part in bind}
    opened = {(name, at) for name, at, _ in graph.dynamic if at in profiled}
    for name, shape in graph.bound.items():
        fixed = [at for at in profiled if (name, at) not in opened]
        if fixed:
            raise BadInput(f"Axis {fixed[0]} of input {name!r} of {source.graph.name} is fixed: "
                           f"{'x'.join(map(str, shape))}. Profiles need it open.",
                           remedy="export the model with an open axis there, or leave the profiles out")
    left = [(name, at, axis) for name, at, axis in graph.dynamic
            if not {name, axis} & named and at not in profiled]
    if left:
        name, at, axis = left[0]
        raise BadInput(f"Axis {at} ({axis}) of input {name!r} of {source.graph.name} is open; this way needs sizes.",
                       remedy=f"give {options}, such as bind=(\"{name}={','.join(map(str, graph.bound[name]))}\",)")
    types = {value.name: value.type.tensor_type.elem_type for value in graph.proto.graph.input}
    return tuple(TensorSpec(name, dtype_name(types[name]), tuple(
        -1 if (name, at) in opened else size for at, size in enumerate(shape))) for name, shape in graph.bound.items())


def _write(source: Source, route: Route, inputs: tuple[TensorSpec, ...], options: _Common, samples: Any,
           runs: Path | str | None, report: Report, words: Mapping[str, str] | None = None) -> Neighbour:
    told = words if words is not None else converting.words(options)
    tolerances = {"cosine": options.cosine, "relative": options.relative}

    def work(folder: Path, report: Report) -> Neighbour:
        return write(folder, source, route, inputs, samples, options.goldens, tolerances, told, report)

    fed = samples if samples is None or hasattr(samples, "digest") else list(samples)
    return run_stage(STAGE, Neighbour, work, options=options, name=source.name, version=VERSION, runs=runs,
                     report=report, inputs={"model": source, "samples": fed, "facts": ascend.facts("neighbours")})
