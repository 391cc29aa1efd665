"""Writes an Einsum as Transpose, Reshape, MatMul, Mul and ReduceSum, which every target has and knows how to run.

Of two operands, each letter is one of four things: in both and kept (a batch), in both and summed (contracted), in one
and kept (free), in one and summed (added up first). So

    bhid,bhjd->bhij      = MatMul(A, Transpose(B))
    i,j->ij              = Mul(Unsqueeze(A), Unsqueeze(B))
    ij->ji, ij->i        = Transpose, ReduceSum

and more than two operands are taken from left to right, two at a time. Letters that are free or contracted together
(``abc,cbd->ad``) become one axis by Reshape, for which their sizes must be known, all but one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.graph.rule import Rule, Setting
from kit.graph.values import Builder, bypass, cannot_bypass, is_op, rank, replace, shape

if TYPE_CHECKING:
    import onnx_ir as ir

DOTS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # letters for what "..." stands for; those in use are left out
MATMUL = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT32", "INT64")


@dataclass(frozen=True)
class Equation:
    """An equation with every axis named: one text of letters for each operand, and one for the result."""

    operands: tuple[str, ...]
    result: str


def parse(text: str, ranks: tuple[int | None, ...]) -> Equation | str:
    """Read an equation; "..." becomes letters of its own.

    Args:
        text: such as ``bij,bjk->bik``; without an arrow the result has the letters that occur once, in order.
        ranks: number of axes of every operand, where known.

    Returns:
        Why it cannot be read, as text, where it cannot.
    """
    left, arrow, right = text.replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != len(ranks):
        return f"the equation {text!r} is for {len(operands)} operands, and it has {len(ranks)}"
    spare = [letter for letter in DOTS if letter not in text]
    dots = 0
    for operand, count in zip(operands, ranks, strict=True):
        if "..." in operand:
            if count is None:
                return f"the rank of an operand is not known, and with it what ... stands for in {text!r}"
            dots = max(dots, count - len(operand) + 3)
    if dots > len(spare):
        return f"... stands for {dots} axes, more than there are letters"
    if not arrow:
        seen = left.replace(",", "").replace(".", "")
        right = ("..." if dots else "") + "".join(sorted(letter for letter in set(seen) if seen.count(letter) == 1))

    def spelt(operand: str, count: int | None) -> str:
        own = dots if count is None else count - len(operand) + 3
        return operand.replace("...", "".join(spare[dots - own:dots]))

    found = Equation(tuple(map(spelt, operands, ranks)), spelt(right, None))
    for operand in (*found.operands, found.result):
        if len(set(operand)) < len(operand):
            return f"{text!r} takes a diagonal: a letter occurs twice in {operand!r}"
    if stray := set(found.result) - set("".join(found.operands)):
        return f"{text!r} gives {', '.join(sorted(stray))}, which no operand has"
    return found


@dataclass
class Term:
    """A tensor and the letters of its axes."""

    value: ir.Value
    letters: str


class Writer:
    """Makes the operators; ``sizes`` are those of the letters, None where one is not known."""

    def __init__(self, builder: Builder, sizes: dict[str, int | None]) -> None:
        self.to, self.sizes = builder, sizes

    def transposed(self, term: Term, letters: str) -> Term:
        """With its axes in this order."""
        if term.letters == letters:
            return term
        perm = [term.letters.index(letter) for letter in letters]
        return Term(self.to.op("Transpose", [term.value], {"perm": perm}, like=term.value), letters)

    def summed(self, term: Term, kept: str) -> Term:
        """With the letters that are not in ``kept`` added up."""
        axes = [at for at, letter in enumerate(term.letters) if letter not in kept]
        if not axes:
            return term
        value = self.to.over("ReduceSum", term.value, axes, {"keepdims": 0}, like=term.value)
        return Term(value, "".join(letter for letter in term.letters if letter in kept))

    def regrouped(self, value: ir.Value, before: list[str], after: list[str]) -> ir.Value:
        """A Reshape from axes of these letters to axes of those: letters of one axis together, "" is one of size 1."""
        if before == after:
            return value
        return self.to.op("Reshape", [value, self.to.weight(np.int64(target(before, after, self.sizes)),
                                                            f"{self.to.root.name}/shape")], like=value)

    def product(self, left: Term, right: Term, kept: str) -> Term:
        """Of two terms; ``kept`` are the letters that are needed afterwards."""
        both = [letter for letter in left.letters if letter in right.letters]
        left = self.summed(left, kept + right.letters)
        right = self.summed(right, kept + left.letters)
        batch = "".join(letter for letter in both if letter in kept)
        inner = "".join(letter for letter in both if letter not in kept)
        rows = "".join(letter for letter in left.letters if letter not in both)
        columns = "".join(letter for letter in right.letters if letter not in both)
        return (self._matmul if inner else self._mul)(left, right, batch, inner, rows, columns)

    def _matmul(self, left: Term, right: Term, batch: str, inner: str, rows: str, columns: str) -> Term:
        a = self.transposed(left, batch + rows + inner).value
        b = self.transposed(right, batch + inner + columns).value
        a = self.regrouped(a, [*batch, *rows, *inner], [*batch, rows, inner])
        b = self.regrouped(b, [*batch, *inner, *columns], [*batch, inner, columns])
        value = self.to.op("MatMul", [a, b], like=left.value)
        letters = batch + rows + columns
        return Term(self.regrouped(value, [*batch, rows, columns], [*letters]), letters)

    def _mul(self, left: Term, right: Term, batch: str, inner: str, rows: str, columns: str) -> Term:
        a, b = self.transposed(left, batch + rows).value, self.transposed(right, batch + columns).value
        if columns:
            a = self.to.over("Unsqueeze", a, range(len(batch + rows), len(batch + rows + columns)), like=a)
        if rows:
            b = self.to.over("Unsqueeze", b, range(len(batch), len(batch + rows)), like=b)
        return Term(self.to.op("Mul", [a, b], like=left.value), batch + rows + columns)


def target(before: list[str], after: list[str], sizes: dict[str, int | None]) -> list[int]:
    """What a Reshape between groups of letters is told.

    Raises:
        KeyError: the sizes of two groups or more are not known; ``args`` holds their letters.
    """
    found: list[int] = []
    unknown: list[str] = []
    for at, group in enumerate(after):
        known = [sizes[letter] for letter in group]
        if None not in known:
            found.append(prod(known))
        elif at < len(before) and before[at] == group:
            found.append(0)  # as it was
        else:
            found.append(-1)
            unknown.append(group)
    if len(unknown) > 1:
        raise KeyError(*(letter for group in unknown for letter in group if sizes[letter] is None))
    return found


def letter_sizes(equation: Equation, shapes: list[list[int | None] | None]) -> dict[str, int | None] | str:
    """The size of every letter, or why they do not fit together."""
    sizes: dict[str, int | None] = {}
    for letters, sides in zip(equation.operands, shapes, strict=True):
        for letter, size in zip(letters, sides or [None] * len(letters), strict=True):
            known = sizes.get(letter)
            if size is not None and known is not None and size != known:
                return f"axis {letter} has size {known} in one operand and {size} in another: one is spread out"
            sizes[letter] = known if size is None else size
    return sizes


def _read(node: ir.Node) -> tuple[Equation, dict[str, int | None]] | str:
    found = parse(node.attributes.get_string("equation", ""), tuple(map(rank, node.inputs)))
    if isinstance(found, str):
        return found
    for letters, value in zip(found.operands, node.inputs, strict=True):
        if value.shape is not None and len(value.shape) != len(letters):
            return f"{value.name} has {len(value.shape)} axes, and {letters!r} names {len(letters)}"
    sizes = letter_sizes(found, [shape(value) for value in node.inputs])
    return sizes if isinstance(sizes, str) else (found, sizes)


def _write(node: ir.Node, to: Builder) -> ir.Value:
    """The operators in ``to``, and the value that stands for the result; KeyError where sizes are missing."""
    equation, sizes = _read(node)
    writer = Writer(to, sizes)
    terms = [Term(value, letters) for value, letters in zip(node.inputs, equation.operands, strict=True)]
    while len(terms) > 1:
        kept = equation.result + "".join(term.letters for term in terms[2:])
        terms[:2] = [writer.product(terms[0], terms[1], kept)]
    return writer.transposed(writer.summed(terms[0], equation.result), equation.result).value


def _blocked(node: ir.Node, setting: Setting) -> str:
    found = _read(node)
    if isinstance(found, str):
        return found
    dtype = node.inputs[0].dtype
    if dtype is None or dtype.name not in MATMUL:
        return f"MatMul does not take {dtype.name.lower() if dtype else 'a tensor of unknown type'}"
    try:
        result = _write(node, _Dry(node, setting.model))
    except KeyError as missing:
        return f"the sizes of its axes {', '.join(missing.args)} are not known: fix the input shapes"
    return cannot_bypass(node, result) if result is node.inputs[0] else ""


class _Dry(Builder):
    """A Builder that makes nothing: only to see whether everything that would be needed is known."""

    def op(self, op_type: str, inputs: Any, attributes: Any = None, *, like: ir.Value | None = None) -> ir.Value:
        import onnx_ir as ir

        return ir.Value(name=op_type, type=like.type if like is not None else None)

    def weight(self, array: np.ndarray, name: str) -> ir.Value:
        import onnx_ir as ir

        return ir.Value(name=name)


def _rewrite(node: ir.Node, setting: Setting) -> str:
    equation, builder = node.attributes.get_string("equation"), Builder(node, setting.model)
    result = _write(node, builder)
    if result is node.inputs[0]:
        bypass(node, result)
        return f"{equation} changes nothing"
    replace(node, builder.nodes, result)
    return f"{equation} became {' + '.join(made.op_type for made in builder.nodes)}"


RULES = (
    Rule("einsum-to-matmul", "Which equations of an Einsum compile, and how fast, varies; MatMul is what every target "
         "is built for.", lambda node, setting: is_op(node, "Einsum"), _blocked, _rewrite),
)
