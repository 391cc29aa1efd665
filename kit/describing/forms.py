"""Several nodes that are one thing: the patterns of ``fusions.json``, and where they are found.

A pattern is written as a formula and read with Python's own parser; the file explains the letters.
"""

from __future__ import annotations

import ast
import functools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kit.describing.attributes import rounded
from kit.describing.layouts import per_channel
from kit.describing.net import Net, Piece
from kit.describing.vocabulary import words

_CONSTANTS = ("const", "channel", "row", "matrix")
_NUMBERS = ("epsilon",)  # constants that become an attribute


@dataclass(frozen=True)
class Match:
    """A place where a pattern fits: the pieces from the result inwards, what its letters stand for, and constants."""

    pieces: tuple[Piece, ...]
    letters: dict[str, Any]
    constants: tuple[str, ...]


def merge(net: Net) -> None:
    """Replace every place where a form fits by one piece, until none fits any more."""
    changed = True
    while changed:
        changed = False
        for form in words("fusions")["forms"]:
            finder, made = _Finder(net), {}
            for match in finder.places(form["patterns"]):
                made[match.pieces[0]] = piece = _one(form, match)
                finder.swap(match.pieces, piece)
            if made:
                net.pieces = [made.get(piece, piece) for piece in net.pieces
                              if piece in made or piece in finder.present]
                changed = True


def grouped(net: Net) -> dict[Piece, tuple[str, int]]:
    """Piece -> (name of its group, number of the place); each belongs to one group, the first that fits."""
    taken: dict[Piece, tuple[str, int]] = {}
    number, finder = 0, _Finder(net)
    for group in words("fusions")["groups"]:
        for match in finder.places(group["patterns"]):
            if not any(piece in taken for piece in match.pieces):
                number += 1
                taken.update(dict.fromkeys(match.pieces, (group["name"], number)))
    return taken


@functools.cache
def _formula(text: str) -> ast.Call:
    return ast.parse(text, mode="eval").body  # type: ignore[return-value]


class _Finder:
    def __init__(self, net: Net) -> None:
        self.net = net
        self.classes: dict[str, list[str]] = words("fusions")["classes"]
        self.commutative = set(words()["commutative"])
        self.present = set(net.pieces)
        self.makers = {name: piece for piece in net.pieces for name in piece.outputs}
        self.readers = net.readers()

    def places(self, patterns: list[str]) -> Iterator[Match]:
        """Where patterns fit; stays right while what it yields is swapped."""
        for text in patterns:
            formula = _formula(text)
            for piece in self.net.pieces:
                if piece in self.present and (match := self.at(piece, formula)):
                    yield match

    def swap(self, pieces: tuple[Piece, ...], made: Piece) -> None:
        """Take ``made`` for ``pieces`` from now on."""
        for piece in pieces:
            self.present.discard(piece)
            self.readers.subtract(piece.inputs)
        self.present.add(made)
        self.readers.update(made.inputs)
        self.makers.update(dict.fromkeys(made.outputs, made))

    def at(self, root: Piece, formula: ast.Call) -> Match | None:
        """The pattern with its result at ``root``."""
        for pieces, letters, constants in self._call(root, formula, {}):
            inside = tuple(dict.fromkeys(pieces))
            if self._closed(inside):
                return Match(inside, letters, constants)
        return None

    def _closed(self, pieces: tuple[Piece, ...]) -> bool:
        """Is every inner result read inside only?"""
        own = Counter(name for piece in pieces for name in piece.inputs)
        return all(self.readers[name] == own[name] for piece in pieces[1:] for name in piece.outputs)

    def _call(self, piece: Piece, formula: ast.Call, letters: dict[str, Any]) -> Iterator[tuple]:
        name = formula.func.id  # type: ignore[attr-defined]
        if piece.operator not in self.classes.get(name, (name,)):
            return
        if not all(self._attribute(piece, word) for word in formula.keywords):
            return
        wanted = formula.args
        open_end = bool(wanted) and isinstance(wanted[-1], ast.Constant) and wanted[-1].value is ...
        wanted = wanted[:-1] if open_end else wanted
        inputs = [name for name in piece.inputs if name]
        further = tuple(inputs[len(wanted):])
        fits = len(inputs) == len(wanted) or (open_end and len(inputs) > len(wanted)
                                              and all(map(self.net.is_constant, further)))
        if not fits:
            return
        sides = [inputs, inputs[::-1]] if piece.operator in self.commutative and len(wanted) == 2 else [inputs]
        for side in sides:
            for pieces, found, constants in self._arguments(piece, side, wanted, letters):
                yield (piece, *pieces), found, (*constants, *further)

    def _arguments(self, piece: Piece, inputs: list[str], wanted: list[ast.expr],
                   letters: dict[str, Any]) -> Iterator[tuple]:
        if not wanted:
            yield (), letters, ()
            return
        for pieces, found, constants in self._argument(piece, inputs[0], wanted[0], letters):
            for more, last, others in self._arguments(piece, inputs[1:], wanted[1:], found):
                yield (*pieces, *more), last, (*constants, *others)

    def _argument(self, piece: Piece, name: str, wanted: ast.expr, letters: dict[str, Any]) -> Iterator[tuple]:
        if isinstance(wanted, ast.Call):
            maker = self.makers.get(name)
            if maker is not None and maker.outputs[0] == name:
                yield from self._call(maker, wanted, letters)
        elif isinstance(wanted, ast.Constant):
            number = self.net.number(name) if self.net.is_constant(name) else None
            if number is not None and math.isclose(number, float(wanted.value), rel_tol=1e-4):  # type: ignore[arg-type]
                yield (), letters, ()
        elif wanted.id in _NUMBERS:  # type: ignore[attr-defined]
            number = self.net.number(name) if self.net.is_constant(name) else None
            if number is not None:
                yield (), {**letters, wanted.id: number}, ()  # type: ignore[attr-defined]
        elif wanted.id in _CONSTANTS:  # type: ignore[attr-defined]
            if self.net.is_constant(name) and self._kind(piece, name, wanted.id):  # type: ignore[attr-defined]
                yield (), letters, (name,)
        elif not self.net.is_constant(name) and letters.get(wanted.id, name) == name:  # type: ignore[attr-defined]
            yield (), {**letters, wanted.id: name}, ()  # type: ignore[attr-defined]

    def _kind(self, piece: Piece, name: str, kind: str) -> bool:
        tensor, result = self.net.tensors.get(name), self.net.tensors.get(piece.outputs[0])
        if kind == "matrix":
            return tensor is not None and len(tensor.shape or ()) == 2
        return kind == "const" or per_channel(tensor, result, piece.layout, last=kind == "row")

    def _attribute(self, piece: Piece, word: ast.keyword) -> bool:
        given = piece.attributes.get(word.arg)
        if isinstance(word.value, ast.Name):  # spatial
            result = self.net.tensors.get(piece.outputs[0])
            return given == list(range(2, len((result and result.shape) or ()))) and len(given) > 0
        wanted = ast.literal_eval(word.value)
        return given == wanted or (isinstance(given, int | float) and math.isclose(given, wanted, rel_tol=1e-4))


def _one(form: dict[str, Any], match: Match) -> Piece:
    """The piece that a form becomes."""
    root = match.pieces[0]
    told: dict[str, Any] = {}
    for operator, names in form.get("take", {}).items():
        given = next((piece.attributes for piece in match.pieces[::-1] if piece.operator == operator), {})
        told |= given if names == ["*"] else {name: given[name] for name in names if name in given}
    told |= {name: rounded(match.letters[name]) for name in _NUMBERS if name in match.letters}
    values = [value for letter, value in match.letters.items() if letter not in _NUMBERS]
    nodes = {id(node): node for piece in match.pieces[::-1] for node in piece.nodes}
    return Piece(form["name"], [*values, *match.constants], root.outputs, {**told, **form.get("attributes", {})},
                 tuple(nodes.values()), root.layout)
