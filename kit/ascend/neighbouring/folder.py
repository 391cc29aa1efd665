"""One folder for a neighbour: the model, golden inputs, scripts, README, and ``neighbour.json`` with every hash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kit.ascend.bundling.bundle import parts_of, write_text
from kit.ascend.bundling.golden_samples import write_golden
from kit.card import Card, Table, bytes_text
from kit.compiled_files import sha256
from kit.errors import BadInput
from kit.model import TensorSpec, external_files
from kit.progress import Report, track
from kit.record import Provenance
from kit.runner import open_runner
from kit.samples import sample_name
from kit.source import Source

MANIFEST, FORMAT, VERSION = "neighbour.json", "kit-neighbour", 1
NEVER = "never run by us on that hardware"
README = """# {name}: {title}

Prepared by the migration notebook kit on a machine without the device: {never}. The commands and calls are
those of the sources below.

    {command}

{what}

## What it needs

{needs}

## What is not verified

{unverified}

## Sources

{sources}

## What lies here

{contents}
"""


@dataclass(frozen=True)
class Route:
    """What a route writes beside the model.

    Attributes:
        key: name of the route.
        title: in words.
        command: to type in the folder.
        what: what the command does, and how one tells that it worked.
        needs: packages and tools, in words.
        unverified: what nobody has seen work.
        sources: documents and files that say so.
        settings: for ``neighbour.json``, as the script reads them.
        scripts: files of this package to copy.
        texts: name of a file -> its content.
        copies: name in the folder -> a file to copy.
    """

    key: str
    title: str
    command: str
    what: str
    needs: str
    unverified: tuple[str, ...]
    sources: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    scripts: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Neighbour(Card):
    """A folder for another way to a device. Nothing in it was run on that device.

    Attributes:
        folder: with everything; ``README.md`` says what to do with it.
        route: which way.
        title_words: the same for people.
        name: of the model.
        command: to type in the folder.
        settings: what it was made with, in words.
        goldens: how many golden inputs lie in it.
        unverified: what nobody has seen work.
        sources: who says how it is done.
        parts: what lies in it: name, number of files, bytes.
    """

    folder: Path
    route: str
    title_words: str
    name: str
    command: str
    settings: dict[str, str]
    goldens: int
    unverified: tuple[str, ...]
    sources: tuple[str, ...]
    parts: tuple[tuple[str, int, int], ...]
    provenance: Provenance | None = field(default=None, compare=False)

    @property
    def readme(self) -> Path:
        """What to do with the folder."""
        return self.folder / "README.md"

    def title(self) -> str:
        return f"{self.name}: folder for {self.title_words}, {NEVER}"

    def facts(self) -> dict[str, object]:
        files, size = (sum(part[at] for part in self.parts) for at in (1, 2))
        return {"there": self.command, **self.settings, "golden inputs": self.goldens,
                "folder": f"{files} files, {bytes_text(size)}"}

    def tables(self) -> Sequence[Table]:
        return (Table("Not verified", ("what",), tuple((line,) for line in self.unverified)),
                Table("Sources", ("where",), tuple((line,) for line in self.sources)))


def write(folder: Path, source: Source, route: Route, inputs: Sequence[TensorSpec], samples: Any, count: int,
          tolerances: Mapping[str, float], words: Mapping[str, str], report: Report) -> Neighbour:
    """Write everything into ``folder``.

    Args:
        inputs: of the model, with the sizes that it is meant for.
        samples: Samples or feeds; None for none.
        count: most golden inputs.
        tolerances: least cosine and largest relative error of an answer.
        words: the options, for the card.

    Raises:
        BadInput: the model does not run on the samples.
    """
    model = _copy_model(source, folder / "model")
    for name, file in route.copies.items():
        shutil.copyfile(file, folder / name)
    for script in route.scripts:
        shutil.copyfile(Path(__file__).with_name(script), folder / script)
    for name, text in route.texts.items():
        write_text(folder / name, text)
    goldens = _write_goldens(folder / "goldens", source, samples, count, report) if samples is not None else []
    made = Neighbour(folder, route.key, route.title, source.name, route.command, dict(words), len(goldens),
                     route.unverified, route.sources, ())
    about = {"format": FORMAT, "version": VERSION, "route": route.key, "name": source.name, "model": model,
             "inputs": [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} for s in inputs],
             "packages": route.needs, "goldens": goldens, "tolerances": dict(tolerances), **route.settings}
    write_text(folder / "README.md", _readme(made, route, folder))
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    write_text(folder / MANIFEST, json.dumps({**about, "files": files}, ensure_ascii=False, indent=1) + "\n")
    return replace(made, parts=parts_of(folder))


def _copy_model(source: Source, target: Path) -> dict[str, str]:
    """Copy graph and weights; returns their places in the folder."""
    target.mkdir()
    files = [source.graph, *([source.weights] if source.weights else [])]
    if source.kind == "onnx":
        files += external_files(source.graph)
    for file in files:
        shutil.copyfile(file, target / file.name)
    told = {"graph": f"model/{source.graph.name}"}
    return {**told, "weights": f"model/{source.weights.name}"} if source.weights else told


def _write_goldens(folder: Path, source: Source, samples: Any, count: int, report: Report) -> list[dict[str, str]]:
    if not len(samples):
        raise BadInput("There are no samples to take golden inputs from.", remedy="give one at least, or leave samples "
                       "out: the folder then has none")
    folder.mkdir()
    settings = {"graph_level": "none"} if source.kind == "onnx" else {}
    written = []
    with open_runner(source, **settings) as run:
        for at in track(range(min(count, len(samples))), report, note="golden answers"):
            feed = dict(samples[at])
            write_golden(folder / f"{at:03d}.npz", feed, feed, run(feed), None)
            written.append({"file": f"goldens/{at:03d}.npz", "name": sample_name(samples, at)})
    return written


def _readme(made: Neighbour, route: Route, folder: Path) -> str:
    known = {"model": "the model with its weights", "goldens": "inputs with the answers of the float model on a CPU",
             "golden_checks.py": "what the script shares: comparing, timing, results.json",
             "neighbour.json": "what the script needs to know, with the sha256 of every file"}
    there = [*sorted(path.name for path in folder.iterdir()), MANIFEST]
    listed = {name: known.get(name, "see the command above") for name in there if name != "README.md"}
    return README.format(
        name=made.name, title=route.title, never=NEVER, command=route.command.replace("\n", "\n    "), what=route.what,
        needs=route.needs, unverified="\n".join(f"- {line}" for line in route.unverified),
        sources="\n".join(f"- {line}" for line in route.sources),
        contents="\n".join(f"- `{name}`: {said}" for name, said in listed.items()))
