"""How fast a chip could be at best: peaks of its matrix and vector units and of its memory, from published figures.

What a document does not give is not made up: the figure is then None, and whoever asks says so or is given one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kit.errors import BadInput, UnsupportedModel
from kit.targets.ascend import facts, known, known_chips

Precision = Literal["fp16", "int8"]


@dataclass(frozen=True)
class Speed:
    """Peaks of one chip at one precision.

    Attributes:
        chip: its soc_version.
        cube: multiply-accumulates a second of all matrix units.
        vector: float16 operations a second of all vector units; a multiply and an add are two.
        memory: bytes a second; None where no figure is known.
        cache: bytes a second of the L2 cache before the memory; None where no figure is known.
        cache_size: its bytes; 0 where that is not known.
        block: rows, columns and depth of the product that a matrix unit makes in one cycle.
        sources: figure -> how it comes about and who says so.
    """

    chip: str
    cube: float
    vector: float
    memory: float | None
    cache: float | None
    cache_size: int
    block: tuple[int, int, int]
    sources: dict[str, str]


def speed(chip: str, precision: Precision = "fp16", bandwidth: float | None = None) -> Speed:
    """The peaks of a chip.

    Args:
        chip: its soc_version; upper and lower case are the same.
        precision: of the matrix units. The vector units compute in float16 either way.
        bandwidth: of its memory in GB/s, where you know better than the documents.

    Raises:
        BadInput: there is no such chip; names those that there are.
        UnsupportedModel: nothing is known about the speed of its cores.
    """
    entry = known_chips()[known(chip)]
    rates = facts("rates")
    family = rates["families"].get(entry["aic_version"])
    if family is None:
        raise UnsupportedModel(f"Nothing is known about the speed of the cores of {entry['soc_version']} "
                               f"({entry['aic_version']}).", remedy="choose a chip of one of the families "
                               f"{', '.join(rates['families'])}, such as ascend310p3")
    if bandwidth is not None and bandwidth <= 0:
        raise BadInput(f"A bandwidth of {bandwidth} GB/s makes no sense.", remedy="give a number above 0")
    hertz = entry["cube_freq_mhz"] * 1e6
    cores = entry.get("cube_core_cnt") or entry["ai_core_cnt"]
    block = rates["cube"]["m"], rates["cube"]["n"], rates["cube"]["k"][precision]
    units = _vector_units(entry, family)
    lanes = rates["vector"]["lanes"]["fp16"]
    memory, said = _memory(entry, family, bandwidth)
    cache = family["l2"] * entry["ai_core_cnt"] * hertz if "l2" in family else None
    ini = entry["source"].rpartition("/")[2]
    return Speed(
        entry["soc_version"], cores * block[0] * block[1] * block[2] * hertz,
        sum(count * lanes * rate for count, rate in units), memory, cache, entry.get("l2_size_bytes") or 0, block, {
            "cube": f"{cores} cores x {block[0]} x {block[1]} x {block[2]} products a cycle x "
                    f"{entry['cube_freq_mhz']} MHz (the compiler's figure, boards may differ); {ini}",
            "vector": " + ".join(f"{count} units x {lanes} numbers x {rate / 1e6:.0f} MHz" for count, rate in units)
                      + f"; {ini}",
            "memory": said,
            "cache": f"{family['l2']} byte a cycle and core; {family['source']}" if cache else "no rate is known"})


def _vector_units(entry: dict[str, Any], family: dict[str, Any]) -> list[tuple[int, float]]:
    """How many vector units, and their clock in Hz."""
    clock = entry["cube_freq_mhz"] * 1e6
    counts = {"ai_core_cnt": clock, "vector_core_cnt": family.get("vector_mhz", entry["cube_freq_mhz"]) * 1e6}
    return [(entry[name], counts[name]) for name in family["vector_units"].split("+")]


def _memory(entry: dict[str, Any], family: dict[str, Any], asked: float | None) -> tuple[float | None, str]:
    """Bytes a second and where the figure is from: what was asked for, a document, the compiler's own figure."""
    if asked is not None:
        return asked * 1e9, "as given"
    documented = facts("rates")["memory"].get(entry["soc_version"])
    if documented:
        return documented["gb_per_s"] * 1e9, f"{documented['basis']}; {documented['source']}"
    rate = family.get("memory")
    if rate is None:
        return None, "no bandwidth is documented for this chip: give bandwidth=... in GB/s (see the board's data sheet)"
    moved = rate["ai_core"] * entry["ai_core_cnt"] * entry["cube_freq_mhz"] * 1e6
    moved += rate.get("vector_core", 0) * entry["vector_core_cnt"] * family.get("vector_mhz", 0) * 1e6
    words = [f"{rate[name]} byte a cycle and {word}" for name, word in (("ai_core", "AI Core"),
                                                                        ("vector_core", "vector core")) if name in rate]
    return moved, f"the compiler's own figure ({', '.join(words)}); {family['source']}"
