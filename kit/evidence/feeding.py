"""One set of samples for stages that want it differently: another name, another layout, no scale factor.

A TensorFlow model takes pictures as NHWC and its export as NCHW; a Paddle detector is told how much a picture was
resized and the graph made of it is not. What is fed stays the same numbers; anything else is left to be refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kit.model import TensorSpec

_CHANNELS = (1, 3, 4)  # of a picture


def fitted(feed: Mapping[str, np.ndarray], runner: Any, optional: str = "") -> Mapping[str, np.ndarray]:
    """The feed as a runner takes it.

    Args:
        feed: of one sample.
        runner: with ``inputs``; one that does not tell them, such as a function, gets the feed as it is.
        optional: name of an entry that is left out where the model has no such input.

    Returns:
        A feed without the optional entry where it is not taken, with the model's own name where there is one input and
        one entry, and with its channels moved where only the other layout fits.
    """
    specs: Sequence[TensorSpec] | None = getattr(runner, "inputs", None)
    if specs is None:
        return feed
    wanted = {spec.name: spec for spec in specs}
    kept = {name: array for name, array in feed.items() if name != optional or name in wanted}
    if len(kept) == len(wanted) == 1:
        kept = dict(zip(wanted, kept.values(), strict=True))
    return {name: _laid_out(array, wanted[name].shape) if name in wanted else array for name, array in kept.items()}


def _laid_out(array: np.ndarray, shape: Sequence[int | str]) -> np.ndarray:
    """A picture with its channels where the model has them; as it is where it fits or nothing does."""
    if array.ndim != 4 or len(shape) != 4 or _fits(array.shape, shape):
        return array
    for source, place in ((1, 3), (3, 1)):
        turned = np.moveaxis(array, source, place)
        if array.shape[source] in _CHANNELS and shape[place] == array.shape[source] and _fits(turned.shape, shape):
            return np.ascontiguousarray(turned)
    return array


def _fits(have: Sequence[int], want: Sequence[int | str]) -> bool:
    return all(not isinstance(w, int) or w in (-1, h) for h, w in zip(have, want, strict=True))
