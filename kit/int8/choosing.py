"""Try ways to write an INT8 model on a few samples, and keep the one whose output is nearest to float."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kit.calibration import Calibration
from kit.errors import BadInput, unknown
from kit.int8 import qdq
from kit.int8 import ranges as ranges_of
from kit.int8.bias_correction import corrected, described, shifts
from kit.int8.noise import file_sqnr
from kit.int8.quantizable import Network
from kit.int8.ranges import CANDIDATES
from kit.int8.result import BiasCorrection, Trial
from kit.int8.suppression import looked_at_before, network_before, probes_before, suppresses
from kit.model import Model, read
from kit.progress import Report, Tick


def overrules(pairs: Sequence[str], calibration: Calibration) -> dict[str, str]:
    """``("conv1_out=minmax",)`` as tensor -> method.

    Raises:
        BadInput: no such tensor or method, or an entry is written otherwise.
    """
    found = {}
    histograms = calibration.histograms() if pairs else {}
    for pair in pairs:
        tensor, equals, method = pair.rpartition("=")
        if not equals:
            raise BadInput(f"tensor_methods cannot be {pair!r}.", remedy="write 'tensor=method', such as "
                           "'conv1_out=minmax'")
        if tensor not in histograms:
            raise unknown("calibrated tensor", tensor, histograms, calibration.model_name)
        if method not in ranges_of.METHODS:
            raise unknown("range method", method, ranges_of.METHODS)
        found[tensor] = method
    return found


@dataclass(frozen=True)
class Chosen:
    """An INT8 model ready to be written, and what led to it; the names are those of ``Quantized``."""

    made: qdq.Skeleton
    method: str
    sqnr: float | None
    trials: tuple[Trial, ...]
    biases: tuple[BiasCorrection, ...]
    range_methods: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Chooser:
    """What stays the same between trials.

    Attributes:
        network: of the float model.
        model: its file.
        calibration: of it.
        nodes: names of the nodes that become INT8.
        recipe: types and scales.
        folder: where a trial may be written for a moment.
        report: hears the progress.
        overrules: tensor -> the method that was asked for it, whatever the others have.
    """

    network: Network
    model: Model
    calibration: Calibration
    nodes: Sequence[str]
    recipe: qdq.Recipe
    folder: Path
    report: Report
    overrules: Mapping[str, str] = field(default_factory=dict)

    def choose(self, method: str, percentile: float, bias_correction: str) -> Chosen:
        """Ranges by a method (``auto``: the best of all; ``tensor``: those or better), then biases.

        Args:
            method: see ``QuantizeOptions``.
            percentile: for that method.
            bias_correction: ``auto``: where the output is not worse.
        """
        probes = probes_before(self.network, self.model, list(self.calibration.probes()))
        notes, range_methods, tried = [], {}, []
        candidates = ((method, percentile),)
        if method in ("auto", "tensor") and not probes:
            candidates = (("mse", 100.0),)
            notes.append("Without probe samples the methods could not be compared; mse was taken.")
        elif method == "auto":
            candidates = CANDIDATES
        elif method == "tensor":  # chosen in simulated arithmetic: in the runtime's, a single method may do better
            candidates = (*CANDIDATES, (method, percentile))
        forced = {tensor: ranges_of.choose(self.calibration.histogram(tensor), own, percentile=percentile)
                  for tensor, own in self.overrules.items()}
        for at, (name, percent) in enumerate(candidates):
            label = f"{name} {percent:g}" if name == "percentile" else name
            self.report(Tick(at, len(candidates) + 1, f"ranges by {label}"))
            if name == "tensor":
                ranges, range_methods, note = self._tuned(probes)
                notes.append(note)
            else:
                ranges = self.calibration.ranges(name, percentile=percent)
            ranges = {**ranges, **forced}
            made = qdq.skeleton(self.network, ranges, self.nodes, self.recipe)
            tried.append((label, ranges, made, self._sqnr(made, probes)))
        label, ranges, made, sqnr = max(tried, key=lambda trial: trial[3] if trial[3] is not None else 0.0)
        trials = tuple(Trial(name, heard or 0.0) for name, _, _, heard in sorted(tried, key=lambda t: -(t[3] or 0.0)))
        if range_methods and label != "tensor":
            range_methods = {}
            notes.append(f"As written, {label} for all tensors was not worse, so it was taken: "
                         f"{sqnr:.1f} against {tried[-1][3]:.1f} dB.")
        biases: tuple[BiasCorrection, ...] = ()
        if bias_correction != "no":
            self.report(Tick(len(candidates), len(candidates) + 1, "correcting biases"))
            made, sqnr, biases, note = self._with_biases(ranges, made, sqnr, probes, bias_correction)
            notes += note
        notes += self._unheeded(made)
        return Chosen(made, label, sqnr, trials if len(trials) > 1 else (), biases,
                      {**range_methods, **self.overrules}, tuple(notes))

    def _unheeded(self, made: qdq.Skeleton) -> list[str]:
        """A note on the tensors whose method was asked for in vain."""
        lost = sorted(self.overrules.keys() - qdq.rounded(made.proto).keys())
        return [f"tensor_methods names {', '.join(lost)}, which this model does not round: float nodes make and read "
                "it, or it takes another tensor's range."] if lost else []

    def _tuned(self, probes: list) -> tuple[dict, dict[str, str], str]:
        from kit.int8.tuned import tuned_ranges

        network = network_before(self.network, self.model)
        found = tuned_ranges(network, self.model, self.calibration, self.nodes, self.recipe, probes,
                             report=self.report)
        return dict(found.ranges), dict(found.methods), (
            f"Choosing tensor by tensor took {found.tried} trials and brought the output from "
            f"{found.sqnr_before:.1f} to {found.sqnr:.1f} dB in simulated arithmetic.")

    def _with_biases(self, ranges: dict, made: qdq.Skeleton, sqnr: float | None, probes: list,
                     asked: str) -> tuple[qdq.Skeleton, float | None, tuple[BiasCorrection, ...], list[str]]:
        """The model with corrected biases, or the one given where that is not better."""
        if asked == "auto" and not probes:
            return made, sqnr, (), ["Biases were left alone: without probe samples nothing tells whether that helps."]
        found = shifts(self.network, made, self.calibration, self.nodes)
        if all(shift.why for shift in found):
            return made, sqnr, described(self.network, found, made), []
        other = qdq.skeleton(corrected(self.network, found), ranges, self.nodes, self.recipe)
        heard = self._sqnr(other, probes)
        if asked == "auto" and heard < sqnr:
            return made, sqnr, (), [f"Corrected biases would have brought the output from {sqnr:.1f} to {heard:.1f} dB "
                                    "on the probe samples, so they were left alone."]
        return other, heard, described(self.network, found, other), []

    def _sqnr(self, made: qdq.Skeleton, probes: list) -> float | None:
        if not probes:
            return None
        path = self.folder / "trial.onnx"
        try:
            made.save(path)
            if suppresses(made.proto):
                path.write_bytes(looked_at_before(read(path, weights=False)).SerializeToString())
            return file_sqnr(path, probes)
        finally:
            for leftover in (path, path.with_name(path.name + ".data")):
                with contextlib.suppress(FileNotFoundError):
                    leftover.unlink()
