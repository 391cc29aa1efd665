"""What ONNX Runtime's CANN provider can be told, typed and checked: it ignores or crashes on what it does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from kit.errors import BadInput, MissingTool
from kit.options import Help, Options, Range

PROVIDER = "CANNExecutionProvider"


@dataclass(frozen=True)
class CannProvider(Options):
    """For ``open_runner(model, cann=CannProvider(...))`` where onnxruntime-cann is installed; left alone: its defaults.

    Source: the provider's documents (onnxruntime.ai, CANN execution provider); never run by us on that hardware.
    """

    device: Annotated[int, Range(0, 63, 1), Help("Which chip, as npu-smi counts them.")] = 0
    graph: Annotated[bool, Help("Compile pieces of the model; off: operator by operator, and it knows fewer.")] = True
    precision: Annotated[Literal[
        "force_fp16", "force_fp32", "cube_fp16in_fp32out", "allow_fp32_to_fp16", "must_keep_origin_dtype",
        "allow_mix_precision", "allow_mix_precision_fp16"], Help("precision_mode of CANN.")] = "force_fp16"
    implementation: Annotated[Literal["high_performance", "high_precision"], Help(
        "Which kernels CANN takes where it has two.")] = "high_performance"
    implementation_for: Annotated[tuple[str, ...], Help("Only for these operators of CANN; empty: for all.")] = ()
    memory_gb: Annotated[float | None, Range(0.1, 1024), Help("Most memory on the device in GB; empty: all.")] = None
    arena: Annotated[Literal["kNextPowerOfTwo", "kSameAsRequested"], Help(
        "How that memory grows.")] = "kNextPowerOfTwo"
    keep_om: Annotated[bool, Help("Keep the compiled pieces in the current folder, for the next start.")] = True
    keep_graphs: Annotated[bool, Help("Write the pieces as ONNX files into the current folder, to look at.")] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.implementation_for, str):
            raise BadInput("CannProvider.implementation_for takes several names, not one text.",
                           remedy=f"write implementation_for=({self.implementation_for!r},)")

    def entries(self) -> dict[str, str]:
        """As the provider takes them."""
        told = {
            "device_id": str(self.device), "enable_cann_graph": str(int(self.graph)), "precision_mode": self.precision,
            "op_select_impl_mode": self.implementation, "arena_extend_strategy": self.arena,
            "dump_om_model": str(int(self.keep_om)), "dump_graphs": str(int(self.keep_graphs))}
        if self.implementation_for:
            told["optypelist_for_implmode"] = ",".join(self.implementation_for)
        if self.memory_gb is not None:
            told["npu_mem_limit"] = str(int(self.memory_gb * 1e9))
        return told


def require(offered: list[str], version: str) -> None:
    """Refuse where the installed onnxruntime has no CANN provider.

    Raises:
        MissingTool: says what to install; nothing was run.
    """
    if PROVIDER not in offered:
        raise MissingTool(
            f"The installed onnxruntime {version} has no {PROVIDER} (it offers {', '.join(offered)}): onnxruntime-cann "
            "is not installed here, and nothing was run.",
            remedy="on a machine with an Ascend chip, its driver and CANN: install onnxruntime-cann in an environment "
            "without onnxruntime; here: "
            'kit.audit(model, kit.AuditOptions(target="onnxruntime-cann")) says what would fall back to the CPU')
