"""The loop of a search: propose, try, write down, until nothing is left to try or the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import replace

from kit.errors import BadInput, KitError, ToolFailed
from kit.progress import Report, Tick, silent
from kit.trials.attempt import Ask
from kit.trials.log import Log, Trial, keep_best
from kit.trials.space import Candidate
from kit.trials.strategy import Seen, propose

#: From a question to a trial; a keyword ``report`` hears ticks where it runs in this process.
Attempt = Callable[..., Trial]


def conduct(log: Log, attempt: Attempt, first: Candidate, space: Sequence[Candidate], *, allowed: float, seconds: float,
            everything: bool = False, executor: Executor | None = None, report: Report = silent,
            clock: Callable[[], float] = time.monotonic) -> bool:
    """Try candidates; every trial goes into the log as it ends, and the best so far into its folder.

    Args:
        log: what it already holds is not tried again.
        attempt: does a trial; called in this process, or picklable where there is an executor.
        first: the baseline.
        space: every candidate.
        allowed: the largest loss that is accurate enough.
        seconds: no trial is begun after so many, earlier calls with this log included.
        everything: try every candidate, in order, and measure each whole.
        executor: trials are submitted to it, as many at once as it has workers.
        report: hears the progress.
        clock: of the time spent.

    Returns:
        Whether the search came to its end; False where the time was over before.

    Raises:
        KitError: the baseline cannot be measured.
    """
    before, began = log.spent, clock()
    spent = lambda: before + clock() - began  # noqa: E731
    running: dict[Future, Ask] = {}
    most = _workers(executor)
    if not log.trials:
        _note(log, _run(attempt, Ask(0, first), executor, report), spent(), allowed)
    if log.trials[0].state == "failed":
        raise ToolFailed(f"The float model could not be measured: {log.trials[0].why}",
                         remedy="run it once with kit.open_runner; when that works, remove the search's folder "
                         f"({log.folder}) and search again")
    _keep(log, allowed)  # a run that was killed may have written the line and not the files
    over = False
    while True:
        over = over or spent() >= seconds
        while not over and len(running) < most:
            ask = _next(log, space, running, allowed, everything)
            if ask is None:
                break
            if executor is None:
                _say(log, space, ask, allowed, everything, report)
                _note(log, attempt(ask, report=report), spent(), allowed)
                over = spent() >= seconds
            else:
                running[_submit(executor, attempt, ask)] = ask
        if not running:
            return not over or _next(log, space, running, allowed, everything) is None
        done, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
        for future in done:
            _note(log, _result(future, running.pop(future)), spent(), allowed)
        if running:
            try:
                _say(log, space, next(iter(running.values())), allowed, everything, report)
            except BaseException:
                for future in running:
                    future.cancel()
                raise


def _next(log: Log, space: Sequence[Candidate], running: dict[Future, Ask], allowed: float,
          everything: bool) -> Ask | None:
    under_way = [ask.candidate for ask in running.values()]
    if everything:
        known = {trial.candidate for trial in log.trials} | set(under_way)
        candidate = next((c for c in space if c not in known), None)
    else:
        candidate = propose(space, log.trials, allowed, under_way)
    if candidate is None or any(_share(candidate, other) for other in under_way):
        return None
    used = {trial.number for trial in log.trials} | {ask.number for ask in running.values()}
    number = next(n for n in range(len(used) + 1) if n not in used)  # a killed run leaves gaps
    best = Seen(log.trials, allowed).best
    known = next((t for t in log.trials if t.loss is not None and t.candidate.made_of == candidate.made_of), None)
    return Ask(number, candidate, log.trials[0], best.high if best and not everything else None, known)


def _share(one: Candidate, other: Candidate) -> bool:
    """Whether two candidates would build the same file, or rank the same layers, at the same time."""
    same_file = (one.runtime, one.method, one.keep) == (other.runtime, other.method, other.keep)
    return bool(one.method and other.method) and (same_file or bool(one.keep and other.keep))


def _run(attempt: Attempt, ask: Ask, executor: Executor | None, report: Report) -> Trial:
    if executor is None:
        report(Tick(0, None, "measuring the float model"))
        return attempt(ask, report=report)
    future = _submit(executor, attempt, ask)
    while not wait([future], timeout=0.2).done:
        report(Tick(0, None, "measuring the float model"))
    return _result(future, ask)


def _submit(executor: Executor, attempt: Attempt, ask: Ask) -> Future:
    try:
        return executor.submit(attempt, ask)
    except RuntimeError as error:  # shut down, or a process of it died
        raise BadInput(f"The executor takes no more trials ({error}).",
                       remedy="make a new one and search again: the log goes on where it stopped") from error


def _result(future: Future, ask: Ask) -> Trial:
    try:
        return future.result()
    except KitError as error:
        return Trial(ask.number, ask.candidate, "failed", why=error.what)
    except Exception as error:  # whatever a foreign executor raises: its worker died, it could not pickle
        return Trial(ask.number, ask.candidate, "failed", why=f"{type(error).__name__}: {error}"[:300])


def _note(log: Log, trial: Trial, spent: float, allowed: float) -> None:
    log.add(replace(trial, at=round(spent, 3)))
    _keep(log, allowed)


def _keep(log: Log, allowed: float) -> None:
    best = Seen(log.trials, allowed).best
    if best is not None and best.artifact is not None:
        keep_best(log.folder, best)


def _say(log: Log, space: Sequence[Candidate], ask: Ask, allowed: float, everything: bool, report: Report) -> None:
    best = Seen(log.trials, allowed).best
    so_far = f"; best so far {best.speedup:.2f}x, {best.candidate.label}" if best else ""
    report(Tick(len(log.trials) - 1, len(space) if everything else None, f"trying {ask.candidate.label}{so_far}"))


def _workers(executor: Executor | None) -> int:
    """How many trials to keep under way: as many as the executor has workers."""
    if executor is None:
        return 1
    known = getattr(executor, "_max_workers", None)
    if known is None and hasattr(executor, "_client"):  # dask.distributed's ClientExecutor
        known = len(executor._client.scheduler_info()["workers"])
    return known or 2
