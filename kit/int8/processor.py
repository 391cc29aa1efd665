"""What this machine's processor can do with bytes: it decides how INT8 models should store activations."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Processor:
    """A processor as far as INT8 is concerned.

    Attributes:
        name: as the system says it.
        family: ``x86``, ``arm`` or ``other``.
        vnni: multiplies and adds bytes in one step without overflow (VNNI or AMX); None where that is unknown.
    """

    name: str
    family: str
    vnni: bool | None


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
    return Processor(name, family, vnni)


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
    """

    activation: str
    reduce_range: bool
    reason: str


def byte_types(processor: Processor, activation: str = "auto", reduce_range: str = "auto") -> ByteTypes:
    """Choose types for a processor; what is asked for explicitly is kept.

    The rule is ONNX Runtime's own (documentation of ``quantize_static``, 1.31): uint8 activations and int8 weights on
    x86, weights reduced to 7 bits where a multiply-add of bytes can overflow 16 bits; int8 for both on ARM.
    """
    if processor.family == "arm":
        chosen, reduced, reason = "int8", False, f"{processor.name} is an ARM processor, which multiplies signed bytes"
    elif processor.family == "x86" and processor.vnni:
        chosen, reduced = "uint8", False
        reason = f"{processor.name} has VNNI, which multiplies uint8 by int8 without overflow"
    elif processor.family == "x86":
        chosen, reduced = "uint8", True
        known = "has no VNNI" if processor.vnni is False else "does not tell whether it has VNNI"
        reason = f"{processor.name} {known}: two products of uint8 and int8 can overflow 16 bits, so weights use 7 bits"
    else:
        chosen, reduced = "uint8", True
        reason = f"nothing is known of {processor.name}, so the choice is the one that is safe on every processor"
    if activation not in ("auto", chosen):
        reason = f"{activation} activations were asked for; the choice here would be {chosen}: {reason}"
        chosen = activation
    if reduce_range != "auto" and (reduce_range == "yes") != reduced:
        reduced = reduce_range == "yes"
        reason += f"; {'7' if reduced else '8'}-bit weights were asked for"
    return ByteTypes(chosen, reduced, reason)
