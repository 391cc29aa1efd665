"""FAKE tools of an Ascend box: ``atc``, ``npu-smi``, ``msprof``, ``amct_onnx``, pyACL and ais_bench, for rehearsals.

Where no ATC and no chip can be, they hold a bundle to what is documented: flags and their rules, parsers by opset, the
order of pyACL's calls, its handles, sizes and codes. They compute with ONNX Runtime on this machine's processor. So
they tell whether a bundle is whole and the script right; they say nothing about a real ATC, a real device or its speed.
Whatever they print, return or write as a version or a chip says FAKE.

``install`` puts programs into a folder; ``modules/`` beside this file goes on PYTHONPATH.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from kit.errors import unknown

LABEL = "FAKE"
MODULES = Path(__file__).parent / "modules"
PROGRAMS = ("atc", "npu-smi", "msprof", "amct_onnx")
#: What can be wrong on the box, for teaching and tests.
FAULTS = {
    "wrong-soc": "the box has another chip than the bundle was made for",
    "no-atc": "CANN's environment was not set: atc is not on the PATH",
    "no-driver": "the driver is not installed: there is no npu-smi",
    "no-acl": "CANN's environment was not set: Python does not find acl",
    "old-cann": "the box has CANN 7.0.0",
    "host-code": "atc adds the operating system to the name of the .om, as it does where it holds host code",
    "no-memory": "the device has no memory left",
    "core-error": "an AI Core stops with an exception during inference",
    "nan": "the answers overflow in float16",
    "damaged": "a file was cut short on the way to the box",
}
# What programs and modules of a rehearsal read from the environment.
SOC, CANN, FAULT = "KIT_FAKE_SOC", "KIT_FAKE_CANN", "KIT_FAKE_FAULT"
_LAUNCHER = """#!{python}
# FAKE {program} of the migration notebook kit, for rehearsals. It is no part of CANN.
import sys
sys.path.insert(0, {home!r})
from kit.ascend.box.rehearsing.{module} import main
sys.exit(main(sys.argv[1:]))
"""


def environment() -> tuple[str, str, str]:
    """The chip, the CANN release and the fault of this rehearsal."""
    return (os.environ.get(SOC, "Ascend310P3"), os.environ.get(CANN, "8.1.RC1"), os.environ.get(FAULT, ""))


def install(folder: Path, *, soc: str, cann: str = "", fault: str = "") -> dict[str, str]:
    """Write the programs and a toolkit's version file into ``folder``; returns the environment to run in.

    Raises:
        BadInput: there is no such fault.
    """
    if fault and fault not in FAULTS:
        raise unknown("fault", fault, FAULTS, "a rehearsal")
    absent = {"no-atc": "atc", "no-driver": "npu-smi"}.get(fault)
    cann = "7.0.0" if fault == "old-cann" else cann or "8.1.RC1"
    if fault == "wrong-soc":
        soc = "Ascend310P1" if soc != "Ascend310P1" else "Ascend310P3"
    home = str(Path(__file__).resolve().parents[4])
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for program in PROGRAMS:
        if program != absent:
            path = programs / program
            path.write_text(_LAUNCHER.format(python=sys.executable, program=program, home=home,
                                             module=program.replace("-", "_")), encoding="utf-8")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
    about = folder / "toolkit" / "x86_64-linux" / "ascend_toolkit_install.info"
    about.parent.mkdir(parents=True)
    about.write_text(f"package_name=Ascend-cann-toolkit\nversion={cann} ({LABEL})\n", encoding="utf-8")
    # A real atc or acl on this machine must not take part: of the PATH only the system's own folders stay.
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ASCEND_HOME_PATH")}
    return {**inherited, "PATH": os.pathsep.join([str(programs), "/usr/bin", "/bin"]),
            "PYTHONPATH": os.pathsep.join([*([] if fault == "no-acl" else [str(MODULES)]), home]),
            "ASCEND_TOOLKIT_HOME": str(about.parent.parent), SOC: soc, CANN: cann, FAULT: fault}
