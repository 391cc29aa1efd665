"""Means and factors in an AIPP configuration that compute something else than their author meant."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kit.ascend.preprocessing.aipp_arithmetic import split_mean
from kit.targets.ascend import facts

if TYPE_CHECKING:
    from kit.ascend.preprocessing.aipp_reading import Block

_DOUBLED = "mean_chn and min_chn hold the same mean, and both are taken off"


def check_values(block: Block) -> None:
    """Means, minima and factors: put each where it belongs, in the scale of bytes."""
    if block.values.get("aipp_mode") == "dynamic":
        return
    mean, least, factor = (_three(block, name) for name in ("mean_chn", "min_chn", "var_reci_chn"))
    given = [f"var_reci_chn_{at}" in block.values for at in range(3)]
    if any(given) and not all(given) and block["input_format"] != "YUV400_U8":
        there = given.index(True)
        for at in [at for at in range(3) if factor[there] != 1 and not given[at]]:
            block.say(f"var_reci_chn_{at}", factor[there], f"channel {there} has a factor, this one would keep 1",
                      sure=False)
            factor[at] = factor[there]
    if not any(given):
        least = _factor_among_minima(block, least)
    else:
        _factor_without_255(block, factor)
    if all(0 < one <= 1 for one in mean) and any(one != int(one) for one in mean):
        for at, one in enumerate(mean):
            _set_mean(block, at, 255 * one, f"a mean of 0..1: AIPP works on bytes, so it is 255 * {one:g}")
    elif any(one != int(one) for one in mean):
        for at, one in enumerate(mean):
            if one != int(one):
                _set_mean(block, at, one + least[at], "mean_chn is an integer; the fraction goes into min_chn, which "
                          "is taken off too")
    elif not any(mean) and _known(least, "mean"):
        for at, one in enumerate(least):
            _set_mean(block, at, 255 * one, f"a mean of 0..1: AIPP works on bytes, so it is 255 * {one:g}",
                      key="min_chn")
    elif all(one > 1 and abs(one - other) < 1 for one, other in zip(mean, least, strict=True)):
        for at, one in enumerate(least):
            _set_mean(block, at, one, _DOUBLED, key="min_chn")


def _factor_among_minima(block: Block, least: list[float]) -> list[float]:
    """1/std or 1/255 as a subtrahend, where no factor is given at all."""
    inverse = all(1.5 <= one <= 10 for one in least)
    small = all(0 < one < 0.1 for one in least)
    if not inverse and not small:
        return least
    sure = small or bool(_known(least, "std", inverted=True))
    for at, one in enumerate(least):
        right = one / 255 if inverse else one
        why = ("min_chn is taken off; 1/std is a factor and goes, over 255, into var_reci_chn" if inverse else
               "min_chn is taken off; a factor goes into var_reci_chn")
        block.say(f"min_chn_{at}", None, why, sure=sure)
        block.say(f"var_reci_chn_{at}", right, why, sure=sure)
    return [0.0] * 3


def _factor_without_255(block: Block, factor: list[float]) -> None:
    """1/std without the 255, or std itself, of 0..1 or of bytes."""
    # A factor above 0.2 makes values above 50 out of bytes, which no network was trained on.
    scale = 255 if all(0.2 < one < 1 for one in factor) else 1 if all(25 <= one <= 128 for one in factor) else 0
    if scale:
        sure = bool(_known([one * scale / 255 for one in factor], "std"))
        for at, one in enumerate(factor):
            block.say(f"var_reci_chn_{at}", 1 / (scale * one), "it multiplies: std divides, so the factor is "
                      + ("1 / (255 * std)" if scale > 1 else "1 / std"), sure=sure)
    if not all(1.5 <= abs(one) <= 20 for one in factor):
        return
    sure = bool(_known(factor, "std", inverted=True))
    for at, one in enumerate(factor):
        block.say(f"var_reci_chn_{at}", one / 255, "pixels are bytes of 0..255: the factor is 1 / (255 * std)",
                  sure=sure)


def _set_mean(block: Block, at: int, mean: float, why: str, *, key: str = "mean_chn") -> None:
    """Write a mean as an integer and its rest, as one mistake; a mean that AIPP cannot hold is cut off."""
    whole, rest = split_mean(min(max(mean, 0.0), 510.0))
    was = block.values.get(f"{key}_{at}", "")
    line = block.line(f"{key}_{at}")
    block.values[f"mean_chn_{at}"], block.values[f"min_chn_{at}"] = whole, round(rest, 8)
    said = f"mean_chn_{at} : {whole}, min_chn_{at} : {rest:.8g}"
    block.note(line, f"{key}_{at}", f"{was:g}" if was != "" else "", said, why, sure=0 <= mean <= 510)


def _three(block: Block, name: str) -> list[float]:
    return [float(block[f"{name}_{at}"]) for at in range(3)]


def _known(values: list[float], kind: str, *, inverted: bool = False) -> str:
    """The name of the statistics that three values are, in either order of channels; "" for others."""
    for name, entry in facts("aipp")["statistics"].items():
        known = [1 / one if inverted else one for one in entry[kind]]
        for order in (known, known[::-1]):
            if all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(values, order, strict=True)):
                return name
    return ""
