"""FAKE ``amct_onnx``: checks the documented arguments; its deploy model is the model as it was, not quantized."""

from __future__ import annotations

import argparse
from pathlib import Path

from kit.ascend.box.rehearsing import LABEL

PRODUCER = f"{LABEL} amct_onnx"


def main(argv: list[str]) -> int:
    """``amct_onnx calibration|convert --model M --save_path P ...``."""
    import onnx

    from kit.targets.ascend import facts

    parser = argparse.ArgumentParser(prog=PRODUCER)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("calibration", "convert"):
        one = kinds.add_parser(kind)
        for name in facts("amct")["command_line"][kind]:
            one.add_argument(name, required=name in ("--model", "--save_path"))
    given = parser.parse_args(argv)
    for name in ("model", "data_dir", "evaluator", "calibration_config"):
        for part in filter(None, (getattr(given, name, None) or "").split(";")):
            if not Path(part).exists():
                print(f"{PRODUCER}: --{name}: {part} does not exist")
                return 1
    model = onnx.load(given.model)
    model.producer_name = PRODUCER
    target = Path(f"{given.save_path}_deploy_model.onnx")
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(target))
    print(f"{PRODUCER}: {target.name} holds the model as it was; nothing was quantized")
    return 0
