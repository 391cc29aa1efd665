"""What cannot be right at a stage, whatever its metrics: nothing found, nothing finite, nothing that moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.evidence.waterfall import Heard

FEWER = 0.5  # below this share of what the first stage found, something has vanished, whatever the metric says


def alarms_of(at: int, heard: Sequence[Heard], names: Sequence[str], task: Any) -> tuple[bool, list[str]]:
    """What cannot be right at a stage, in words, and whether it settles the verdict.

    Args:
        at: number of the stage.
        heard: what all stages said.
        names: of the samples.
        task: as given to verify; its ``why_fewer`` names the likely cause where far fewer things are found.
    """
    stage, first, before = heard[at], heard[0], heard[max(at - 1, 0)]
    alarms, deadly = [], False
    broken = [n for n in stage.broken if at == 0 or n not in first.broken]
    if broken:
        deadly = True
        alarms.append(f"NaN or infinite outputs in {len(broken)} of {len(names)} samples: {_some(broken, names)}")
    if at and stage.found:
        lost = [n for n, count in enumerate(stage.found) if count == 0 and before.found[n] > 0]
        found, once = sum(stage.found), sum(first.found)
        why = task.why_fewer(stage.entry.precision) if hasattr(task, "why_fewer") else ""
        why = why and f"; {why}"
        if not found and once:
            deadly = True
            alarms.append(f"finds nothing in any of {len(names)} samples, where {first.entry.name!r} found {once}{why}")
        elif found < FEWER * once:
            alarms.append(f"finds {found} in {len(names)} samples, where {first.entry.name!r} found {once}: fewer than "
                          f"{FEWER:.0%}{why}")
        elif lost:
            alarms.append(f"finds nothing in {len(lost)} of {len(names)} samples where {before.entry.name!r} did: "
                          f"{_some(lost, names)}")
    for name in _stuck(stage, first if at else None):
        deadly = True
        alarms.append(f"output {name!r} is the same for all {len(stage.fed)} different inputs")
    for name, level in stage.flat.items():
        if at and level and not first.flat.get(name, True):
            deadly = True
            alarms.append(f"output {name!r} holds one single value everywhere")
    return deadly, alarms


def _stuck(stage: Heard, first: Heard | None) -> list[str]:
    """Outputs that do not answer to the input; of the first stage only where none does (some are made constant)."""
    if len(stage.fed) < 2:
        return []
    still = [name for name, prints in stage.seen.items() if len(prints) == 1]
    if first is None:
        return still if len(still) == len(stage.seen) else []
    return [name for name in still if len(first.seen.get(name, ())) > 1]


def _some(at: Sequence[int], names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[n] for n in at[:limit]) + (f" and {len(at) - limit} more" if len(at) > limit else "")
