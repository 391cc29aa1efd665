"""How far AIPP's arithmetic is from the float preprocessing that the model was trained and checked with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from kit.ascend.preprocessing.aipp_arithmetic import Settings, run
from kit.card import Card, Table
from kit.errors import BadInput
from kit.samples import Samples

if TYPE_CHECKING:
    from kit.ascend.preprocessing.aipp_config import Aipp

#: Upper ends of the histogram's bins, in spacings of float16 at the value; the last is open.
BINS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, np.inf)


@dataclass(frozen=True)
class Place:
    """Where a difference is: the sample, the channel, the pixel, and both values there."""

    sample: str
    channel: int
    row: int
    column: int
    wanted: float
    got: float


@dataclass(frozen=True)
class AippDifference(Card):
    """AIPP against ``Preprocess`` on real pictures. All differences are those of normalised values.

    Attributes:
        samples: how many were compared.
        values: how many values.
        largest: largest difference.
        spacings: the same, in spacings of float16 at that value (1 is the distance to the next number).
        steps: the same, as a share of one step of a byte: 1 is a pixel brighter by one.
        mean: mean difference.
        where: of the largest.
        histogram: how many values differ by up to so many spacings, one count a bin of ``BINS``.
        rounded: largest difference that float16 alone makes: the float preprocessing rounded once.
        once: largest difference of a chip that rounds at the end only.
        in_minimum: largest difference with all of the mean in min_chn; None where it does not fit in.
        in_picture: largest difference outside of what the host padded.
        split: whether the mean is split in this AIPP.
        registers: see ``Settings``.
        input: name of the model's input.
    """

    samples: int
    values: int
    largest: float
    spacings: float
    steps: float
    mean: float
    where: Place
    histogram: tuple[int, ...] = field(repr=False)
    rounded: float
    once: float
    in_minimum: float | None
    in_picture: float
    split: bool
    registers: str
    input: str

    def title(self) -> str:
        return (f"AIPP differs from the float preprocessing by {self.largest:.3g} at most: "
                f"{self.steps:.2g} of one step of a byte")

    def facts(self) -> dict[str, object]:
        where = self.where
        whole = "out of range" if self.in_minimum is None else f"{self.in_minimum:.3g}"
        return {
            "in float16 spacings": f"{self.spacings:.2g} at that value",
            "where": f"{where.sample}, channel {where.channel}, row {where.row}, column {where.column}: "
                     f"{where.wanted:.6g} wanted, {where.got:.6g} from AIPP",
            "mean difference": f"{self.mean:.3g}",
            "float16 alone": f"{self.rounded:.3g}",
            "if the chip rounds once": f"{self.once:.3g}",
            "with the mean in min_chn": f"{whole} ({'split here' if self.split else 'as here'})",
            **({"in the picture alone": f"{self.in_picture:.3g}; the rest is the host's padding"}
               if self.in_picture < self.largest else {}),
            "compared": f"{self.values:,} values of {self.samples} samples",
            "simulated": f"yes: {self.registers} registers, no chip was asked",
        }

    def tables(self) -> tuple[Table, ...]:
        rows = []
        for low, high, count in zip((0.0, *BINS), BINS, self.histogram, strict=False):
            words = "equal" if high == 0 else f"over {low:g}" if high == np.inf else f"up to {high:g}"
            rows.append((words, f"{count:,}", f"{count / self.values:.1%}"))
        return (Table("Difference in spacings of float16", ("spacings", "values", "share"), tuple(rows)),)


def compare(made: Aipp, samples: Samples, limit: int) -> AippDifference:
    """See ``Aipp.compare``."""
    if not isinstance(samples, Samples) or not len(samples):
        raise BadInput("AIPP is compared on pictures: give Samples with at least one.",
                       remedy="kit.Samples.from_folder(folder, preprocess)")
    if samples.preprocess != made.preprocess:
        raise BadInput("These samples are prepared in another way than this AIPP stands for.",
                       remedy="give samples with the same Preprocess, or make the AIPP from samples.preprocess")
    whole = _in_minimum(made)
    state = _Worst(made)
    for item in samples.items[:limit]:
        picture = item.load()
        wanted = made.preprocess(picture).astype(np.float64)
        try:
            fed = made.prepare(picture)
        except BadInput as error:
            raise BadInput(f"{item.name}: {error.what}", remedy=error.remedy) from error
        if made.size != (0, 0):  # a fixed width: Preprocess pads to its own, zeros both
            wanted = wanted[..., : made.size[1]] if wanted.shape[3] >= made.size[1] else np.pad(
                wanted, ((0, 0), (0, 0), (0, 0), (0, made.size[1] - wanted.shape[3])))
        others = run(made.settings, fed, "once"), None if whole is None else run(whole, fed)
        padded = made.preprocess.resized(picture).shape[1] if made.options.host_padding else wanted.shape[3]
        state.add(item.name, wanted, made.simulate(fed), *others, padded)
    return state.result()


def _in_minimum(made: Aipp) -> Settings | None:
    """The settings with the mean in ``min_chn`` alone; None where that is out of its range."""
    means = [whole + rest for whole, rest in zip(made.settings.mean, made.settings.minimum, strict=True)]
    return replace(made.settings, mean=(0, 0, 0), minimum=tuple(means)) if max(means) <= 255 else None


class _Worst:
    """Extremes and counts over all samples."""

    def __init__(self, made: Aipp) -> None:
        self.made, self.samples, self.values, self.total = made, 0, 0, 0.0
        self.largest, self.spacings, self.steps = -1.0, 0.0, 0.0
        self.where: Place | None = None
        self.histogram = np.zeros(len(BINS), np.int64)
        self.rounded = self.once = self.in_picture = 0.0
        self.in_minimum: float | None = None

    def add(self, name: str, wanted: np.ndarray, got: np.ndarray, once: np.ndarray, whole: np.ndarray | None,
            width: int) -> None:
        """Take a sample's values; from column ``width`` on the host padded."""
        gap = np.abs(wanted - got)
        spacing = np.spacing(np.maximum(np.abs(wanted), np.abs(got.astype(np.float64))).astype(np.float16))
        relative = gap / spacing.astype(np.float64)
        self.histogram += np.histogram(relative, [-1, *(np.nextafter(end, np.inf) for end in BINS[:-1]), np.inf])[0]
        at = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
        self.samples, self.values, self.total = self.samples + 1, self.values + gap.size, self.total + float(gap.sum())
        self.rounded = max(self.rounded, float(np.abs(wanted - wanted.astype(np.float16)).max()))
        self.once = max(self.once, float(np.abs(wanted - once).max()))
        if whole is not None:
            self.in_minimum = max(self.in_minimum or 0.0, float(np.abs(wanted - whole).max()))
        self.in_picture = max(self.in_picture, float(gap[..., :width].max()))
        if gap[at] > self.largest:
            self.largest, self.spacings = float(gap[at]), float(relative[at])
            self.steps = self.largest / abs(self.made.settings.factor[at[1]])
            self.where = Place(name, *at[1:], float(wanted[at]), float(got[at]))

    def result(self) -> AippDifference:
        assert self.where is not None
        return AippDifference(
            self.samples, self.values, self.largest, self.spacings, self.steps, self.total / self.values, self.where,
            tuple(int(count) for count in self.histogram), self.rounded, self.once, self.in_minimum,
            self.in_picture, self.made.options.split, self.made.settings.registers, self.made.input)

