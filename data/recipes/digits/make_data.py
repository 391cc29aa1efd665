"""Write scikit-learn's handwritten digits into one file, split for training, calibration and test.

    python data/recipes/digits/make_data.py --out data/digits

The split is random, stratified by digit, from one seed: who wrote which picture is not recorded, so it cannot be
split by writer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 7
TEST, CALIBRATION = 600, 200


def main() -> None:
    """Write ``digits.npz``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[2] / "digits")
    out = parser.parse_args().out
    found = load_digits()
    labels = found.target.astype(np.uint8)
    rest, test = train_test_split(np.arange(len(labels)), test_size=TEST, random_state=SEED, stratify=labels)
    train, calibration = train_test_split(rest, test_size=CALIBRATION, random_state=SEED, stratify=labels[rest])
    splits = {"train": train, "calibration": calibration, "test": test}
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out / "digits.npz",
        images=found.images.astype(np.uint8),
        labels=labels,
        **{name: np.sort(numbers).astype(np.uint16) for name, numbers in splits.items()},
    )
    print(f"{out / 'digits.npz'}: " + ", ".join(f"{name} {len(numbers)}" for name, numbers in splits.items()))


if __name__ == "__main__":
    main()
