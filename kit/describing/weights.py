"""What is said of a constant without keeping it: type, shape, a digest of its bytes, and four figures.

The figures are the same however the numbers are ordered, so that a kernel stored the other way round is recognised.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kit.inspection.shape_arithmetic import dtype_name
from kit.weights_file import tensor_array

_BLOCK = 1 << 22  # numbers looked at together: 16 MB in float32
_FLOATS = ("float16", "float32", "float64", "bfloat16")


@dataclass(frozen=True)
class Weight:
    """A stored constant.

    Attributes:
        name: in this description.
        source: in the file.
        digest: of type, shape and bytes; "" where they were not read.
        least, largest, mean, deviation: of all numbers; None for other than floats, and where they were not read.
    """

    name: str
    source: str
    dtype: str
    shape: tuple[int, ...]
    digest: str = ""
    least: float | None = None
    largest: float | None = None
    mean: float | None = None
    deviation: float | None = None

    def alike(self, other: Weight) -> bool:
        """The same numbers, in whatever order: as far as the figures tell, to five digits."""
        if self.digest and self.digest == other.digest:
            return True
        if sorted(n for n in self.shape if n != 1) != sorted(n for n in other.shape if n != 1):
            return False
        mine, theirs = ((w.least, w.largest, w.mean, w.deviation) for w in (self, other))
        if None in (*mine, *theirs):
            return False
        scale = max(map(abs, (*mine, *theirs)), default=0.0)  # type: ignore[arg-type]
        return all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6 * scale)  # type: ignore[arg-type]
                   for a, b in zip(mine, theirs, strict=True))


def weight_of(name: str, source: str, tensor: Any, folder: Path, *, read: bool) -> Weight:
    """Describe an ``onnx.TensorProto``; its values are read in blocks, from the disk where they lie there."""
    dtype, shape = dtype_name(tensor.data_type), tuple(tensor.dims)
    if not read or dtype == "string":
        return Weight(name, source, dtype, shape)
    values = tensor_array(tensor, folder).reshape(-1)
    hasher = hashlib.blake2b(f"{dtype} {list(shape)}".encode(), digest_size=8)
    least, largest, total, squares = math.inf, -math.inf, 0.0, 0.0
    told = dtype in _FLOATS and values.size > 0
    for block in _blocks(values):
        hasher.update(block.view(np.uint8).data)
        if told:
            wide = block.astype(np.float64)
            least, largest = min(least, float(wide.min())), max(largest, float(wide.max()))
            total += float(wide.sum())
            squares += float((wide * wide).sum())
    if not told or not math.isfinite(squares):
        return Weight(name, source, dtype, shape, hasher.hexdigest())
    mean = total / values.size
    deviation = math.sqrt(max(squares / values.size - mean * mean, 0.0))
    figures = [float(f"{figure:.8g}") for figure in (least, largest, mean, deviation)]
    return Weight(name, source, dtype, shape, hasher.hexdigest(), *figures)


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces of a flat array. A mapped file is read instead: the pages of a map would stay in memory."""
    for start in range(0, values.size, _BLOCK):
        count = min(_BLOCK, values.size - start)
        if isinstance(values, np.memmap):
            yield np.fromfile(values.filename, values.dtype, count, offset=values.offset + start * values.itemsize)
        else:
            yield np.ascontiguousarray(values[start:start + count])
