"""FAKE ``InferSession``: the calls and modes that ais_bench documents, over a FAKE .om."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MODES = {"static": "static", "dymbatch": "batch", "dymhw": "image", "dymdims": "dims"}


@dataclass(frozen=True)
class _Meta:
    """An input or output."""

    name: str
    shape: list[int]
    datatype: str


@dataclass
class _Summary:
    """What ``summary()`` gives."""

    exec_time_list: list[float] = field(default_factory=list)


class InferSession:
    """A FAKE .om, opened."""

    def __init__(self, device_id: int, model_path: str, acl_json_path: str | None = None, debug: bool = False,
                 loop: int = 1) -> None:
        from kit.ascend.box.rehearsing.om import FakeOm, is_fake

        if not isinstance(model_path, str) or not Path(model_path).is_file():
            raise RuntimeError(f"FAKE ais_bench: {model_path} does not exist")
        if device_id != 0:
            raise RuntimeError(f"FAKE ais_bench: there is no device {device_id}, error code 107001")
        if not is_fake(model_path):
            raise RuntimeError(f"FAKE ais_bench: {model_path} was not made by the FAKE atc, error code 545001")
        self._om: Any = FakeOm(model_path)
        soc = os.environ.get("KIT_FAKE_SOC", "Ascend310P3")
        if self._om.about["soc"] != soc:
            raise RuntimeError(f"FAKE ais_bench: the .om is for {self._om.about['soc']}, this is {soc}, "
                               "error code 507008")
        self._summary = _Summary()

    def get_inputs(self) -> list[_Meta]:
        """Without the input that chooses a profile."""
        return [_Meta(spec["name"], list(spec["shape"]), spec["dtype"]) for spec in self._om.about["inputs"]]

    def get_outputs(self) -> list[_Meta]:
        """Named as ATC names them."""
        return [_Meta(spec["called"], list(spec["shape"]), spec["dtype"]) for spec in self._om.about["outputs"]]

    def infer(self, feeds: list[np.ndarray], mode: str = "static", custom_sizes: int = 100000,
              out_array: bool = True) -> list[np.ndarray]:
        """One run; the mode must be that of the model."""
        if self._om is None:
            raise RuntimeError("FAKE ais_bench: the session was freed")
        if mode not in MODES:
            raise RuntimeError(f"wrong infer_mode:{mode}, only support {', '.join(MODES)}")
        about = self._om.about
        if MODES[mode] != about["profiles"]["kind"]:
            raise RuntimeError(f"not a {mode} model!")
        specs = about["inputs"]
        if len(feeds) != len(specs):
            raise RuntimeError("input datas and intensors nums not matched!")
        self._check(feeds, specs, [tuple(value) for value in about["profiles"]["values"]])
        start = time.perf_counter()
        answers = self._om.run({spec["name"]: feed for spec, feed in zip(specs, feeds, strict=True)},
                               nan=os.environ.get("KIT_FAKE_FAULT") == "nan")
        self._summary.exec_time_list.append((time.perf_counter() - start) * 1000)
        return list(answers.values())

    def summary(self) -> _Summary:
        """Milliseconds of every run so far."""
        return self._summary

    def reset_summaryinfo(self) -> None:
        """Forget the times."""
        self._summary = _Summary()

    def free_resource(self) -> None:
        """Give the device back."""
        if self._om is not None:
            self._om.close()
        self._om = None

    def _check(self, feeds: list[np.ndarray], specs: list[dict[str, Any]], values: list[tuple[int, ...]]) -> None:
        for value in values or [()]:
            shapes = [self._om.shape_of(spec, value) for spec in specs]
            if all(list(feed.shape) == shape for feed, shape in zip(feeds, shapes, strict=True)):
                break
        else:
            raise RuntimeError(f"shapes {[list(feed.shape) for feed in feeds]} are no profile of the model, error code "
                               "145013")
        for feed, spec in zip(feeds, specs, strict=True):
            if feed.dtype.name != spec["dtype"]:
                raise RuntimeError(f"{spec['name']} takes {spec['dtype']}, not {feed.dtype.name}, error code 100017")
