"""What this machine's processor can do with bytes: it decides how INT8 models should store activations."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kit.errors import BadInput
from kit.int8 import byte_kernels


@dataclass(frozen=True)
class Processor:
    """A processor as far as INT8 is concerned.

    Attributes:
        name: as the system says it.
        family: ``x86``, ``arm`` or ``other``.
        vnni: multiplies and adds bytes in one step without overflow (VNNI or AMX); None where that is unknown.
        bf16: multiplies floats of 16 bits (BF16).
    """

    name: str
    family: str
    vnni: bool | None
    bf16: bool = False


@functools.cache
def this_processor() -> Processor:
    """The processor that this process runs on."""
    machine = platform.machine().lower()
    family = "x86" if machine in ("x86_64", "amd64", "i686", "x86") else "arm" if machine in (
        "arm64", "aarch64") or machine.startswith("arm") else "other"
    facts = cpu_facts()
    if not facts:
        return Processor(platform.processor() or machine, family, None)
    flags = flags_in(facts)
    name = facts.get("model name") or platform.processor() or machine
    vnni = any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8")) if family == "x86" else None
    return Processor(name, family, vnni, any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16")))


def cpu_facts() -> dict[str, str]:
    """What the system says of its first processor (Linux only; empty elsewhere)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in lines}


def flags_in(facts: dict[str, str]) -> list[str]:
    """The instruction sets among ``cpu_facts``: x86 calls them flags, ARM Features."""
    return facts.get("flags", facts.get("Features", "")).split()


@dataclass(frozen=True)
class ByteTypes:
    """How to store what is INT8, and why.

    Attributes:
        activation: ``uint8`` or ``int8``.
        reduce_range: keep weights to 7 bits.
        reason: for the reader.
        weight: ``int8`` or ``uint8``.
    """

    activation: str
    reduce_range: bool
    reason: str
    weight: str = "int8"


def byte_types(processor: Processor, activation: str = "auto", reduce_range: str = "auto", weight: str = "auto",
               runtime: str = "onnxruntime", why_not: Callable[[str, str, str], str] | None = None) -> ByteTypes:
    """Choose types for a processor and a runtime; what is asked for explicitly is kept.

    The rule is ONNX Runtime's own (documentation of ``quantize_static``, 1.31), and OpenVINO's plugin has the same:
    uint8 activations and int8 weights on x86, weights reduced to 7 bits where a multiply-add of bytes can overflow 16
    bits; int8 for both on ARM. uint8 weights take ONNX Runtime's other way of multiplying on x86, which widens to 16
    bits first: slower, and without overflow at 8 bits.

    Args:
        processor: that the model is for.
        activation: ``auto``, ``uint8`` or ``int8``.
        reduce_range: ``auto``, ``yes`` or ``no``.
        weight: ``auto``, ``int8`` or ``uint8``.
        runtime: ``onnxruntime`` or ``openvino``.
        why_not: says of runtime, activation and weight type why they cannot be had; the installed runtime by default.

    Raises:
        BadInput: the runtime cannot multiply these types; says which it can.
    """
    by_products = "two products of uint8 and int8 can overflow 16 bits, so weights use 7 bits"
    if processor.family == "arm":
        chosen, reduced, reason = "int8", False, f"{processor.name} is an ARM processor, which multiplies signed bytes"
    elif processor.family == "x86" and processor.vnni:
        chosen, reduced = "uint8", False
        reason = f"{processor.name} has VNNI, which multiplies uint8 by int8 without overflow"
    elif processor.family == "x86":
        chosen, reduced = "uint8", True
        known = "has no VNNI" if processor.vnni is False else "does not tell whether it has VNNI"
        reason = f"{processor.name} {known}: {by_products}"
        if weight == "uint8" and runtime == "onnxruntime":
            reduced = False
            reason = f"{processor.name} {known}, but products of uint8 by uint8 are widened first and do not overflow"
    else:
        chosen, reduced = "uint8", True
        reason = f"nothing is known of {processor.name}, so the choice is the one that is safe on every processor"
    if activation not in ("auto", chosen):
        reason = f"{activation} activations were asked for; the choice here would be {chosen}: {reason}"
        chosen = activation
    weights = "int8" if weight == "auto" else weight
    if weights != "int8":
        reason += f"; {weights} weights were asked for"
    if reduce_range != "auto" and (reduce_range == "yes") != reduced:
        reduced = reduce_range == "yes"
        reason += f"; {'7' if reduced else '8'}-bit weights were asked for"
    _check(runtime, chosen, weights, why_not or byte_kernels.why_not)
    return ByteTypes(chosen, reduced, reason, weights)


def _check(runtime: str, activation: str, weight: str, why_not: Callable[[str, str, str], str]) -> None:
    refused = why_not(runtime, activation, weight)
    if refused:
        kinds = ("uint8", "int8")
        good = [f"activation_type={a!r} with weight_type={w!r}" for a in kinds for w in kinds
                if not why_not(runtime, a, w)]
        raise BadInput(f"{refused}.", remedy=f"choose {' or '.join(good)}" if good else
                       "choose the other runtime, or precision='int8-weights'")
