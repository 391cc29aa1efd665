"""Calibration samples as raw files, the form that AMCT and atc read: one file a batch and input, and a manifest.

Two readers, two habits. ``amct_onnx calibration`` reads a folder of files an input, in order of name, a batch a file.
atc (``--compression_optimize_conf``) reads one file an input, so all samples are one batch, and it builds for that
batch. ``batch`` serves both.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.calibration import check_samples
from kit.card import Card, Table, bytes_text
from kit.compiled_files import sha256
from kit.errors import BadInput
from kit.model import TensorSpec
from kit.progress import Report, silent, track
from kit.record import appearing, digest, explain_os_error
from kit.runner import check_feeds
from kit.samples import sample_name

MANIFEST = "manifest.json"
FORMAT = "kit-calibration"
VERSION = 1


@dataclass(frozen=True)
class CalibrationFile:
    """One raw file.

    Attributes:
        input: name of the model's input.
        path: inside the folder, with slashes.
        samples: names of the samples in it, in order along the first axis.
        sha256: of its bytes.
        size: in bytes.
    """

    input: str
    path: str
    samples: tuple[str, ...]
    sha256: str
    size: int


@dataclass(frozen=True)
class CalibrationFiles(Card):
    """Raw calibration files in a folder.

    Attributes:
        folder: where they lie.
        inputs: name, type and shape of one file's array, C order, little endian.
        files: all of them, those of one input after the other.
        samples: how many samples.
        batch: how many in a file.
        left_out: samples that filled no whole batch.
        preprocess: digest of the preprocessing; "" for plain feeds.
        samples_digest: of the samples written.
    """

    folder: Path
    inputs: tuple[TensorSpec, ...]
    files: tuple[CalibrationFile, ...] = field(repr=False)
    samples: int
    batch: int
    left_out: int
    preprocess: str
    samples_digest: str

    @property
    def manifest(self) -> Path:
        """The list of all files."""
        return self.folder / MANIFEST

    def of(self, name: str) -> tuple[CalibrationFile, ...]:
        """The files of one input, in the order they are read."""
        return tuple(file for file in self.files if file.input == name)

    def input_shape(self) -> str:
        """As AMCT and atc want it: ``x:1,3,640,640;y:1,2``."""
        return ";".join(f"{spec.name}:{','.join(map(str, spec.shape))}" for spec in self.inputs)

    def data_types(self) -> str:
        """As AMCT wants them: ``float32;int64``."""
        return ";".join(spec.dtype for spec in self.inputs)

    def check(self) -> None:
        """Refuse files that are missing or were changed since.

        Raises:
            BadInput: names the first.
        """
        for file in self.files:
            path = self.folder / file.path
            if not path.is_file() or sha256(path) != file.sha256:
                state = "was changed" if path.is_file() else "is missing"
                raise BadInput(f"{path} {state} since the calibration files were written.",
                               remedy="write them again: kit.ascend.write_calibration(...)")

    def title(self) -> str:
        return f"{self.samples} samples as {len(self.files)} raw files of {self.batch} each in {self.folder.name}"

    def facts(self) -> dict[str, object]:
        return {
            "inputs": "; ".join(map(str, self.inputs)),
            "size": bytes_text(sum(file.size for file in self.files)),
            "layout": "C order, little endian, no header",
            **({"left out": f"{self.left_out} samples that fill no batch of {self.batch}"} if self.left_out else {}),
        }

    def tables(self) -> tuple[Table, ...]:
        rows = tuple((file.path, file.samples[0] + (f" and {len(file.samples) - 1} more" if len(file.samples) > 1 else
                                                    ""), f"{file.size:,}", file.sha256[:16]) for file in self.files)
        return (Table("Files", ("file", "samples", "bytes", "sha256"), rows),)


def write_calibration(samples: Sequence[Mapping[str, np.ndarray]], inputs: Sequence[TensorSpec], folder: Path | str,
                      limit: int = 32, *, batch: int = 1, report: Report = silent) -> CalibrationFiles:
    """Write samples as raw files. The folder appears when all is written, or not at all.

    Args:
        samples: ``Samples`` or feeds, prepared as for the float model and for the deployed one.
        inputs: of the model.
        folder: is made; one that holds calibration files from before is replaced, any other is refused.
        limit: at most so many samples, the first ones.
        batch: samples in a file; all of them for atc's own calibration.
        report: hears the progress.

    Raises:
        BadInput: samples that do not fit the inputs or each other, fewer than a batch, values that are not finite, or
            a folder that holds something else.
    """
    check_samples(samples)
    folder = Path(folder)
    _refuse_others(folder)
    if limit < 1 or batch < 1:
        raise BadInput(f"limit={limit} and batch={batch} must be 1 or more.", remedy="give positive numbers")
    count = min(limit, len(samples)) // batch * batch
    if not count:
        raise BadInput(f"{min(limit, len(samples))} samples do not fill a batch of {batch}.",
                       remedy="give more samples, or a smaller batch")
    chosen = samples[:count]
    names = [sample_name(samples, at) for at in range(count)]
    folders = _folders([spec.name for spec in inputs])
    taken = [spec if batch == 1 else TensorSpec(spec.name, spec.dtype, ("?", *spec.shape[1:]) if spec.shape else ())
             for spec in inputs]  # a model of a fixed batch takes a whole file, not a sample
    with appearing(folder) as scratch:
        files: list[CalibrationFile] = []
        shapes: dict[str, tuple[int, ...]] = {}
        for at in track(range(0, count, batch), report, note="writing calibration files"):
            arrays = [_checked(chosen[n], taken, names[n]) for n in range(at, at + batch)]
            for spec in inputs:
                joined = _joined([feeds[spec.name] for feeds in arrays], spec, names[at : at + batch])
                _same_shape(shapes, spec.name, joined.shape, names[at])
                path = f"{folders[spec.name]}/{at // batch:06d}.bin"
                (scratch / path).parent.mkdir(exist_ok=True)
                joined.astype(joined.dtype.newbyteorder("<"), copy=False).tofile(scratch / path)
                files.append(CalibrationFile(spec.name, path, tuple(names[at : at + batch]), sha256(scratch / path),
                                             joined.nbytes))
        order = [spec.name for spec in inputs]
        preprocess = getattr(samples, "preprocess", None)
        made = CalibrationFiles(
            folder, tuple(TensorSpec(spec.name, spec.dtype, shapes[spec.name]) for spec in inputs),
            tuple(sorted(files, key=lambda file: (order.index(file.input), file.path))), count, batch,
            min(limit, len(samples)) - count, digest(preprocess) if preprocess is not None else "",
            digest(chosen if hasattr(chosen, "digest") else [file.sha256 for file in files]))
        (scratch / MANIFEST).write_text(json.dumps(_manifest(made, preprocess), indent=1, ensure_ascii=False) + "\n",
                                        encoding="utf-8")
    return made


def read_calibration(folder: Path | str) -> CalibrationFiles:
    """The calibration files that a folder holds, by its manifest.

    Raises:
        BadInput: there is no such manifest there.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if about["format"] != FORMAT or about["version"] > VERSION:
            raise ValueError(f"format {about['format']!r}, version {about['version']}")
        inputs = tuple(TensorSpec(one["name"], one["dtype"], tuple(one["shape"])) for one in about["inputs"])
        files = tuple(CalibrationFile(one["name"], file["file"], tuple(file["samples"]), file["sha256"], file["bytes"])
                      for one in about["inputs"] for file in one["files"])
        return CalibrationFiles(folder, inputs, files, about["samples"], about["batch"], about["left_out"],
                                about["preprocess_digest"], about["samples_digest"])
    except OSError as error:
        raise explain_os_error(error, folder / MANIFEST) from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{folder / MANIFEST} is no manifest of calibration files ({error}).",
                       remedy="write them with kit.ascend.write_calibration(...)") from error


def _manifest(made: CalibrationFiles, preprocess: Any) -> dict[str, Any]:
    return {
        "format": FORMAT, "version": VERSION, "samples": made.samples, "batch": made.batch, "left_out": made.left_out,
        "layout": "C order, little endian, no header", "samples_digest": made.samples_digest,
        "preprocess_digest": made.preprocess,
        "preprocess": asdict(preprocess) if is_dataclass(preprocess) else None,  # type: ignore[arg-type]
        "inputs": [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "files": [
            {"file": file.path, "samples": list(file.samples), "sha256": file.sha256, "bytes": file.size}
            for file in made.of(spec.name)]} for spec in made.inputs]}


def _checked(feeds: Mapping[str, np.ndarray], inputs: Sequence[TensorSpec], name: str) -> dict[str, np.ndarray]:
    found = check_feeds(feeds, inputs, f"the model, for sample {name},")
    for label, array in found.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadInput(f"{name} holds values that are not finite in input {label!r}.",
                           remedy="leave it out, or look at its preprocessing")
    return found


def _joined(arrays: list[np.ndarray], spec: TensorSpec, names: list[str]) -> np.ndarray:
    """Samples along the first axis."""
    if len(arrays) == 1:
        return arrays[0]
    if not spec.shape:
        raise BadInput(f"Input {spec.name!r} is a single number: {len(arrays)} samples do not go into one file.",
                       remedy="give batch=1")
    for array, name in zip(arrays, names, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise _other_shape(spec.name, name, array.shape, arrays[0].shape)
    made = np.concatenate(arrays)
    if isinstance(spec.shape[0], int) and spec.shape[0] != len(made):
        raise BadInput(f"Input {spec} takes {spec.shape[0]} at a time, a file would hold {len(made)}.",
                       remedy=f"give batch={spec.shape[0]}, or export the model with an open first axis")
    return made


def _same_shape(shapes: dict[str, tuple[int, ...]], label: str, shape: tuple[int, ...], name: str) -> None:
    if shapes.setdefault(label, shape) != shape:
        raise _other_shape(label, name, shape, shapes[label])


def _other_shape(label: str, name: str, shape: tuple[int, ...], first: tuple[int, ...]) -> BadInput:
    return BadInput(f"{name} has shape {list(shape)} for input {label!r}, the samples before it {list(first)}: "
                    "quantization runs at one shape.", remedy="choose samples of one size, or a Preprocess with a "
                    "fixed one (resize='stretch', or wide enough padding)")


def _folders(names: Sequence[str]) -> dict[str, str]:
    """Input name -> a folder name that every file system and command line takes."""
    found: dict[str, str] = {}
    for name in names:
        base = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".") or "input"
        free, count = base, 1
        while free in found.values():
            count += 1
            free = f"{base}_{count}"
        found[name] = free
    return found


def _refuse_others(folder: Path) -> None:
    """A folder of somebody else's is not replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    with contextlib.suppress(BadInput):
        read_calibration(folder)
        return
    raise BadInput(f"{folder} exists and holds something else than calibration files.",
                   remedy="choose a new folder, or remove this one")
