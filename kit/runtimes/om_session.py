"""An .om on an Ascend chip: pyACL in its documented order. Standard library and numpy, Python 3.8.

This travels to the box inside ``run_on_box.py`` (see ``kit.ascend.box.box_script``), and stands behind ``open_runner``
here; so it imports nothing of the kit, and its errors are plain ``Failure``.
"""

# ruff: noqa: B905
from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

SET_ENV = ("/usr/local/Ascend/ascend-toolkit/set_env.sh", "/usr/local/Ascend/cann/set_env.sh",
           "~/Ascend/ascend-toolkit/set_env.sh", "~/Ascend/cann/set_env.sh")


class Failure(Exception):
    """A step cannot go on.

    Args:
        what: what happened, to which thing, and what to do.
        log: of the tool that failed, to be explained.
        returncode: of that tool.
    """

    def __init__(self, what, log="", returncode=0):
        super().__init__(what)
        self.what, self.log, self.returncode = what, log, returncode


# ---- CANN on this machine -----------------------------------------------------------------------------------------


def cann_version():
    """Of the toolkit that the environment names, or of one in the usual places; "" where none is found."""
    homes = [os.environ.get(name, "") for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")]
    homes += ["/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann",
              "~/Ascend/ascend-toolkit/latest", "~/Ascend/cann"]
    for home in [Path(home).expanduser() for home in homes if home]:
        for file in [*sorted(home.glob("*-linux/ascend_toolkit_install.info")), home / "version.info",
                     home / "compiler" / "version.info", home / "version.cfg"]:
            with contextlib.suppress(OSError):
                match = re.search(r"(?im)^(?:version|toolkit_installed_version)\s*=\s*\[?(?:[^:\]\n]*:)?([^\]\n]+)",
                                  file.read_text(encoding="utf-8", errors="replace"))
                if match:
                    return match.group(1).strip()
    return ""


def set_env_hint():
    """How to get CANN into the environment, naming a script that is there."""
    there = [place for place in SET_ENV if Path(place).expanduser().is_file()]
    return f"run first: source {(there or SET_ENV)[0]}" + ("" if there else " (where CANN was installed)")


def import_acl():
    """The module acl of CANN."""
    try:
        import acl
    except ImportError as error:
        state = "is not to be found" if getattr(error, "name", "") == "acl" else f"does not load ({error})"
        raise Failure(f"pyACL (the Python module acl) {state}: {set_env_hint()}.") from error
    return acl


# ---- pyACL --------------------------------------------------------------------------------------------------------

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
HUGE_FIRST = 0
ON_DEVICE = 0  # run mode of a board whose own processor drives the chip: host memory is device memory
SHAPE_DATA = "ascend_mbatch_shape_data"  # the extra input that chooses a profile
DTYPES = {0: "float32", 1: "float16", 2: "int8", 3: "int32", 4: "uint8", 6: "int16", 7: "uint16", 8: "uint32",
          9: "int64", 10: "uint64", 11: "float64", 12: "bool", 27: "bfloat16"}


class AclModel:
    """An .om on a device, through pyACL. Buffers are made once and used by every run; one model a process.

    The calls come in the documented order, and the way back is walked in reverse, on any error too.

    Attributes:
        inputs: name, dtype and shape of each, -1 where profiles choose; the extra input of the profiles is left out.
        outputs: likewise.
        profiles: kind (static, batch, image, dims) and the values that it was built for.
        soc: the chip, as acl calls it.
    """

    backend = "acl"

    def __init__(self, om, device=0):
        self._undo = contextlib.ExitStack()
        self._acl = import_acl()
        try:
            self._open(str(om), device)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Give everything back: buffers, model, context, device."""
        self._undo.close()

    def run(self, feeds):
        """The answers to ``feeds``, by name; the arrays are the caller's to keep."""
        self.put(feeds)
        self.execute()
        return self.take()

    def time(self, feeds, runs, copies=False):
        """Milliseconds of each run, inputs in place already; with ``copies`` the ways there and back are counted."""
        self.put(feeds)
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            if copies:
                self._copy_in()
            self.execute()
            if copies:
                self._copy_out()
            times.append((time.perf_counter() - start) * 1000)
        return times

    def put(self, feeds):
        """Copy the inputs to the device and choose the profile that their shapes ask for."""
        arrays = [np.ascontiguousarray(array) for array in in_order(feeds, self.inputs)]
        for array, spec, (_, size) in zip(arrays, self.inputs, self._in):
            if spec["dtype"] != array.dtype.name:
                raise Failure(f"Input {spec['name']} takes {spec['dtype']}, not {array.dtype.name}.")
            if array.nbytes > size:
                raise Failure(f"Input {spec['name']} has room for {size} bytes; shape {list(array.shape)} needs "
                              f"{array.nbytes}.")
        self._choose(arrays)
        # bytes_to_ptr gives the address of these bytes: they are kept for as long as they may be copied from.
        self._bytes = [array.tobytes() for array in arrays]
        if hasattr(self._acl.util, "bytes_to_ptr"):
            self._host = [self._acl.util.bytes_to_ptr(piece) for piece in self._bytes]
        else:  # CANN 5.x
            self._bytes = arrays
            self._host = [self._acl.util.numpy_to_ptr(array) for array in arrays]
        self._counts = [array.nbytes for array in arrays]
        self._copy_in()

    def execute(self):
        """Run with what lies on the device."""
        self._check("acl.mdl.execute", self._acl.mdl.execute(self._model, self._in_set, self._out_set))

    def take(self):
        """Copy the answers back."""
        self._copy_out()
        answers = {}
        for spec, (pointer, size), shape in zip(self.outputs, self._back, self._shapes()):
            kind = "uint16" if spec["dtype"] == "bfloat16" else spec["dtype"]
            count = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
            if hasattr(self._acl.util, "ptr_to_bytes"):
                flat = np.frombuffer(self._acl.util.ptr_to_bytes(pointer, size)[:count], kind)
            else:
                flat = self._acl.util.ptr_to_numpy(pointer, (size,), 1)[:count].view(kind)  # 1: NPY_BYTE
            if spec["dtype"] == "bfloat16":
                flat = (flat.astype(np.uint32) << 16).view(np.float32)
            answers[spec["name"]] = flat.reshape(shape).copy()
        return answers

    # ---- the documented sequence

    def _open(self, om, device):
        acl = self._acl
        self._check("acl.init", acl.init())
        self._later("acl.finalize", acl.finalize)
        self._check("acl.rt.set_device", acl.rt.set_device(device))
        self._later("acl.rt.reset_device", acl.rt.reset_device, device)
        context = self._value("acl.rt.create_context", acl.rt.create_context(device))
        self._later("acl.rt.destroy_context", acl.rt.destroy_context, context)
        mode = self._value("acl.rt.get_run_mode", acl.rt.get_run_mode())
        self._there, self._here = ((DEVICE_TO_DEVICE, DEVICE_TO_DEVICE) if mode == ON_DEVICE
                                   else (HOST_TO_DEVICE, DEVICE_TO_HOST))
        self.soc = str(acl.get_soc_name() or "")
        desc = self._desc = acl.mdl.create_desc()  # before the model, so that the way back unloads first
        self._later("acl.mdl.destroy_desc", acl.mdl.destroy_desc, desc)
        self._model = self._value("acl.mdl.load_from_file", acl.mdl.load_from_file(om))
        self._later("acl.mdl.unload", acl.mdl.unload, self._model)
        self._check("acl.mdl.get_desc", acl.mdl.get_desc(desc, self._model))
        inputs = [self._spec(str(acl.mdl.get_input_name_by_index(desc, i)), acl.mdl.get_input_dims(desc, i),
                             acl.mdl.get_input_data_type(desc, i)) for i in range(acl.mdl.get_num_inputs(desc))]
        names = tensor_names([str(acl.mdl.get_output_name_by_index(desc, i))
                              for i in range(acl.mdl.get_num_outputs(desc))])
        self.outputs = [self._spec(name, acl.mdl.get_output_dims(desc, i), acl.mdl.get_output_data_type(desc, i))
                        for i, name in enumerate(names)]
        self.inputs = [spec for spec in inputs if spec["name"] != SHAPE_DATA]
        self.profiles = self._profiles()
        self._in_set, buffers = self._dataset([acl.mdl.get_input_size_by_index(desc, i) for i in range(len(inputs))])
        self._in = [buffer for buffer, spec in zip(buffers, inputs) if spec["name"] != SHAPE_DATA]
        self._out_set, self._out = self._dataset(
            [acl.mdl.get_output_size_by_index(desc, i) for i in range(len(self.outputs))])
        self._back = []
        for _, size in self._out:
            pointer = self._value("acl.rt.malloc_host", acl.rt.malloc_host(size))
            self._later("acl.rt.free_host", acl.rt.free_host, pointer)
            self._back.append((pointer, size))

    def _dataset(self, sizes):
        """A dataset with one device buffer for each size."""
        acl = self._acl
        dataset = acl.mdl.create_dataset()
        self._later("acl.mdl.destroy_dataset", acl.mdl.destroy_dataset, dataset)
        buffers = []
        for size in sizes:
            pointer = self._value("acl.rt.malloc", acl.rt.malloc(size, HUGE_FIRST))
            self._later("acl.rt.free", acl.rt.free, pointer)
            buffer = acl.create_data_buffer(pointer, size)
            self._later("acl.destroy_data_buffer", acl.destroy_data_buffer, buffer)
            self._value("acl.mdl.add_dataset_buffer", acl.mdl.add_dataset_buffer(dataset, buffer))
            buffers.append((pointer, size))
        return dataset, buffers

    def _copy_in(self):
        for source, count, (pointer, size) in zip(self._host, self._counts, self._in):
            self._check("acl.rt.memcpy", self._acl.rt.memcpy(pointer, size, source, count, self._there))

    def _copy_out(self):
        for (source, count), (pointer, size) in zip(self._out, self._back):
            self._check("acl.rt.memcpy", self._acl.rt.memcpy(pointer, size, source, count, self._here))

    def _spec(self, name, dims, number):
        shape = self._value(f"the dims of {name}", dims)["dims"]
        if number not in DTYPES:
            raise Failure(f"{name} has data type {number}, which this script cannot read.")
        return {"name": name, "dtype": DTYPES[number], "shape": [int(side) for side in shape]}

    # ---- profiles

    def _profiles(self):
        index, ret = self._acl.mdl.get_input_index_by_name(self._desc, SHAPE_DATA)
        self._profile_input = index
        if ret:
            return {"kind": "static", "values": []}
        batches, ret = self._acl.mdl.get_dynamic_batch(self._desc)
        if not ret and batches.get("batchCount"):
            return {"kind": "batch", "values": [[int(n)] for n in batches["batch"]]}
        sizes, ret = self._acl.mdl.get_dynamic_hw(self._desc, -1)
        if not ret and sizes.get("hwCount"):
            return {"kind": "image", "values": [[int(side) for side in size] for size in sizes["hw"]]}
        count = self._value("acl.mdl.get_input_dynamic_gear_count",
                            self._acl.mdl.get_input_dynamic_gear_count(self._desc, -1))
        gears = self._value("acl.mdl.get_input_dynamic_dims",
                            self._acl.mdl.get_input_dynamic_dims(self._desc, -1, count))
        sides = [side for spec in self.inputs for side in spec["shape"]]
        return {"kind": "dims", "values": [[int(n) for n, side in zip(gear["dims"], sides) if side < 0]
                                           for gear in gears]}

    def _choose(self, arrays):
        kind = self.profiles["kind"]
        place = (self._model, self._in_set, self._profile_input)
        asked = profile_of(arrays, self.inputs, kind)
        if kind == "batch":
            self._check("acl.mdl.set_dynamic_batch_size", self._acl.mdl.set_dynamic_batch_size(*place, *asked))
        elif kind == "image":
            self._check("acl.mdl.set_dynamic_hw_size", self._acl.mdl.set_dynamic_hw_size(*place, *asked))
        elif kind == "dims":
            sides = [int(side) for array in arrays for side in array.shape]
            self._check("acl.mdl.set_input_dynamic_dims", self._acl.mdl.set_input_dynamic_dims(
                *place, {"name": "", "dimCount": len(sides), "dims": sides}))
        self._chosen = asked

    def _shapes(self):
        """Of the outputs, in the profile that was chosen."""
        if self.profiles["kind"] == "static":
            return [spec["shape"] for spec in self.outputs]
        return [[int(side) for side in self._value("acl.mdl.get_cur_output_dims", self._acl.mdl.get_cur_output_dims(
            self._desc, index))["dims"]] for index in range(len(self.outputs))]

    # ---- return codes

    def _later(self, name, function, *args):
        def undo():
            ret = function(*args)
            if ret:
                print(f"{name} returned {ret} while the device was given back.", file=sys.stderr)

        self._undo.callback(undo)

    def _value(self, name, answer):
        value, ret = answer
        self._check(name, ret)
        return value

    def _check(self, name, ret):
        if ret:
            recent = getattr(self._acl, "get_recent_err_msg", None)  # not in every release
            said = str(recent() or "") if recent else ""
            raise Failure(f"{name} failed: error code {ret}.", f"{name} failed: error code {ret}\n{said}")


def tensor_names(called):
    """Names of outputs as in the ONNX file: ATC says node, port and tensor, such as ``Conv_3:0:logits``."""
    plain = [name.split(":", 2)[2] if name.count(":") >= 2 else name for name in called]
    return plain if len(set(plain)) == len(plain) else called


def in_order(feeds, specs):
    """The arrays in the model's own order: by name, or where the names differ by position."""
    names = [spec["name"] for spec in specs]
    if len(feeds) != len(specs):
        raise Failure(f"The .om takes {len(specs)} inputs ({', '.join(names)}), not {len(feeds)} ({', '.join(feeds)}).")
    return [feeds[name] for name in names] if set(names) == set(feeds) else list(feeds.values())


def profile_of(arrays, specs, kind):
    """What the shapes of ``arrays`` ask for: [batch], [height, width], or one number for every -1."""
    asked = [int(have) for array, spec in zip(arrays, specs)
             for have, want in zip(array.shape, spec["shape"]) if want < 0]
    if kind == "batch":
        return asked[:1]
    return asked[:2] if kind == "image" else asked
