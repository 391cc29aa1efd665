"""The FAKE .om: a zip with the ONNX model and what ATC was asked for, and how ONNX Runtime stands in for a chip.

Where a chip would compute in float16, inputs, weights and outputs are rounded to it; sums inside stay in float32. So an
answer is about as far from the float model's as on a device, and overflow of inputs, weights and answers shows; what
overflows only in between does not.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HEADER = b"FAKE OM of the migration notebook kit. No device can run this file.\n"
ROUNDED = 200_000_000  # bytes of a model up to which its weights are rounded


def write(path: Path, about: Mapping[str, Any], model: Path) -> None:
    """Write the FAKE .om.

    Args:
        path: of the file.
        about: ``soc``, ``cann``, ``inputs`` and ``outputs`` (name, dtype, shape), ``profiles``, ``shapes`` (of the
            outputs, for every profile), ``aipp`` (input -> text), ``half``.
        model: the .onnx file; external data beside it comes along.
    """
    from kit.model import external_files

    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("about.json", json.dumps(about))
        archive.writestr("model.onnx", _model(model, bool(about["half"])))
        for file in external_files(model):
            archive.write(file, file.relative_to(model.parent).as_posix())
    path.write_bytes(HEADER + kept.getvalue())


def is_fake(path: Path | str) -> bool:
    """Was this file made by the FAKE atc?"""
    with Path(path).open("rb") as stream:
        return stream.read(len(HEADER)) == HEADER


def _model(path: Path, half: bool) -> bytes:
    if not half or path.stat().st_size > ROUNDED:
        return path.read_bytes()
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.external_data:
            tensor.CopyFrom(numpy_helper.from_array(rounded(numpy_helper.to_array(tensor)), tensor.name))
    return model.SerializeToString()


def rounded(array: np.ndarray) -> np.ndarray:
    """Float32 as it comes out of a float16 register."""
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)


class FakeOm:
    """An opened FAKE .om.

    Attributes:
        about: as it was written.
    """

    def __init__(self, path: Path | str) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="kit-fake-om-", ignore_cleanup_errors=True)
        with zipfile.ZipFile(path) as archive:
            archive.extractall(self._scratch.name)
        folder = Path(self._scratch.name)
        self.about: dict[str, Any] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self._session = session(folder / "model.onnx")

    def close(self) -> None:
        """Remove what was unpacked."""
        self._scratch.cleanup()

    def shape_of(self, spec: Mapping[str, Any], profile: tuple[int, ...]) -> list[int]:
        """Of an input in a profile: -1 filled in."""
        return filled(self.about["inputs"], self.about["profiles"]["kind"], profile)[spec["name"]]

    def run(self, feeds: Mapping[str, np.ndarray], *, nan: bool = False) -> dict[str, np.ndarray]:
        """The answers, in the types that the .om gives."""
        half = self.about["half"]
        ready = {}
        for name, array in feeds.items():
            if name in self.about["aipp"]:
                array = prepared(array, self.about["aipp"][name], self.about["soc"])
            ready[name] = rounded(array) if half and array.dtype == np.float32 else array
        names = [value.name for value in self._session.get_outputs()]
        given = {value.name: _TYPES[value.type] for value in self._session.get_inputs()}
        answers = self._session.run(names, {name: array.astype(given[name]) for name, array in ready.items()})
        found = {}
        for spec, answer in zip(self.about["outputs"], answers, strict=True):
            answer = rounded(answer) if half and answer.dtype == np.float32 else answer
            found[spec["name"]] = np.full_like(answer, np.nan) if nan and answer.dtype.kind == "f" else answer
            found[spec["name"]] = found[spec["name"]].astype(spec["dtype"])
        return found


def filled(inputs: list[dict[str, Any]], kind: str, profile: tuple[int, ...]) -> dict[str, list[int]]:
    """Shapes of the inputs in a profile."""
    numbers, shapes = iter(profile), {}
    for spec in inputs:
        if kind in ("batch", "image"):  # the same for every input
            numbers = iter(profile)
        shapes[spec["name"]] = [next(numbers) if side < 0 else side for side in spec["shape"]]
    return shapes


def prepared(pictures: np.ndarray, block: Mapping[str, Any], soc: str) -> np.ndarray:
    """What AIPP makes of bytes [n, h, w, c]: float32 [n, c, h, w], with the float16 numbers of the chip."""
    from kit.ascend.preprocessing.aipp_arithmetic import run
    from kit.ascend.preprocessing.aipp_reading import read_aipp

    settings = read_aipp(block["text"], soc_version=soc).settings(block["block"])
    return np.concatenate([run(settings, picture) for picture in pictures]).astype(np.float32)


def session(path: Path) -> Any:
    """ONNX Runtime, which stands in for the chip."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
          "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int16)": "int16", "tensor(int8)": "int8",
          "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32",
          "tensor(uint64)": "uint64", "tensor(bool)": "bool"}
