"""How noise becomes a picture's latents, step by step.

DDIM without noise of its own (eta 0), and PNDM as Stable Diffusion uses it: the linear multistep method alone.

In numpy, and nothing of the kit but its errors is needed. The formulas are those of Song et al. 2020 (DDIM,
https://arxiv.org/abs/2010.02502, equation 12) and Liu et al. 2022 (PNDM, https://arxiv.org/abs/2202.09778, equations 9
and 12). Which timesteps are visited, and that PNDM visits its second twice, is what diffusers 0.42 does; a test holds
both against diffusers step by step.

It travels to an Ascend box inside ``draw_on_box.py``, so it keeps to Python 3.8, where zip() has no strict=.
"""

# ruff: noqa: B905
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["pndm", "ddim"]


@dataclass(frozen=True)
class Scheduler:
    """The noise schedule of a pipeline, and the method it is walked back with.

    Attributes:
        kind: ``"pndm"`` (linear multistep) or ``"ddim"`` (eta 0).
        train_steps: timesteps that the UNet was trained on.
        beta_start: share of noise added at the first of them.
        beta_end: and at the last.
        beta_schedule: what is linear between the two: the betas, or their square roots (``"scaled_linear"``).
        steps_offset: added to every timestep visited.
        prediction_type: what the UNet answers: the noise, or ``v`` (Salimans & Ho 2022).
        set_alpha_to_one: the last step ends without any noise, instead of with that of timestep 0.
    """

    kind: Kind = "pndm"
    train_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["scaled_linear", "linear"] = "scaled_linear"
    steps_offset: int = 1
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    set_alpha_to_one: bool = False

    def alphas(self) -> np.ndarray:
        """Share of the picture left at each timestep: the running product of ``1 - beta``, float64 [train_steps]."""
        if self.beta_schedule == "linear":
            betas = np.linspace(self.beta_start, self.beta_end, self.train_steps)
        else:
            betas = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.train_steps) ** 2
        return np.cumprod(1 - betas)

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """The timesteps that the UNet is asked at, in order.

        PNDM asks once more than ``steps`` says: at the second timestep twice.

        Raises:
            BadInput: so many steps do not fit the schedule.
        """
        highest = (steps - 1) * (self.train_steps // max(steps, 1)) + self.steps_offset
        if not 1 <= steps <= self.train_steps or highest >= self.train_steps:
            from kit.errors import BadInput

            raise BadInput(f"{steps} steps do not fit a schedule of {self.train_steps} timesteps with an offset of "
                           f"{self.steps_offset}.",
                           remedy=f"give 1 to {self.train_steps // 2} steps; 20 to 50 are usual")
        spaced = [at * (self.train_steps // steps) + self.steps_offset for at in range(steps)][::-1]
        if self.kind == "pndm" and steps > 1:
            spaced.insert(1, spaced[1])
        return tuple(spaced)

    def sampler(self, steps: int) -> Sampler:
        """A walk of ``steps`` steps from noise to latents; one for each picture.

        Raises:
            BadInput: so many steps do not fit the schedule.
        """
        return (_Pndm if self.kind == "pndm" else _Ddim)(self, steps)


class Sampler:
    """One walk: give ``step`` what the UNet answered at each of ``timesteps``, in order.

    Attributes:
        timesteps: as `Scheduler.timesteps` gives them.
    """

    def __init__(self, scheduler: Scheduler, steps: int) -> None:
        self.timesteps = scheduler.timesteps(steps)
        self._stride = scheduler.train_steps // steps
        self._alphas = scheduler.alphas()
        self._last = 1.0 if scheduler.set_alpha_to_one else float(self._alphas[0])
        self._velocity = scheduler.prediction_type == "v_prediction"
        self._at = 0

    def step(self, answer: np.ndarray, latents: np.ndarray) -> np.ndarray:
        """The latents one step on.

        Args:
            answer: of the UNet at this step, guidance applied, float32 of the latents' shape.
            latents: that the UNet was fed with at this step.
        """
        moved = self._step(answer, latents, self.timesteps[self._at])
        self._at += 1
        return moved.astype(latents.dtype)

    def _step(self, answer: np.ndarray, latents: np.ndarray, timestep: int) -> np.ndarray:
        raise NotImplementedError

    def _alpha(self, timestep: int) -> float:
        return float(self._alphas[timestep]) if timestep >= 0 else self._last


def guided(noise: np.ndarray, guidance: float) -> np.ndarray:
    """Answers without prompt and with it, [2, ...], made one, [1, ...]: classifier-free guidance (Ho 2022)."""
    return noise[:1] + np.float32(guidance) * (noise[1:] - noise[:1])


#: Adams-Bashforth: weights of the newest answer first, by how many there are.
_WEIGHTS = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


class _Ddim(Sampler):
    def _step(self, answer: np.ndarray, latents: np.ndarray, timestep: int) -> np.ndarray:
        now, then = self._alpha(timestep), self._alpha(timestep - self._stride)
        if self._velocity:
            clean = now**0.5 * latents - (1 - now) ** 0.5 * answer
            noise = now**0.5 * answer + (1 - now) ** 0.5 * latents
        else:
            clean, noise = (latents - (1 - now) ** 0.5 * answer) / now**0.5, answer
        return then**0.5 * clean + (1 - then) ** 0.5 * noise


class _Pndm(Sampler):
    """The first step is taken twice: forward, then again with the mean of both answers (improved Euler)."""

    def __init__(self, scheduler: Scheduler, steps: int) -> None:
        super().__init__(scheduler, steps)
        self._answers: list[np.ndarray] = []  # newest first
        self._began: np.ndarray | None = None

    def _step(self, answer: np.ndarray, latents: np.ndarray, timestep: int) -> np.ndarray:
        target = timestep - self._stride
        if self._at == 1:  # the same stretch again, from where it began
            target, timestep, latents = timestep, timestep + self._stride, self._began
            answer = (answer + self._answers[0]) / 2
        else:
            self._answers = [answer, *self._answers[:3]]
            if self._at == 0:
                self._began = latents
            else:
                weights = _WEIGHTS[len(self._answers)]
                answer = sum(weight * kept for weight, kept in zip(weights, self._answers))
        now, then = self._alpha(timestep), self._alpha(target)
        if self._velocity:
            answer = now**0.5 * answer + (1 - now) ** 0.5 * latents
        below = now * (1 - then) ** 0.5 + (now * (1 - now) * then) ** 0.5
        return (then / now) ** 0.5 * latents - (then - now) / below * answer
