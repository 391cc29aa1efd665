"""Bundles for an Ascend box, made by hand: what run_on_box.py, the rehearsal and the .om runner are tested with."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort

from kit.ascend.box import box_script, rehearsing
from kit.ascend.logs import explaining
from kit.model import Model

AIPP = """aipp_op {{
  aipp_mode : static
  related_input_rank : 0
  input_format : RGB888_U8
  src_image_size_w : {w}
  src_image_size_h : {h}
  crop : false
  mean_chn_0 : 0
  mean_chn_1 : 0
  mean_chn_2 : 0
  min_chn_0 : 123.675
  min_chn_1 : 116.28
  min_chn_2 : 103.53
  var_reci_chn_0 : 0.0171247538
  var_reci_chn_1 : 0.0175070028
  var_reci_chn_2 : 0.0174291939
}}
"""


def bundle(folder: Path, model: Path, feeds: list[dict], *, shape: str, kind: str = "static", values=(), batches=(1,),
           flags: tuple[str, ...] = (), soc: str = "Ascend310P3", pictures=None, **more) -> Path:
    """Write a bundle.

    Args:
        folder: where.
        model: an .onnx file.
        feeds: float inputs; their answers in ONNX Runtime become the goldens.
        shape: for ``--input_shape``.
        kind: of the profiles.
        values: of the profiles.
        batches: to measure.
        flags: more of atc.
        soc: the chip.
        pictures: bytes [1, h, w, 3] that go in instead of the floats, one a feed.
        more: entries of bundle.json to replace.
    """
    for name in ("model", "goldens", "config"):
        (folder / name).mkdir(parents=True)
    shutil.copyfile(model, folder / "model" / "net.onnx")
    specs = Model.open(model)
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    goldens = []
    for number, feed in enumerate(feeds):
        answers = dict(zip([spec.name for spec in specs.outputs], session.run(None, feed), strict=True))
        given = {spec.name: pictures[number] for spec in specs.inputs} if pictures else feed
        np.savez(folder / "goldens" / f"{number:03d}.npz", **{f"in:{k}": v for k, v in given.items()},
                 **{f"out:{k}": v for k, v in answers.items()})
        goldens.append({"file": f"goldens/{number:03d}.npz", "name": f"slip_{number:04d}.png",
                        "feed": f"{number:064d}"})
    taken = dict(piece.split(":") for piece in shape.split(";"))
    inputs = [{"name": s.name, "dtype": s.dtype, "shape": [int(n) for n in taken[s.name].split(",")]}
              for s in specs.inputs]
    argv = ["atc", "--model=model/net.onnx", "--framework=5", "--output=om/net", f"--soc_version={soc}",
            f"--input_shape={shape}", *flags]
    if pictures:
        height, width = pictures[0].shape[1:3]
        (folder / "config" / "aipp.cfg").write_text(AIPP.format(h=height, w=width))
        argv.append("--insert_op_conf=config/aipp.cfg")
        inputs = [{**spec, "dtype": "uint8", "shape": [1, height, width, 3]} for spec in inputs]
    about = {
        "format": "kit-ascend-bundle", "version": 1, "name": "net", "soc_version": soc, "cann": "8.1.RC1",
        "model": {"file": "model/net.onnx", "sha256": "", "bytes": 0}, "atc": {"argv": argv, "output": "om/net"},
        "inputs": inputs, "outputs": [{"name": s.name, "dtype": s.dtype, "shape": list(map(str, s.shape))}
                                      for s in specs.outputs],
        "profiles": {"kind": kind, "values": [list(value) for value in values]}, "batches": list(batches),
        "goldens": goldens, "tolerances": {"cosine": 0.99, "relative": 0.02},
        "benchmark": {"warm_up": 2, "runs": 5}, "int8": {"route": "none", "files": [], "steps": [], "note": ""}, **more}
    (folder / "explain.json").write_text(json.dumps(explaining.tables()))
    (folder / "run_on_box.py").write_text(box_script.script_text(), encoding="utf-8")
    return sealed(folder, about)


def sealed(folder: Path, about: dict | None = None) -> Path:
    """Write bundle.json with the hashes of what lies in the folder now."""
    manifest = folder / "bundle.json"
    about = about or json.loads(manifest.read_text())
    about["files"] = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
                      for path in sorted(folder.rglob("*")) if path.is_file() and path != manifest}
    manifest.write_text(json.dumps(about))
    return folder


def box(scratch: Path, **how) -> dict[str, str]:
    """The environment of a FAKE box."""
    return rehearsing.install(scratch, **{"soc": "Ascend310P3", **how})


def pictures(count: int, *shape: int) -> list[dict]:
    """Float feeds with seeded numbers."""
    random = np.random.default_rng(5)
    return [{"x": random.normal(size=shape).astype(np.float32)} for _ in range(count)]
