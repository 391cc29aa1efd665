#!/usr/bin/env python3
"""Finish this bundle on the Ascend box.

    python3 run_on_box.py

One file for a machine that has Python 3.8 or newer, numpy and CANN, nothing else. It checks the bundle and the machine,
builds the .om with atc, runs the golden inputs on the device, compares the answers with those of the float model,
measures, and writes results/results.json and results/outputs.npz, also where a step fails. An .om that was built from
the same bundle is used again. Take the folder results/ back and read it with kit.ascend.load_results("results").
"""


# What bundles carry is assembled from this file and the parts that it imports, by kit.ascend.box.box_script. So all
# of them keep to the standard library, numpy and Python 3.8, where zip() has no strict=.
# ruff: noqa: B905
from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from kit.ascend.box.box_steps import Steps
from kit.ascend.box.box_tools import (
    FAKE,
    VERSION,
    Skip,
    built_before,
    called,
    compared,
    filled,
    fixed,
    npu_smi,
    older,
    oms,
    read_bundle,
    say,
    says_fake,
    sha256,
    shown,
    slowest,
    summary,
    tail,
    write_json,
)
from kit.ascend.logs.log_reading import read_log
from kit.runtimes.ais_session import AisModel
from kit.runtimes.om_session import AclModel, Failure, cann_version, import_acl, set_env_hint

STEPS = ("check", "build", "infer", "compare", "benchmark", "profile")
SUCCESS = "ATC run success"
PROFILED = 10  # runs under msprof
PATH_FLAGS = ("--model", "--weight", "--output", "--insert_op_conf", "--compression_optimize_conf", "--modify_mixlist",
              "--keep_dtype", "--op_precision_mode", "--customize_dtypes", "--fusion_switch_file", "--op_name_map")


class Box(Steps):
    """One bundle on this machine; every step leaves its trace in results.json.

    Args:
        folder: of the bundle.
        options: as ``options_of`` reads them.
    """

    def __init__(self, folder, options):
        super().__init__(STEPS, Path(options.out).absolute() if options.out else folder / "results", options.verbose)
        self.folder, self.options = folder, options
        self.bundle = about = read_bundle(folder)
        self.backend, self.model = options.backend, None
        self.tables = {"patterns": [], "codes": {}}
        with contextlib.suppress(OSError, ValueError):
            self.tables = json.loads((folder / "explain.json").read_text(encoding="utf-8"))
        host = f"{platform.system().lower()} {platform.machine()} python {platform.python_version()}"
        self.results = {
            "format": "kit-box-results", "version": VERSION, "fake": "",
            "device": {"soc": "", "npu_smi": "", "driver": "", "cann": "", "host": host, "backend": ""},
            "bundle": {"name": about["name"], "soc_version": about["soc_version"],
                       "sha256": sha256(folder / "bundle.json"), "precision": about.get("precision", ""),
                       "int8": about.get("int8", {}).get("route", "none"), "tolerances": about["tolerances"],
                       "goldens": [{"name": g["name"], "feed": g.get("feed", "")} for g in about["goldens"]]},
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "steps": self.results["steps"],
            "build": {}, "comparison": [], "benchmark": [], "profile": {}, "outputs": "",
        }

    def run(self):
        """Go through the steps; the exit code: 0 all well, 1 something failed, 130 interrupted."""
        work = (self._check, self._build, self._infer, self._compare, self._benchmark, self._profile)
        with contextlib.suppress(FileNotFoundError):
            (self.out / "outputs.npz").unlink()  # answers of an earlier run are not those of this one
        # Answers that differ do not keep anyone from measuring; anything else that fails ends the run.
        return self.go(work, ("compare",), "kit.ascend.load_results")

    def meaning(self, error):
        if not error.log and not error.returncode:
            return []  # the script's own words need no explanation
        return [row for row in read_log(error.log, self.tables, error.returncode) if row["level"] != "success"]

    def release(self):
        if self.model:
            self.model.close()
            self.model = None

    # ---- check

    def _check(self):
        if np is None:
            raise Failure(f"numpy is missing in {sys.executable}: python3 -m pip install numpy")
        steps = self.bundle.get("int8", {}).get("steps", [])
        self.fakes |= {tool for tool in ("atc", "npu-smi", *(step[0] for step in steps)) if says_fake(tool)}
        self._check_files()
        device, smi = self.results["device"], npu_smi()
        device.update(cann=cann_version(), driver=smi["driver"], npu_smi=", ".join(
            f"{number} {name}" for number, name in sorted(smi["chips"].items())))
        if not self.options.skip_build and shutil.which("atc") is None:
            raise Failure(f"atc is not on the PATH: {set_env_hint()}.")
        if self.options.build_only:
            device["soc"] = ", ".join(f"Ascend{name}" for name in sorted(set(smi["chips"].values())))
        elif not smi["text"]:
            raise Failure("npu-smi info does not answer: the driver is not installed, or this container was not given "
                          "the device. Install driver and firmware, or use --build-only.")
        else:
            device["backend"] = self._backend()
            self._check_soc(smi)
        words = ["files whole", device["soc"], f"driver {device['driver'] or 'unknown'}",
                 f"CANN {device['cann'] or 'unknown'}", device["backend"]]
        return "; ".join([", ".join(filter(None, words)), *self._warnings(device["cann"])])

    def _check_files(self):
        for name, known in sorted(self.bundle.get("files", {}).items()):
            path = self.folder / name
            if not path.is_file():
                raise Failure(f"{name} is missing: copy the whole bundle again.")
            if sha256(path) != known:
                raise Failure(f"{name} is damaged or was changed after the bundle was made (sha256): copy it again.")

    def _warnings(self, cann):
        """An older CANN than planned; pairs that people report as failing."""
        if older(cann, self.bundle.get("cann", "")):
            yield f"the bundle was made for CANN {self.bundle['cann']}, this is the older {cann}"
        if FAKE in cann:
            return  # the box will have another Python than this machine
        bad = [f"Python {sys.version_info[0]}.{sys.version_info[1]}"] if sys.version_info >= (3, 11) else []
        bad += [f"numpy {np.__version__}"] if int(np.__version__.split(".")[0]) >= 2 else []
        if bad and older(cann, "8.2"):
            yield f"CANN {cann} fails with {' and '.join(bad)} for some: if so, Python up to 3.10 and numpy below 2"

    def _backend(self):
        """What can run an .om here: acl, or where that is missing ais_bench."""
        problem = "ais_bench is not installed."
        if self.backend in ("auto", "acl"):
            try:
                self.fakes |= {"acl"} if getattr(import_acl(), "__fake__", "") else set()
                self.backend = "acl"
                return "acl"
            except Failure as error:
                problem = error.what
                if self.backend == "acl":
                    raise
        try:
            import ais_bench
        except ImportError as error:
            raise Failure(f"{problem} Nothing here can run an .om.") from error
        self.fakes |= {"ais_bench"} if getattr(ais_bench, "__fake__", "") else set()
        self.backend = "ais_bench"
        return "ais_bench"

    def _check_soc(self, smi):
        name, wanted, number = "", self.bundle["soc_version"], self.options.device
        with contextlib.suppress(Failure):
            name = str(import_acl().get_soc_name() or "")
        if not name and number in smi["chips"]:
            name = f"Ascend{smi['chips'][number]}"
        self.results["device"]["soc"] = name
        chip = name.partition(" ")[0]
        if chip and chip.lower() != wanted.lower():
            raise Failure(f"This device is {name}, the bundle is for {wanted}: an .om runs on the chip that it was "
                          f"built for. Make it again with target {chip.lower()!r}, or take it to the other machine.")

    # ---- build

    def _build(self):
        prefix = self.folder / self.bundle["atc"]["output"]
        mark = prefix.with_name(prefix.name + ".built.json")
        now = {"bundle": self.results["bundle"]["sha256"], "cann": self.results["device"]["cann"],
               "fake": "atc" in self.fakes}
        known = built_before(mark, self.folder)
        if self.options.skip_build and not known:
            raise Failure(f"There is no .om of this bundle in {prefix.parent.name}/: run without --skip-build.")
        same = known and (self.options.skip_build or {key: known.get(key) for key in now} == now)
        if same and not self.options.rebuild:
            self.results["build"] = {**known["build"], "reused": True}
            self.fakes |= {"atc"} if known["fake"] else set()
            return f"{known['build']['om']} is there already"
        for old in oms(prefix):
            old.unlink()
        build = self.results["build"] = self._compile(prefix)
        write_json(mark, {**now, "build": build})
        return f"{build['om']}, {build['om_bytes'] / 1e6:.1f} MB"

    def _compile(self, prefix):
        log = self.out / "atc.log"
        for folder in (self.out, prefix.parent):
            folder.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        argv = self.bundle["atc"]["argv"]
        build = self.results["build"] = {"command": shown(argv), "log_tail": ""}
        began = time.monotonic()
        # ATC leaves kernel_meta and its own notes where it is started: that is a folder which goes away. Links in it
        # make relative paths inside configuration files lead into the bundle.
        scratch = self.out / f".scratch-{os.getpid()}"
        scratch.mkdir()
        try:
            for path in self.folder.iterdir():
                if path != self.out:
                    (scratch / path.name).symlink_to(path)
            for step in (*self.bundle.get("int8", {}).get("steps", []), argv):
                text = self._called(step, log, scratch)
            made = oms(prefix)
            if not made:
                raise Failure(f"atc ended with 0 but wrote no {prefix.name}.om.", text)
        finally:
            build["seconds"] = round(time.monotonic() - began, 3)
            # What comes back should not tell where on the box it was made.
            build["log_tail"] = tail(log.read_text(encoding="utf-8", errors="replace")).replace(f"{self.folder}/", "")
            for name in ("check_result.json", "fusion_result.json"):
                if (scratch / name).is_file():
                    shutil.move(str(scratch / name), str(self.out / name))
            shutil.rmtree(str(scratch), ignore_errors=True)
        build.update(om=made[-1].relative_to(self.folder).as_posix(), om_sha256=sha256(made[-1]),
                     om_bytes=made[-1].stat().st_size, reused=False)
        if SUCCESS not in text:
            build["note"] = f"atc ended with 0 but did not say {SUCCESS!r}"
        return build

    def _called(self, argv, log, scratch):
        say(f"      running {shown(argv)}")
        program = sys.executable if argv[0] in ("python", "python3") else argv[0]
        code, text = called([program, *map(self._absolute, argv[1:])], log, scratch)
        text = text.replace(f"{self.folder}/", "")
        if code:
            raise Failure(f"{Path(argv[0]).name} ended with {code}: see atc.log.", text, code)
        return text

    def _absolute(self, word):
        flag, _, value = word.partition("=")
        inside = flag in PATH_FLAGS and value and (flag == "--output" or (self.folder / value).exists())
        return f"{flag}={self.folder / value}" if inside else word

    # ---- infer, compare, benchmark

    def _infer(self):
        self._needs_device()
        self.model = self._open()
        said, wanted = self.model.profiles["kind"], self.bundle["profiles"]["kind"]
        if said != wanted:
            raise Failure(f"The .om was built with {said} profiles, the bundle says {wanted}: run with --rebuild.")
        goldens, target = self.bundle["goldens"], self.out / "outputs.npz"
        beside = target.with_name(f".outputs.{os.getpid()}")
        try:
            # One golden after the other, so that a thousand of them need the memory of one.
            with zipfile.ZipFile(str(beside), "w", zipfile.ZIP_DEFLATED) as kept:
                for number, golden in enumerate(goldens):
                    self._run_one(number, golden, kept)
        finally:  # what was answered before an error is worth keeping
            if self.results["comparison"]:
                beside.replace(target)
                self.results["outputs"] = target.name
            elif beside.exists():
                beside.unlink()
        return f"{len(goldens)} golden inputs"

    def _run_one(self, number, golden, kept):
        feeds, expected = self._golden(golden)
        case, own = self._fitted(feeds)
        limits = self.bundle["tolerances"]
        for name, answer in self._named(self.model.run(case), expected, own).items():
            with kept.open(f"{number}/{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(answer), allow_pickle=False)
            row = compared(expected[name], answer)
            ok = not row["note"] and row["cosine"] >= limits["cosine"] and row["relative"] <= limits["relative"]
            self.results["comparison"].append({"golden": golden["name"], "output": name, **row, "ok": ok})

    def _needs_device(self):
        if self.options.build_only:
            raise Skip("--build-only")

    def _open(self):
        om = self.folder / self.results["build"]["om"]
        if self.backend == "ais_bench":
            return AisModel(om, self.options.device, self.bundle["profiles"])
        return AclModel(om, self.options.device)

    def _golden(self, golden):
        with np.load(str(self.folder / golden["file"]), allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        return tuple({spec["name"]: arrays[side + spec["name"]] for spec in self.bundle[group]}
                     for side, group in (("in:", "inputs"), ("out:", "outputs")))

    def _fitted(self, feeds, batch=0):
        """The feeds filled up to a batch that the .om was built for, and how many pictures of it are real."""
        kind, specs = self.bundle["profiles"]["kind"], self.bundle["inputs"]
        if kind == "batch":
            growing = [spec["name"] for spec in specs if spec["shape"] and not fixed(spec["shape"][0])]
            sizes = sorted(value[0] for value in self.bundle["profiles"]["values"])
        elif kind == "static":
            growing = [spec["name"] for spec in specs if list(feeds[spec["name"]].shape[1:]) == spec["shape"][1:]
                       and feeds[spec["name"]].shape != tuple(spec["shape"])]
            sizes = [spec["shape"][0] for spec in specs if spec["name"] in growing[:1]]
        else:
            growing = []
        if not growing:
            return feeds, 0
        own = feeds[growing[0]].shape[0]
        fits = [batch] if batch else [size for size in sizes if size >= own]
        if not fits:
            raise Failure(f"A golden input has {own} pictures, more than the largest batch of the .om.")
        return {name: filled(array, fits[0]) if name in growing else array for name, array in feeds.items()}, own

    @staticmethod
    def _named(answers, expected, own):
        """Answers by the bundle's names, in its order, without what was filled up."""
        if len(answers) != len(expected):
            raise Failure(f"The .om gives {', '.join(answers)}; the float model {', '.join(expected)}.")
        same = set(answers) == set(expected)
        cut = {}
        for (name, reference), given in zip(expected.items(), answers.values()):
            array = answers[name] if same else given
            if own and array.ndim and array.shape[0] > own == reference.shape[0]:
                array = array[:own]
            cut[name] = array.reshape(reference.shape) if array.size == reference.size else array
        return cut

    def _compare(self):
        self._needs_device()
        limits, rows = self.bundle["tolerances"], self.results["comparison"]
        bad = [row for row in rows if not row["ok"]]
        for row in bad:
            if row["note"]:
                raise Failure(f"{row['golden']}, output {row['output']}: {row['note']}. Where that is NaN or inf, "
                              "overflow in fp16 is the usual cause: keep the layers that overflow in float32.")
        if bad:
            worst = max(bad, key=lambda row: row["relative"])
            raise Failure(f"{len(bad)} of {len(rows)} answers are out of tolerance, worst {worst['output']} of "
                          f"{worst['golden']}: cosine {worst['cosine']:.6f}, relative {worst['relative']:.2e} "
                          f"(allowed {limits['cosine']} and {limits['relative']}).")
        return f"{len(rows)} answers within tolerance"

    def _benchmark(self):
        self._needs_device()
        how = self.bundle["benchmark"]
        warm_up, runs = how["warm_up"], self.options.runs or how["runs"]
        feeds, _ = self._golden(self.bundle["goldens"][0])
        for profile, case in self._cases(feeds):
            lead = case[self.bundle["inputs"][0]["name"]].shape
            batch = int(lead[0]) if lead else 1
            self.model.time(case, warm_up)
            times, both = self.model.time(case, runs), self.model.time(case, runs, copies=True)
            row = {"batch": batch, "profile": profile, "warm_up": warm_up, "runs": runs, **summary(times, batch),
                   "with_copies": summary(both, batch)}
            self.results["benchmark"].append(row)
            self.write()
            case_name = f"profile {profile}" if profile else f"batch {batch}"
            say(f"      {case_name}: {row['p50_ms']:.3f} ms (p95 {row['p95_ms']:.3f}), with copies "
                f"{row['with_copies']['p50_ms']:.3f} ms{', of a ' + FAKE if self.fakes else ''}")
        return f"{runs} runs of each"

    def _cases(self, feeds):
        """(profile or None, feeds) of everything to measure, made from one golden input."""
        kind, specs = self.bundle["profiles"]["kind"], self.bundle["inputs"]
        if kind == "static":
            return [(None, self._fitted(feeds)[0])]
        if kind == "batch":
            return [(None, self._fitted(feeds, batch)[0]) for batch in self.bundle["batches"]]
        made = []
        for value in self.bundle["profiles"]["values"]:
            # One number for each open side of all inputs; of pictures height and width, the same for each.
            sides, case = iter(value), {}
            for spec in specs:
                sides = iter(value) if kind == "image" else sides
                case[spec["name"]] = np.resize(feeds[spec["name"]], [
                    side if fixed(side) else next(sides) for side in spec["shape"]])
            made.append((list(value), case))
        return made

    # ---- profile

    def _profile(self):
        self.release()  # msprof starts the model in a process of its own
        self._needs_device()
        if not self.options.profile:
            raise Skip("not asked for: --profile")
        if shutil.which("msprof") is None:
            raise Failure(f"msprof is not on the PATH: {set_env_hint()}.")
        self.fakes |= {"msprof"} if says_fake("msprof") else set()
        folder = self.out / "msprof"
        shutil.rmtree(str(folder), ignore_errors=True)
        argv = ["msprof", f"--output={folder}", "--ai-core=on", "--aic-metrics=PipeUtilization", sys.executable,
                str(Path(__file__).absolute()), "--replay", str(PROFILED), "--device", str(self.options.device),
                "--backend", self.backend, "--out", str(self.out)]
        code, text = called(argv, self.out / "msprof.log")
        tables = sorted(folder.rglob("op_summary_*.csv"))
        if code or not tables:
            raise Failure(f"msprof ended with {code} and wrote {len(tables)} op_summary files: see msprof.log.", text,
                          code)
        top = slowest(tables, PROFILED)
        self.results["profile"] = {"folder": folder.name, "top": top}
        return f"{top[0]['name']} is the slowest, {top[0]['us']:.1f} us a run" if top else "no operator was seen"

    def replay(self, runs):
        """For msprof: run the first golden input, and nothing else."""
        prefix = self.folder / self.bundle["atc"]["output"]
        self.results["build"] = built_before(prefix.with_name(prefix.name + ".built.json"), self.folder)["build"]
        feeds, _ = self._fitted(self._golden(self.bundle["goldens"][0])[0])
        with self._open() as model:
            for _ in range(runs):
                model.run(feeds)
        return 0


def options_of(argv):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--build-only", action="store_true", help="stop when the .om is built: needs atc, no device")
    add("--skip-build", action="store_true", help="use the .om that is there: needs a device, no atc")
    add("--rebuild", action="store_true", help="build the .om again")
    add("--device", type=int, default=0, metavar="N", help="number of the device, 0 by default")
    add("--runs", type=int, default=0, metavar="N", help="measured runs, by default as the bundle says")
    add("--backend", choices=("auto", "acl", "ais_bench"), default="auto", help="what runs the .om")
    add("--profile", action="store_true", help="also look for the slowest operators with msprof")
    add("--out", default="", metavar="FOLDER", help="where the results go: results/ beside this file by default")
    add("--verbose", action="store_true", help="show the traceback of an unexpected error")
    add("--replay", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv=None):
    """Run; the exit code is 0 only where every step is done and all answers are within tolerance."""
    options = options_of(argv)

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)  # so that a job manager's stop gives the device back too
    try:
        box = Box(Path(__file__).absolute().parent, options)
        return box.replay(options.replay) if options.replay else box.run()
    except Failure as error:
        say(error.what)
        return 1


if __name__ == "__main__":
    sys.exit(main())
