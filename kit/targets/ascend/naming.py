"""Names of chips and of CANN releases as people give them: taken when they are right, and answered when they are not.

ATC takes one exact ``--soc_version`` (upper and lower case are the same here). What ``npu-smi`` shows, and the name of
a whole family, look like one and are none: each is answered with the names that ATC takes.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.errors import BadInput, unknown

HERE = Path(__file__).parent
_FIRST = ("ascend310p3",)  # offered before the others
_OLDER = {"ascend910b": "Ascend910B without a digit is a chip of the first generation; Atlas A2 cards are Ascend910B1 "
                        "to B4."}


@functools.cache
def facts(name: str) -> dict[str, Any]:
    """A data file of this folder, such as ``operators``, ``chips``, ``breakers`` or ``releases``."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


@functools.cache
def known_chips() -> Mapping[str, dict[str, Any]]:
    """soc_version in lower case -> its entry, for every chip that ATC knows."""
    return {soc.lower(): {"soc_version": soc, **entry} for soc, entry in facts("chips")["chips"].items()}


@functools.cache
def chips() -> Mapping[str, dict[str, Any]]:
    """As ``known_chips``, for those whose operator kernels are known."""
    return {name: entry for name, entry in known_chips().items() if "opp_dir" in entry}


#: Those with known kernels first: what a person chooses from.
NAMES: tuple[str, ...] = tuple(dict.fromkeys((*_FIRST, *sorted(chips()), *sorted(known_chips()))))
RELEASES: tuple[str, ...] = tuple(facts("releases")["releases"])


def is_ours(name: str) -> bool:
    """Was an Ascend chip meant?"""
    return bool(re.match(r"ascend|(310|610|910)[a-z0-9_-]*$", _plain(name)))


def known(name: str) -> str:
    """The soc_version in lower case.

    Raises:
        BadInput: it is what ``npu-smi`` shows, the name of a family, or no chip at all; says which names are valid.
    """
    if not isinstance(name, str):
        raise BadInput(f"A chip is named by a text, not by {type(name).__name__}.",
                       remedy='write it like "ascend310p3"')
    plain = _plain(name)
    if plain in known_chips():
        return plain
    full = plain if plain.startswith("ascend") else f"ascend{plain}"
    family = [entry["soc_version"] for entry in known_chips().values() if entry["short_soc"].lower() == full]
    single = known_chips().get(full)
    if len(family) > 1 or (family and not single):
        also = f"; {single['soc_version']} itself is another, older chip" if single else ""
        raise BadInput(f"{name!r} is the name of a family of chips; ATC's --soc_version names one of them.",
                       remedy=f"choose one of {', '.join(family)}; npu-smi info shows which: {_how(family[0])}{also}")
    if single:
        raise BadInput(f"{name!r} is the name that npu-smi shows; ATC's --soc_version is {single['soc_version']}.",
                       remedy=f"write {single['soc_version']}")
    raise unknown("soc_version", plain, NAMES)


def older(name: str) -> str:
    """A sentence about a chip whose name is that of a newer family too; "" for all others."""
    return _OLDER.get(_plain(name), "")


def release(name: str | None) -> str | None:
    """The CANN release of that name, such as ``8.1.RC1``; ``8.1`` means the first that is known of its line.

    Returns:
        None for None and "": any release.

    Raises:
        BadInput: nothing is known about it; names those that are known.
    """
    if name is not None and not isinstance(name, str):
        raise BadInput(f"A CANN release is a text, not {name!r}.", remedy='write it like "8.1.RC1", or leave it out')
    if name is None or not name.strip():
        return None
    plain = re.sub(r"^\s*(cann)?[\s-]*v?", "", name, flags=re.IGNORECASE).strip().lower()
    for one in RELEASES:
        if one.lower() == plain or one.lower().startswith(plain + "."):
            return one
    raise BadInput(f"Nothing is known about a CANN release {name!r}.",
                   remedy=f"choose the nearest of {', '.join(RELEASES)}, or leave it out")


def _plain(name: str) -> str:
    return re.sub(r"\s", "", name).lower()


def _how(soc: str) -> str:
    if soc.startswith("Ascend910_"):
        return f"of npu-smi info -t board -i <id> -c <chip>, Chip Name and NPU Name make {soc}"
    return f"where it shows {soc.removeprefix('Ascend')}, write {soc}"
