"""What can be asked of ``atc``, as types: a combination that ATC would refuse cannot be made.

What excludes each other is one field: ``precision`` stands for two flags, ``profiles`` for three. What a type cannot
exclude is refused when the options are made, by the rules of ``atc_flags.json``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from kit.ascend.atc.flag_rules import DYNAMIC, problems, profile_list
from kit.ascend.atc.flag_table import Chip, chip, choices, entry, flags, release, spelt
from kit.errors import BadInput, unknown
from kit.options import Help, Options

Kind = Literal["static", "batch", "image", "dims"]
_FLAG_OF = dict(zip(("batch", "image", "dims"), DYNAMIC, strict=True))


@dataclass(frozen=True)
class Profiles:
    """The sizes a model is built for.

    Attributes:
        kind: ``static`` for one; ``batch`` sizes, ``image`` heights and widths, or ``dims``: all -1 axes in order.
        values: one tuple of sizes a profile; none for ``static``.

    Raises:
        BadInput: fewer than 2 profiles, more than any chip takes, of unequal length, one twice, or a size below 1.
    """

    kind: Kind = "static"
    values: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("static", *_FLAG_OF):
            raise BadInput(f"Profiles are {self.kind!r}.", remedy="choose static, batch, image or dims")
        if self.kind == "static":
            if any(self.values):
                raise BadInput(f"A static model has no profiles, and {self.values} are given.",
                               remedy="leave them out, or choose batch, image or dims")
            object.__setattr__(self, "values", ())
            return
        wanted = {"batch": 1, "image": 2}.get(self.kind)
        wrong = [value for value in self.values if not value or (wanted and len(value) != wanted)]
        if wrong:
            raise BadInput(f"A profile of {self.kind} has {wanted or 'at least 1'} size{'s' if wanted == 2 else ''}; "
                           f"{wrong[0]} has {len(wrong[0])}.", remedy=f"write them like {_EXAMPLES[self.kind]!r}")
        # 256 is the limit of the 950; that of other chips is checked with the chip.
        for found in profile_list(_FLAG_OF[self.kind], list(self.values), Chip("", "950")):
            raise found.exception()

    @classmethod
    def read(cls, text: str) -> Profiles:
        """From ``static``, ``batch 1,4,8``, ``image 640x640 960x960`` or ``dims 1,32 1,64``.

        Raises:
            BadInput: it is written otherwise.
        """
        kind, _, rest = text.strip().partition(" ")
        kind = kind.rstrip(":")
        if kind not in ("static", *_FLAG_OF):
            raise BadInput(f"profiles cannot be {text!r}.",
                           remedy=f"write static, or {' or '.join(map(repr, _EXAMPLES.values()))}")
        pieces = [piece for piece in re.split(r"[\s;]+" if kind != "batch" else r"[\s;,]+", rest.strip()) if piece]
        try:
            values = tuple(tuple(int(size) for size in re.split("[x,]", piece)) for piece in pieces)
        except ValueError:
            raise BadInput(f"profiles={text!r} has something that is no number.",
                           remedy=f"write it like {_EXAMPLES.get(kind, 'static')!r}") from None
        return cls(kind, values)  # type: ignore[arg-type]

    def __str__(self) -> str:
        between = {"batch": ",", "image": " ", "dims": " "}.get(self.kind, "")
        within = "x" if self.kind == "image" else ","
        sizes = between.join(within.join(map(str, value)) for value in self.values)
        return f"{self.kind} {sizes}" if sizes else self.kind

    @property
    def flag(self) -> tuple[str, str] | None:
        """The flag and its value; None for static."""
        if self.kind == "static":
            return None
        between = "," if self.kind == "batch" else ";"
        return _FLAG_OF[self.kind], between.join(",".join(map(str, value)) for value in self.values)


_EXAMPLES = {"batch": "batch 1,4,8", "image": "image 640x640 960x960", "dims": "dims 1,32 1,64"}


@dataclass(frozen=True)
class AtcOptions(Options):
    """What to build, and how. Paths of files are as ``atc`` will see them."""

    soc_version: Annotated[str, Help("The chip, as npu-smi info names it, with Ascend before it.")] = "Ascend310P3"
    cann: Annotated[str, Help("CANN release on the box, such as 8.1.RC1; decides between older and newer flags.")] = ""
    precision: Annotated[Literal[
        "fp16", "origin", "cube_fp16in_fp32out", "mixed_float16", "mixed_bfloat16", "mixed_hif8", "cube_hif8",
        "allow_fp32_to_fp16", "allow_fp32_to_bf16"], Help(
        "What float operators compute in. fp16: all in float16. origin: as in the model. mixed: those drop to 16 bits "
        "that ATC lists as harmless. cube_fp16in_fp32out: the most exact.")] = "fp16"
    shapes: Annotated[tuple[str, ...], Help(
        "Input shapes: x=1,3,640,640; -1 or ? for an axis of profiles, 1~8 for a range. The model's own where left out."
    )] = ()
    profiles: Annotated[str, Help(
        "static, or 2 to 100 profiles: batch 1,4,8 or image 640x640 960x960 or dims 1,32 1,64 (all open axes in order)."
    )] = "static"
    input_format: Annotated[Literal["auto", "NCHW", "NCDHW", "ND"], Help("Layout of the inputs.")] = "auto"
    output_type: Annotated[str, Help("Type of all outputs, FP16; or of single ones, node:0:FP16;other:0:FP32.")] = ""
    out_nodes: Annotated[tuple[str, ...], Help("What comes out, node:0 or names of tensors; empty for all.")] = ()
    fp16_inputs: Annotated[tuple[str, ...], Help("Inputs that are fed in float16.")] = ()
    aipp: Annotated[str, Help("AIPP file: pictures enter as bytes.")] = ""
    compression: Annotated[str, Help(
        "File for INT8 in ATC itself. Calibration needs an NPU where atc runs, and the AMCT (acl) package.")] = ""
    mixlist: Annotated[str, Help("File of types that may or may not drop to 16 bits; mixed precision only.")] = ""
    keep_dtype: Annotated[str, Help("File of operators that keep their data type.")] = ""
    op_precision: Annotated[str, Help("File of operators with high precision or high performance.")] = ""
    customize_dtypes: Annotated[str, Help("File of data types for single operators.")] = ""
    implementation: Annotated[Literal["", "high_precision", "high_performance", "high_precision_for_all",
                                      "high_performance_for_all"], Help("Older form of op_precision.")] = ""
    implementation_types: Annotated[tuple[str, ...], Help("Operator types that implementation is for.")] = ()
    fusion_switch: Annotated[str, Help("File that switches fusions on or off.")] = ""
    external_weight: Annotated[Literal["auto", "inside", "each", "one"], Help(
        "Where weights lie: in the .om, or beside it in a file each or in one. auto: beside it beyond 2 GB.")] = "auto"
    log: Annotated[Literal["null", "debug", "info", "warning", "error"], Help("How much ATC says.")] = "null"
    cache: Annotated[Literal["disable", "enable", "force"], Help(
        "Keep compiled kernels for the next build.")] = "disable"
    cache_dir: Annotated[str, Help("Where to keep them; empty for ATC's own folder.")] = ""
    plugins: Annotated[bool, Help("Operators without a parser are not refused: a plugin on the box has them.")] = False
    extra: Annotated[tuple[str, ...], Help("More flags of atc, --flag=value.")] = ()

    def __post_init__(self) -> None:
        if isinstance(self.profiles, Profiles):
            object.__setattr__(self, "profiles", str(self.profiles))
        super().__post_init__()
        for name in ("soc_version", "cann"):
            if not isinstance(getattr(self, name), str):
                raise BadInput(f"AtcOptions.{name} cannot be {getattr(self, name)!r}.",
                               remedy='give a text, such as "Ascend310P3"' if name == "soc_version" else
                               'give a text such as "8.1.RC1", or leave it out')
        for name in ("shapes", "out_nodes", "fp16_inputs", "implementation_types", "extra"):
            if isinstance(getattr(self, name), str):
                raise BadInput(f"AtcOptions.{name} is the text {getattr(self, name)!r}; several are meant.",
                               remedy=f"give a tuple: {name}=({getattr(self, name)!r},)")
        object.__setattr__(self, "soc_version", chip(self.soc_version).soc_version)
        object.__setattr__(self, "profiles", str(Profiles.read(self.profiles)))
        release(self.cann)
        for found in problems(self.flags(), self.chip, cann=self.cann, partial=True, calibrates=False):
            raise found.exception()

    @property
    def chip(self) -> Chip:
        """The chip with its product."""
        return chip(self.soc_version)

    @property
    def sizes(self) -> Profiles:
        """The profiles, read."""
        return Profiles.read(self.profiles)

    def flags(self) -> dict[str, str]:
        """The flags that follow from the options alone, in the order of the table; defaults are left out.

        Raises:
            BadInput: ``extra`` names no flag, one that is a field here, or one flag twice.
        """
        named = {
            "--input_format": self._format(), "--soc_version": self.soc_version,
            "--output_type": self.output_type, "--out_nodes": ";".join(self._nodes()),
            "--input_fp16_nodes": ";".join(self.fp16_inputs), "--insert_op_conf": self.aipp,
            "--compression_optimize_conf": self.compression, "--modify_mixlist": self.mixlist,
            "--keep_dtype": self.keep_dtype, "--op_precision_mode": self.op_precision,
            "--customize_dtypes": self.customize_dtypes, "--op_select_implmode": self.implementation,
            "--optypelist_for_implmode": ",".join(self.implementation_types),
            "--fusion_switch_file": self.fusion_switch,
            "--external_weight": {"each": "1", "one": "2"}.get(self.external_weight, ""),
            "--log": "" if self.log == "null" else self.log, "--op_compiler_cache_dir": self.cache_dir,
            "--op_compiler_cache_mode": "" if self.cache == "disable" else self.cache,
            **dict(filter(None, [self.sizes.flag, self._precision()])), **self._more(),
        }
        return {flag: named[flag] for flag in flags() if named.get(flag)}

    def _format(self) -> str:
        if self.input_format != "auto":
            return self.input_format
        return "ND" if self.sizes.kind == "dims" else ""

    def _nodes(self) -> tuple[str, ...]:
        """Types of single outputs need the same nodes as outputs: they are added where none are named."""
        if ":" in self.output_type and not self.out_nodes:
            return tuple(piece.rpartition(":")[0] for piece in self.output_type.split(";") if piece)
        return self.out_nodes

    def _precision(self) -> tuple[str, str] | None:
        """Values that both flags have go to the newer one, where the release has it."""
        if self.precision == "fp16":
            return None
        newer, older = "--precision_mode_v2", "--precision_mode"
        if self.precision in (choices(newer) or {}):
            same = entry(newer)["same_as"].get(self.precision)
            before = release(self.cann) and release(self.cann) < release(entry(newer)["since"])
            return (older, same) if before and same else (newer, self.precision)
        return older, self.precision

    def _more(self) -> dict[str, str]:
        more: dict[str, str] = {}
        for text in self.extra:
            name, _, value = text.partition("=")
            flag = spelt(name)
            row = entry(name)
            if flag in FIELD_OF:
                raise BadInput(f"extra has {flag}, which is a field of AtcOptions.", remedy=f"use {FIELD_OF[flag]}")
            if row.get("hidden"):
                raise unknown("documented flag of atc", flag, [f for f, r in flags().items() if not r.get("hidden")])
            if flag in more:
                raise BadInput(f"extra has {flag} twice.", remedy="give it once")
            if not value:
                raise BadInput(f"extra has {text!r} without a value.", remedy=f"write it like {flag}=value")
            more[flag] = value
        return more


#: Flags that are composed from fields or from the model, and what to use instead of ``extra``.
FIELD_OF = {
    "--model": "the model argument", "--output": "output=... of atc_command", "--framework": "nothing: it is always 5",
    "--soc_version": "soc_version", "--input_shape": "shapes", "--input_shape_range": "shapes with ranges such as 1~8",
    "--input_format": "input_format", "--dynamic_batch_size": "profiles", "--dynamic_image_size": "profiles",
    "--dynamic_dims": "profiles", "--precision_mode": "precision", "--precision_mode_v2": "precision",
    "--output_type": "output_type", "--out_nodes": "out_nodes", "--input_fp16_nodes": "fp16_inputs",
    "--insert_op_conf": "aipp", "--compression_optimize_conf": "compression", "--modify_mixlist": "mixlist",
    "--keep_dtype": "keep_dtype", "--op_precision_mode": "op_precision", "--customize_dtypes": "customize_dtypes",
    "--op_select_implmode": "implementation", "--optypelist_for_implmode": "implementation_types",
    "--fusion_switch_file": "fusion_switch", "--external_weight": "external_weight", "--log": "log",
    "--op_compiler_cache_mode": "cache", "--op_compiler_cache_dir": "cache_dir",
    "--mode": "nothing: this builds", "--singleop": "nothing: this is for models", "--help": "atc --help itself",
    "--om": "nothing: this builds from ONNX", "--json": "nothing: this builds",
}
