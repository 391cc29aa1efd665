"""FAKE ``acl.mdl``: a FAKE .om is loaded, described and run with ONNX Runtime; a real one is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .handles import (
    ALIGNED,
    DTYPES,
    GE_DYNAMIC_SIZE_INVALID,
    GE_LOAD_MODEL,
    GE_MODEL_ID_INVALID,
    GE_MODEL_PATH_INVALID,
    INPUT_NOT_MATCH,
    INVALID_PARAM,
    NOT_DYNAMIC,
    OUTPUT_NOT_MATCH,
    RT_AICORE_EXCEPTION,
    RT_MODEL_CONTEXT,
    RT_PARAM_INVALID,
    RT_SOC_VERSION,
    SUCCESS,
    fault,
    state,
    whole,
)

SHAPE_DATA = "ascend_mbatch_shape_data"
Answer = tuple[Any, int]


class _Loaded:
    """A model on the device.

    Attributes:
        context: it may be used in this one only.
        profile: what was chosen last; None where a choice is still to be made.
    """

    def __init__(self, om: Any, context: int) -> None:
        self.om, self.context = om, context
        self.kind: str = om.about["profiles"]["kind"]
        self.values = [tuple(value) for value in om.about["profiles"]["values"]]
        self.profile: tuple[int, ...] | None = None if self.values else ()
        self.inputs = list(om.about["inputs"])
        if self.values:
            self.inputs.append({"name": SHAPE_DATA, "dtype": "int32", "shape": [len(self.values[0])]})
        self.outputs = om.about["outputs"]

    def shape(self, spec: dict[str, Any], profile: tuple[int, ...]) -> list[int]:
        return spec["shape"] if spec["name"] == SHAPE_DATA else self.om.shape_of(spec, profile)

    def out_shape(self, number: int, profile: tuple[int, ...]) -> list[int]:
        at = self.values.index(profile) if self.values else 0
        return self.om.about["shapes"][at][number]

    def input_bytes(self, index: int) -> int:
        """Of the largest profile."""
        spec = self.inputs[index]
        return max(_bytes(self.shape(spec, value), spec["dtype"]) for value in self.values or [()])

    def output_bytes(self, index: int) -> int:
        spec = self.outputs[index]
        return max(_bytes(self.out_shape(index, value), spec["dtype"]) for value in self.values or [()])


def _bytes(shape: list[int], dtype: str) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def load_from_file(path: str) -> Answer:
    """Load; the id of the model."""
    code = state.ready()
    if code:
        return 0, code
    if not isinstance(path, str):
        raise TypeError("acl.mdl.load_from_file args parse failed!")
    from kit.ascend.box.rehearsing.om import FakeOm, is_fake

    if not Path(path).is_file():
        return 0, state.refuse(GE_MODEL_PATH_INVALID, f"{path} does not exist")
    if not is_fake(path):
        return 0, state.refuse(GE_LOAD_MODEL, f"{path} was not made by the FAKE atc")
    om = FakeOm(path)
    soc = os.environ.get("KIT_FAKE_SOC", "Ascend310P3")
    if om.about["soc"] != soc:
        om.close()
        return 0, state.refuse(RT_SOC_VERSION, f"the .om is for {om.about['soc']}, this is {soc}")
    return state.make("model", _Loaded(om, state.context or 0)), SUCCESS


def unload(model: int) -> int:
    """Give the model back, in the context that it was loaded in."""
    code = state.ready() or _lost(model)
    if not code:
        loaded = state.live["model"][model]
        if loaded.context != state.context:
            return state.refuse(RT_MODEL_CONTEXT, "the model was loaded in another context")
        loaded.om.close()
        del state.live["model"][model]
    return code


def _lost(model: int) -> int:
    if model in state.live["model"]:
        return SUCCESS
    return state.refuse(GE_MODEL_ID_INVALID, f"there is no model {model}")


# ---- description --------------------------------------------------------------------------------------------------


def create_desc() -> int:
    """An empty description; the handle alone."""
    return 0 if state.ready(context=False) else state.make("desc", {})


def destroy_desc(desc: int) -> int:
    """Give a description back."""
    return state.give_back("desc", desc)


def get_desc(desc: int, model: int) -> int:
    """Fill a description."""
    code = state.ready() or state.lost("desc", desc) or _lost(model)
    if not code:
        state.live["desc"][desc] = state.live["model"][model]
    return code


def _described(desc: int) -> _Loaded | None:
    if state.ready() or state.lost("desc", desc):
        return None
    loaded = state.live["desc"][desc]
    if not isinstance(loaded, _Loaded):
        state.refuse(INVALID_PARAM, "the description is empty: call acl.mdl.get_desc first")
        return None
    return loaded


def _spec(desc: int, index: int, group: str) -> tuple[_Loaded, dict[str, Any]] | None:
    loaded = _described(desc)
    specs = getattr(loaded, group) if loaded else []
    if loaded is None or not 0 <= whole(index, "acl.mdl") < len(specs):
        state.refuse(INVALID_PARAM, f"there is no number {index} of {len(specs)} {group}")
        return None
    return loaded, specs[index]


def get_num_inputs(desc: int) -> int:
    """With the input that chooses a profile."""
    loaded = _described(desc)
    return len(loaded.inputs) if loaded else 0


def get_num_outputs(desc: int) -> int:
    """How many outputs."""
    loaded = _described(desc)
    return len(loaded.outputs) if loaded else 0


def get_input_size_by_index(desc: int, index: int) -> int:
    """Bytes a buffer must have, aligned, for the largest profile."""
    found = _spec(desc, index, "inputs")
    return _aligned(found[0].input_bytes(index)) if found else 0


def get_output_size_by_index(desc: int, index: int) -> int:
    """Likewise of an output."""
    found = _spec(desc, index, "outputs")
    return _aligned(found[0].output_bytes(index)) if found else 0


def get_input_dims(desc: int, index: int) -> Answer:
    """Sides of an input, -1 where profiles choose."""
    return _dims(_spec(desc, index, "inputs"))


def get_output_dims(desc: int, index: int) -> Answer:
    """Sides of an output."""
    return _dims(_spec(desc, index, "outputs"))


def _dims(found: Any) -> Answer:
    if not found:
        return {}, INVALID_PARAM
    _, spec = found
    return _as_dims(spec.get("called", spec["name"]), spec["shape"])


def _as_dims(name: str, shape: list[int]) -> Answer:
    return {"name": name, "dimCount": len(shape), "dims": list(shape)}, SUCCESS


def get_cur_output_dims(desc: int, index: int) -> Answer:
    """Sides of an output in the profile that was chosen."""
    found = _spec(desc, index, "outputs")
    if not found:
        return {}, INVALID_PARAM
    loaded, spec = found
    if loaded.profile is None:
        return {}, state.refuse(INVALID_PARAM, "no profile was chosen")
    return _as_dims(spec["called"], loaded.out_shape(index, loaded.profile))


def get_input_name_by_index(desc: int, index: int) -> str:
    """As in the ONNX file."""
    found = _spec(desc, index, "inputs")
    return found[1]["name"] if found else ""


def get_output_name_by_index(desc: int, index: int) -> str:
    """Node, port and tensor: ``Conv_3:0:logits``."""
    found = _spec(desc, index, "outputs")
    return found[1]["called"] if found else ""


def get_input_data_type(desc: int, index: int) -> int:
    """A number of the data type table; -1 for none."""
    found = _spec(desc, index, "inputs")
    return DTYPES[found[1]["dtype"]] if found else -1


def get_output_data_type(desc: int, index: int) -> int:
    """Likewise of an output."""
    found = _spec(desc, index, "outputs")
    return DTYPES[found[1]["dtype"]] if found else -1


def get_input_format(desc: int, index: int) -> int:
    """0 NCHW, 1 NHWC, 2 ND."""
    found = _spec(desc, index, "inputs")
    if not found or len(found[1]["shape"]) != 4:
        return 2
    return 1 if found[1]["name"] in found[0].om.about["aipp"] else 0


def get_input_index_by_name(desc: int, name: str) -> Answer:
    """Where an input is; an error where there is none of that name, as for the profile input of a static model."""
    loaded = _described(desc)
    names = [spec["name"] for spec in loaded.inputs] if loaded else []
    return (names.index(name), SUCCESS) if name in names else (0, INVALID_PARAM)


# ---- datasets -----------------------------------------------------------------------------------------------------


def create_dataset() -> int:
    """An empty list of data buffers; the handle alone."""
    return 0 if state.ready() else state.make("dataset", [])


def destroy_dataset(dataset: int) -> int:
    """Give a dataset back, after its data buffers."""
    left = [buffer for buffer in state.live["dataset"].get(dataset, ()) if buffer in state.live["data buffer"]]
    return state.give_back("dataset", dataset, f"{len(left)} data buffers" if left else "")


def add_dataset_buffer(dataset: int, buffer: int) -> Answer:
    """Add a buffer at the end; the dataset and the code."""
    code = state.ready() or state.lost("dataset", dataset) or state.lost("data buffer", buffer)
    if not code:
        state.live["dataset"][dataset].append(buffer)
    return dataset, code


def get_dataset_num_buffers(dataset: int) -> int:
    """How many."""
    return 0 if state.lost("dataset", dataset) else len(state.live["dataset"][dataset])


def get_dataset_buffer(dataset: int, index: int) -> int:
    """One of them."""
    known = [] if state.lost("dataset", dataset) else state.live["dataset"][dataset]
    return known[index] if 0 <= index < len(known) else 0


# ---- profiles -----------------------------------------------------------------------------------------------------


def get_dynamic_batch(desc: int) -> Answer:
    """The batch sizes that the model was built for."""
    loaded = _described(desc)
    values = [value[0] for value in loaded.values] if loaded and loaded.kind == "batch" else []
    return {"batchCount": len(values), "batch": values}, SUCCESS if loaded else INVALID_PARAM


def get_dynamic_hw(desc: int, index: int) -> Answer:
    """The picture sizes; the index is -1."""
    loaded = _described(desc)
    values = [list(value) for value in loaded.values] if loaded and loaded.kind == "image" else []
    whole(index, "acl.mdl.get_dynamic_hw")
    return {"hwCount": len(values), "hw": values}, SUCCESS if loaded else INVALID_PARAM


def get_input_dynamic_gear_count(desc: int, index: int) -> Answer:
    """How many profiles of dims; the index is -1."""
    loaded = _described(desc)
    whole(index, "acl.mdl.get_input_dynamic_gear_count")
    return (len(loaded.values) if loaded and loaded.kind == "dims" else 0), SUCCESS if loaded else INVALID_PARAM


def get_input_dynamic_dims(desc: int, index: int, count: int) -> Answer:
    """All sides of all inputs, for every profile of dims."""
    loaded = _described(desc)
    whole(index, "acl.mdl.get_input_dynamic_dims")
    if not loaded or loaded.kind != "dims" or count < len(loaded.values):
        return [], state.refuse(INVALID_PARAM, f"there are no {count} profiles of dims")
    every = map(_sides(loaded), loaded.values)
    return [{"name": "", "dimCount": len(sides), "dims": sides} for sides in every], SUCCESS


def _sides(loaded: _Loaded) -> Any:
    def of(value: tuple[int, ...]) -> list[int]:
        return [side for spec in loaded.inputs[:-1] for side in loaded.shape(spec, value)]

    return of


def set_dynamic_batch_size(model: int, dataset: int, index: int, batch: int) -> int:
    """Choose a batch size that the model was built for."""
    return _choose("batch", model, dataset, index, (whole(batch, "acl.mdl.set_dynamic_batch_size"),))


def set_dynamic_hw_size(model: int, dataset: int, index: int, height: int, width: int) -> int:
    """Choose a picture size."""
    return _choose("image", model, dataset, index,
                   (whole(height, "acl.mdl.set_dynamic_hw_size"), whole(width, "acl.mdl.set_dynamic_hw_size")))


def set_input_dynamic_dims(model: int, dataset: int, index: int, dims: dict[str, Any]) -> int:
    """Choose the sides of all inputs, fixed ones included."""
    if not isinstance(dims, dict) or not isinstance(dims.get("dims"), list):
        raise TypeError("argument 4 is not dict, or its dims are not list")
    if dims["dimCount"] != len(dims["dims"]):
        return state.refuse(INVALID_PARAM, f"dimCount is {dims['dimCount']}, there are {len(dims['dims'])} dims")
    loaded = state.live["model"].get(model)
    known = {tuple(_sides(loaded)(value)): value for value in loaded.values} if loaded and loaded.kind == "dims" else {}
    asked = tuple(dims["dims"])
    return _choose("dims", model, dataset, index, known.get(asked, asked))


def _choose(kind: str, model: int, dataset: int, index: int, value: tuple[int, ...]) -> int:
    code = state.ready() or _lost(model) or state.lost("dataset", dataset)
    if code:
        return code
    loaded = state.live["model"][model]
    if loaded.kind != kind:
        return state.refuse(NOT_DYNAMIC, f"the model has {loaded.kind} profiles, not {kind}")
    names = [spec["name"] for spec in loaded.inputs]
    if index != names.index(SHAPE_DATA) or len(state.live["dataset"][dataset]) != len(names):
        return state.refuse(INVALID_PARAM, f"input {index} of this dataset is not {SHAPE_DATA}")
    if value not in loaded.values:
        return state.refuse(GE_DYNAMIC_SIZE_INVALID, f"{value} is no profile of the model: {loaded.values}")
    loaded.profile = value
    return SUCCESS


# ---- inference ----------------------------------------------------------------------------------------------------


def execute(model: int, given: int, wanted: int) -> int:
    """Run with what lies in the buffers of the input dataset; the answers go into those of the output dataset."""
    code = state.ready() or _lost(model) or state.lost("dataset", given) or state.lost("dataset", wanted)
    if code:
        return code
    loaded = state.live["model"][model]
    if loaded.context != state.context:
        return state.refuse(RT_MODEL_CONTEXT, "the model was loaded in another context")
    if loaded.profile is None:
        return state.refuse(GE_DYNAMIC_SIZE_INVALID, "the model has profiles, and none was chosen before it is run")
    sources, targets = _buffers(given), _buffers(wanted)
    if sources is None or targets is None:
        return RT_PARAM_INVALID
    if len(sources) != len(loaded.inputs):
        return state.refuse(INPUT_NOT_MATCH, f"{len(sources)} input buffers, the model takes {len(loaded.inputs)}")
    if len(targets) != len(loaded.outputs):
        return state.refuse(OUTPUT_NOT_MATCH, f"{len(targets)} output buffers, the model gives {len(loaded.outputs)}")
    feeds = {}
    for number, (spec, source) in enumerate(zip(loaded.inputs, sources, strict=True)):
        shape = loaded.shape(spec, loaded.profile)
        size = _bytes(shape, spec["dtype"])
        if len(source) < size or (not loaded.values and len(source) < _aligned(size)):
            return state.refuse(INPUT_NOT_MATCH, f"input {number} needs a buffer of {_aligned(size)} bytes, it has "
                                f"{len(source)}")
        if spec["name"] != SHAPE_DATA:
            feeds[spec["name"]] = np.frombuffer(source[:size], spec["dtype"]).reshape(shape)
    if fault == "core-error" and state.executions >= 1:
        return state.refuse(RT_AICORE_EXCEPTION, "an AI Core stopped with an exception")
    state.executions += 1
    answers = loaded.om.run(feeds, nan=fault == "nan")
    for number, (spec, target) in enumerate(zip(loaded.outputs, targets, strict=True)):
        answer = np.ascontiguousarray(answers[spec["name"]])
        if len(target) < answer.nbytes:
            return state.refuse(OUTPUT_NOT_MATCH, f"output {number} needs {answer.nbytes} bytes, it has {len(target)}")
        target[:answer.nbytes] = answer.tobytes()
    return SUCCESS


def execute_async(model: int, given: int, wanted: int, stream: int) -> int:
    """The same; it has ended when it returns, and must be waited for all the same."""
    return state.ready() or state.lost("stream", stream) or execute(model, given, wanted)


def _buffers(dataset: int) -> list[memoryview] | None:
    views = []
    for buffer in state.live["dataset"][dataset]:
        if state.lost("data buffer", buffer):
            return None
        pointer, size = state.live["data buffer"][buffer]
        view = state.place(pointer, size, device=True)
        if view is None:
            state.refuse(RT_PARAM_INVALID, "the memory of a data buffer was given back already")
            return None
        views.append(view)
    return views
