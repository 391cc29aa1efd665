"""The small texts that describe a source: a layer as ``module:factory``, an input, the names of axes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kit.errors import BadInput, unknown
from kit.model import TensorSpec

INPUT_FORM = 'inputs=("x:float32[N,3,H,W]",): name, type and axes; "?" or a word stands for a dynamic axis'
AXES_FORM = 'axes=("x=N,3,H,W",): one entry an input, one word or number an axis'
PROBE_FORM = 'probe=("x=1,3,64,64", "x=2,3,96,96"): one entry a trial, inputs parted by ";"'
DTYPES = ("float32", "float64", "float16", "int64", "int32", "uint8", "int8", "bool")

_INPUT = re.compile(r"\s*([^:\s\[\]]+)\s*:\s*(\w+)\s*\[([^\[\]]*)\]\s*")
_LAYER = re.compile(r"(?P<module>.+):(?P<factory>[A-Za-z_]\w*)")
_WORD = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class LayerSource:
    """A factory that makes a layer: ``module`` is a dotted name, or the path of a .py file."""

    module: str
    factory: str

    def __str__(self) -> str:
        return f"{self.module}:{self.factory}"

    @property
    def short(self) -> str:
        """Without the folder, for what is stored and shown."""
        module = re.split(r"[/\\]", self.module)[-1]
        return f"{module}:{self.factory}"


def layer_source(thing: Any) -> LayerSource | None:
    """What ``"package.module:factory"`` or ``"file.py:factory"`` says; None for everything else."""
    if isinstance(thing, LayerSource):
        return thing
    found = _LAYER.fullmatch(thing) if isinstance(thing, str) else None
    if not found or Path(thing).exists():
        return None
    module = found["module"]
    if len(module) == 1 or (not module.endswith(".py") and not re.fullmatch(r"\w+(\.\w+)*", module)):
        return None  # a Windows path such as C:model, or no module at all
    return LayerSource(module, found["factory"])


def parse_inputs(texts: Iterable[str]) -> tuple[TensorSpec, ...]:
    """Inputs of a layer from their texts.

    Raises:
        BadInput: none given, or one of another form; shows the form.
    """
    specs = []
    for text in texts:
        found = _INPUT.fullmatch(text)
        if not found:
            raise BadInput(f"{text!r} does not describe an input.", remedy=f"write {INPUT_FORM}")
        name, dtype, axes = found.groups()
        if dtype not in DTYPES:
            raise unknown("type", dtype, DTYPES, repr(text))
        specs.append(TensorSpec(name, dtype, _axes(axes, text, INPUT_FORM, allow_unnamed=True)))
    if not specs:
        raise BadInput("A layer does not say what its inputs are.", remedy=f"give ExportOptions({INPUT_FORM})")
    _no_duplicates([spec.name for spec in specs], "inputs")
    return tuple(specs)


def parse_axes(texts: Iterable[str]) -> dict[str, tuple[int | str, ...]]:
    """Names, or fixed sizes, of an input's axes.

    Raises:
        BadInput: of another form; shows the form.
    """
    return _parse_pairs(texts, "axes", AXES_FORM)


def parse_probe(texts: Iterable[str]) -> list[dict[str, tuple[int, ...]]]:
    """Trials: for each, the shape of every input.

    Raises:
        BadInput: of another form, or a size that is no number.
    """
    trials = []
    for text in texts:
        shapes = _parse_pairs(filter(str.strip, text.split(";")), "probe", PROBE_FORM)
        for shape in shapes.values():
            if not all(isinstance(side, int) for side in shape):
                raise BadInput(f"{text!r} must give every size as a number.", remedy=f"write {PROBE_FORM}")
        trials.append(shapes)
    return trials  # type: ignore[return-value]


def named(specs: Sequence[TensorSpec], axes: dict[str, tuple[int | str, ...]]) -> tuple[TensorSpec, ...]:
    """Inputs with a word at every dynamic axis: the words asked for, otherwise N, H, W or ``input_axis``.

    Raises:
        BadInput: an unknown input, another number of axes, or a fixed axis asked to be another.
    """
    for name in axes:
        if name not in {spec.name for spec in specs}:
            raise unknown("input", name, [spec.name for spec in specs])
    return tuple(_named(spec, axes.get(spec.name, ())) for spec in specs)


def _named(spec: TensorSpec, asked: tuple[int | str, ...]) -> TensorSpec:
    if asked and len(asked) != len(spec.shape):
        raise BadInput(f"Input {spec.name!r} has {len(spec.shape)} axes, {list(spec.shape)}; {len(asked)} were named.",
                       remedy=f"write {AXES_FORM}")
    guesses = _guesses(spec)
    shape = []
    for at, side in enumerate(spec.shape):
        want = asked[at] if asked else "?"
        if isinstance(side, int) and side < 0:
            side = "?"  # some exporters write -1 for a dynamic axis
        if isinstance(side, int):
            if isinstance(want, int) and want != side:
                raise BadInput(f"Axis {at} of input {spec.name!r} is {side} in the model and cannot become {want}.",
                               remedy=f"write {side} there, or export the model anew")
            shape.append(side)
        elif want != "?":
            shape.append(want)
        else:
            shape.append(side if _WORD.fullmatch(side) else guesses[at])
    return replace(spec, shape=tuple(shape))


def _guesses(spec: TensorSpec) -> list[str]:
    """A word an axis: N for the first; H and W where the channels (1, 3 or 4) show which axes they are."""
    words = ["N" if at == 0 else f"{re.sub(r'[^0-9A-Za-z_]', '_', spec.name)}_{at}" for at in range(len(spec.shape))]
    if len(spec.shape) == 4:
        if spec.shape[1] in (1, 3, 4):
            words[2:] = ["H", "W"]
        elif spec.shape[3] in (1, 3, 4):
            words[1:3] = ["H", "W"]
    return words


def _parse_pairs(texts: Iterable[str], what: str, form: str) -> dict[str, tuple[int | str, ...]]:
    found: dict[str, tuple[int | str, ...]] = {}
    for text in texts:
        name, equals, axes = text.partition("=")
        if not equals or not name.strip():
            raise BadInput(f"{text!r} does not describe {what}.", remedy=f"write {form}")
        _no_duplicates([*found, name.strip()], what)
        found[name.strip()] = _axes(axes, text, form, allow_unnamed=False)
    return found


def _axes(text: str, whole: str, form: str, *, allow_unnamed: bool) -> tuple[int | str, ...]:
    sides: list[int | str] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word.isdecimal() and int(word) > 0:
            sides.append(int(word))
        elif _WORD.fullmatch(word) and word != "None":
            sides.append(word)
        elif word in ("?", "-1", "None") and (allow_unnamed or word == "?"):
            sides.append("?")
        else:
            raise BadInput(f"{word!r} in {whole!r} is neither a size nor the name of an axis.", remedy=f"write {form}")
    return tuple(sides)


def _no_duplicates(names: list[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{name!r} is named twice in {what}.", remedy="name each input once")


#: Batch, first and second dynamic side of made-up inputs. Two of different sizes, so that a frozen one is found;
#: multiples of 32, for networks that halve a picture up to five times; never square, so that exchanging height and
#: width shows. Then what else models of text lines and pictures take, tried when the first ones are refused.
TRIALS = ((1, 64, 96), (2, 96, 128))
SPARE_TRIALS = ((2, 64, 96), (1, 48, 320), (2, 48, 640), (1, 224, 224), (2, 640, 640))


def trial_shapes(specs: Sequence[TensorSpec], trials: Iterable[tuple[int, int, int]] = TRIALS,
                 ) -> list[dict[str, tuple[int, ...]]]:
    """Shapes for every input, one set a trial, without repetition; axes of the same name get the same size."""
    found = []
    for batch, *sides in trials:
        sizes: dict[str, int] = {}
        for spec in specs:
            dynamic = [side for at, side in enumerate(spec.shape) if isinstance(side, str) and at]
            for at, side in enumerate(spec.shape):
                if isinstance(side, str):
                    spatial = sides[dynamic.index(side) % 2] if side in dynamic else batch
                    sizes.setdefault(side, batch if at == 0 else spatial if len(spec.shape) > 2 else spatial // 8)
        shapes = {spec.name: tuple(sizes[side] if isinstance(side, str) else side for side in spec.shape)
                  for spec in specs}
        if shapes not in found:
            found.append(shapes)
    return found
