"""The bundle: one folder that needs only Python, numpy and CANN on the box, and what is known about it here.

``bundle.json``, version 1, says everything to ``run_on_box.py``: the atc command, the inputs as the .om takes them, the
profiles, the golden inputs, the tolerances, the steps of an INT8 route, and the sha256 of every file. It names no
folder of this machine and no person.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from kit.ascend.atc.atc_options import AtcOptions
from kit.ascend.bundling.golden_samples import MANIFEST
from kit.card import Listing, Table, bytes_text
from kit.compiled_files import sha256
from kit.options import Help, Options, Range, fields
from kit.targets import ascend

_PRECISION = next(field for field in fields(AtcOptions) if field.name == "precision")
SCRIPT = "run_on_box.py"
COMMAND = f"python3 {SCRIPT}"
#: What lies in a bundle, for its README and its table.
CONTENTS = {
    MANIFEST: "everything the script needs to know, with the sha256 of every file",
    SCRIPT: "builds, runs, compares and measures; Python 3.8, numpy and CANN are all it needs",
    "explain.json": "what codes and lines in the logs of atc and ACL mean",
    "README.md": "what to do with this folder",
    "model": "the ONNX model, with its weights",
    "goldens": "inputs with the answers of the float model",
    "calibration": "samples for the INT8 route, as raw files with a manifest",
    "config": "what the atc command refers to, and the command itself (atc.sh)",
}


@dataclass(frozen=True)
class BundleOptions(Options):
    """What to prepare for an Ascend chip. ``kit.compile(model, BundleOptions(...))`` writes the bundle."""

    target: Annotated[Literal[ascend.NAMES], Help("The chip, as npu-smi names it.")] = "ascend310p3"  # type: ignore[valid-type]
    cann: Annotated[Literal[ascend.RELEASES] | None, Help("CANN release on the box; not set: any.")] = None  # type: ignore[valid-type]
    precision: Annotated[_PRECISION.kind, Help(_PRECISION.help)] = "fp16"
    shapes: Annotated[tuple[str, ...], Help(
        "Sizes for open axes, such as x=1x3x640x640; empty takes those of the first sample.")] = ()
    batches: Annotated[tuple[int, ...], Help(
        "Batch sizes: one is fixed, several become profiles of one .om.")] = ()
    sizes: Annotated[tuple[str, ...], Help(
        "Picture sizes, height x width, such as 640x640: one is fixed, several become profiles.")] = ()
    profiles: Annotated[tuple[str, ...], Help(
        "Sizes of all open axes, such as 1x128, 4x128: each is a profile.")] = ()
    aipp: Annotated[bool, Help(
        "Let the chip prepare the picture: bytes go in, AIPP subtracts and scales as the samples' Preprocess does.")
    ] = False
    int8: Annotated[Literal["none", "amct", "qat", "atc"], Help(
        "none: as precision says. amct: AMCT calibrates on the box. qat: AMCT converts the QDQ model given. atc: atc "
        "calibrates itself, which needs the device.")] = "none"
    keep_float: Annotated[tuple[str, ...], Help(
        "Nodes that stay in float: out of INT8, or out of 16 bits without an INT8 route.")] = ()
    share: Annotated[float, Range(0.05, 1, 0.05), Help(
        "With sensitivity=...: keep in float the dearest layers that make so much of the noise.")] = 0.5
    keep_by: Annotated[Literal["keep_dtype", "mixlist", "op_precision"], Help(
        "How atc is told what stays precise without an INT8 route. keep_dtype: node by node. mixlist: by type, under "
        "mixed precision. op_precision: the precise implementation inside an operator.")] = "keep_dtype"
    goldens: Annotated[int, Range(1, 1000, 1), Help("Samples that travel with the float model's answers.")] = 8
    calibration_samples: Annotated[int, Range(1, 10_000, 1), Help("Samples written for an INT8 route.")] = 32
    cosine: Annotated[float, Range(0, 1, 0.001), Help("Least cosine of an answer on the box.")] = 0.99
    relative: Annotated[float, Range(0, 10, 0.001), Help(
        "Largest error of an answer on the box, over its largest value.")] = 0.02
    warm_up: Annotated[int, Range(1, 10_000, 1), Help("Untimed runs on the box.")] = 10
    timed: Annotated[int, Range(1, 100_000, 10), Help("Timed runs on the box.")] = 100
    extra: Annotated[tuple[str, ...], Help("More flags of atc, such as --display_model_info=1.")] = ()
    threads: Annotated[int, Range(1, 64), Help("Threads of ONNX Runtime for the float answers.")] = 2
    build: Annotated[bool, Help("Build the .om here too, where atc is on the PATH.")] = True
    force: Annotated[bool, Help("Write the bundle although the audit finds errors.")] = False

    def __post_init__(self) -> None:
        # An unknown name is answered with the closest ones; Ascend310P3 and ascend310p3, 8.1 and 8.1.RC1 are the same.
        object.__setattr__(self, "target", ascend.known(str(self.target)))
        object.__setattr__(self, "cann", ascend.release(self.cann))
        super().__post_init__()


@dataclass(frozen=True)
class Bundled:
    """What a bundle holds, and whether it was built here.

    Attributes:
        folder: with ``bundle.json``.
        name: of the model.
        soc_version: the chip, as atc takes it.
        cann: release that it was made for; "" where that is not known.
        atc: the command, a flag a line.
        shapes: sizes or profiles, in words.
        goldens: how many golden inputs.
        files: how many files.
        size: bytes of all of them.
        parts: what lies in it: name, number of files, bytes.
        aipp: what AIPP does and how far it is from the float preprocessing; "" without.
        int8: the INT8 route, in words; "" without.
        precision: as asked of atc, in words.
        audited: what the audit says.
        fake: which tools that built it were FAKE; "" for none.
        om: the built file; None where it was not built here.
        seconds: that the build took.
        log_tail: last lines of atc's log.
    """

    folder: Path
    name: str
    soc_version: str
    cann: str
    atc: str
    shapes: str
    goldens: int
    files: int
    size: int
    parts: tuple[tuple[str, int, int], ...]
    aipp: str
    int8: str
    precision: str
    audited: str
    fake: str = ""
    om: Path | None = None
    seconds: float = 0.0
    log_tail: str = field(default="", repr=False)

    @property
    def state(self) -> str:
        """``not built here``, ``built here``, or that the build is FAKE."""
        if self.om is None:
            return "not built here"
        return f"FAKE build, of no use on a device ({self.fake})" if self.fake else "built here"

    def title(self) -> str:
        """What the result of compile says of itself."""
        return f"{self.name}: bundle for {self.soc_version}, {self.state}"

    def facts(self) -> dict[str, object]:
        """For the card."""
        made = {} if self.om is None else {
            "FAKE .om" if self.fake else ".om": f"{self.om.name}, {bytes_text(self.om.stat().st_size)}, "
            f"{self.seconds:.1f} s" if self.om.is_file() else "was removed"}
        return {
            "on the box": COMMAND,
            **made,
            "folder": f"{self.files} files, {bytes_text(self.size)}",
            "for": f"{self.soc_version}, CANN {self.cann or 'of any release'}",
            "sizes": self.shapes,
            "precision": self.precision,
            **({"INT8": self.int8} if self.int8 else {}),
            **({"AIPP": self.aipp} if self.aipp else {}),
            "golden inputs": self.goldens,
            "audit": self.audited,
        }

    def tables(self) -> list[Table]:
        """For the card."""
        found = [Table("In the folder", ("name", "files", "size", "what it is"), tuple(
            (name, count, bytes_text(size), CONTENTS.get(name, "")) for name, count, size in self.parts)),
            Listing("The atc command", self.atc.strip())]
        if self.log_tail:
            found.append(Listing(f"{'FAKE: ' if self.fake else ''}End of atc's log",
                                 "\n".join(self.log_tail.splitlines()[-10:])))
        return found

    def tar(self, path: Path | str | None = None) -> Path:
        """Pack the bundle as it was written into one file, without times, owners and what was built.

        Args:
            path: of the .tar; beside the folder by default.

        Returns:
            Where it lies.
        """
        target = Path(path) if path else self.folder.with_name(f"{self.folder.name}.tar")
        listed = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))["files"]

        def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            return entry

        with tarfile.open(target, "w") as archive:
            for name in (MANIFEST, *sorted(listed)):
                archive.add(self.folder / name, f"{self.folder.name}/{name}", filter=plain)
        return target


def script_parts() -> dict[str, str]:
    """What travels with every bundle: name -> text."""
    from kit.ascend.box.box_script import script_text
    from kit.ascend.logs.explaining import tables

    return {SCRIPT: script_text(), "explain.json": json.dumps(tables(), ensure_ascii=False, indent=1) + "\n"}


def write_script(folder: Path) -> None:
    """Put ``run_on_box.py`` and what it explains logs by into the bundle."""
    for name, text in script_parts().items():
        write_text(folder / name, text)


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``bundle.json`` last: it holds the sha256 of every file that lies in the folder."""
    files = {path.relative_to(folder).as_posix(): sha256(path)
             for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST}
    write_text(folder / MANIFEST, json.dumps({"format": "kit-ascend-bundle", "version": 1, **about, "files": files},
                                             ensure_ascii=False, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text as it is read on the box, whatever the system here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def parts_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What lies in a bundle: name, number of files and bytes of everything at its top."""
    found = []
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        found.append((path.name, len(files), sum(file.stat().st_size for file in files)))
    return tuple(found)


README = """# {name} for {soc}

A bundle of the migration notebook kit. It was prepared on a machine without the device: nothing in it has run on an
Ascend chip. On the box it needs Python 3.8 or newer, numpy, and {cann} with the kernels of {soc}.

    {command}

checks the machine, builds the .om with atc, runs the golden inputs, compares the answers with those of the float model
and measures. `{command} --help` lists more: `--build-only` needs no device, `--profile` asks msprof.

## What comes back

`results/results.json` and `results/outputs.npz`, also where a step fails. Take the folder `results` to the kit:

    results = kit.ascend.load_results("results")
    goldens = kit.ascend.goldens(compiled)      # what kit.compile returned, or the folder of this bundle
    kit.verify({{"float": model, "{soc}": results}}, goldens)
    kit.benchmark({{"float": model, "{soc}": results}}, goldens)
    kit.report([compiled, results, ...])

## What it was made for

{facts}

## What lies here

{contents}
{notes}"""


def write_readme(made: Bundled, notes: Sequence[str]) -> None:
    """Write the bundle's README.md."""
    there = [entry.name for entry in made.folder.iterdir()] + [MANIFEST, "README.md"]
    facts = {"sizes": made.shapes, "precision": made.precision, "INT8": made.int8, "AIPP": made.aipp,
             "golden inputs": made.goldens, "audit": made.audited}
    text = README.format(
        name=made.name, soc=made.soc_version, cann=f"CANN {made.cann}" if made.cann else "CANN", command=COMMAND,
        facts="\n".join(f"- {label}: {value}" for label, value in facts.items() if value),
        contents="\n".join(f"- `{label}`: {said}" for label, said in CONTENTS.items() if label in there),
        notes="\n".join(["", "## Notes", "", *(f"- {note}" for note in notes), ""]) if notes else "")
    write_text(made.folder / "README.md", text)
