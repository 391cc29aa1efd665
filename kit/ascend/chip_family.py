"""Which family a chip belongs to: facts about kernels and AIPP are the same for all chips of one."""

from __future__ import annotations

from kit.errors import unknown
from kit.targets.ascend import chips


def exact_name(soc_version: str) -> str:
    """The chip's name as ATC takes it; upper and lower case are the same.

    Raises:
        BadInput: no such chip, or nothing is known about its kernels; names the closest.
    """
    return _entry(soc_version)["soc_version"]


def family_of(soc_version: str) -> str:
    """Such as ``ascend310p`` for Ascend310P3.

    Raises:
        BadInput: no such chip, or nothing is known about its kernels; names the closest.
    """
    return _entry(soc_version)["opp_dir"]


def _entry(soc_version: str) -> dict:
    found = chips().get(soc_version.strip().lower())
    if found is None:
        raise unknown("Ascend chip with known kernels", soc_version,
                      [entry["soc_version"] for entry in chips().values()])
    return found
