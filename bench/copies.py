"""Which copies of a picture does its perceptual hash find in another data set, and how many other pictures?

    python -m bench.copies --data <MURA tree> [--part hand]      (10 seconds for 1,200 images)

Across data sets only the hashes are at hand (`muralab.evaluation.leakage`), without thumbnails to confirm a match.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from muralab.data.audit.facts import THUMBNAIL, perceptual_hash
from muralab.data.mura import read_index

Grey = npt.NDArray[np.uint8]
LONGEST = 512
"""Side in px that pictures are reduced to before they are copied."""
DISTANCES = (0, 2, 5)


def recompressed(grey: Grey, quality: int) -> Grey:
    """A JPEG of a picture, decoded again."""
    written = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(written, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


COPIES: dict[str, Callable[[Grey], Grey]] = {
    "brighter by 20": lambda grey: np.clip(grey.astype(int) + 20, 0, 255).astype(np.uint8),
    "JPEG, quality 70": lambda grey: recompressed(grey, 70),
    "half the size": lambda grey: cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "grey values times 1.2": lambda grey: np.clip(grey * 1.2, 0, 255).astype(np.uint8),
    "gamma 0.8": lambda grey: (255 * (grey / 255) ** 0.8).astype(np.uint8),
    "mirrored": lambda grey: grey[:, ::-1].copy(),
}


def hash_of(grey: Grey) -> int:
    """As `muralab.data.audit.facts` computes it."""
    return perceptual_hash(cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA))


def main() -> None:
    """Print the share of copies, and the number of pairs of other pictures, within each distance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a MURA tree")
    parser.add_argument("--part", default="hand")
    args = parser.parse_args()
    own: list[int] = []
    bits: dict[str, list[int]] = {name: [] for name in COPIES}
    for path in read_index(args.data, args.part)["path"]:
        grey = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
        scale = max(1, max(grey.shape) // LONGEST)
        grey = cv2.resize(grey, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
        own.append(hash_of(grey))
        for name, change in COPIES.items():
            bits[name].append((own[-1] ^ hash_of(change(grey))).bit_count())
    hashes = np.array(own, dtype=np.uint64)
    others = np.concatenate([np.bitwise_count(hashes[row] ^ hashes[:row]) for row in range(1, len(hashes))])
    heads = (f"at most {most} bits differ" if most else "equal hash" for most in DISTANCES)
    print("| copy | " + " | ".join(heads) + " |")
    print("|---|" + "---|" * len(DISTANCES))
    for name, found in bits.items():
        print(f"| {name} | " + " | ".join(f"{np.mean(np.array(found) <= most):.1%}" for most in DISTANCES) + " |")
    counts = " | ".join(str(int((others <= most).sum())) for most in DISTANCES)
    print(f"| pairs of other files, of {len(others):,} | {counts} |")


if __name__ == "__main__":
    main()
