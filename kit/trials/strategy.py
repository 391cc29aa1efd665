"""Which candidate to try next, given what was measured so far. Pure: the same log gives the same answer.

What makes it short: things separate. The latency depends on runtime, precision and how many groups stay in float, and
hardly on how ranges were chosen; the loss depends on precision, ranges and groups, and hardly on runtime or threads.
So one trial tells the speed of a kind; only kinds that would be faster than the best accurate one are made accurate,
by other ranges first and then by keeping more groups in float; and only the best one is tried with other settings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from kit.trials.log import Trial
from kit.trials.space import Candidate

#: Where one of these precisions of the same runtime is accurate, the kind is not tried: it cannot be faster.
_COVERED = {("openvino", "fp32"): ("bf16", "fp16")}


class Seen:
    """The trials so far, asked by candidate.

    Args:
        trials: in any order.
        allowed: the largest loss that is accurate enough.
    """

    def __init__(self, trials: Sequence[Trial], allowed: float) -> None:
        self.allowed = allowed
        self.by = {trial.candidate: trial for trial in trials}

    @property
    def best(self) -> Trial | None:
        """The fastest of those that are accurate enough."""
        good = [trial for trial in self.by.values() if trial.is_accurate(self.allowed)]
        return min(good, key=lambda trial: (trial.ratio, trial.number), default=None)

    def loss(self, candidate: Candidate) -> float | None:
        """Its loss, or the largest loss seen of the same precision, ranges and groups on any runtime."""
        found = self.by.get(candidate)
        if found and found.loss is not None:
            return found.loss
        alike = [t.loss for t in self.by.values() if t.loss is not None and t.candidate.method
                 and (t.candidate.method, t.candidate.keep) == (candidate.method, candidate.keep)]
        return max(alike, default=None)


def propose(space: Sequence[Candidate], trials: Sequence[Trial], allowed: float,
            running: Collection[Candidate] = ()) -> Candidate | None:
    """The candidate to try next.

    Args:
        space: every candidate, see ``kit.trials.space``.
        trials: those that ended.
        allowed: the largest loss that is accurate enough.
        running: those under way, which are not proposed again.

    Returns:
        None where nothing is left to try, or what comes next depends on those under way.
    """
    seen = Seen(trials, allowed)
    known = set(space)
    for candidate in _wanted(space, seen, running):
        if candidate in known and candidate not in seen.by and candidate not in running:
            return candidate
    return None


def _wanted(space: Sequence[Candidate], seen: Seen, running: Collection[Candidate]) -> Iterator[Candidate]:
    heads = list({candidate.kind: candidate for candidate in reversed(space)}.values())[::-1]
    heads = [head for head in heads if not _is_covered(head, seen)]
    yield from heads
    if any(head in running for head in heads):
        return
    for head in sorted(heads, key=lambda head: _ratio(seen, head)):
        best = seen.best
        if _ratio(seen, head, "low") >= (best.ratio if best else 1.0):
            break  # repairs make a file slower, not faster
        if not seen.by[head].is_accurate(seen.allowed) and head.method:
            yield from _repairs(head, space, seen, running)
    if not running and seen.best:
        yield from _neighbours(seen.best.candidate, space)


def _is_covered(head: Candidate, seen: Seen) -> bool:
    finer = _COVERED.get(head.kind, ())
    return any(trial.candidate.kind == (head.runtime, precision) and trial.is_accurate(seen.allowed)
               for precision in finer for trial in seen.by.values())


def _repairs(head: Candidate, space: Sequence[Candidate], seen: Seen,
             running: Collection[Candidate]) -> Iterator[Candidate]:
    """Other ranges first, those that are known to lose little elsewhere before the others; then more in float."""
    kind = [candidate for candidate in space if replace(candidate, method="", keep=0) == replace(head, method="")]
    methods = list(dict.fromkeys(candidate.method for candidate in kind))
    ways = [replace(head, method=method) for method in methods]
    ways.sort(key=lambda way: _or(seen.loss(way), seen.allowed))
    for way in ways:
        yield way
        if way in running or _is_good(way, seen):
            return
    nearest = min(ways, key=lambda way: _or(seen.loss(way), float("inf")))
    for keep in sorted({candidate.keep for candidate in space if candidate.kind == head.kind} - {0}):
        way = replace(nearest, keep=keep)
        yield way
        if way in running or _is_good(way, seen) or (seen.best and _ratio(seen, way) >= seen.best.ratio):
            return


def _neighbours(chosen: Candidate, space: Sequence[Candidate]) -> Iterator[Candidate]:
    """Those that are run otherwise, and the next with more in float: conversions may cost more than they gain."""
    same = [candidate for candidate in space if candidate.made_of == chosen.made_of]
    yield from same
    keeps = sorted({candidate.keep for candidate in space if candidate.kind == chosen.kind and
                    candidate.keep > chosen.keep})
    yield from (replace(chosen, keep=keep) for keep in keeps[:1])


def _is_good(candidate: Candidate, seen: Seen) -> bool:
    return candidate in seen.by and seen.by[candidate].is_accurate(seen.allowed)


def _ratio(seen: Seen, candidate: Candidate, which: str = "ratio") -> float:
    trial = seen.by.get(candidate)
    return float("inf") if trial is None or trial.ratio is None else getattr(trial, which)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
