"""Pictures as a model sees them: one ``Preprocess`` serves parity, calibration, verification and benchmark alike.

Two runs that prepare their inputs differently cannot be compared; so no stage takes arrays it did not get from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kit.card import Card
from kit.errors import BadInput
from kit.model import TensorSpec
from kit.need import need
from kit.record import digest

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Preprocess:
    """From a picture (uint8 [H, W, 3], BGR as OpenCV reads it) to a tensor (float32 [1, 3, h, w]).

    Order of work: resize, channel order, ``value * scale``, minus ``mean``, over ``std``, layout, padding with zeros.

    Attributes:
        resize: ``stretch`` to ``size``; ``limit`` so that the long side is at most ``size[1]`` with both sides
            rounded to a ``multiple``; ``height`` to ``size[0]`` with the ratio kept, zero-padded on the right to
            ``size[1]`` at least and to a ``multiple``; ``none`` leaves the picture as it is.
        size: height and width in pixels.
        multiple: both sides become multiples of it (``limit``), or the padded width does (``height``).
        channels: order of the three channels in the tensor.
        scale: factor from byte to number, usually 1/255.
        mean: per channel, in the tensor's channel order, after ``scale``.
        std: per channel, likewise.
        layout: order of the axes.
    """

    resize: Literal["stretch", "limit", "height", "none"] = "stretch"
    size: tuple[int, int] = (224, 224)
    multiple: int = 32
    channels: Literal["BGR", "RGB"] = "BGR"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """The tensor of one picture, batch of one."""
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise BadInput(f"A picture must be uint8 [height, width, 3]; this is {picture.dtype} "
                           f"{list(picture.shape)}.", remedy="read it with cv2.imread, or convert it to 8-bit colour")
        small = self.resized(picture)
        if self.channels == "RGB":
            small = small[:, :, ::-1]
        mean, std = np.float32(self.mean), np.float32(self.std)
        tensor = (small.astype(np.float32) * np.float32(self.scale) - mean) / std
        if self.resize == "height":
            width = -(-max(self.size[1], tensor.shape[1]) // self.multiple) * self.multiple
            tensor = np.pad(tensor, ((0, 0), (0, width - tensor.shape[1]), (0, 0)))
        tensor = tensor.transpose(2, 0, 1) if self.layout == "NCHW" else tensor
        return np.ascontiguousarray(tensor[None], dtype=np.float32)

    def resized(self, picture: np.ndarray) -> np.ndarray:
        """The picture at the size the model gets it, still bytes (before any padding)."""
        height, width = self.target_size(*picture.shape[:2])
        if (height, width) == picture.shape[:2]:
            return picture
        cv2 = need("cv2", to="resize a picture", extra="ocr")
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing a picture of this height and width."""
        if self.resize == "stretch":
            return self.size
        if self.resize == "limit":
            ratio = min(1.0, self.size[1] / max(height, width))
            return tuple(max(self.multiple, round(side * ratio / self.multiple) * self.multiple)
                         for side in (height, width))  # type: ignore[return-value]
        if self.resize == "height":
            return self.size[0], max(1, int(np.ceil(self.size[0] * width / height)))
        return height, width

    def picture(self, tensor: np.ndarray) -> np.ndarray:
        """Back from a tensor to bytes (uint8 [h, w, 3], RGB): what the model really sees, for a preview."""
        plane = tensor[0].transpose(1, 2, 0) if self.layout == "NCHW" else tensor[0]
        back = (plane * np.float32(self.std) + np.float32(self.mean)) / self.scale
        back = back if self.channels == "RGB" else back[:, :, ::-1]
        return np.clip(np.rint(back), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Sample:
    """One picture on disk, or the piece of it inside ``quad``, and what is known about it.

    Attributes:
        path: the picture's file.
        quad: four (x, y) corners, clockwise from top left, of the piece to cut out upright; empty for the whole.
        truth: whatever the task compares with, such as a text, or a list of quads and texts. Not fingerprinted.
    """

    path: Path
    quad: tuple[tuple[float, float], ...] = ()
    truth: Any = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Short name for tables and errors."""
        return f"{self.path.name}@{round(self.quad[0][0])},{round(self.quad[0][1])}" if self.quad else self.path.name

    def load(self) -> np.ndarray:
        """The picture, uint8 [H, W, 3] BGR.

        Raises:
            BadInput: the file is missing or no picture.
        """
        cv2 = need("cv2", to="read pictures", extra="ocr")
        # imdecode, not imread: imread cannot open non-ASCII paths on Windows, and prints instead of raising.
        data = np.fromfile(self.path, np.uint8) if self.path.is_file() else np.empty(0, np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if picture is None:
            state = "cannot be read as a picture" if data.size else "is missing or empty"
            raise BadInput(f"{self.path} {state}.", remedy="replace or remove the file, or leave it out with "
                           "Samples.from_folder(..., broken='skip')")
        if self.quad:
            return crop(picture, np.float32(self.quad))
        return picture


@dataclass(frozen=True)
class Samples(Card, Sequence):
    """Pictures with their preprocessing; iterating yields feeds, ``{input: float32 [1, ...]}``, one a sample.

    Attributes:
        items: the samples, in order.
        preprocess: how each becomes a tensor.
        input: name of the model's input.
        skipped: files left out because they could not be read.
        scale_factor: name of a second input that is told how the picture was resized, float32 [1, 2]: height and
            width for the model over those on disk, as PaddleDetection's models want it; "" for models without.
    """

    items: tuple[Sample, ...]
    preprocess: Preprocess
    input: str = "x"
    skipped: tuple[str, ...] = ()
    scale_factor: str = ""

    @classmethod
    def from_folder(cls, folder: Path | str, preprocess: Preprocess, *, input: str = "x",
                    limit: int | None = None, broken: Literal["refuse", "skip"] = "refuse") -> Samples:
        """Every picture in a folder, in order of name.

        Raises:
            BadInput: no such folder, no pictures in it, or broken ones (all are named).
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise BadInput(f"{folder} is not a folder.", remedy="check the path; make the folder and put pictures in")
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)[:limit]
        if not paths:
            raise BadInput(f"{folder} holds no pictures ({', '.join(PICTURES)}).", remedy="check the path")
        found = cls(tuple(Sample(path) for path in paths), preprocess, input)
        bad = found.broken()
        if bad and (broken == "refuse" or len(bad) == len(paths)):
            names = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
            raise BadInput(f"{len(bad)} of {len(paths)} pictures in {folder} cannot be read: {names}.",
                           remedy="replace or remove them, or pass broken='skip'", detail="\n".join(bad))
        return replace(found, items=tuple(i for i in found.items if i.name not in bad), skipped=tuple(bad))

    def broken(self) -> list[str]:
        """Names of the samples that cannot be read."""
        bad = []
        for item in self.items:
            try:
                item.load()
            except BadInput:
                bad.append(item.name)
        return bad

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at):
        """A feed, or for a slice the Samples in it."""
        if isinstance(at, slice):
            return replace(self, items=self.items[at])
        picture = self.items[at].load()
        feed = {self.input: self.preprocess(picture)}
        if self.scale_factor:
            sides = picture.shape[:2]
            feed[self.scale_factor] = np.float32([np.divide(self.preprocess.target_size(*sides), sides)])
        return feed

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for at in range(len(self)):
            yield self[at]

    def identities(self) -> tuple[str, ...]:
        """A digest of each sample, in order: of its picture's bytes and the cut. Each file is read once."""
        pictures = {path: digest(path) for path in {item.path for item in self.items}}
        return tuple(digest([pictures[item.path], item.quad]) for item in self.items)

    @property
    def preparation(self) -> tuple[Any, ...]:
        """What makes feeds of pictures: the preprocessing and the names of the inputs."""
        return (self.preprocess, self.input, *([self.scale_factor] if self.scale_factor else []))

    def digest(self) -> str:
        """Of the samples, the preprocessing and the inputs' names; order counts."""
        return digest([self.identities(), *self.preparation])

    def title(self) -> str:
        return f"{len(self)} samples for input {self.input!r}" + (
            f" and {self.scale_factor!r}" if self.scale_factor else "")

    def facts(self) -> dict[str, object]:
        if not self.items:
            return {}
        first = self.items[0].load()
        tensor = self.preprocess(first)
        low, high, mean = tensor.min(), tensor.max(), tensor.mean()
        return {
            "first": self.items[0].name,
            "picture": f"{first.shape[1]} x {first.shape[0]} pixels",
            "tensor": f"float32 {list(tensor.shape)}, {low:.3g} to {high:.3g}, mean {mean:.3g}",
            "resize": self.preprocess.resize,
            "channels": self.preprocess.channels,
            **({"skipped": ", ".join(self.skipped)} if self.skipped else {}),
        }

    def preview(self, at: int = 0) -> np.ndarray:
        """What the model sees of one sample, back as a picture: uint8 [h, w, 3], RGB."""
        return self.preprocess.picture(self[at][self.input])


def sample_name(samples: Any, at: int) -> str:
    """A sample's own name, or its number where ``samples`` is a plain sequence of feeds."""
    items = getattr(samples, "items", None)
    return items[at].name if isinstance(items, tuple) else f"sample {at}"


def generated(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Made-up inputs: normal floats, integers of 0 and 1 (valid as indices), booleans.

    Returns:
        Arrays of ``shapes``, in the types of ``specs``.
    """
    random = np.random.default_rng(seed)
    feed = {}
    for spec in specs:
        shape = shapes[spec.name]
        if spec.dtype.startswith("float"):
            feed[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        else:
            feed[spec.name] = random.integers(0, 2, shape).astype(spec.dtype)
    return feed


def crop(image: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """Cut a box out of a picture and straighten it.

    Args:
        image: uint8 [H, W, 3].
        quad: [4, 2], clockwise from top left; may reach outside, the border is then repeated.

    Returns:
        uint8 [h, w, 3] with the box's longer sides as size; turned by 90 degrees counter-clockwise when h / w >= 1.5,
        for a box that tall is a line written sideways.
    """
    cv2 = need("cv2", to="cut pictures", extra="ocr")
    quad = np.asarray(quad, np.float32)
    width = max(1, round(float(max(np.linalg.norm(quad[0] - quad[1]), np.linalg.norm(quad[3] - quad[2])))))
    height = max(1, round(float(max(np.linalg.norm(quad[0] - quad[3]), np.linalg.norm(quad[1] - quad[2])))))
    upright = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    warp = cv2.getPerspectiveTransform(quad, upright)
    line = cv2.warpPerspective(image, warp, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(np.rot90(line)) if height / width >= 1.5 else line
