"""Run the Paddle model in this folder on an Ascend or Kunlunxin device and compare with its golden answers.

    python3 run_paddle.py                   on the device that neighbour.json names
    python3 run_paddle.py --device cpu      on the CPU, to see that folder and script are whole
    python3 run_paddle.py --runs 100        measures too

It needs Python 3.8, numpy and Paddle (with paddle-custom-npu, or paddlepaddle-xpu). Written by the migration notebook
kit, which has never run it on such a device.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main(argv=None):
    """Run; returns 0 when every golden answer was met, 1 otherwise."""
    from golden_checks import check, settings  # lies beside this script

    told = settings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=sorted({told["device"], "cpu"}), default=told["device"])
    parser.add_argument("--device-id", type=int, default=0)
    parser.add_argument("--runs", type=int, default=0, help="timed runs of the last golden input")
    options = parser.parse_args(argv)
    predictor, version = open_model(told, options)
    return check(told, options.device, "Paddle " + version, lambda feed: run(predictor, feed), options.runs)


def open_model(told, options):
    """A predictor on the device, and Paddle's version."""
    try:
        import paddle
        from paddle import inference
    except ImportError as error:
        sys.exit("Paddle is not installed here ({}): {}".format(error, told["packages"]))
    if options.device == "npu" and "npu" not in paddle.device.get_all_custom_device_type():
        sys.exit("Paddle offers no custom device npu: {}; source CANN's set_env.sh too".format(told["packages"]))
    if options.device == "xpu" and not paddle.is_compiled_with_xpu():
        sys.exit("This Paddle was built without XPU: {}".format(told["packages"]))
    config = inference.Config(str(HERE / told["model"]["graph"]), str(HERE / told["model"]["weights"]))
    if options.device == "npu":
        config.enable_custom_device("npu", options.device_id)
    elif options.device == "xpu":
        enable_xpu(inference, config, told["xpu"], options.device_id)
    else:
        config.disable_gpu()
    config.disable_glog_info()
    # Not enable_memory_optim(): Paddle 3.2 fails on programs of its new format with it.
    return inference.create_predictor(config), paddle.__version__


def enable_xpu(inference, config, told, device_id):
    """By ``XpuConfig``, or by the arguments of ``enable_xpu`` as older Paddle has it."""
    if told["api"] == "enable_xpu":
        config.enable_xpu(**told["arguments"])
        config.set_xpu_device_id(device_id)
        return
    config.enable_xpu()
    xpu = inference.XpuConfig()
    xpu.device_id = device_id
    for name, value in told["arguments"].items():
        setattr(xpu, name, value)
    config.set_xpu_config(xpu)


def run(predictor, feed):
    """The outputs, in the model's order."""
    for name, array in feed.items():
        predictor.get_input_handle(name).copy_from_cpu(array)
    predictor.run()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]


if __name__ == "__main__":
    sys.exit(main())
