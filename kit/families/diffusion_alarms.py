"""What cannot be right about a drawn picture, whatever it should show, and where it began: part and step.

A picture that is black, of one colour or not finite is the usual way in which a diffusion pipeline fails after a change
of precision: float16 overflows in the autoencoder, or one step of the UNet does, and everything after it is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

BLACK = 0.02  # no value of the picture is above this, of 0..1
FLAT = 1 / 255  # no channel's standard deviation is above this: less than one step of a stored picture
# Asked only where a picture is black or flat. Latents of a sound walk stay below about 60: noise of 4 standard
# deviations, times 1 / sqrt(alpha) = 15 at the first timestep, if the UNet answered zero all the way.
FAR = 200.0
STILL = 1e-4  # standard deviation over the pixels below which the UNet's answer is the same everywhere


@dataclass(frozen=True)
class Alarm:
    """A picture that cannot be right.

    Attributes:
        prompt: number of the picture, from 0.
        text: its prompt.
        kind: what is wrong with the picture.
        part: where it began.
        step: of the UNet, from 0; None where it began in another part.
        timestep: of that step.
        why: what was seen there.
    """

    prompt: int
    text: str
    kind: Literal["NaN", "black", "flat"]
    part: str
    step: int | None
    timestep: int | None
    why: str

    def __str__(self) -> str:
        place = f"{self.part}, step {self.step} (timestep {self.timestep})" if self.step is not None else self.part
        return f"picture {self.prompt} ({self.text!r}) is {self.kind}; it began in {place}: {self.why}"


class PictureWatch:
    """Looks at what the parts answer while one picture is drawn; ``alarm`` says what came of it.

    Args:
        prompt: number of the picture.
        text: its prompt.
    """

    def __init__(self, prompt: int, text: str) -> None:
        self._prompt, self._text = prompt, text
        self._broken: tuple[str, int | None, int | None, str] | None = None  # the first that was not finite
        self._odd: tuple[str, int | None, int | None, str] | None = None  # the first that was finite and strange

    def text(self, hidden: np.ndarray) -> None:
        """Look at the text encoder's answers."""
        self._finite(hidden, "text_encoder", None, None, "its answer")

    def step(self, at: int, timestep: int, noise: np.ndarray, latents: np.ndarray) -> None:
        """Look at the UNet's answers at a step, float32 [2, 4, h, w], and the latents that came of them."""
        if self._broken:
            return
        self._finite(noise, "unet", at, timestep, "its answer")
        self._finite(latents, "unet", at, timestep, "the latents after it")
        if self._broken or self._odd:
            return
        highest = float(np.abs(latents).max())
        if highest > FAR:
            self._odd = "unet", at, timestep, f"the latents reach {highest:.3g}"
        elif float(noise.std(axis=(-2, -1)).max()) < STILL:
            self._odd = "unet", at, timestep, "its answer is the same at every pixel"

    def alarm(self, picture: np.ndarray) -> Alarm | None:
        """What is wrong with the picture, [3, H, W] in 0..1, or None."""
        self._finite(picture, "vae_decoder", None, None, "its answer")
        if self._broken:
            began = self._broken
            if self._odd:  # numbers ran away, and only later were no numbers any more
                part, step, timestep, why = self._odd
                began = part, step, timestep, f"{why}; later {self._broken[-1]}"
            return Alarm(self._prompt, self._text, "NaN", *began)
        kind = "black" if picture.max() < BLACK else "flat" if picture.std(axis=(-2, -1)).max() < FLAT else None
        if kind is None:
            return None
        began = self._odd or ("vae_decoder", None, None, "the latents that it was given look sound")
        return Alarm(self._prompt, self._text, kind, *began)

    def _finite(self, values: np.ndarray, part: str, step: int | None, timestep: int | None, what: str) -> None:
        if self._broken is None:
            bad = int(values.size - np.isfinite(values).sum())
            if bad:
                self._broken = part, step, timestep, f"{what} holds {bad} NaN or infinite values of {values.size}"
