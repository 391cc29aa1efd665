"""Compile the ONNX model in this folder with XTCL, run it on a Kunlunxin card, compare with its golden answers.

    python3 run_xtcl.py                     compiles, runs, compares
    python3 run_xtcl.py --runs 100          measures too

It needs Python 3.8, numpy, onnx and XTCL (Kunlunxin's fork of TVM). The calls are those that FlagPerf makes on R200;
the migration notebook kit, which wrote this, has never run it on such a card.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def main(argv=None):
    """Run; returns 0 when every golden answer was met, 1 otherwise."""
    from golden_checks import check, settings  # lies beside this script

    told = settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=0, help="timed runs of the last golden input")
    options = parser.parse_args(argv)
    os.environ.update(told["xtcl"]["environment"])  # before tvm is imported, which may read them once
    try:
        import onnx
        import tvm
        from tvm import relay  # noqa: F401 - tvm alone does not bring it
    except ImportError as error:
        sys.exit("XTCL is not installed here ({}): {}".format(error, told["packages"]))
    engine = build(onnx.load(str(HERE / told["model"]["graph"])), tvm, told)
    half = told["xtcl"]["precision"] == "fp16"
    return check(told, "xpu", "XTCL " + getattr(tvm, "__version__", "?"), lambda feed: run(engine, feed, half),
                 options.runs)


def build(model, tvm, told):
    """The compiled model in TVM's graph executor."""
    from tvm.contrib import graph_executor

    shapes = {spec["name"]: spec["shape"] for spec in told["inputs"]}
    module, weights = tvm.relay.frontend.from_onnx(model, shapes)
    config = {}
    if told["xtcl"]["precision"] == "fp16":
        from tvm.contrib import xpu_config

        config["XPUOutDtypeConfig"] = xpu_config.XPUOutDtypeConfig(
            default_precision="float16", config_last_node=True, config_map={},
            config_var_dtype_map=dict.fromkeys(shapes, "float16")).value()
    with tvm.transform.PassContext(opt_level=3, config=config):
        graph, library, weights = tvm.relay.build(module, target=told["xtcl"]["target"], params=weights)
    engine = graph_executor.create(graph, library, tvm.device("xpu", 0))
    engine.set_input(**weights)
    return engine


def run(engine, feed, half):
    """The outputs, in the model's order, as float32 where the card computed in float16."""
    for name, array in feed.items():
        engine.set_input(name, array.astype(np.float16) if half and array.dtype == np.float32 else array)
    engine.run()
    found = [engine.get_output(at).asnumpy() for at in range(engine.get_num_outputs())]
    return [array.astype(np.float32) if array.dtype == np.float16 else array for array in found]


if __name__ == "__main__":
    sys.exit(main())
