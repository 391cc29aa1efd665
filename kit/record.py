"""Results that outlive the kernel, and fingerprints that keep a stale one from being taken for a current one.

A stage's result lives in ``<runs>/<name>/<stage>-<fingerprint>/``: the artefact, ``result.json``, ``log.txt``. The
fingerprint covers the options, the bytes of every input (graph, weights, samples, preprocessing) and the stage's
version. A stage writes into a temporary folder beside it, which is moved into place at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np

from kit.card import bytes_text
from kit.errors import BadInput, KitError, StaleResult
from kit.progress import Report, silent

R = TypeVar("R")
RESULT = "result.json"
_REMEMBERED = 64_000_000  # bytes of a file whose digest is kept while its size and time of change stay
SCRATCHES = "KIT_SCRATCHES"  # environment variable: the file in which a worker notes its temporary folders


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from.

    Attributes:
        stage: name of the stage.
        key: fingerprint of options, inputs and stage version, 12 hexadecimal digits.
        folder: where the artefacts lie.
        made: local time, ``YYYY-MM-DD HH:MM:SS``.
        seconds: how long the stage took.
        inputs: name of each input -> its digest.
        options: the options as text.
        files: each artefact's path inside the folder -> its digest.
    """

    stage: str
    key: str
    folder: Path
    made: str
    seconds: float
    inputs: dict[str, str]
    options: str
    files: dict[str, str]


def runs_folder(runs: Path | str | None = None) -> Path:
    """Where results go: ``runs``, or the environment variable KIT_RUNS, or ``runs`` in the current folder."""
    return Path(runs or os.environ.get("KIT_RUNS") or "runs")


def digest(thing: Any) -> str:
    """The digest of a value: same content, same digest; paths are digested by the bytes they lead to.

    Objects may define ``digest() -> str``. Fields with ``compare=False`` do not count.
    """
    hasher = hashlib.blake2b(digest_size=16)
    _feed(hasher, thing)
    return hasher.hexdigest()


def fingerprint(*things: Any) -> str:
    """A short digest (12 hexadecimal digits) of several values, for a folder's name."""
    return digest(things)[:12]


def _feed(hasher: Any, thing: Any) -> None:
    def say(text: str) -> None:
        hasher.update(text.encode() + b"\0")

    if hasattr(thing, "digest") and callable(thing.digest):
        say(f"digest {type(thing).__qualname__} {thing.digest()}")
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        say(f"dataclass {type(thing).__qualname__}")
        for field in dataclasses.fields(thing):
            if field.compare:
                say(field.name)
                _feed(hasher, getattr(thing, field.name))
    elif isinstance(thing, PurePath):
        say("path")
        _feed_path(hasher, Path(thing))
    elif isinstance(thing, np.ndarray):
        say(f"array {thing.dtype.str} {thing.shape}")
        hasher.update(np.ascontiguousarray(thing).tobytes())
    elif isinstance(thing, Mapping):
        say(f"mapping {len(thing)}")
        for name in sorted(thing, key=str):
            say(str(name))
            _feed(hasher, thing[name])
    elif isinstance(thing, list | tuple):
        say(f"sequence {len(thing)}")
        for item in thing:
            _feed(hasher, item)
    elif isinstance(thing, set | frozenset):
        _feed(hasher, sorted(thing, key=repr))
    elif thing is None or isinstance(thing, str | bytes | bool | int | float | np.generic):
        say(f"{type(thing).__name__} {thing!r}")
    elif callable(thing) and hasattr(thing, "__qualname__"):
        say(f"function {thing.__module__}.{thing.__qualname__}")
    else:
        raise TypeError(f"cannot fingerprint {type(thing).__qualname__}")


def _feed_path(hasher: Any, path: Path) -> None:
    if path.is_dir():
        for child in sorted(p for p in path.rglob("*") if p.is_file()):
            hasher.update(child.relative_to(path).as_posix().encode() + b"\0")
            _feed_path(hasher, child)
        return
    try:
        found = path.stat()
        if found.st_size >= _REMEMBERED:
            hasher.update(_of_large_file(path.resolve(), found.st_ino, found.st_size, found.st_mtime_ns))
        else:
            _feed_bytes(hasher, path)
    except OSError as error:
        raise explain_os_error(error, path) from error


@functools.lru_cache(maxsize=256)
def _of_large_file(path: Path, *unchanged: int) -> bytes:
    """Gigabytes are read once in a process: every stage asks for the digest of its model."""
    hasher = hashlib.blake2b(digest_size=16)
    _feed_bytes(hasher, path)
    return hasher.digest()


def _feed_bytes(hasher: Any, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            hasher.update(block)


def read_json(path: Path, broken: str, remedy: str) -> Any:
    """What a JSON file holds; of what kind that is, the caller checks.

    Args:
        path: of the file.
        broken: what is said where it is no whole JSON.
        remedy: what to do then.

    Raises:
        BadInput: it cannot be read, or is no whole JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise explain_os_error(error, path) from error
    except ValueError as error:
        raise BadInput(broken, remedy=remedy, detail=str(error)) from error


def explain_os_error(error: OSError, path: Path | str) -> KitError:
    """Turn a full disk, a missing permission or a missing file into words."""
    place = Path(error.filename or path)
    if error.errno == errno.ENOSPC:
        with contextlib.suppress(OSError):
            free = bytes_text(shutil.disk_usage(_existing(place)).free)
            return BadInput(f"The disk is full: {place} could not be written ({free} free). Nothing was kept.",
                            remedy="free some space, or choose another folder with runs=... or KIT_RUNS",
                            detail=str(error))
        return BadInput(f"The disk is full: {place} could not be written. Nothing was kept.",
                        remedy="free some space, or choose another folder with runs=... or KIT_RUNS", detail=str(error))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BadInput(f"No permission for {place}.",
                        remedy="choose a folder you may write to with runs=... or KIT_RUNS, or change its permissions",
                        detail=str(error))
    if error.errno == errno.ENOENT:
        return BadInput(f"{place} does not exist.", remedy="check the path (relative paths start at the current "
                        f"folder, {Path.cwd().name}/)", detail=str(error))
    return BadInput(f"{place}: {error.strerror or error}.", remedy="check the path and the disk", detail=str(error))


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def run_stage(
    stage: str,
    kind: type[R],
    work: Callable[[Path, Report], R],
    *,
    options: Any,
    inputs: Mapping[str, Any],
    name: str,
    version: int = 1,
    runs: Path | str | None = None,
    report: Report = silent,
) -> R:
    """Do a stage's work once: return the stored result when nothing it depends on has changed.

    Args:
        stage: name of the stage, first part of the folder's name.
        kind: the result class: a frozen dataclass with a field ``provenance: Provenance | None``.
        work: called with a temporary folder and the report; writes its artefacts there and returns a result whose
            paths lie in that folder. If it raises, the folder is removed.
        options: the options object.
        inputs: everything else the answer depends on, by name.
        name: the model's name, for the folder.
        version: raise it when the stage's code changes what it computes.

    Returns:
        The result, loaded from its final folder.
    """
    digests = {label: digest(thing) for label, thing in inputs.items()}
    key = fingerprint(stage, version, options, digests)
    folder = runs_folder(runs) / name / f"{stage}-{key}"
    if (folder / RESULT).is_file():
        with contextlib.suppress(StaleResult):  # a damaged result is made again
            return load(kind, folder)
    began = time.monotonic()
    with appearing(folder) as scratch:
        result = work(scratch, report)
        provenance = Provenance(
            stage=stage, key=key, folder=scratch, made=time.strftime("%Y-%m-%d %H:%M:%S"),
            seconds=round(time.monotonic() - began, 3), inputs=digests, options=repr(options),
            files=_digests(scratch))
        save(dataclasses.replace(result, provenance=provenance), scratch)
    return load(kind, folder)


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` when the block ends well, and vanishes when it does not."""
    try:
        scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")  # not mkdtemp: others may read results
        scratch.mkdir(parents=True)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    if notes := os.environ.get(SCRATCHES):
        with Path(notes).open("a", encoding="utf-8") as stream:
            stream.write(f"{scratch.absolute()}\n")
    try:
        yield scratch
        if folder.exists():
            shutil.rmtree(folder)
        scratch.replace(folder)
    except OSError as error:
        raise explain_os_error(error, folder) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sweep(notes: Path) -> None:
    """Remove the temporary folders that a worker noted and left behind when it was killed."""
    if notes.is_file():
        for line in notes.read_text(encoding="utf-8").splitlines():
            shutil.rmtree(line, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): digest(p)
            for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in (RESULT, "log.txt")}


def save(result: Any, folder: Path) -> None:
    """Write ``result`` as ``result.json`` into ``folder``; paths inside the folder are kept relative to it."""
    text = json.dumps(_converter(folder).unstructure(result), indent=1, ensure_ascii=False)
    (folder / RESULT).write_text(text, encoding="utf-8")


def load(kind: type[R], folder: Path | str) -> R:
    """Read a result back from its folder.

    Raises:
        BadInput: there is no result there.
        StaleResult: the file is damaged, of another version, or an artefact was changed since.
    """
    folder = Path(folder)
    try:
        text = (folder / RESULT).read_text(encoding="utf-8")
    except OSError as error:
        raise explain_os_error(error, folder / RESULT) from error
    again = f"run the stage again; if that does not help, remove the folder {folder}"
    try:
        result = _converter(folder).structure(json.loads(text), kind)
    except Exception as error:  # cattrs raises groups of many kinds; all mean the same here
        raise StaleResult(f"{folder / RESULT} cannot be read as {kind.__name__}.", remedy=again,
                          detail=repr(error)) from error
    check_files(result)
    return result


def check_files(result: Any) -> None:
    """Refuse a result whose artefacts were changed or removed after it was made.

    Raises:
        StaleResult: names the file.
    """
    provenance = result.provenance
    for name, known in (provenance.files if provenance else {}).items():
        path = provenance.folder / name
        if not path.is_file() or digest(path) != known:
            change = "was changed" if path.is_file() else "was removed"
            raise StaleResult(f"{path} {change} after stage {provenance.stage} made it ({provenance.made}).",
                              remedy=f"run {provenance.stage} again")


def find(kind: type[R], stage: str, name: str, runs: Path | str | None = None) -> list[R]:
    """Every readable stored result of a stage for a model's name, newest first."""
    found = []
    for folder in runs_folder(runs).joinpath(name).glob(f"{stage}-*"):
        with contextlib.suppress(KitError):
            found.append(load(kind, folder))
    return sorted(found, key=lambda result: result.provenance.made, reverse=True)


def _converter(folder: Path) -> Any:
    import cattrs

    def write_path(path: PurePath) -> str:
        with contextlib.suppress(ValueError):
            return "@/" + Path(path).resolve().relative_to(folder.resolve()).as_posix()
        # Relative to here where possible: a stored result should not tell where on a disk it was made.
        with contextlib.suppress(ValueError):
            return os.path.relpath(path)
        return str(path)

    def read_path(text: str, _: type) -> Path:
        return folder if text == "@/." else folder / text[2:] if text.startswith("@/") else Path(text)

    converter = cattrs.Converter()
    converter.register_unstructure_hook(Path, write_path)
    converter.register_structure_hook(Path, read_path)

    def write_array(array: np.ndarray) -> str:
        name = f"{digest(array)}.npy"  # what it holds, so that another content cannot be taken for it
        np.save(folder / name, array)
        return f"@/{name}"

    def read_array(text: str, _: type) -> np.ndarray:
        array = np.load(folder / text[2:], allow_pickle=False)
        if f"@/{digest(array)}.npy" != text:
            raise ValueError(f"{text[2:]} was changed")
        return array

    converter.register_unstructure_hook(np.ndarray, write_array)
    converter.register_structure_hook(np.ndarray, read_array)
    converter.register_unstructure_hook_func(lambda t: isinstance(t, type) and issubclass(t, np.generic),
                                             lambda v: v.item())
    # A dimension or a fact may be a number or a word: JSON keeps the two apart by itself.
    converter.register_structure_hook_func(_is_plain_union, lambda value, _: value)
    return converter


def _is_plain_union(hint: Any) -> bool:
    import types
    import typing

    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return False
    return all(a in (int, float, str, bool, type(None)) for a in typing.get_args(hint))
