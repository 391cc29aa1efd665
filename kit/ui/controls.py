"""One control for each field of an options class, chosen by the field's type.

``Literal`` becomes a drop-down, ``bool`` a checkbox, a number a number box with its range in words, ``tuple[str, ...]``
a text with commas or a list to choose from, pairs a text with arrows, ``Path`` a text that says whether the file is
there. A control speaks Python values: ``control.value = ("Conv_3",)``; what a person types is turned into one, or into
an error beside it.
"""

from __future__ import annotations

import ast
import re
import types
import typing
from collections.abc import Callable, Sequence
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from kit.errors import BadInput
from kit.options import Field

LABEL = "11.5em"  # one width for all labels, so that the controls line up
_UNSET = "not set"
_SPELT = {"snr": "SNR", "sqnr": "SQNR", "db": "dB", "mb": "MB", "ir": "IR", "cpu": "CPU", "fp16": "FP16",
          "int8": "INT8", "onnx": "ONNX", "aipp": "AIPP", "cann": "CANN", "unet": "UNet"}


class Control:
    """A labelled input for one option.

    Attributes:
        field: the option.
        widget: the ipywidgets input; its description is the label.
        view: the input with its help and the place for an error: what a panel shows.
    """

    def __init__(self, field: Field, default: Any, choices: Sequence[str] = ()) -> None:
        from kit.need import need

        widgets = need("ipywidgets", to="show a panel", extra="ui")
        self.field = field
        self.error: BadInput | None = None
        self._check: Callable[[Any], None] = lambda value: None
        self._note = widgets.HTML().add_class("kit-note")
        self.widget, self._read, self._write = _build(widgets, field, tuple(choices))
        self.widget.description = label(field.name)
        self.widget.tooltip = field.help or None
        self.widget.add_class("kit-control")
        if not isinstance(self.widget, widgets.Checkbox):
            self.widget.style.description_width = LABEL
        self.widget.value = self._write(default)
        said = widgets.HTML(f"<span>{escape(_help(field, self.widget, widgets))}</span>").add_class("kit-help")
        self.view = widgets.VBox([widgets.HBox([self.widget, said]).add_class("kit-row"), self._note])
        self._say()

    @property
    def value(self) -> Any:
        """What the control says, as a Python value.

        Raises:
            BadInput: what was typed is no such value.
        """
        try:
            value = self._read(self.widget.value)
        except (ValueError, SyntaxError, TypeError) as error:
            raise BadInput(f"{label(self.field.name)} cannot be {self.widget.value!r}.",
                           remedy=f"give {describe(self.field)}", detail=str(error)) from None
        self._check(value)
        return value

    @value.setter
    def value(self, value: Any) -> None:
        self._check(value)
        self.widget.value = self._write(value)

    def watch(self, check: Callable[[Any], None], changed: Callable[[], None]) -> None:
        """Check every value by ``check``, which raises BadInput, and call ``changed`` after each change."""
        self._check = check

        def hear(_: Any) -> None:
            self._say()
            changed()

        self.widget.observe(hear, "value")

    def _say(self) -> None:
        """Show what is wrong, or what is worth knowing, under the control."""
        try:
            value, self.error = self.value, None
        except BadInput as error:
            self.error = error
            self._note.value = f'<span role="alert">{escape(error.what)} Try: {escape(error.remedy)}</span>'
            return
        missing = isinstance(value, Path) and not value.exists()
        self._note.value = f"<span>Nothing is at {escape(str(value))} yet.</span>" if missing else ""


def label(name: str) -> str:
    """``keep_float`` -> ``Keep float``, ``least_snr_db`` -> ``Least SNR dB``."""
    words = [_SPELT.get(word, word) for word in name.split("_") if word]
    return " ".join([words[0] if words[0] in _SPELT.values() else words[0].capitalize(), *words[1:]]) if words else ""


def describe(field: Field) -> str:
    """Words for what a field takes."""
    kind = field.kind
    if kind in (int, float):
        noun = "a whole number" if kind is int else "a number"
        noun += f" from {_bounds(field)}" if field.range else ""
    elif kind == tuple[tuple[str, str], ...]:
        noun = "pairs such as this -> that, with commas between them"
    elif get_origin(kind) is tuple and get_args(kind)[-1:] == (...,):
        noun = {str: "names", int: "whole numbers", float: "numbers"}.get(get_args(kind)[0], "values")
        noun += ", with commas between them"
    elif kind in (str, Path):
        noun = "a text" if kind is str else "a path"
    else:
        noun = f"a Python value such as {field.default!r}"
    return noun + (", or nothing" if field.optional else "")


def _help(field: Field, widget: Any, widgets: Any) -> str:
    """The field's own help, its range, and how to give several values."""
    bounds = f"{_bounds(field)}." if field.range else ""
    said = field.help[:1].upper() + field.help[1:].removesuffix(".") + "." if field.help else ""
    several = ""
    if isinstance(widget, widgets.SelectMultiple):
        several = "Ctrl or Shift and a click choose several."
    elif get_origin(field.kind) is tuple:
        several = "Commas between several."
    return " ".join(filter(None, [said, bounds, several]))


def _bounds(field: Field) -> str:
    ends = (field.range.low, field.range.high)
    return " to ".join(str(int(end)) if end == int(end) else str(end) for end in ends)


def _build(widgets: Any, field: Field, choices: tuple[str, ...]) -> tuple[Any, Callable, Callable]:
    """The widget, a reader from what it holds to a Python value, and the way back."""
    kind, origin = field.kind, get_origin(field.kind)
    if origin is Literal or (kind is bool and field.optional):
        values = get_args(kind) if origin is Literal else (True, False)
        shown = [({True: "yes", False: "no"}.get(v, str(v)) if isinstance(v, bool) else str(v), v) for v in values]
        return widgets.Dropdown(options=[(_UNSET, None), *shown] if field.optional else shown), _same, _same
    if kind is bool:
        return widgets.Checkbox(indent=False), _same, _same
    if origin is tuple and get_args(kind)[-1:] == (...,):
        return _several(widgets, get_args(kind)[0], choices)
    if kind in (int, float) and not field.optional:
        widget = _number(widgets, field)
        digits = _digits(field)
        # The browser adds the step up in binary: 0.15 would come back as 0.15000000000000002.
        return widget, int if kind is int else lambda value: round(float(value), digits), _same
    text = widgets.Text(continuous_update=False, placeholder=_UNSET if field.optional else "")
    return text, _reader(field), _writer(field)


def _number(widgets: Any, field: Field) -> Any:
    # No slider: its handle has no name that a screen reader could say (ipywidgets 8.1). No bounded text: it would
    # change a wrong number without a word, where this one is told in words what is right.
    make = widgets.IntText if field.kind is int else widgets.FloatText
    step = field.range.step if field.range else None
    return make(step=step or (1 if field.kind is int else None), continuous_update=False)


def _digits(field: Field) -> int:
    """Decimals that a field's step needs; enough for anything typed where it has none."""
    step = field.range.step if field.range else None
    return 15 if step is None else max(0, -Decimal(str(step)).normalize().as_tuple().exponent)


def _several(widgets: Any, item: Any, choices: tuple[str, ...]) -> tuple[Any, Callable, Callable]:
    known = get_args(item) if get_origin(item) is Literal else choices
    if known:
        return widgets.SelectMultiple(options=known, rows=min(6, len(known))), tuple, tuple
    if item == tuple[str, str]:
        return (widgets.Text(continuous_update=False, placeholder="none"), _read_pairs,
                lambda pairs: ", ".join(" -> ".join(pair) for pair in pairs))
    make = item if item in (int, float) else Path if item is Path else str

    def read(text: str) -> tuple:
        parts: list[str] = []
        for part in filter(None, (part.strip() for part in text.replace("\n", ",").split(","))):
            inside = bool(parts) and (parts[-1].count("[") > parts[-1].count("]")
                                      or ("=" in parts[-1] and ("=" not in part or ";" in part.partition("=")[0])))
            if make is str and inside:
                parts[-1] += f",{part}"  # x=1,3,48,320 is one entry, x:float32[N,3,H,W], and a=1,3; b=1,2 too
            else:
                parts.append(part)
        return tuple(map(make, parts))

    return (widgets.Text(continuous_update=False, placeholder="none"), read,
            lambda values: ", ".join(map(str, values)))


def _read_pairs(text: str) -> tuple[tuple[str, str], ...]:
    """``this -> that, these -> those``; a dict as Python writes it is taken too."""
    text = text.strip()
    if text.startswith("{"):
        return tuple((str(key), str(value)) for key, value in ast.literal_eval(text).items())
    one = re.compile(r"\s*(.+?)\s*(?:->|=|(?<!:):(?!:))\s*(.+?)\s*")  # domain::name has two colons
    found = [one.fullmatch(part) for part in text.split(",") if part.strip()]
    if not all(found):
        raise ValueError(text)
    return tuple((match[1], match[2]) for match in found if match)


def _reader(field: Field) -> Callable[[str], Any]:
    """From text to the field's type; nothing typed is None where the field may be None."""
    kind = field.kind

    def read(text: str) -> Any:
        text = text.strip()
        if not text and field.optional:
            return None
        if kind is str or kind is Path:
            return kind(text)
        if kind in (int, float):
            return kind(text)
        value = text if _is_word(text) and _takes(kind, str) else ast.literal_eval(text)
        wanted = get_origin(kind) or kind
        if wanted in (dict, list, tuple) and not isinstance(value, wanted):
            raise TypeError(f"this is a {type(value).__name__}, not a {wanted.__name__}")
        return value

    return read


def _writer(field: Field) -> Callable[[Any], str]:
    plain = field.kind in (str, Path)
    return lambda value: "" if value is None else str(value) if plain or isinstance(value, str) else repr(value)


def _is_word(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return True
    return False


def _takes(kind: Any, other: type) -> bool:
    return get_origin(kind) in (typing.Union, types.UnionType) and other in get_args(kind)


def _same(value: Any) -> Any:
    return value
