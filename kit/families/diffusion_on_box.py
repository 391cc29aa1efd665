#!/usr/bin/env python3
"""Finish this Stable Diffusion pipeline on the Ascend box.

    python3 draw_on_box.py

One file for a machine that has Python 3.8 or newer, numpy and CANN, nothing else. It checks the folder, lets the
run_on_box.py of each part build its .om, compare it with its golden inputs and measure it, then draws the pictures with
the .om files and compares them with the golden ones. It writes results/results.json and results/pictures/, also where a
step fails. Take the folder results/ back and read it with kit.families.diffusion.read_pipeline_results("results").
"""


# What bundles carry is assembled from this file and the parts that it imports, by kit.ascend.box.box_script. So all
# of them keep to the standard library, numpy and Python 3.8, where zip() has no strict=.
# ruff: noqa: B905
from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from kit.ascend.box.box_steps import Steps
from kit.ascend.box.box_tools import FAKE, Skip, called, compared, say, sha256, shown, summary
from kit.families.diffusion_alarms import PictureWatch
from kit.families.diffusion_om_parts import PartProcess, likeness
from kit.families.diffusion_png import png
from kit.families.diffusion_schedulers import Scheduler, guided
from kit.runtimes.om_session import Failure

PIPELINE_FORMAT, RESULTS_FORMAT, PIPELINE_VERSION = "kit-ascend-pipeline", "kit-box-pipeline", 1
DRIVEN = ("text_encoder", "unet", "vae_decoder")  # the parts that draw
PIPELINE_STEPS = ("check", *DRIVEN, "draw", "compare")


class DrawBox(Steps):
    """A pipeline on this machine; every step leaves its trace in results.json.

    Args:
        folder: of the bundle.
        options: as ``draw_options`` reads them.
    """

    def __init__(self, folder, options):
        super().__init__(PIPELINE_STEPS, Path(options.out).absolute() if options.out else folder / "results",
                         options.verbose)
        self.folder, self.options = folder, options
        self.plan = plan = read_plan(folder)
        self.spent = {name: [] for name in DRIVEN}
        self.results = {
            "format": RESULTS_FORMAT, "version": PIPELINE_VERSION, "fake": "", "device": {},
            "pipeline": {"name": plan["name"], "soc_version": plan["soc_version"], "least_psnr": plan["least_psnr"],
                         "prompts": [row["text"] for row in plan["prompts"]],
                         "sha256": sha256(folder / "pipeline.json")},
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "steps": self.results["steps"],
            "parts": {}, "ms": {}, "pictures": [],
        }

    def run(self):
        """Go through the steps; the exit code: 0 all well, 1 something failed, 130 interrupted."""
        shutil.rmtree(str(self.out / "pictures"), ignore_errors=True)  # of an earlier run
        parts = [lambda name=name: self._part(name) for name in DRIVEN]
        # Everything that is wrong is wanted in one go: a part that fails does not keep the others from being built.
        return self.go((self._check, *parts, self._draw, self._compare), (*DRIVEN, "draw"),
                       "kit.families.diffusion.read_pipeline_results")

    def meaning(self, error):
        return getattr(error, "explained", [])

    # ---- check and parts

    def _check(self):
        if np is None:
            raise Failure(f"numpy is missing in {sys.executable}: python3 -m pip install numpy")
        for name, known in sorted(self.plan["files"].items()):
            path = self.folder / name
            if not path.is_file():
                raise Failure(f"{name} is missing: copy the whole folder again.")
            if sha256(path) != known:
                raise Failure(f"{name} is damaged or was changed after the bundle was made (sha256): copy it again.")
        return f"{len(self.plan['files'])} files whole; each part checks its own"

    def _part(self, name):
        """Let the part's own script build, compare and measure it."""
        out, log = self.out / name, self.out / f"{name}.log"
        with contextlib.suppress(FileNotFoundError):
            (out / "results.json").unlink()  # of an earlier run
        log.write_bytes(b"")
        given = self.options
        argv = [sys.executable, str(self.folder / name / "run_on_box.py"), "--out", str(out),
                "--device", str(given.device), "--backend", given.backend, "--runs", str(given.runs),
                *(flag for flag, wanted in (("--build-only", given.build_only), ("--skip-build", given.skip_build),
                                            ("--rebuild", given.rebuild)) if wanted)]
        say(f"      {name}: running {shown(['python3', f'{name}/run_on_box.py'])}, its words go to {log.name}")
        code, text = called(argv, log)
        try:
            own = json.loads((out / "results.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            last = ([line for line in text.splitlines() if line.strip()] or ["it said nothing"])[-1]
            raise Failure(f"run_on_box.py of {name} ended with {code} and left no results: {last.strip()}", text,
                          code) from None
        self.fakes |= {tool.replace(f"{FAKE} ", "") for tool in own["fake"].split(", ") if tool}
        self.results["parts"][name] = {"om": own["build"].get("om", ""), "backend": own["device"]["backend"]}
        self.results["device"] = {**own["device"], **{
            key: value for key, value in self.results["device"].items() if value}}
        failed = [row for row in own["steps"] if row["state"] == "failed"]
        if failed:
            error = Failure(f"{failed[0]['step']} of {name} failed: {failed[0]['message']}")
            error.explained = failed[0]["explained"]
            raise error
        within = f"{len(own['comparison'])} golden answers within tolerance" if own["comparison"] else "built only"
        return f"{own['build']['om']}, {within}"

    # ---- pictures

    def _draw(self):
        if self.options.build_only:
            raise Skip("--build-only")
        for name in DRIVEN:
            about = self.results["parts"].get(name) or {"om": ""}
            if not about["om"] or not about["backend"] or not (self.folder / name / about["om"]).is_file():
                raise Failure(f"There is no .om of {name} to draw with: see the step {name}.")
        plan, rows = self.plan, self.plan["prompts"]
        watches = [PictureWatch(at, row["text"]) for at, row in enumerate(rows)]
        hidden = self._encode(rows, watches)
        noise, latents = self._read(plan["noise"]), []
        with self._opened("unet") as unet:
            for at in range(len(rows)):
                say(f"      drawing picture {at + 1} of {len(rows)}")
                latents.append(self._walk(unet, noise[at:at + 1], hidden[at], watches[at]))
        place = self.out / "pictures"
        place.mkdir(parents=True)
        pictures = []
        with self._opened("vae_decoder") as decoder:
            for at, row in enumerate(rows):
                answer = decoder({"latents": latents[at] / np.float32(plan["latent_scale"])})[0]
                picture = np.clip(answer / 2 + np.float32(0.5), 0, 1)
                pictures.append(picture.transpose(1, 2, 0))
                (place / f"{at:03d}.png").write_bytes(png(pictures[-1]))
                self._judge(at, row, picture, latents[at], watches[at])
        np.save(str(self.out / "pictures.npy"), np.stack(pictures))
        np.save(str(self.out / "latents.npy"), np.concatenate(latents))
        self.results["ms"] = {name: {"calls": len(times), **summary(times, 1)} for name, times in self.spent.items()}
        return f"{len(rows)} pictures in {place.name}/"

    def _encode(self, rows, watches):
        """What the text encoder makes of "nothing" and each prompt: one array [2, tokens, width] a picture."""
        made = []
        with self._opened("text_encoder") as encoder:
            nothing = encoder({"input_ids": self._read(self.plan["nothing"])})
            for row, watch in zip(rows, watches):
                made.append(np.concatenate([nothing, encoder({"input_ids": self._read(row["tokens"])})]))
                watch.text(made[-1])
        return made

    def _walk(self, unet, latents, hidden, watch):
        """From noise to latents, [1, 4, h, w]."""
        sampler = Scheduler(**self.plan["scheduler"]).sampler(self.plan["steps"])
        for step, timestep in enumerate(sampler.timesteps):
            answer = unet({"sample": np.concatenate([latents, latents]), "timestep": np.array([timestep]),
                           "encoder_hidden_states": hidden})
            with np.errstate(over="ignore", invalid="ignore"):  # an alarm tells of it
                latents = sampler.step(guided(answer, self.plan["guidance"]), latents)
            watch.step(step, timestep, answer, latents)
        return latents

    def _judge(self, at, row, picture, latents, watch):
        alarm = watch.alarm(picture)
        decibels = likeness(self._read(row["picture"]), picture.transpose(1, 2, 0))
        self.results["pictures"].append({
            "prompt": row["text"], "file": f"pictures/{at:03d}.png", "psnr": round(decibels, 3),
            "latents_cosine": compared(self._read(row["latents"]), latents[0])["cosine"],
            "alarm": str(alarm) if alarm else "",
            # A golden picture that is flat itself is no reproach to the device.
            "ok": decibels >= self.plan["least_psnr"] and (not alarm or alarm.kind == row["alarm"])})

    def _compare(self):
        rows = self.results["pictures"]
        if not rows:
            raise Skip("there are no pictures")
        bad = [row for row in rows if not row["ok"]]
        if bad:
            worst = min(bad, key=lambda row: row["psnr"])
            told = f" ALARM: {worst['alarm']}." if worst["alarm"] else ""
            raise Failure(f"{len(bad)} of {len(rows)} pictures are not the golden ones, worst {worst['file']} "
                          f"({worst['prompt']!r}): PSNR {worst['psnr']:.1f} dB, {self.plan['least_psnr']:g} are asked "
                          f"for.{told}")
        return f"{len(rows)} pictures like the golden ones, PSNR {min(row['psnr'] for row in rows):.1f} dB or more"

    def _read(self, name):
        return np.load(str(self.folder / name), allow_pickle=False)

    def _opened(self, name):
        about = self.results["parts"][name]
        bundle = json.loads((self.folder / name / "bundle.json").read_text(encoding="utf-8"))
        return PartProcess(name, self.folder / name / about["om"], about["backend"], self.options.device, bundle,
                           self.spent[name])


def read_plan(folder):
    """pipeline.json, if it is one that this script understands."""
    try:
        plan = json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))
    except OSError:
        raise Failure("There is no pipeline.json beside draw_on_box.py: copy the whole folder.") from None
    except ValueError as error:
        raise Failure(f"pipeline.json is damaged ({error}): copy it again.") from None
    kind = (plan.get("format"), plan.get("version")) if isinstance(plan, dict) else None
    if kind != (PIPELINE_FORMAT, PIPELINE_VERSION):
        raise Failure(f"pipeline.json is {kind}; this script reads {PIPELINE_FORMAT} version {PIPELINE_VERSION}.")
    return plan


def draw_options(argv):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--build-only", action="store_true", help="stop when every .om is built: needs atc, no device")
    add("--skip-build", action="store_true", help="use the .om files that are there: needs a device, no atc")
    add("--rebuild", action="store_true", help="build every .om again")
    add("--device", type=int, default=0, metavar="N", help="number of the device, 0 by default")
    add("--runs", type=int, default=0, metavar="N", help="measured runs of each part, by default as its bundle says")
    add("--backend", choices=("auto", "acl", "ais_bench"), default="auto", help="what runs the .om")
    add("--out", default="", metavar="FOLDER", help="where the results go: results/ beside this file by default")
    add("--verbose", action="store_true", help="show the traceback of an unexpected error")
    return parser.parse_args(argv)


def main(argv=None):
    """Run; the exit code is 0 only where every step is done and all pictures are like the golden ones."""
    options = draw_options(argv)

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)  # so that a job manager's stop gives the device back too
    try:
        return DrawBox(Path(__file__).absolute().parent, options).run()
    except Failure as error:
        say(error.what)
        return 1


if __name__ == "__main__":
    sys.exit(main())
