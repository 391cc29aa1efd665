"""Pictures of several pipelines against those of a reference: pixels, structure, and whether they show what was asked.

Public through ``diffusion``. All were drawn from the same noise with the same options, so picture n of one belongs to
picture n of the other, and every difference is one of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from kit.card import Card, Table
from kit.errors import BadInput, unknown
from kit.evidence import bootstrap
from kit.evidence.verdict import Change
from kit.families.diffusion_drawn import Drawn
from kit.families.diffusion_judge import PictureJudge
from kit.families.diffusion_likeness import medians, prompt_weights, psnr, shares, ssim
from kit.options import Help, Options, Range, expect
from kit.record import Provenance

_WORST = 5  # pictures that the card tells of one by one


@dataclass(frozen=True)
class PictureOptions(Options):
    """What a comparison of pictures forgives, and how its intervals are made."""

    allowed_loss: Annotated[float, Range(0, 1, 0.01), Help(
        "with a judge: share of pictures judged right that a pipeline may lose against the reference")] = 0.03
    least_psnr: Annotated[float, Range(0, 100, 1), Help(
        "without a judge: median PSNR in dB that a pipeline must keep; at 20 dB eyes see the difference")] = 20.0
    confidence: Annotated[float, Range(0.5, 0.999, 0.01), Help("how much the intervals hold")] = 0.95
    resamples: Annotated[int, Range(100, 100_000, 100), Help("how often the prompts are drawn anew")] = 2000
    seed: Annotated[int, Range(0, 2**31 - 1, 1), Help("of the resampling")] = 0


@dataclass(frozen=True)
class Spread:
    """A figure of many pictures: median with its interval, and the worst of them."""

    median: float
    low: float
    high: float
    worst: float

    def cells(self, digits: int) -> tuple[str, str, str]:
        """Median, interval and worst, as words for a table."""
        return (f"{self.median:.{digits}f}", f"[{self.low:.{digits}f}, {self.high:.{digits}f}]",
                f"{self.worst:.{digits}f}")


@dataclass(frozen=True)
class PictureRow:
    """One pipeline; the reference's own PSNR is the best there is.

    Attributes:
        name: as it was given.
        psnr: dB, one a picture, 0 to 100.
        ssim: one a picture, -1 to 1.
        psnr_of_all: of all pictures.
        ssim_of_all: of all pictures.
        read: what the judge reads in each picture, in words; empty without a judge.
        right: whether it is what the prompt asks for; empty without a judge.
        accuracy: share of right ones; None without a judge.
        interval: of the accuracy.
        change: of the accuracy against the reference, in pairs; None for the reference and without a judge.
        alarmed: numbers of the pictures that cannot be right.
        why: what is wrong with the pipeline's pictures as a whole; "" where nothing is.
    """

    name: str
    psnr: tuple[float, ...] = field(repr=False)
    ssim: tuple[float, ...] = field(repr=False)
    psnr_of_all: Spread
    ssim_of_all: Spread
    read: tuple[str, ...] = field(repr=False)
    right: tuple[bool, ...] = field(repr=False)
    accuracy: float | None
    interval: tuple[float, float] | None
    change: Change | None
    alarmed: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class PictureComparison(Card):
    """What ``compare_pictures`` returns; true where no pipeline lost more than is allowed or has an alarm of its own.

    Attributes:
        rows: one a pipeline; the first is the reference.
        drawn: name -> its pictures.
        options: see the class.
    """

    rows: tuple[PictureRow, ...]
    drawn: dict[str, Drawn] = field(repr=False)
    options: PictureOptions
    provenance: Provenance | None = field(default=None, compare=False)

    def __bool__(self) -> bool:
        return not any(row.why for row in self.rows)

    @property
    def prompts(self) -> tuple[str, ...]:
        """One a picture."""
        return self.drawn[self.rows[0].name].prompts

    def row(self, name: str | None = None) -> PictureRow:
        """The row of a pipeline; the last by default.

        Raises:
            BadInput: there is none of that name.
        """
        for row in self.rows:
            if row.name == (name or self.rows[-1].name):
                return row
        raise unknown("pipeline", name, [row.name for row in self.rows], "this comparison")

    def order(self, name: str | None = None) -> tuple[int, ...]:
        """Numbers of the pictures, the one farthest from the reference first (by PSNR, then SSIM)."""
        row = self.row(name)
        return tuple(sorted(range(len(row.psnr)), key=lambda at: (row.psnr[at], row.ssim[at], at)))

    def title(self) -> str:
        first, *others = self.rows
        said = []
        for row in others:
            judged = f", {row.accuracy:.3f} judged right ({row.change})" if row.change else ""
            said.append(f"{row.name}: PSNR {row.psnr_of_all.median:.1f} dB, SSIM {row.ssim_of_all.median:.3f}{judged}"
                        + (f"; {row.why}" if row.why else ""))
        right = f" ({first.accuracy:.3f} judged right)" if first.accuracy is not None else ""
        return f"Against {first.name}{right}: {'; '.join(said)}" if said else f"{first.name} alone{right}"

    def facts(self) -> dict[str, object]:
        prompts = len(set(self.prompts))
        judged = self.rows[0].accuracy is not None
        asked = f"a loss of {self.options.allowed_loss:g} of those judged right is allowed" if judged else \
            f"no judge: a median PSNR of {self.options.least_psnr:g} dB is asked for"
        sure = [row.name for row in self.rows if row.accuracy in (0, 1)]
        return {
            **{f"ALARM {n}": alarm for n, alarm in enumerate(self.alarms, start=1)},
            "pictures": f"{len(self.prompts)} of {prompts} prompts, from the same noise",
            "allowed": asked,
            "intervals": f"{self.options.confidence:.0%}, of the median and of the share judged right, from resampling "
                         "the prompts; changes are of pairs",
            **({"mind": f"all pictures of {', '.join(sure)} are judged alike, which resampling cannot widen: of other "
                        f"prompts up to {min(1.0, 3 / prompts):.1%} may still be judged otherwise (rule of three)"}
               if sure and judged else {}),
        }

    @property
    def alarms(self) -> tuple[str, ...]:
        """What cannot be right, with the pipeline's name."""
        return tuple(f"{name}: {alarm}" for name, drawn in self.drawn.items() for alarm in drawn.alarms)

    def tables(self) -> tuple[Table, ...]:
        first, *others = self.rows
        judged = first.accuracy is not None
        more = ("judged right", "interval of it", "change") if judged else ()
        columns = ("pipeline", "PSNR dB", "interval", "worst", "SSIM", "interval", "worst", *more, "alarms")
        rows = tuple((
            row.name, *(("-",) * 6 if row is first else (*row.psnr_of_all.cells(1), *row.ssim_of_all.cells(3))),
            *((f"{row.accuracy:.3f}", "[{:.3f}, {:.3f}]".format(*row.interval), row.change or "-") if judged else ()),
            len(row.alarmed)) for row in self.rows)
        return (Table(f"Pictures against those of {first.name}", columns, rows),
                *(self._farthest(row) for row in others))

    def _farthest(self, row: PictureRow) -> Table:
        judged = bool(row.right)
        cells = []
        for at in self.order(row.name)[:_WORST]:
            saw = ("right" if row.right[at] else f"wrong: {row.read[at]}",) if judged else ()
            cells.append((at, self.prompts[at], f"{row.psnr[at]:.1f}", f"{row.ssim[at]:.3f}", *saw,
                          "yes" if at in row.alarmed else "-"))
        return Table(f"Farthest from {self.rows[0].name}: {row.name}", (
            "picture", "prompt", "PSNR dB", "SSIM", *(("judged",) if judged else ()), "alarm"), tuple(cells))


def compare_pictures(reference: Drawn, others: Mapping[str, Drawn], judge: PictureJudge | None = None,
                     options: PictureOptions = PictureOptions()) -> PictureComparison:
    """Compare pictures with those of a reference, one by one.

    Args:
        reference: what ``draw`` gave for the pipeline that the others are held against.
        others: name -> what it gave for another pipeline, with the same prompts and options.
        judge: says whether a picture shows what its prompt asks for.
        options: see the class.

    Raises:
        BadInput: pictures of other prompts, options or sizes, a name that is there twice, or a prompt that the judge
            does not know.
        MissingTool: scikit-image is not installed.
    """
    expect(PictureOptions, options)
    if reference.pipeline in others:
        raise BadInput(f"{reference.pipeline!r} is the name of the reference and of another pipeline.",
                       remedy="give the other one another name")
    for name, drawn in others.items():
        _check_pair(reference, drawn, name)
    weights = prompt_weights(reference.prompts, options.resamples, options.seed)
    drawn = {reference.pipeline: reference, **others}
    rows: list[PictureRow] = []
    for name, own in drawn.items():
        rows.append(_row(name, own, reference, judge, weights, options, rows[0] if rows else None))
    return PictureComparison(tuple(rows), drawn, options)


def _check_pair(reference: Drawn, other: Drawn, name: str) -> None:
    wanted, has = (({**vars(drawn.options), "threads": 0}, drawn.prompts, drawn.pictures.shape[1:])
                   for drawn in (reference, other))
    for what, left, right in zip(("options", "prompts", "sizes"), wanted, has, strict=True):
        if left != right:
            told = ", ".join(f"{key} {right[key]!r} and not {left[key]!r}" for key in left if left[key] != right[key]) \
                if what == "options" else f"{right!r:.80} and not {left!r:.80}"
            raise BadInput(f"The pictures of {name!r} were drawn with other {what} than those of "
                           f"{reference.pipeline!r}: {told}.", remedy="draw both with the same prompts and options")


def _row(name: str, own: Drawn, reference: Drawn, judge: PictureJudge | None, weights: np.ndarray,
         options: PictureOptions, first: PictureRow | None) -> PictureRow:
    pairs = list(zip(reference.pictures, own.pictures, strict=True))
    likeness = {"psnr": tuple(psnr(*pair) for pair in pairs), "ssim": tuple(ssim(*pair) for pair in pairs)}
    spreads = {key: Spread(float(np.median(values)), *bootstrap.interval(
        medians(np.array(values), weights), options.confidence), min(values)) for key, values in likeness.items()}
    alarmed = tuple(sorted({alarm.prompt for alarm in own.alarms}))
    read, right, accuracy, interval, change = (), (), None, None, None
    if judge is not None:
        answers = judge.answers(own.pictures)
        # A broken picture shows nothing, whatever a classifier reads in it.
        found = judge.right(answers, own.prompts) & np.isfinite(own.pictures).all(axis=(1, 2, 3))
        read, right = tuple(map(judge.words, answers)), tuple(found.tolist())
        accuracy, drawn = float(found.mean()), shares(found, weights)
        interval = bootstrap.interval(drawn, options.confidence)
        if first is not None:
            lost = shares(np.array(first.right), weights) - drawn
            change = Change(first.name, first.accuracy - accuracy, *bootstrap.interval(lost, options.confidence))
    why = "" if first is None else _why(alarmed, first, change, spreads["psnr"].median, options)
    return PictureRow(name, **likeness, psnr_of_all=spreads["psnr"], ssim_of_all=spreads["ssim"], read=read,
                      right=right, accuracy=accuracy, interval=interval, change=change, alarmed=alarmed, why=why)


def _why(alarmed: tuple[int, ...], first: PictureRow, change: Change | None, median: float,
         options: PictureOptions) -> str:
    broken = sorted(set(alarmed) - set(first.alarmed))
    if broken:
        return f"{len(broken)} pictures cannot be right that are sound in {first.name}"
    if change is not None:
        lost = round(change.loss - options.allowed_loss, 9) > 0  # shares of few pictures lie on the border
        return f"more than the {options.allowed_loss:g} allowed is lost" if lost else ""
    return f"below the {options.least_psnr:g} dB asked for" if median < options.least_psnr else ""
