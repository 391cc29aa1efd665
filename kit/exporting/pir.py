"""Paddle's inference.json (PIR) read as plain JSON: its operators, and the repair of what Paddle 3.3 changed in it.

No Paddle is needed for either, so both can be tested, and said to the reader, before anything native runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import BadInput
from kit.record import read_json

# Names of dialects inside the file are numbers; these are the built-in ones of PIR version 3 and 4.
_DIALECTS = {"0": "builtin", "1": "pd_op", "2": "cf", "3": "custom_op"}
# Parameters, inputs, outputs and blocks: no work is done in them, and every converter knows them.
_FRAME = {"builtin.parameter", "builtin.shadow_output", "builtin.combine", "builtin.split", "builtin.slice",
          "pd_op.data", "pd_op.feed", "pd_op.fetch", "pd_op.if", "pd_op.while", "pd_op.print", "cf.yield"}

# What Paddle2ONNX calls some operators, where that is not Paddle's own name. Read from the converter's own table
# (convert_pir_op_name in paddle2onnx/mapper/exporter.h, checked 2026-11-21); the list of what it supports is asked
# from the installed converter itself, and a conversion that succeeds is never refused on account of this table.
_CONVERTER_NAMES = {
    "add": "elementwise_add", "subtract": "elementwise_sub", "multiply": "elementwise_mul",
    "divide": "elementwise_div", "floor_divide": "elementwise_floordiv", "remainder": "elementwise_mod",
    "minimum": "elementwise_min", "maximum": "elementwise_max", "min": "reduce_min", "max": "reduce_max",
    "mean": "reduce_mean", "sum": "reduce_sum", "prod": "reduce_prod", "any": "reduce_any", "all": "reduce_all",
    "matmul": "matmul_v2", "batch_norm_": "batch_norm", "topk": "top_k_v2", "expand": "expand_v2",
    "repeat_interleave_with_tensor_index": "repeat_interleave", "assign_value_": "assign_value",
    "flatten": "flatten_contiguous_range", "unsqueeze": "unsqueeze2", "arange": "range", "argmax": "arg_max",
    "argmin": "arg_min", "numel": "size", "hardswish": "hard_swish", "hardsigmoid": "hard_sigmoid", "add_n": "sum",
    "grid_sample": "grid_sampler", "nonzero": "where_index",
}  # fmt: skip

# Another way to write what the converter lacks, from operators that it has.
SUBSTITUTES = {
    "logit": "paddle.log(x / (1 - x))",
    "kthvalue": "paddle.topk(x, k, largest=False), then the last one",
    "mode": "no substitute in the graph: compute it after the model",
    "erfinv": "no exact substitute: move it out of the model, or approximate it by a polynomial",
    "lerp": "x + w * (y - x)",
    "logcumsumexp": "paddle.log(paddle.cumsum(paddle.exp(x)))",
    "trace": "paddle.sum(x * paddle.eye(n))",
    "fmax": "paddle.maximum where no NaN can occur",
    "fmin": "paddle.minimum where no NaN can occur",
    "heaviside": "paddle.where(x > 0, 1.0, 0.0)",
    "celu": "paddle.where(x > 0, x, alpha * (paddle.exp(x / alpha) - 1))",
    "maxout": "reshape, then paddle.max over the group",
    "rrelu": "leaky_relu with the mean slope (what rrelu is in eval mode)",
    "bincount": "no substitute in the graph: count after the model",
}

# Numbers that stay 64-bit: constants of any type, which Paddle always stored so and every reader takes.
_CONSTANTS = {"value", "values"}


@dataclass(frozen=True)
class Unsupported:
    """An operator that the converter, or the target, has no counterpart for.

    Attributes:
        operator: its name in the source.
        count: how often it occurs.
        where: layers it belongs to, as far as the program says; otherwise shapes of what it makes.
        advice: what to write instead.
    """

    operator: str
    count: int
    where: str
    advice: str


def read(graph: Path) -> dict[str, Any]:
    """The program of an inference.json.

    Raises:
        BadInput: not there, cut off, or not a PIR program.
    """
    program = read_json(graph, f"{graph} is not whole: it is cut off, or not JSON.", "copy or save the model again")
    if not isinstance(program, dict) or "program" not in program:
        raise BadInput(f"{graph} is JSON, but not a Paddle program.", remedy="give the inference.json "
                       "that Paddle saved")
    return program


def operators(program: dict[str, Any]) -> dict[str, int]:
    """How often each operator occurs, inside branches and loops too, most frequent first."""
    counts = Counter(name for name, _ in _operations(program) if name not in _FRAME)
    return {_plain(name): count for name, count in counts.most_common()}


def unsupported(program: dict[str, Any], supported: Iterable[str]) -> tuple[Unsupported, ...]:
    """Every operator of the program that is not among the converter's, all at once.

    Args:
        program: see `read`.
        supported: names as the converter lists them.
    """
    known = set(supported)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, operation in _operations(program):
        plain = _plain(name)
        if name not in _FRAME and not {plain, _CONVERTER_NAMES.get(plain, plain)} & known:
            found.setdefault(plain, []).append(operation)
    return tuple(Unsupported(name, len(those), _where(those), SUBSTITUTES.get(
        name, "rewrite the layer with other operators, or cut the model before it"))
        for name, those in sorted(found.items()))


def narrow(program: dict[str, Any]) -> dict[str, int]:
    """Store as 32-bit again, in place, the attributes that Paddle 3.3 stores as 64-bit numbers.

    Paddle 3.3 writes `scale` of an upsampling, `epsilon` of a normalisation, `negative_slope` and their like as
    doubles. Paddle2ONNX 2.1.0 either stops on them ("the 0th elementwise MUST be ir::FloatAttribute") or, worse,
    reads memory that was never set; Paddle 3.2 cannot load them at all. All of them were 32-bit up to Paddle 3.2.

    Returns:
        ``operator.attribute`` -> how many numbers were changed; empty when there was nothing to do.
    """
    changed: Counter[str] = Counter()
    for name, operation in _operations(program):
        for entry in operation.get("A", ()):
            if isinstance(entry, dict) and entry.get("N") not in _CONSTANTS:
                count = _narrow_value(entry.get("AT"))
                if count:
                    changed[f"{_plain(name)}.{entry['N']}"] += count
    return dict(sorted(changed.items()))


def _narrow_value(value: Any) -> int:
    if not isinstance(value, dict):
        return 0
    if value.get("#") == "0.a_f64":
        value["#"] = "0.a_f32"
        return 1
    inner = value.get("D")
    return sum(map(_narrow_value, inner)) if value.get("#") == "0.a_array" and isinstance(inner, list) else 0


def _operations(thing: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(thing, list):
        for item in thing:
            yield from _operations(item)
    elif isinstance(thing, dict):
        if "#" in thing and "O" in thing:
            yield _full_name(thing["#"]), thing
        for key in ("program", "regions", "blocks", "ops"):
            if key in thing:
                yield from _operations(thing[key])


def _full_name(short: str) -> str:
    if short == "p":  # a parameter has a form of its own
        return "builtin.parameter"
    dialect, _, name = short.partition(".")
    return f"{_DIALECTS.get(dialect, dialect)}.{name}"


def _plain(name: str) -> str:
    return name.removeprefix("pd_op.")


def _where(operations: list[dict[str, Any]]) -> str:
    places = []
    for operation in operations:
        layer = next((a["AT"]["D"] for a in operation.get("A", ()) if isinstance(a, dict)
                      and a.get("N") == "struct_name"), "").strip("/")
        places.append(layer or _shape(operation))
    seen = list(dict.fromkeys(filter(None, places)))
    return ", ".join(seen[:3]) + (f" and {len(seen) - 3} more" if len(seen) > 3 else "")


def _shape(operation: dict[str, Any]) -> str:
    try:
        sides = operation["O"][0]["TT"]["D"][1]
        return "makes [" + ", ".join("?" if side < 0 else str(side) for side in sides) + "]"
    except (LookupError, TypeError):
        return ""
