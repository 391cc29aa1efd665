"""The ``atc`` command for a model, composed and checked here and run where CANN is.

Flags, values and rules come from ``atc_flags.json``. Nothing is run: a command that passes every rule can still fail
inside ATC, and ``kit.explain`` reads what it says then.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.ascend.atc.atc_model import TWO_GIGABYTES, GraphNames, calibrates, file_problems, input_shape, model_problems
from kit.ascend.atc.atc_options import AtcOptions, Profiles
from kit.ascend.atc.flag_rules import problems
from kit.ascend.atc.flag_table import Problem, default, entry, flags, flags_file, meaning, release, release_note
from kit.card import Card, Listing, Table, bytes_text
from kit.errors import BadInput
from kit.inspection.graph import onnx_source
from kit.model import Model
from kit.options import expect
from kit.targets.ascend import facts, older

__all__ = ["AtcCommand", "AtcOptions", "Profiles", "atc_command"]


@dataclass(frozen=True)
class AtcCommand(Card):
    """A command for ``atc`` that was composed and not run.

    Attributes:
        argv: the words, ``atc`` first.
        model: name of the model's file.
        soc_version: the chip.
        output: where the .om goes, without .om.
        env: shell lines that make ``atc`` known.
        notes: sentences for the reader.
    """

    argv: tuple[str, ...]
    model: str
    soc_version: str
    output: str
    env: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def flags(self) -> dict[str, str]:
        """Flag -> value."""
        return dict(word.split("=", 1) for word in self.argv[1:])

    @property
    def text(self) -> str:
        """For a shell, one flag a line."""
        words = [f"{flag}={shlex.quote(value)}" for flag, value in self.flags.items()]
        return " \\\n  ".join([self.argv[0], *words])

    @property
    def script(self) -> str:
        """The same after the lines that make ``atc`` known."""
        return "\n".join([f"# For {self.soc_version}. Composed by the migration notebook kit; it was not run.",
                          *self.env, self.text, ""])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names that the .om may have: with host code in it, ATC adds operating system and processor."""
        return f"{self.output}.om", f"{self.output}_*_*.om"

    def title(self) -> str:
        return f"atc command for {self.model} on {self.soc_version}: composed and checked, not run"

    def facts(self) -> dict[str, object]:
        return {
            "makes": f"{self.outputs[0]}, or {self.output}_<os>_<arch>.om where host code is in it",
            "ends with": flags_file()["success"],
            "run it in": "a scratch folder: ATC leaves kernel_meta/ and fusion_result.json where it runs",
            **({"note": " ".join(self.notes)} if self.notes else {}),
        }

    def tables(self) -> Sequence[Table]:
        return (Listing("The command", self.text),
                Table("What each flag does", ("flag", "value", "what it does"), tuple(
                    (flag, value, meaning(flag, value)) for flag, value in self.flags.items())))


def atc_command(model: Model | Path | str, options: AtcOptions = AtcOptions(), *,  # noqa: B008
                output: str = "", path: str = "", folder: Path | str | None = None) -> AtcCommand:
    """Compose the command that builds a model for a chip.

    Args:
        model: an .onnx file, a Model, or a result that carries one.
        options: what to build.
        output: where the .om goes, without .om; the model's name in the current folder when left out.
        path: how the command names the model, where that differs from here, such as ``model/receipts_det.onnx``.
        folder: where the files of the options lie here, so that they can be looked into; the current folder when left
            out. Files that are not here are not checked.

    Returns:
        AtcCommand: ``.text`` for a shell, ``.argv`` for a program.

    Raises:
        BadInput: ATC would refuse the command; names the valid choices.
    """
    expect(AtcOptions, options)
    source = getattr(model, "model", model)
    opened = source if isinstance(source, Model) else Model.open(onnx_source(source, "atc_command").graph)
    folder = Path(folder) if folder is not None else None
    output = (output or re.sub(r"[^\w.-]", "_", opened.path.stem, flags=re.ASCII)).removesuffix(".om")
    shapes = input_shape(opened, options)
    given = {**options.flags(), "--model": path or opened.path.as_posix(), "--framework": "5", "--output": output,
             "--input_shape": ";".join(f"{name}:{','.join(axes)}" for name, axes in shapes.items())}
    if options.external_weight == "auto" and opened.size > TWO_GIGABYTES:
        given["--external_weight"] = "1"
    # Pictures and videos are what the default, NCHW, is for.
    ranks = {len(axes) for axes in shapes.values()}
    if options.input_format == "auto" and "--input_format" not in given and ranks and not ranks & {4}:
        given["--input_format"] = "NCDHW" if 5 in ranks else "ND"
    given = {flag: given[flag] for flag in flags() if given.get(flag)}
    names = GraphNames.of(opened.path)
    found = [*problems(given, options.chip, cann=options.cann, calibrates=calibrates(options, folder)),
             *model_problems(opened, names, options, given), *file_problems(opened, options, shapes, folder)]
    _refuse(found)
    given = {flag: value for flag, value in given.items() if value != default(flag)}
    return AtcCommand(("atc", *(f"{flag}={value}" for flag, value in given.items())), opened.path.name,
                      options.soc_version, output, _environment(options.cann),
                      tuple(_notes(opened, names, options, given, folder)))


def _refuse(found: Sequence[Problem]) -> None:
    if not found:
        return
    first = found[0].exception()
    rest = [f"{one.what}. Try: {one.remedy}" for one in found[1:]]
    raise BadInput(first.what, remedy=first.remedy, detail="\n".join(["Besides:", *rest]) if rest else "")


def _environment(cann: str) -> tuple[str, ...]:
    paths = flags_file()["set_env"]
    if release(cann):
        return (f". {paths['new' if release(cann) >= release(paths['new_from']) else 'old']}",)
    return (f"if [ -f {paths['old']} ]; then . {paths['old']}; else . {paths['new']}; fi",)


def _notes(model: Model, names: GraphNames, options: AtcOptions, given: dict[str, str], folder: Path | None):
    for flag in given:
        if note := release_note(flag, options.cann):
            yield f"{note}."
        if instead := entry(flag).get("deprecated"):
            yield f"{flag} is deprecated: {instead} takes its place."
    if not any(flag.startswith("--precision_mode") for flag in given):
        yield "Float operators are computed in float16, ATC's default."
    if given.get("--output_type", "FP32") not in entry("--output_type")["short"] and ":" not in given["--output_type"]:
        yield (f"The documents list --output_type={given['--output_type']} for all outputs, the source code does not; "
               "node:index:TYPE is sure.")
    if options.compression and calibrates(options, folder):
        yield "Calibration runs the model: atc needs an NPU on its own host, and the AMCT (acl) package."
        if options.sizes.kind != "static":
            yield "The documents forbid profiles for INT8 deploy models; with calibration in ATC they say nothing."
    if given.get("--external_weight"):
        yield (f"With its weights the model has {bytes_text(model.size)}: they go into weight/ beside the .om, which "
               "must be copied with it.")
    if older(options.soc_version):
        yield older(options.soc_version)
    if not options.chip.product:
        yield f"The documents of ATC do not say which flags are for {options.soc_version}."
    elif options.chip.product == "310":
        yield f"{options.soc_version}: {facts('chips')['chips'][options.soc_version]['note']}."
    yield from _opset_note(names, options.cann)


def _opset_note(names: GraphNames, cann: str):
    told = [row for row in flags_file()["opset"]["documented"] if release(cann) and release(cann) >= release(row[0])]
    since, low, high = told[-1] if told else ("", 0, names.opset)
    if not low <= names.opset <= high:
        yield f"The documents since CANN {since} speak of opset {low} to {high}; this is {names.opset}."
