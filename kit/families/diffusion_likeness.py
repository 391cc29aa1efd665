"""How alike two pictures are: PSNR and SSIM as scikit-image computes them, and what they say of many pictures.

Medians, because a single picture that went another way would move a mean more than it says. Intervals by resampling
the prompts: pictures of one prompt are no independent evidence.

Source of SSIM: Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural Similarity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kit.errors import BadInput
from kit.evidence import bootstrap
from kit.need import need

BEST = 100.0  # dB: from here on two pictures in float32 differ by rounding alone
_WINDOW = 7  # pixels of SSIM's window, scikit-image's default


def psnr(reference: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two pictures, in dB, 0 to 100.

    Args:
        reference: float32 [H, W, 3] in 0..1.
        other: of the same shape. Where it is not finite nothing is left of the picture: 0.
    """
    metrics = need("skimage.metrics", to="compare pictures", extra="diffusion")
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return 0.0
    with np.errstate(divide="ignore"):  # equal pictures: infinite
        found = metrics.peak_signal_noise_ratio(reference, other, data_range=1.0)
    return float(np.clip(found, 0.0, BEST))


def ssim(reference: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity of two pictures, -1 to 1 (equal); arguments as of ``psnr``.

    Raises:
        BadInput: pictures smaller than 7 x 7.
    """
    metrics = need("skimage.metrics", to="compare pictures", extra="diffusion")
    if min(reference.shape[:2]) < _WINDOW:
        raise BadInput(f"Pictures of {reference.shape[1]} x {reference.shape[0]} are too small for SSIM.",
                       remedy=f"draw at least {_WINDOW} x {_WINDOW} pixels")
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return 0.0
    return float(metrics.structural_similarity(reference, other, channel_axis=2, data_range=1.0, win_size=_WINDOW))


def prompt_weights(prompts: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """How often each picture counts in each resample: int64 [resamples, pictures].

    Prompts are drawn, and all pictures of a prompt go with it. The same arguments give the same rows, so that two
    pipelines are compared in pairs.
    """
    names = list(dict.fromkeys(prompts))
    groups = np.array([names.index(prompt) for prompt in prompts])
    return np.concatenate(list(bootstrap.weights(len(names), resamples, seed)))[:, groups]


def shares(right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of right pictures in each resample: float64 [resamples]."""
    return (weights @ right.astype(np.float64)) / weights.sum(axis=1)


def medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted median of each resample: float64 [resamples].

    Args:
        values: [pictures].
        weights: int64 [resamples, pictures], how often each counts; none of the rows is empty.
    """
    order = np.argsort(values, kind="stable")
    ranked, below = np.asarray(values, np.float64)[order], weights[:, order].cumsum(axis=1)
    half = below[:, -1:] / 2
    # The middle of an even count lies between two values.
    return (ranked[(below >= half).argmax(axis=1)] + ranked[(below > half).argmax(axis=1)]) / 2
