"""Draw captioned pictures: two coloured shapes, one beside or above the other, and the sentence that says so.

The one idea: the caption is the picture's label. Four colours, three shapes and four relations make sentences such as
"a red circle above a blue square"; a picture says yes or no to a sentence, and a small classifier can be the judge.

    python data/recipes/shapes.py --sheet sheet.png      64 pictures with their captions, to look at
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

COLOURS = {"red": (214, 48, 49), "green": (46, 160, 67), "blue": (39, 105, 214), "yellow": (240, 196, 25)}  # RGB
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("above", "below", "left of", "right of")
SIZE = 64  # pixels of both sides
_FINE = 4  # drawn this many times larger, then averaged: soft edges


@dataclass(frozen=True)
class Scene:
    """What a caption says: two different things and how the first lies to the second."""

    first: tuple[str, str]  # colour, shape
    relation: str
    second: tuple[str, str]

    @property
    def caption(self) -> str:
        """The sentence."""
        return f"a {' '.join(self.first)} {self.relation} a {' '.join(self.second)}"

    @property
    def label(self) -> tuple[int, int, int, int, int]:
        """What the picture shows: vertical or not, colour and shape of the upper (or left) one, then of the other."""
        there, here = (self.first, self.second) if self.relation in ("above", "left of") else (self.second, self.first)
        colours = list(COLOURS)
        return (
            int(self.relation in ("above", "below")),
            colours.index(there[0]), SHAPES.index(there[1]), colours.index(here[0]), SHAPES.index(here[1]),
        )  # fmt: skip


def scenes() -> list[Scene]:
    """Every sentence there is: 12 things, 11 others, 4 relations: 528."""
    things = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return [Scene(a, relation, b) for a in things for b in things if a != b for relation in RELATIONS]


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The scene as a picture: uint8 [64, 64, 3] in RGB; place, size and shade differ from one to the next."""
    return _canvas([(scene.first, _sign(scene.relation)), (scene.second, -_sign(scene.relation))],
                   scene.relation in ("above", "below"), rng)  # fmt: skip


def spoiled(rng: np.random.Generator) -> np.ndarray:
    """A picture of no scene: black, flat, noise, one thing only, or a smear. The judge learns to refuse these."""
    kind = rng.integers(5)
    if kind == 0:
        return np.full((SIZE, SIZE, 3), rng.integers(256) if rng.random() < 0.7 else 0, np.uint8)
    if kind == 1:
        return rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    everything = scenes()
    scene = everything[rng.integers(len(everything))]
    if kind == 2:
        return _canvas([(scene.first, int(rng.choice([-1, 1])))], bool(rng.integers(2)), rng)
    picture = draw(scene, rng)
    if kind == 3:
        return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(7, 12)))
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def _sign(relation: str) -> int:
    return -1 if relation in ("above", "left of") else 1


def _canvas(things: list[tuple[tuple[str, str], int]], vertical: bool, rng: np.random.Generator) -> np.ndarray:
    fine = SIZE * _FINE
    picture = np.full((fine, fine, 3), int(rng.integers(228, 250)), np.uint8)
    for (colour, shape), side in things:
        along = SIZE / 2 + side * float(rng.uniform(13, 17))
        across = SIZE / 2 + float(rng.uniform(-9, 9))
        x, y = (across, along) if vertical else (along, across)
        radius = float(rng.uniform(9.5, 12.5))
        shade = tuple(int(np.clip(c + rng.integers(-12, 13), 0, 255)) for c in COLOURS[colour])
        if shape == "circle":
            cv2.circle(picture, (round(x * _FINE), round(y * _FINE)), round(radius * _FINE), shade, -1)
            continue
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.9 if shape == "square" else np.array(
            [[0, -1.1], [1.1, 0.85], [-1.1, 0.85]])  # fmt: skip
        cv2.fillPoly(picture, [np.round((np.array([x, y]) + corners * radius) * _FINE).astype(np.int32)], shade)
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def main() -> None:
    """Draw a sheet to look at."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, required=True)
    rng = np.random.default_rng(1)
    everything = scenes()
    chosen = [everything[i] for i in rng.choice(len(everything), 64, replace=False)]
    rows = [np.concatenate([draw(scene, rng) for scene in chosen[i : i + 8]], 1) for i in range(0, 56, 8)]
    rows.append(np.concatenate([spoiled(rng) for _ in range(8)], 1))
    cv2.imwrite(str(parser.parse_args().sheet), np.concatenate(rows)[:, :, ::-1])


if __name__ == "__main__":
    main()
