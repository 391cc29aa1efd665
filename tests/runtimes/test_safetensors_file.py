"""The table of a .safetensors file, read without a library."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadInput
from kit.runtimes.safetensors_file import chosen, float32_bytes, table

SIZES = {"F32": 4, "F16": 2, "I64": 8}


def write(path, tensors, cut=0):
    """``tensors``: name -> (type, shape)."""
    entries, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (kind, shape) in tensors.items():
        count = 1
        for side in shape:
            count *= side
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + count * SIZES[kind]]}
        at += count * SIZES[kind]
    head = json.dumps(entries).encode()
    data = len(head).to_bytes(8, "little") + head + bytes(at)
    path.write_bytes(data[: len(data) - cut])
    return path


@given(st.lists(st.tuples(st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 5), max_size=3)), max_size=5))
def test_every_tensor_is_found_at_its_place(tmp_path_factory, kinds):
    path = write(tmp_path_factory.mktemp("s") / "a.safetensors", {f"t{at}": kind for at, kind in enumerate(kinds)})
    found = table(path)
    assert [(tensor.kind, list(tensor.shape)) for tensor in found.values()] == [(kind, shape) for kind, shape in kinds]
    assert sum(tensor.length for tensor in found.values()) + min(
        (tensor.begin for tensor in found.values()), default=path.stat().st_size) == path.stat().st_size
    assert float32_bytes(path.parent) == sum(4 * tensor.count for tensor in found.values())


def test_half_precision_counts_as_what_it_becomes(tmp_path):
    write(tmp_path / "a.fp16.safetensors", {"w": ("F16", [10])})
    assert float32_bytes(tmp_path) == 40
    write(tmp_path / "a.safetensors", {"w": ("F32", [10])})
    assert [path.name for path in chosen(tmp_path)] == ["a.safetensors"], "full precision where both are there"
    assert float32_bytes(tmp_path) == 40


@pytest.mark.parametrize(("content", "words"), [
    (b"", "no .safetensors file"), (b"\x08\0\0\0\0\0\0\0notjson!", "no table"),
    (b"\x10\0\0\0\0\0\0\0" + b'{"a": {"dt": 1}}', "no table")])
def test_other_formats_are_refused(tmp_path, content, words):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match=words):
        table(tmp_path / "a.safetensors")


def test_a_cut_off_file_says_how_much_is_there(tmp_path):
    with pytest.raises(BadInput, match="is cut off: it has"):
        table(write(tmp_path / "a.safetensors", {"w": ("F32", [100])}, cut=8))
