"""Load and run the SavedModel in the folder above: its one function calls the model that lies beside this file.

    python kit_call.py [feeds.npz [answers.npz]]

or ``import kit_call; model = kit_call.load()``. It needs Python, numpy, TensorFlow and the runtime that kit_call.json
names. A SavedModel keeps only the name of a Python function, so this file registers the function under that name before
the SavedModel is called. TensorFlow Serving has no Python and cannot run it. Written by the migration notebook kit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

ABOUT = "kit_call.json"
_REGISTERED = {}  # TensorFlow holds functions weakly


def load(folder=None):
    """The SavedModel above ``folder`` (where this file lies), ready to be called."""
    import tensorflow as tf

    extra = Path(folder) if folder else Path(__file__).resolve().parent
    register(extra)
    return tf.saved_model.load(str(extra.parent))


def register(extra):
    """Open the model beside ``kit_call.json`` and register the function that the SavedModel names.

    Returns:
        What kit_call.json says.
    """
    # No public way leads to a function by a name that was chosen before: TensorFlow counts them up itself.
    from tensorflow.python.ops import script_ops

    about = json.loads((Path(extra) / ABOUT).read_text(encoding="utf-8"))
    if about["token"] not in _REGISTERED:
        _REGISTERED[about["token"]] = _OPEN[about["runtime"]](Path(extra) / about["model"], about)
    script_ops._py_funcs._funcs[about["token"]] = _REGISTERED[about["token"]]
    return about


def _onnxruntime(model, about):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = about["threads"]
    options.graph_optimization_level = ort.GraphOptimizationLevel(about["graph_optimization_level"])
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # TensorFlow's threads are here too
    session = ort.InferenceSession(str(model), options, providers=about["providers"])
    names = about["inputs"]

    def call(*arrays):
        feeds = dict(zip(names, map(np.asarray, arrays)))  # noqa: B905 - the SavedModel's signature counts them
        return session.run(about["outputs"], feeds)

    return call


def _openvino(model, about):
    import openvino as ov

    compiled = ov.Core().compile_model(str(model), "CPU", {"INFERENCE_NUM_THREADS": about["threads"], "NUM_STREAMS": 1,
                                                           **about["properties"]})

    def call(*arrays):
        answers = compiled(dict(zip(about["inputs"], map(np.asarray, arrays))))  # noqa: B905 - as above
        return [np.array(answers[name]) for name in about["outputs"]]

    return call


_OPEN = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def main(argv):
    """Run once, on the arrays of a file or on zeros."""
    import tensorflow as tf

    extra = Path(__file__).resolve().parent
    about = json.loads((extra / ABOUT).read_text(encoding="utf-8"))
    model = load()
    run = model.signatures[about["signature"]]
    if len(argv) > 1:
        feeds = dict(np.load(argv[1]))
    else:
        feeds = {name: np.zeros(shape, dtype) for name, shape, dtype in about["example"]}
    answers = {name: value.numpy() for name, value in run(**{n: tf.constant(a) for n, a in feeds.items()}).items()}
    for name, answer in answers.items():
        print(name, answer.dtype, list(answer.shape))
    if len(argv) > 2:
        np.savez(argv[2], **answers)


if __name__ == "__main__":
    main(sys.argv)
