"""Compile for an Ascend chip: one folder with everything that one command on the box needs; built here where atc is.

Sizes, audit, AIPP and the atc command are checked before anything large is written; then come the model, the golden
inputs with the float answers, calibration data, the script and the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.ascend.bundling.building import atc_here, build
from kit.ascend.bundling.bundle import (
    SCRIPT,
    Bundled,
    BundleOptions,
    parts_of,
    write_manifest,
    write_readme,
    write_script,
)
from kit.ascend.bundling.bundle_config import Config, configured
from kit.ascend.bundling.golden_samples import (
    MANIFEST,
    Golden,
    Goldens,
    Named,
    at_size,
    chosen,
    feed_digest,
    names_of,
    stored_preprocess,
    subset,
    write_golden,
)
from kit.ascend.bundling.input_shapes import InputShapes, input_shapes
from kit.ascend.precision.qat_route import qat_check, qat_model
from kit.comparison import Parity, TensorParity, worst
from kit.compiled_files import sha256
from kit.compiling.result import Compiled, SessionSettings
from kit.errors import BadInput, UnsupportedModel
from kit.graph import files
from kit.graph.result import Fixed
from kit.inspection.findings import Finding, counted
from kit.model import Model, operator_counts
from kit.operators import Audit, AuditOptions, audit
from kit.progress import Report, Tick, part, track
from kit.record import digest
from kit.runner import open_runner
from kit.samples import Samples, generated
from kit.targets.ascend import breaker_source

EXPECTED = {"qat": ("QuantizeLinear", "DequantizeLinear")}  # AMCT takes these away before atc sees the model
STEPS = 5
MADE_UP = ("The golden inputs are made up, because no samples were given: they tell whether the chip computes as "
           "the model does, not how good it is at its task.")


@dataclass(frozen=True)
class Given:
    """What compile() was given beside the model.

    Attributes:
        source: the model that a fix was made from; None where the model is no result of fix.
        samples: Samples or feeds.
        calibration: of ``kit.calibrate``.
        sensitivity: of ``kit.sensitivity``.
        parity: rows of the fix, measured when it was made.
        checked_on: what they were measured on.
    """

    source: Model | None = None
    samples: Any = None
    calibration: Any = None
    sensitivity: Any = None
    parity: tuple[TensorParity, ...] = field(default=(), repr=False)
    checked_on: str = ""

    @classmethod
    def of(cls, model: Any, samples: Any, calibration: Any, sensitivity: Any) -> Given:
        """With what ``model`` tells of where it comes from, if it is a result of fix."""
        if not isinstance(model, Fixed):
            return cls(None, samples, calibration, sensitivity)
        return cls(model.source, samples, calibration, sensitivity, model.parity, model.checked_on)

    def inputs(self) -> dict[str, Any]:
        """By name, for the fingerprint."""
        samples = self.samples
        return {"source": self.source if self.source and self.source.path.is_file() else None,
                "samples": samples if samples is None or hasattr(samples, "digest") else list(samples),
                "calibration": self.calibration, "sensitivity": self.sensitivity}

    def golden(self, shapes: InputShapes, options: BundleOptions, model: Model) -> Samples | Named:
        """The samples that become golden inputs: those that fit, spread over the set; made-up feeds without samples.

        Raises:
            BadInput: there are none, or none has the right shape.
        """
        if self.samples is None:
            first, count = shapes.concrete()[0], options.goldens
            return Named(tuple(generated(model.inputs, first, seed) for seed in range(count)),
                         tuple(f"made-up {n}" for n in range(count)))
        if not len(self.samples):
            raise BadInput("There are no samples to take golden inputs from.", remedy="give one at least, or leave "
                           "samples out: made-up inputs are used then")
        numbers = chosen(self.samples, options.goldens, shapes.fits)
        if not numbers:
            first = "; ".join(f"{name} {'x'.join(map(str, np.shape(a)))}" for name, a in self.samples[0].items())
            raise BadInput(f"No sample fits the sizes of this bundle ({shapes.words()}): the first is {first}.",
                           remedy="give samples prepared for these sizes, or other shapes, batches or sizes")
        return subset(self.samples, numbers)


def sizes(model: Model, options: BundleOptions, given: Given) -> InputShapes:
    """The sizes or profiles that the bundle is for.

    Raises:
        BadInput: they contradict the model or each other, or the samples are no feeds.
    """
    first = given.samples[0] if given.samples is not None and len(given.samples) else None
    if first is not None and not isinstance(first, Mapping):
        raise BadInput(f"samples cannot hold {type(first).__name__}: each is a feed, input name -> array.",
                       remedy="give Samples, or a list of feeds")
    return input_shapes(model, first, shapes=options.shapes, batches=options.batches, sizes=options.sizes,
                        profiles=options.profiles)


def audited(model: Model, options: BundleOptions, given: Given, shapes: InputShapes, runs: Path | str | None,
            report: Report) -> Audit:
    """The audit for the chip at those sizes.

    Raises:
        UnsupportedModel: it finds errors, and ``force`` is off; says what repairs them.
    """
    bind = tuple(f"{name}={','.join(map(str, shape))}" for name, shape in shapes.concrete()[-1].items() if shape)
    found = audit(model, AuditOptions(target=options.target, cann=options.cann, bind=bind),
                  calibration=given.calibration, runs=runs, report=report)
    errors = [] if options.force else blocking(found, options)
    if not errors:
        return found
    first = next((error for error in errors if not error.fix), errors[0])
    rules = sorted({error.fix for error in errors if error.fix})
    fixed = counted(sum(bool(error.fix) for error in errors), "error")
    call = f'kit.fix(model, kit.FixOptions(target="{options.target}"))'
    remedy = [f"{call} repairs {fixed} by {', '.join(rules)}"] if rules else []
    remedy += [] if first.fix else [f"{_place(first)}: {first.remedy}"]
    if any(error.operator in EXPECTED["qat"] for error in errors):
        remedy.append('BundleOptions(int8="qat") leads a QDQ model through AMCT')
    raise UnsupportedModel(
        f"{model.path.name} cannot be built for {found.target_title} as it is: {counted(len(errors), 'error')}. "
        f"{_place(first)}: {first.what}.",
        remedy="; ".join([*remedy, "force=True writes the bundle all the same"]),
        detail="\n".join(f"{_place(error)}: {error.what}" for error in errors))


def blocking(found: Audit, options: BundleOptions) -> list[Finding]:
    """The errors that no part of the bundle answers: its sizes are fixed, and AMCT takes QDQ pairs away."""
    return [error for error in found.of("error") if error.source != breaker_source("dynamic-size")
            and error.operator not in EXPECTED.get(options.int8, ())]


def _place(finding: Finding) -> str:
    nodes = ", ".join(finding.nodes[:3]) + (" ..." if len(finding.nodes) > 3 else "")
    return " ".join(filter(None, [finding.operator or "the model", nodes]))


def tool(options: BundleOptions) -> str:
    """What tells the ``atc`` here from another one, for the fingerprint; "" where none is used."""
    found = atc_here() if options.build else None
    return digest(found) if found else ""


def make(source: Model, name: str, folder: Path, options: BundleOptions, report: Report, *, given: Given,
         shapes: InputShapes, audited: Audit) -> Compiled:
    """Write the bundle, and build it where atc is here."""
    bundle = folder / f"{name}-{options.target}"
    path = bundle / "model" / f"{name}.onnx"
    path.parent.mkdir(parents=True)
    golden = given.golden(shapes, options, source)
    amct_form = options.int8 == "qat" and not qat_check(source)
    if amct_form:
        report(Tick(0, STEPS, "writing the pairs as AMCT takes them"))
        given = replace(given, source=source, parity=(), checked_on="")
    read = qat_model(source, path).model if amct_form else source
    config = configured(read, name, options, given, shapes, golden, bundle)
    report(Tick(1, STEPS, "copying the model"))
    if not amct_form:
        files.copy(source.path, path)
    model = source.derived(path, "compile", f"bundle for {config.command.soc_version}")
    report(Tick(2, STEPS, "golden inputs"))
    goldens = _goldens(model, golden, options, config, bundle, part(report, "golden inputs"))
    rows, verdict, reference = _parity(given, goldens, options, part(report, "comparing with the source"))
    if amct_form:  # what AMCT does not round is not rounded any more: told, not judged
        verdict = "equal" if verdict == "equal" else "warning"
        reference = reference.replace("the source of the fix", "the QDQ model given, whose pairs AMCT takes otherwise")
    report(Tick(3, STEPS, "script and manifest"))
    write_script(bundle)
    made = Bundled(
        folder=bundle, name=name, soc_version=config.command.soc_version, cann=options.cann or "",
        atc=config.command.text, shapes=f"{shapes.words()} ({shapes.chosen})", goldens=len(goldens), files=0, size=0,
        parts=(), aipp=config.aipp_words, int8=config.int8.words, precision=config.precision, audited=audited.title())
    notes = (*config.notes, *filter(None, (MADE_UP if given.samples is None else "", audited.fine_print)))
    write_readme(made, notes)
    write_manifest(bundle, _about(model, made, options, shapes, goldens, config))
    parts = parts_of(bundle)
    made = replace(made, parts=parts, files=sum(count for _, count, _ in parts), size=sum(size for *_, size in parts))
    report(Tick(4, STEPS, "building" if tool(options) else "written"))
    if tool(options):
        done = build(bundle, part(report, "atc"))
        made = replace(made, om=done.om, seconds=done.seconds, fake=done.fake, log_tail=done.log_tail)
    report(Tick(5, STEPS, made.state))
    return Compiled(
        model=model, target=options.target, level="",
        settings=SessionSettings(options.threads, (config.command.soc_version,), runtime="acl"),
        manifest=bundle / MANIFEST, script=bundle / SCRIPT, parity=rows, verdict=verdict, reference=reference,
        measured_at={label: "x".join(map(str, shape)) for label, shape in shapes.concrete()[-1].items()},
        portable=False, operators_before=_operators(given.source or source), operators_after=_operators(model),
        size_before=source.size, notes=notes, artifact=made.om or bundle / MANIFEST,
        size=made.om.stat().st_size if made.om else made.size, bundle=made)


def _operators(model: Model) -> dict[str, int]:
    return dict(sorted(operator_counts(model.path).items())) if model.path.is_file() else {}


def _goldens(model: Model, golden: Any, options: BundleOptions, config: Config, bundle: Path,
             report: Report) -> Goldens:
    """Write the golden inputs with the answers of the model, one after the other."""
    place = bundle / "goldens"
    place.mkdir()
    preprocess = at_size(golden.preprocess) if config.aipp else None
    items = []
    names = names_of(golden)
    with open_runner(model, graph_level="none", threads=options.threads) as run:
        for at in track(range(len(golden)), report):
            feed = golden[at]
            inputs = dict(feed)
            if config.aipp:
                inputs[config.aipp.input] = config.aipp.prepare(golden.items[at].load())[None]
            path = place / f"{at:03d}.npz"
            write_golden(path, inputs, feed, run(feed), preprocess)
            items.append(Golden(path, names[at], feed_digest(feed)))
    return Goldens(tuple(items), preprocess, config.aipp.input if config.aipp else "")


def _parity(given: Given, goldens: Goldens, options: BundleOptions,
            report: Report) -> tuple[tuple[TensorParity, ...], str, str]:
    """The model in the bundle against what a fix made it from, both in ONNX Runtime: rows, verdict, what was compared.

    A model that is copied as it was given has nothing to be compared with.
    """
    if given.source is None:
        return (), "equal", "copied byte for byte from the file given"
    rows, words = given.parity, f"against the source of the fix, as measured then on {given.checked_on}"
    if given.source.path.is_file():
        found = Parity()
        with open_runner(given.source, graph_level="none", threads=options.threads) as run:
            for at in track(range(len(goldens)), report):
                try:
                    answers = run(goldens[at])
                except BadInput:  # a rule changed the type of an input: what the fix measured then still stands
                    break
                found.add(answers, goldens.answers(at))
            else:
                rows = found.result()
                words = f"against the source of the fix, both in ONNX Runtime, on {len(goldens)} golden inputs"
    row = worst(rows)
    return rows, row.verdict if row else "equal", words


def _about(model: Model, made: Bundled, options: BundleOptions, shapes: InputShapes, goldens: Goldens,
           config: Config) -> dict[str, Any]:
    """The content of ``bundle.json``."""
    inputs = [{"name": spec.name, "dtype": spec.dtype, "shape": list(shapes.inputs[spec.name])}
              for spec in model.inputs]
    for spec in inputs:
        if config.aipp and spec["name"] == config.aipp.input:
            batch, channels, height, width = spec["shape"]
            spec.update(dtype="uint8", shape=[batch, height, width, channels])
    return {
        "name": made.name, "soc_version": made.soc_version, "cann": made.cann, "precision": options.precision,
        "model": {"file": model.path.relative_to(made.folder).as_posix(), "sha256": sha256(model.path),
                  "bytes": model.path.stat().st_size},
        "atc": {"argv": list(config.command.argv), "output": config.command.output},
        "inputs": inputs,
        "outputs": [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in model.outputs],
        "profiles": {"kind": shapes.kind, "values": [list(value) for value in shapes.values if value]},
        "batches": list(shapes.batches),
        "preprocess": stored_preprocess(goldens.preprocess, goldens.input) if goldens.preprocess else None,
        "goldens": [{"file": item.file.relative_to(made.folder).as_posix(), "name": item.name, "feed": item.feed}
                    for item in goldens.items],
        "tolerances": {"cosine": options.cosine, "relative": options.relative},
        "benchmark": {"warm_up": options.warm_up, "runs": options.timed},
        "int8": config.int8.manifest(),
    }
