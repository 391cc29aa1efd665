"""``rehearse(bundle)``: the bundle's own script, with FAKE tools, before anyone carries the bundle to a server.

It tells whether the bundle is whole and the script goes through it to the end: files, flags, names, shapes, profiles,
AIPP, golden inputs. It tells nothing about a real ATC, a real chip or time, and the result says FAKE.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kit import worker
from kit.ascend.box import rehearsing
from kit.ascend.box.box_tools import read_bundle, write_json
from kit.ascend.box.results import BoxResults, load_results
from kit.ascend.box.run_on_box import STEPS
from kit.errors import BadInput, ToolFailed, unknown
from kit.progress import Report, Tick, silent
from kit.record import explain_os_error
from kit.runtimes.om_session import Failure

SCRIPT, MANIFEST = "run_on_box.py", "bundle.json"
BACKENDS = ("auto", "acl", "ais_bench")
RUNS = 3  # times are not kept, so a few do


def rehearse(bundle: Any, *, fault: str = "", into: Path | str | None = None, profile: bool = False,
             backend: str = "auto", report: Report = silent) -> BoxResults:
    """Run a bundle's ``run_on_box.py`` here, in a copy, with FAKE atc, npu-smi, acl, ais_bench and msprof.

    Args:
        bundle: its folder, its bundle.json, or a result of ``kit.compile`` that is a bundle.
        fault: something that is wrong on the box, see ``kit.ascend.box.rehearsing.FAULTS``; the rehearsal then shows
            what the script says about it.
        into: folder of the results; by default beside the bundle, with ``-rehearsal`` and the fault behind its name.
        profile: also go through the step that asks msprof.
        backend: ``acl`` or ``ais_bench``; ``auto`` takes what is there.
        report: hears the steps; what it raises ends the rehearsal.

    Returns:
        Results marked FAKE, without times; true when the bundle went through.

    Raises:
        BadInput: that is no bundle, or there is no such fault or backend.
        ToolFailed: the script ended without results.
    """
    check_backend(backend)
    folder = _folder(bundle)
    try:
        about = read_bundle(folder)
    except Failure as error:
        raise BadInput(f"{folder} is not a whole bundle: {error.what}",
                       remedy="make it with kit.compile(model, kit.ascend.BundleOptions(...))") from error
    return rehearse_folder(
        folder, (MANIFEST, *about.get("files", {})), into, script=SCRIPT, steps=STEPS, soc=about["soc_version"],
        cann=about.get("cann", ""), fault=fault, cut=about["model"]["file"], backend=backend,
        options=["--profile"] if profile else [], results=load_results, report=report)


def check_backend(backend: str) -> None:
    """Refuse what cannot run an .om.

    Raises:
        BadInput: names those that can.
    """
    if backend not in BACKENDS:
        raise unknown("backend", str(backend), BACKENDS, "a rehearsal")


def rehearse_folder(folder: Path, names: Iterable[str], into: Path | str | None, *, script: str, steps: Sequence[str],
                    soc: str, cann: str, fault: str, cut: str, backend: str, results: Callable[[Path], Any],
                    report: Report, options: Sequence[str] = ()) -> Any:
    """Run a script of a folder for the box here, in a copy, with FAKE tools.

    Args:
        folder: what is rehearsed.
        names: of the files in it that are copied.
        into: folder that the results go to; by default beside ``folder``, with ``-rehearsal`` and the fault.
        script: of the folder.
        steps: that it goes through.
        soc: chip of the FAKE box.
        cann: release on it; "" for any.
        fault: see ``kit.ascend.box.rehearsing.FAULTS``; "" for none.
        cut: the file that the fault "damaged" cuts short.
        backend: of ``BACKENDS``.
        options: of the script, more than these.
        results: reads what lies in ``into``; only an earlier rehearsal, whose ``fake`` is not empty, is replaced.
        report: hears the steps; what it raises ends the rehearsal.

    Returns:
        What ``results`` reads.

    Raises:
        BadInput: there is no such fault, the folder lacks the script, or ``into`` holds something else.
        ToolFailed: the script ended without results.
    """
    target = Path(into) if into else folder.with_name("-".join(filter(None, [folder.name, "rehearsal", fault])))
    options = ("--runs", str(RUNS), "--backend", backend, *options)
    with tempfile.TemporaryDirectory(prefix="kit-rehearsal-", ignore_cleanup_errors=True) as place:
        scratch = Path(place)
        environment = rehearsing.install(scratch / "box", soc=soc, cann=cann, fault=fault)
        copy = scratch / folder.name
        _copied(folder, copy, names, script)
        if fault == "damaged":
            _cut(copy / cut)
        out = scratch / "results"
        lines = _run([sys.executable, str(copy / script), "--out", str(out), *options], environment, len(steps), report)
        if not (out / "results.json").is_file():
            raise ToolFailed(f"{script} of {folder.name} ended without results: {(lines or ['it said nothing'])[-1]}",
                             remedy="the details hold what it printed", detail="\n".join(lines[-40:]))
        _marked(out / "results.json")
        _moved(out, target, results)
    return results(target)


def _folder(bundle: Any) -> Path:
    if not isinstance(bundle, str | Path):
        inner = getattr(bundle, "bundle", None)
        if inner is None:
            raise BadInput(f"A {type(bundle).__name__} is no bundle for an Ascend box.",
                           remedy='make one with kit.compile(model, kit.BundleOptions(target="ascend310p3")), or give '
                           'its folder')
        bundle = inner.folder
    path = Path(bundle)
    return path.parent if path.name == MANIFEST else path


def _copied(folder: Path, copy: Path, names: Iterable[str], script: str) -> None:
    """What is named, nothing that was built or measured there; hard links where they can be."""
    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another disk
            shutil.copyfile(source, target)

    try:
        for name in names:
            if (folder / name).is_file():  # the script says what is missing
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                link(str(folder / name), str(copy / name))
    except OSError as error:
        raise explain_os_error(error, copy) from error
    if not (copy / script).is_file():
        raise BadInput(f"{folder} holds no {script}, or its manifest does not list it.", remedy="make the bundle again")


def _cut(path: Path) -> None:
    """The last byte lost on the way; the file may be a link to the bundle's own."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1])


def _run(argv: list[str], environment: dict[str, str], total: int, report: Report) -> list[str]:
    """Every line that the script printed; each finished step is a tick."""
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env=environment, text=True, encoding="utf-8", errors="replace", start_new_session=True)
    lines: list[str] = []
    with _ended(child):
        report(Tick(0, total, "FAKE rehearsal"))
        assert child.stdout
        reader = threading.Thread(target=lambda: lines.extend(line.rstrip() for line in child.stdout), daemon=True)
        reader.start()
        while reader.is_alive():
            reader.join(0.1)
            said = [line for line in list(lines) if line.strip()]
            done = sum(bool(re.match(r"\[\d+/\d+\] ", line)) for line in said)
            report(Tick(min(done, total), total, f"FAKE rehearsal: {said[-1].strip()}"[:120] if said else ""))
    return lines


@contextlib.contextmanager
def _ended(child: subprocess.Popen) -> Iterator[None]:
    """However the block ends, the script and what it started are gone after it."""
    try:
        yield
        child.wait()
    finally:
        if child.poll() is None:
            worker.kill(child)  # what it started has a session of its own
        if child.stdout:
            child.stdout.close()


def _marked(file: Path) -> None:
    """Whatever ended the script, and however early: no results of a rehearsal may pass for those of a device."""
    data = json.loads(file.read_text(encoding="utf-8"))
    data["fake"] = data["fake"] or f"{rehearsing.LABEL} box"
    write_json(file, data)


def _moved(out: Path, target: Path, results: Callable[[Path], Any]) -> None:
    try:
        if target.exists():
            _only_results(target, results)
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(out, target)
    except OSError as error:
        raise explain_os_error(error, target) from error


def _only_results(target: Path, results: Callable[[Path], Any]) -> None:
    """Nothing but an earlier rehearsal is ever replaced."""
    try:
        fake = results(target).fake
    except BadInput:
        fake = ""
    if not fake:
        raise BadInput(f"{target} is there already and does not hold a rehearsal; nothing was written to it.",
                       remedy="choose another folder with into=...")
