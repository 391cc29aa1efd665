"""What a box recorded, as something that verify, benchmark, charts and report take beside models that run here.

Answers are found by what is fed, times are shown with the device they come from. Nothing of it ran here, and where the
tools were fakes the name says so.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kit.ascend.box.results import BoxResults, BoxTiming
from kit.ascend.bundling.golden_samples import feed_digest
from kit.errors import BadInput

FAKE = "FAKE"
EXACT = ("origin",)  # every other precision of atc lets some operators compute in 16 bits


def label(name: str, results: BoxResults) -> str:
    """The name of a row: the caller's, with the device where it does not say it, and FAKE where nothing is real."""
    soc = results.label.removeprefix(f"{FAKE} ")
    said = name if soc.lower() in name.lower() else f"{name} on {soc}"
    return f"{said} ({FAKE})" if results.fake and FAKE not in said else said


def where(results: BoxResults) -> str:
    """``measured on Ascend310P3, not interleaved here``; of fakes, that nothing was measured."""
    if results.fake:
        return f"{FAKE}, nothing was measured: {results.fake}"
    return f"measured on {results.label}, not interleaved here"


@dataclass(frozen=True)
class Recorded:
    """The answers that a box gave to golden inputs: called with one of those feeds, it gives what was recorded.

    Attributes:
        results: as ``load_results`` gives them.
    """

    results: BoxResults = field(repr=False)

    def __call__(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The recorded outputs of this feed.

        Raises:
            BadInput: the box was not given this input.
        """
        names = [entry["name"] for entry in self.results.bundle["goldens"]]
        number = self._numbers.get(feed_digest(feed))
        if number is None:
            raise BadInput(f"{self.results.label} was not given this input; it was given {len(names)} golden ones.",
                           remedy="verify with kit.ascend.goldens(bundle), or with those of the bundle's samples: "
                           + (", ".join(names[:5]) or "none are named"))
        return self.results.answers(number)

    def digest(self) -> str:
        """Of what was recorded."""
        from kit.record import digest

        outputs = self.results.outputs
        return digest([self.results.path, outputs if outputs.is_file() else ""])

    @property
    def settings(self) -> dict[str, str]:
        """As a runner tells them."""
        about = {name: str(value) for name, value in self.results.device.items() if value and name != "host"}
        return {"runtime": f"recorded on {self.results.label}", **about}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader is warned of wherever this is shown."""
        return (f"{FAKE}: nothing ran on a device ({self.results.fake}).",) if self.results.fake else ()

    @property
    def device(self) -> str:
        """Where it ran."""
        return self.results.label

    @property
    def precision(self) -> str:
        """What the numbers inside are: ATC rounds to 16 bits unless it was asked not to."""
        if self.results.bundle.get("int8", "none") not in ("", "none"):
            return "quantized"
        return "float" if self.results.bundle.get("precision", "") in EXACT else "half"

    @property
    def size(self) -> int:
        """Bytes of the .om; 0 for a FAKE one."""
        return 0 if self.results.fake else int(self.results.build.get("om_bytes") or 0)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {entry["feed"]: n for n, entry in enumerate(self.results.bundle["goldens"])}


@dataclass(frozen=True)
class RecordedTiming:
    """Times of one batch size that a box measured; never compared with what was timed here.

    Attributes:
        name: of the row.
        device: where it ran, with FAKE where nothing is real.
        where: in words, for the column of verdicts.
        fake: which tools were fakes; "" for none.
        batch: inputs a run.
        times_ms: milliseconds of every run.
        p50_ms: median.
        p95_ms: 95th percentile.
        fps: inputs a second, from the median.
        size: bytes of the .om.
    """

    name: str
    device: str
    where: str
    fake: str
    batch: int
    times_ms: tuple[float, ...] = field(repr=False)
    p50_ms: float
    p95_ms: float
    fps: float
    size: int

    @property
    def shown_ms(self) -> str:
        """``3.21 ms on Ascend310P3``; of a fake no figure at all."""
        return "-" if self.fake else f"{self.p50_ms:.2f} ms on {self.device}"

    def row(self) -> tuple[str, ...]:
        """p50, p95 and FPS as text; dashes for a fake, whose times mean nothing."""
        if self.fake:
            return ("-", "-", "-")
        return (f"{self.p50_ms:.2f}", f"{self.p95_ms:.2f}", f"{self.fps:.1f}")


def timings(name: str, results: BoxResults) -> tuple[RecordedTiming, ...]:
    """One row for each batch size or profile that was measured; ``name`` is the row's label."""
    return tuple(RecordedTiming(
        _case(name, row), results.label, where(results), results.fake, row.batch,
        row.times_ms, row.p50_ms, row.p95_ms, row.fps, Recorded(results).size) for row in results.benchmark)


def _case(name: str, row: BoxTiming) -> str:
    """One picture a run has the plain name, so that it stands on one line with its accuracy."""
    if row.profile:
        return f"{name}, {'x'.join(map(str, row.profile))}"
    return name if row.batch == 1 else f"{name}, batch {row.batch}"
