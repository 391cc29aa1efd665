"""Golden inputs: a few samples with the answers of the float model, which travel to the box and are compared there.

A file ``000.npz`` holds ``in:<input>`` as the .om takes it (bytes of a picture, [1, h, w, 3], where AIPP is on) and
``out:<output>``, the answers of ONNX Runtime with its own rewriting off; ``feed:<input>`` too where the floats cannot
be made from those bytes again (a picture that the host pads). Each has the digest of the float feed, so that what the
box recorded is found again by what a later stage feeds.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kit.card import Card, Table
from kit.errors import BadInput
from kit.record import digest, explain_os_error, read_json
from kit.samples import Preprocess, Samples, sample_name

MANIFEST = "bundle.json"


def feed_digest(feed: Mapping[str, np.ndarray]) -> str:
    """sha256 of a feed: names, types, shapes and bytes, in order of name."""
    hasher = hashlib.sha256()
    for name in sorted(feed):
        array = np.ascontiguousarray(feed[name])
        hasher.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        hasher.update(array.tobytes())
    return hasher.hexdigest()


@dataclass(frozen=True)
class Golden:
    """One golden input: its file, the sample's name and the digest of its float feed."""

    file: Path
    name: str
    feed: str


@dataclass(frozen=True)
class Goldens(Card, Sequence):
    """The golden inputs of a bundle as samples: iterating yields float feeds, as ``kit.verify`` takes them.

    Attributes:
        items: one a golden input.
        preprocess: from the stored bytes to the float feed; None where the files hold floats.
        input: the input that AIPP prepares; "" without AIPP.
    """

    items: tuple[Golden, ...]
    preprocess: Preprocess | None = None
    input: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at):
        """The float feed of one, or for a slice the Goldens in it."""
        if isinstance(at, slice):
            return replace(self, items=self.items[at])
        feed = self._part(at, "in:")
        if self.preprocess is not None:
            feed[self.input] = self.preprocess(feed[self.input][0])
        return {**feed, **self._part(at, "feed:")}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for at in range(len(self)):
            yield self[at]

    def answers(self, at: int) -> dict[str, np.ndarray]:
        """The outputs of the float model for one of them."""
        return self._part(at, "out:")

    def digest(self) -> str:
        """Of the feeds; order counts."""
        return digest([item.feed for item in self.items])

    def title(self) -> str:
        return f"{len(self)} golden inputs with the answers of the float model"

    def tables(self) -> tuple[Table, ...]:
        return (Table("Golden inputs", ("number", "sample"), tuple(
            (at, item.name) for at, item in enumerate(self.items))),)

    def _part(self, at: int, prefix: str) -> dict[str, np.ndarray]:
        path = self.items[at].file
        try:
            with np.load(path) as kept:
                return {name.removeprefix(prefix): kept[name] for name in kept.files if name.startswith(prefix)}
        except OSError as error:
            raise explain_os_error(error, path) from error


def goldens(bundle: Any, samples: Samples | None = None) -> Any:
    """The golden inputs of a bundle, for ``kit.verify`` beside what the box recorded.

    Args:
        bundle: what ``kit.compile`` returned, or the bundle's folder.
        samples: the Samples that the bundle was made from: those of them that are golden are returned, with their
            truths, so that a task can be scored.

    Raises:
        BadInput: no bundle, or none of the samples is golden.
    """
    folder = bundle_folder(bundle)
    about = read_manifest(folder)
    stored = about["preprocess"]
    found = Goldens(
        tuple(Golden(folder / entry["file"], entry["name"], entry["feed"]) for entry in about["goldens"]),
        _preprocess(stored) if stored else None, stored["input"] if stored else "")
    if samples is None:
        return found
    names = {item.name for item in found.items}
    kept = tuple(item for item in samples.items if item.name in names)
    if not kept:
        raise BadInput(f"None of these {len(samples)} samples is golden in {folder.name}.",
                       remedy=f"give the samples it was made from, among them {', '.join(sorted(names)[:3])}")
    return replace(samples, items=kept)


def bundle_folder(bundle: Any) -> Path:
    """The folder with ``bundle.json``, of a result of ``kit.compile`` or a path.

    Raises:
        BadInput: it is no bundle.
    """
    made = getattr(bundle, "bundle", None)
    if made is not None:
        return Path(made.folder)
    if not isinstance(bundle, str | Path):
        raise BadInput(f"A {type(bundle).__name__} is no bundle.",
                       remedy="give what kit.compile returned for an Ascend chip, or the bundle's folder")
    path = Path(bundle)
    return path.parent if path.name == MANIFEST else path


def read_manifest(folder: Path) -> dict[str, Any]:
    """``bundle.json`` of a bundle.

    Raises:
        BadInput: it is missing or no bundle of this version.
    """
    path = folder / MANIFEST
    about = read_json(path, f"{path} is not JSON: it was cut off or edited.", "compile the bundle again")
    if not isinstance(about, dict) or (about.get("format"), about.get("version")) != ("kit-ascend-bundle", 1):
        raise BadInput(f"{path} is no bundle of version 1.", remedy="compile it again with this version of the kit")
    return about


def chosen(samples: Any, count: int, fits: Any) -> list[int]:
    """Numbers of at most ``count`` samples that fit, spread evenly over the set.

    Args:
        samples: Samples, or feeds.
        fits: says of a feed whether it has the shape of a profile.
    """
    total = len(samples)
    first = [int(at) for at in np.linspace(0, total - 1, min(count, total)).round()]
    found: list[int] = []
    for at in dict.fromkeys([*first, *range(total)]):  # the spread ones, then any that fits in place of a misfit
        if len(found) == count:
            break
        if fits(samples[at]):
            found.append(at)
    return sorted(found)


def write_golden(path: Path, inputs: Mapping[str, np.ndarray], feed: Mapping[str, np.ndarray],
                 outputs: Mapping[str, np.ndarray], preprocess: Preprocess | None) -> None:
    """Write one golden file.

    Args:
        inputs: as the .om takes them.
        feed: as the float model takes them.
        outputs: of the float model.
        preprocess: what makes floats of the bytes in ``inputs``; None where there are none.
    """
    apart = {name: array for name, array in feed.items() if not np.array_equal(
        array, inputs[name] if preprocess is None or inputs[name].dtype != np.uint8 else preprocess(inputs[name][0]))}
    np.savez(path, **{f"{side}:{name}": array for side, part in (("in", inputs), ("feed", apart), ("out", outputs))
                      for name, array in part.items()})


def at_size(preprocess: Preprocess) -> Preprocess:
    """The same for pictures that have their size already."""
    return replace(preprocess, resize="none")


def stored_preprocess(preprocess: Preprocess, input: str) -> dict[str, Any]:
    """A Preprocess as it stands in ``bundle.json``."""
    return {"input": input, **dataclasses.asdict(at_size(preprocess))}


def _preprocess(stored: Mapping[str, Any]) -> Preprocess:
    return Preprocess(**{name: tuple(value) if isinstance(value, list) else value
                         for name, value in stored.items() if name != "input"})


@dataclass(frozen=True)
class Named(Sequence):
    """Feeds with their names."""

    feeds: tuple[Mapping[str, np.ndarray], ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.feeds)

    def __getitem__(self, at):
        return replace(self, feeds=self.feeds[at], names=self.names[at]) if isinstance(at, slice) else self.feeds[at]


def subset(samples: Any, numbers: Sequence[int]) -> Samples | Named:
    """Some of the samples, with their names."""
    if isinstance(samples, Samples):
        return replace(samples, items=tuple(samples.items[at] for at in numbers))
    return Named(tuple(samples[at] for at in numbers), tuple(sample_name(samples, at) for at in numbers))


def names_of(samples: Samples | Named) -> tuple[str, ...]:
    """The samples' names."""
    return samples.names if isinstance(samples, Named) else tuple(item.name for item in samples.items)
