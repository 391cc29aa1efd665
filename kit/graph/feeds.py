"""What a model is fed while rules are checked: the samples given, or numbers made up for its inputs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from kit.errors import BadInput, KitError, UnsupportedModel, unknown
from kit.graph.mapped import mapped
from kit.model import Model, TensorSpec, external_files
from kit.runner import open_runner

Feeds = dict[str, np.ndarray]
LOOKED_AT = 50  # samples, before made-up inputs are taken instead
SIZES = (64, 224, 32, 320, 48, 128, 16, 8, 4, 2, 1)  # tried in turn for axes without a size


def from_samples(samples: Iterable[Mapping[str, np.ndarray]], specs: tuple[TensorSpec, ...], most: int,
                 where: str) -> tuple[list[Feeds], int]:
    """Up to ``most`` samples that fit the inputs (fixed sizes count), and how many were passed over.

    Inputs that a sample does not give are made up. At most ``LOOKED_AT`` samples are read.

    Raises:
        BadInput: a sample gives an input that the model in the file ``where`` does not have.
    """
    found, skipped = [], 0
    known = {spec.name: spec for spec in specs}
    for sample in itertools.islice(samples, LOOKED_AT):
        if len(found) == most:
            break
        given = {name: np.asarray(array) for name, array in sample.items()}
        for name in given:
            if name not in known:
                raise unknown("input", name, known, where)
        if all(_fits(array, known[name]) for name, array in given.items()):
            missing = tuple(spec for spec in specs if spec.name not in given)
            found.append({**made_up(missing, 64, 1), **given})
        else:
            skipped += 1
    return found, skipped


def _fits(array: np.ndarray, spec: TensorSpec) -> bool:
    return array.ndim == len(spec.shape) and all(
        not isinstance(want, int) or want in (have, -1) for have, want in zip(array.shape, spec.shape, strict=True))


def that_run(model: Model, specs: tuple[TensorSpec, ...], most: int) -> list[Feeds]:
    """Made-up feeds of a size that the model takes: sizes are tried until ONNX Runtime runs it.

    Raises:
        UnsupportedModel: it runs with none of them.
    """
    failure: KitError | None = None
    free = any(not isinstance(axis, int) or axis < 0 for spec in specs for axis in spec.shape)
    with _opened(model.path) as run:
        for size in SIZES if free else SIZES[:1]:
            feeds = [made_up(specs, size, seed) for seed in range(most)]
            try:
                run(feeds[0])
            except BadInput as error:
                failure = error
                continue
            return feeds
    raise UnsupportedModel(f"{model.path.name} runs with no made-up input (sizes tried: {', '.join(map(str, SIZES))}).",
                           remedy='give samples=..., or fix its input sizes: FixOptions(shapes=("x=1,3,640,640",))',
                           detail=failure.detail if failure else "") from failure


def made_up(specs: tuple[TensorSpec, ...], size: int, seed: int) -> Feeds:
    """Numbers for every input: normal for floats, 0 and 1 for integers; batches of one, other free axes ``size``."""
    random = np.random.default_rng(seed)
    axes: dict[str, int] = {}
    feeds = {}
    for spec in specs:
        shape = []
        for at, axis in enumerate(spec.shape):
            if isinstance(axis, int) and axis >= 0:
                shape.append(axis)
            elif isinstance(axis, str) and axis != "?":
                shape.append(axes.setdefault(axis, 1 if at == 0 and len(spec.shape) > 1 else size))
            else:
                shape.append(1 if at == 0 and len(spec.shape) > 1 else size)
        feeds[spec.name] = _numbers(spec, shape, random)
    return feeds


def _numbers(spec: TensorSpec, shape: list[int], random: np.random.Generator) -> np.ndarray:
    if spec.dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if not spec.dtype.startswith("float"):
        dtype = "int64" if spec.dtype == "unknown" else spec.dtype
        return random.integers(0, 2, shape).astype(dtype)
    if "scale" in spec.name.lower() and len(shape) < 3:  # Paddle detectors divide by scale_factor
        return np.ones(shape, spec.dtype)
    return random.standard_normal(shape).astype(spec.dtype)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Callable[[Feeds], Feeds]]:
    """The file in ONNX Runtime, which does not rewrite it; weights beside it are mapped."""
    if external_files(path):
        yield mapped(path.read_bytes(), path.parent, path.name)
    else:
        with open_runner(path, graph_level="none") as run:
            yield run


def outputs(path: Path, feeds: list[Feeds]) -> list[Feeds]:
    """What ONNX Runtime answers without rewriting the graph itself."""
    with _opened(path) as run:
        return kept(run, feeds)


def kept(run: Callable[[Feeds], Feeds], feeds: list[Feeds]) -> list[Feeds]:
    """The answers, copied: ONNX Runtime's own keep the memory of the whole run from being given back."""
    return [{name: np.array(array) for name, array in run(feed).items()} for feed in feeds]


def total(feeds: list[Feeds], origin: str) -> str:
    """What was fed, in words; ``origin`` such as "samples"."""
    shapes = dict.fromkeys(", ".join(f"{name} {list(array.shape)}" for name, array in feed.items()) for feed in feeds)
    return f"{len(feeds)} {origin}: {'; '.join(shapes)}" if feeds else ""
