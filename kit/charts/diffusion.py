"""Pictures of what a diffusion pipeline draws beside those of a reference, and of its error on the way there."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.charts.chart import Chart
from kit.charts.style import COLOURS, INK, logarithmic
from kit.errors import BadInput
from kit.families.diffusion_drawn import data_uri
from kit.need import need

if TYPE_CHECKING:
    from kit.families.diffusion_pictures import PictureComparison, PictureRow
    from kit.families.diffusion_steps import StepErrors

BLUE, VERMILLION, GREEN, PURPLE = COLOURS[:4]
GAINS = (1, 2, 5, 10, 20, 50, 100)  # of a picture of differences
_LOST = tuple(int(VERMILLION[at : at + 2], 16) / 255 for at in (1, 3, 5))  # of a pixel that is no number
_SIDE, _CELL = 220, 150  # CSS pixels of a picture in a pair and at most in a grid
_LINE, _WIDE, _NAME = 18, 96, 26  # CSS pixels of a line of text; letters of a prompt in it, and of a name in a pair
# Up to here a PNG is small enough to store in a notebook; a JPEG of so few pixels would show errors of its own.
_LOSSLESS = 256 * 256


def picture_pair(comparison: PictureComparison, name: str | None = None, number: int | None = None, *,
                 gain: float | None = None) -> Chart:
    """One picture of the reference, the same of another pipeline, and how far they differ, amplified.

    Args:
        comparison: what ``kit.families.diffusion.compare_pictures`` found.
        name: of the other pipeline; the last by default.
        number: of the picture, as in the comparison's tables; by default the one farthest from the reference.
        gain: what differences are multiplied with; by default the largest of 1, 2, 5 ... 100 at which none is cut.

    Raises:
        BadInput: no such picture or pipeline.
    """
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    from plotly.subplots import make_subplots

    first, row = comparison.rows[0], comparison.row(name)
    at = comparison.order(row.name)[0] if number is None else checked(comparison, number)
    left, right = (comparison.drawn[each.name].pictures[at] for each in (first, row))
    apart, gain = difference(left, right, gain)
    figure = make_subplots(1, 3, horizontal_spacing=0.03, subplot_titles=(
        _shortened(first.name, _NAME), _shortened(row.name, _NAME), f"difference x {gain:g}"))
    for place, pixels in enumerate((left, right, apart), start=1):
        figure.add_trace(_image(go, pixels), 1, place)
        _frame(figure, 1, place, pixels)
    height, width = left.shape[:2]
    if not np.isfinite(left - right).all():
        _note(figure, 3, "orange: no number", under=True)
    figure.update_layout(title=f"{_shortened(comparison.prompts[at])}<br>{_said(row, at)}", showlegend=False,
                         height=round(_SIDE * height / width) + 120, margin={"l": 10, "r": 10, "t": 95, "b": 20})
    return Chart(figure, _pair_words(comparison, at, row.name))


def picture_grid(comparison: PictureComparison, numbers: Sequence[int] | None = None, *, count: int = 4,
                 name: str | None = None) -> Chart:
    """Pictures of all pipelines side by side, a line for each prompt.

    Args:
        comparison: what ``kit.families.diffusion.compare_pictures`` found.
        numbers: of the pictures, as in the comparison's tables.
        count: without ``numbers``: how many, those farthest from the reference.
        name: without ``numbers``: of the pipeline that is farthest there; the last by default.

    Raises:
        BadInput: no such picture or pipeline, or none at all.
    """
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    from plotly.subplots import make_subplots

    found = comparison.order(name)[:max(0, count)] if numbers is None else \
        [checked(comparison, number) for number in numbers]
    if not found:
        raise BadInput("No picture was asked for.", remedy="give the numbers of some, or a count of 1 or more")
    columns = len(comparison.rows)
    cell = min(_CELL, 740 // columns)
    height, width = comparison.drawn[comparison.rows[0].name].pictures.shape[1:3]
    tall, text = round(cell * height / width), 2 * _LINE + 14
    whole = len(found) * (tall + text)
    figure = make_subplots(len(found), columns, horizontal_spacing=0.02,
                           vertical_spacing=text / whole if len(found) > 1 else 0)
    for line, at in enumerate(found, start=1):
        for place, row in enumerate(comparison.rows, start=1):
            pixels = comparison.drawn[row.name].pictures[at]
            figure.add_trace(_image(go, pixels), line, place)
            _frame(figure, line, place, pixels)
            _note(figure, (line - 1) * columns + place, _under(row, at, row is comparison.rows[0]), under=True)
            if line == 1:
                _note(figure, place, f"<b>{_shortened(row.name, cell // 7)}</b>", under=False, shift=_LINE + 4)
        _note(figure, (line - 1) * columns + 1, f"{at}: {_shortened(comparison.prompts[at], columns * cell // 6)}",
              under=False, left=True)
    figure.update_layout(title="Pictures of the same prompts and noise", showlegend=False,
                         width=max(420, columns * (cell + 12) + 30), height=whole + 100,
                         margin={"l": 15, "r": 15, "t": 90, "b": 40})
    words = [f"picture {at}, {comparison.prompts[at]!r}: " + ", ".join(
        f"{row.name} {_under(row, at, row is comparison.rows[0])}" for row in comparison.rows) for at in found]
    return Chart(figure, f"Pictures of {len(found)} prompts, each drawn by "
                         f"{', '.join(row.name for row in comparison.rows)}. {'; '.join(words)}.")


def step_errors_chart(errors: StepErrors) -> Chart:
    """The error of single steps and of all steps so far, by timestep, on a logarithmic axis.

    Open loop: each step starts where the reference was. Closed loop: each starts from the one before. The dotted and
    the dash-dotted line say what the single steps would add up to if they were independent and if all pointed the same
    way: a closed loop under both repairs, one above both amplifies.

    Args:
        errors: what ``kit.families.diffusion.step_errors`` found.
    """
    go = need("plotly.graph_objects", to="draw a chart", extra="base")
    timesteps = [row.timestep for row in errors.rows]
    with np.errstate(over="ignore", invalid="ignore"):
        independent = np.median(np.sqrt(np.square(errors.added).cumsum(axis=1)), axis=0)
        aligned = np.median(errors.added.cumsum(axis=1), axis=0)
    lines = (
        ("answer, with prompt", [row.prompted for row in errors.rows], COLOURS[4], "solid", "circle-open"),
        ("answer, guided", [row.guided for row in errors.rows], GREEN, "solid", "diamond-open"),
        ("latents, this step alone (open loop)", [row.added for row in errors.rows], BLUE, "dash", "square"),
        ("latents, all steps so far (closed loop)", [row.closed for row in errors.rows], VERMILLION, "solid", "circle"),
        ("steps alone, if independent", independent, INK, "dot", None),
        ("steps alone, if all point the same way", aligned, INK, "dashdot", None))
    figure = go.Figure()
    for name, values, colour, dash, symbol in lines:
        marks = {"mode": "lines+markers", "marker": {"symbol": symbol, "size": 6}} if symbol else {"mode": "lines"}
        figure.add_scatter(x=timesteps, y=_above_zero(values), name=name, **marks,
                           line={"color": colour, "dash": dash, "width": 2 if symbol else 1.5},
                           hovertemplate=f"{name}<br>timestep %{{x}}: %{{y:.3%}}<extra></extra>")
    if errors.captured:
        figure.add_scatter(x=[row.timestep for row in errors.captured], y=_above_zero(
            [row.median for row in errors.captured]), mode="markers", name="answers on captured inputs", marker={
                "symbol": "x", "size": 9, "color": PURPLE},
                           hovertemplate="captured inputs<br>timestep %{x}: %{y:.3%}<extra></extra>")
    figure.update_layout(
        title=f"Error on the way, {errors.candidate} against {errors.reference}", height=480, showlegend=True,
        legend={"orientation": "h"},
        yaxis=logarithmic("error, of the reference's norm", [v for trace in figure.data for v in trace.y]),
        xaxis={"autorange": "reversed", "title": {"text": "timestep, the walk begins at the left"}})
    steepest = max(errors.rows, key=lambda row: row.added if np.isfinite(row.added) else np.inf)
    return Chart(figure, f"Lines of the error by timestep, on a logarithmic axis. {errors.title()}. "
                         f"{len(errors.rows)} steps from timestep {timesteps[0]} to {timesteps[-1]}; alone, step "
                         f"{steepest.step} (timestep {steepest.timestep}) adds most, {steepest.added:.2%}. The single "
                         f"steps come to {errors.independent:.2%} if independent and to {errors.aligned:.2%} if all "
                         f"point the same way.")


def checked(comparison: PictureComparison, number: int) -> int:
    """The number of a picture.

    Raises:
        BadInput: there is no such picture.
    """
    if not 0 <= number < len(comparison.prompts):
        raise BadInput(f"There is no picture {number}.",
                       remedy=f"give a number from 0 to {len(comparison.prompts) - 1}")
    return number


def difference(reference: np.ndarray, other: np.ndarray, gain: float | None = None) -> tuple[np.ndarray, float]:
    """How far two pictures differ, and what that is multiplied with.

    Args:
        reference: float32 [H, W, 3] in 0..1.
        other: of the same shape.
        gain: see ``picture_pair``.

    Returns:
        float32 [H, W, 3] in 0..1, black where they are equal, orange where one of them is not finite; the gain.
    """
    apart = np.abs(reference - other)
    known = np.isfinite(apart)
    largest = float(apart[known].max(initial=0.0))
    if gain is None:
        gain = max((each for each in GAINS if each * largest <= 1), default=1) if largest else 1
    seen = np.where(known, apart * gain, 0).clip(0, 1).astype(np.float32)
    seen[~known.all(axis=2)] = _LOST
    return seen, gain


def _said(row: PictureRow, at: int) -> str:
    """``PSNR 21.3 dB, SSIM 0.812, judged right``."""
    return f"PSNR {row.psnr[at]:.1f} dB, SSIM {row.ssim[at]:.3f}" + (f", {_judged(row, at)}" if row.right else "")


def _judged(row: PictureRow, at: int) -> str:
    """``judged right``, or what the judge reads instead; "" without a judge."""
    return "" if not row.right else "judged right" if row.right[at] else f"judged wrong: {row.read[at]}"


def _pair_words(comparison: PictureComparison, at: int, name: str) -> str:
    """What a picture of two pipelines shows, in words."""
    first, row = comparison.rows[0], comparison.row(name)
    seen = f" {first.name} is {_judged(first, at)}." if first.right else ""
    alarms = "".join(f" ALARM, {each}: {alarm}." for each in dict.fromkeys((first.name, row.name))
                     for alarm in comparison.drawn[each].alarms if alarm.prompt == at)
    return (f"Picture {at}, {comparison.prompts[at]!r}, drawn by {first.name} and by {row.name}, and their difference: "
            f"{_said(row, at)}.{seen}{alarms}")


def _shortened(prompt: str, letters: int = _WIDE) -> str:
    """A prompt or a name that fits into one line, for plotly, which takes ``<b>`` for a tag."""
    return escape(prompt if len(prompt) <= letters else f"{prompt[:letters - 1].rstrip()}…", quote=False)


def _under(row: PictureRow, at: int, reference: bool) -> str:
    likeness = [] if reference else [f"{row.psnr[at]:.1f} dB"]
    answer = [] if not row.right else ["right" if row.right[at] else "wrong"]
    return ", ".join([*likeness, *answer, *(["ALARM"] if at in row.alarmed else [])]) or "reference"


def _image(go: Any, picture: np.ndarray) -> Any:
    """A trace; small pictures without loss."""
    if picture.shape[0] * picture.shape[1] <= _LOSSLESS:
        return go.Image(source=data_uri(picture), hoverinfo="skip")
    pixels = np.clip(np.nan_to_num(picture, posinf=1, neginf=0), 0, 1) * 255
    return go.Image(z=pixels.round().astype(np.uint8), hoverinfo="skip")


def _frame(figure: Any, line: int, place: int, picture: np.ndarray) -> None:
    """Axes that show the picture and nothing else."""
    height, width = picture.shape[:2]
    figure.update_xaxes(visible=False, range=[-0.5, width - 0.5], row=line, col=place)
    figure.update_yaxes(visible=False, range=[height - 0.5, -0.5], row=line, col=place)


def _note(figure: Any, axis: int, text: str, *, under: bool, left: bool = False, shift: int = 0) -> None:
    """Words above or under the picture on axes ``axis``, counted from 1."""
    number = "" if axis == 1 else str(axis)
    figure.add_annotation(
        xref=f"x{number} domain", yref=f"y{number} domain", x=0 if left else 0.5, y=0 if under else 1, text=text,
        showarrow=False, xanchor="left" if left else "center", yanchor="top" if under else "bottom",
        yshift=-2 if under else 2 + shift, font={"size": 12, "color": INK})


def _above_zero(values: Any) -> list[float | None]:
    """For a logarithmic axis: a gap where there is nothing to draw."""
    return [float(value) if np.isfinite(value) and value > 0 else None for value in values]
