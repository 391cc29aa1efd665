"""FAKE ``msprof``: runs the application and writes one op_summary in the real one's folders and columns.

The times in it are not measured: each operator has a number of microseconds that follows from its place.
"""

from __future__ import annotations

import csv
import itertools
import subprocess
from pathlib import Path

from kit.ascend.box.rehearsing import LABEL

COLUMNS = ("Model Name", "Model ID", "Task ID", "Stream ID", "Infer ID", "Op Name", "OP Type", "OP State", "Task Type",
           "Task Start Time(us)", "Task Duration(us)", "Task Wait Time(us)", "Block Dim")
OPERATORS = (("conv_of_no_model", "Conv2D", 30.0), ("matmul_of_no_model", "MatMulV2", 20.0),
             ("cast_of_no_model", "Cast", 10.0))


def main(argv: list[str]) -> int:
    """``msprof --output=FOLDER [--flags] program arguments``."""
    program = list(itertools.dropwhile(lambda word: word.startswith("--"), argv))
    flags = argv[:len(argv) - len(program)]
    output = next((flag.partition("=")[2] for flag in flags if flag.startswith("--output=")), "")
    if not output or not program:
        print(f"{LABEL} msprof needs --output=FOLDER and a program")
        return 1
    code = subprocess.run(program).returncode
    if code:
        return code
    folder = Path(output) / f"PROF_000001_{LABEL}" / "mindstudio_profiler_output"
    folder.mkdir(parents=True)
    runs = int(program[program.index("--replay") + 1]) if "--replay" in program else 1
    with (folder / f"op_summary_{LABEL}.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        for run in range(runs):
            for number, (name, kind, us) in enumerate(OPERATORS):
                table.writerow((LABEL, 1, number, 0, run, f"{LABEL}_{name}", kind, "static", "AI_CORE", 0, us, 0, 8))
    print(f"{LABEL} msprof: nothing was measured.")
    return 0
