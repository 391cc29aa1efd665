"""FAKE ``npu-smi info``: one chip, in the table of the real one."""

from __future__ import annotations

from kit.ascend.box.rehearsing import LABEL, environment

TABLE = """\
+------------------------------------------------------------------------------------------------+
| npu-smi {label}                     Version: {label} 0.0                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)                       |
+===========================+===============+====================================================+
| 0     {chip:<20}| {label:<14}| NA          NA                0     / 0            |
| 0                         | 0000:00:00.0  | 0           0    / 0                               |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| No running processes found in NPU 0                                                            |
+===========================+===============+====================================================+
"""


def main(argv: list[str]) -> int:
    """Answer ``npu-smi info``."""
    if argv != ["info"]:
        print(f"{LABEL} npu-smi only knows: npu-smi info")
        return 1
    print(TABLE.format(label=LABEL, chip=environment()[0].removeprefix("Ascend")))
    return 0
