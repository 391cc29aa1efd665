"""A walk from noise to latents as it was seen: every input of the UNet, every answer, the latents at the end.

What step errors and the verification of single parts stand on: both need inputs that really occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kit.errors import BadInput
from kit.families.diffusion_drawing import StepSeen, draw
from kit.families.diffusion_drawn import Drawn, DrawOptions
from kit.families.diffusion_pipeline import Pipeline
from kit.progress import Report, silent


@dataclass(frozen=True)
class Trajectory:
    """Pictures being drawn.

    Attributes:
        drawn: what came of it.
        steps: picture -> its calls of the UNet, in order.
    """

    drawn: Drawn
    steps: tuple[tuple[StepSeen, ...], ...]

    def latents(self, picture: int) -> np.ndarray:
        """The latents after each step, float32 [steps, 4, h, w]."""
        fed = [step.feed["sample"][0] for step in self.steps[picture]]
        return np.stack([*fed[1:], self.drawn.latents[picture]])

    def feeds(self) -> list[dict[str, np.ndarray]]:
        """Every input of the UNet with a batch of one: without the prompt, then with it, step by step."""
        return [{name: array if name == "timestep" else array[at : at + 1] for name, array in step.feed.items()}
                for steps in self.steps for step in steps for at in range(len(step.feed["sample"]))]


def walk(pipeline: Pipeline, prompts: Sequence[str], options: DrawOptions, report: Report = silent) -> Trajectory:
    """Draw, and keep what the UNet was fed and answered."""
    seen: list[list[StepSeen]] = [[] for _ in prompts]
    drawn = draw(pipeline, prompts, options, watch=lambda step: seen[step.prompt].append(step), report=report)
    return Trajectory(drawn, tuple(map(tuple, seen)))


def prompts_of(captured: Any, prompts: Sequence[str] | None) -> tuple[str, ...]:
    """The prompts asked for, or those that ``captured`` was captured with.

    Raises:
        BadInput: there are none.
    """
    found = prompts if prompts is not None else getattr(captured, "prompts", ())
    if isinstance(found, str) or not len(found):
        raise BadInput("There are no prompts." if not isinstance(found, str) else "The prompts are one text.",
                       remedy='give several, such as prompts=["a red circle above a blue square"]')
    return tuple(found)


def far(reference: np.ndarray, other: np.ndarray) -> float:
    """Norm of the difference over the norm of the reference; infinite where the other is not finite."""
    left, right = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    if not np.isfinite(right).all():
        return float("inf")
    gap, size = float(np.linalg.norm(left - right)), float(np.linalg.norm(left))
    return gap / size if size else float("inf") if gap else 0.0
