"""How many images of another kind does a served model warn about, and how many of its own kind?

    python -m bench.familiarity --model <folder of a model> --own test=<MURA tree>/valid/XR_WRIST \
        --other hands=<MURA tree>/valid/XR_HAND                              (about a minute for 500 images)

Every image goes through the served model as a request does. `own` names folders of images like the training images that
the network has not seen; `other` names folders of anything else. Photos (those that come with scikit-learn and
matplotlib, cut into tiles and made grey), noise, gradients and blank images are always asked.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from muralab.serving.config import MAX_ROWS

WARNING = "unlike the training images"
N_IMAGES = 200
"""Images of each folder, evenly spread."""
SIDE = 256
"""Side in px of drawn images and of tiles of photos."""

Grey = npt.NDArray[np.uint8]


def photos() -> Iterator[Grey]:
    """Grey tiles of photos."""
    from matplotlib import cbook
    from sklearn.datasets import load_sample_images

    pictures = [np.asarray(image) for image in load_sample_images().images]
    pictures.append(np.asarray(Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))))
    for picture in pictures:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        for top in range(0, grey.shape[0] - SIDE + 1, SIDE // 2):
            for left in range(0, grey.shape[1] - SIDE + 1, SIDE // 2):
                yield grey[top : top + SIDE, left : left + SIDE]


def noise() -> Iterator[Grey]:
    """Noise of several grains, around several means."""
    rng = np.random.default_rng(0)
    for grain in (1, 4, 16, 64):
        for _ in range(10):
            small = rng.normal(rng.uniform(40, 200), 50, (SIDE // grain, SIDE // grain))
            large = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            yield np.clip(large, 0, 255).astype(np.uint8)


def plain() -> Iterator[Grey]:
    """Gradients and blank images."""
    ramp = np.tile(np.linspace(0, 255, SIDE), (SIDE, 1)).astype(np.uint8)
    yield from (ramp, ramp.T, ramp[:, ::-1], ramp.T[::-1])
    for value in (0, 60, 128, 255):
        yield np.full((SIDE, SIDE), value, dtype=np.uint8)


def files(folder: Path) -> Iterator[bytes]:
    """Some image files of a folder."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".dcm"})
    for place in np.linspace(0, len(found) - 1, min(N_IMAGES, len(found))).astype(int):
        yield found[place].read_bytes()


def png(images: Iterator[Grey]) -> Iterator[bytes]:
    """The images as files."""
    for image in images:
        yield cv2.imencode(".png", image)[1].tobytes()


def warned(model: object, contents: list[bytes]) -> tuple[float, float]:
    """Share of images with the warning, and the median of the distances that the warnings state (0 for the others)."""
    distances = []
    for first in range(0, len(contents), MAX_ROWS):
        rows = pd.DataFrame({"image": contents[first : first + MAX_ROWS]})
        answer = model.predict(rows, params={"policy": "partial"})  # type: ignore[attr-defined]
        for warnings in answer["warnings"]:
            said = [text for text in warnings if text.startswith(WARNING)]
            distances.append(max(map(float, re.findall(r"\d+\.\d", said[0]))) if said else 0.0)
    return float(np.mean(np.array(distances) > 0)), float(np.median(distances))


def main() -> None:
    """Print one row per kind of image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the folder of a registered model")
    parser.add_argument("--own", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--other", nargs="*", default=[], metavar="NAME=FOLDER")
    args = parser.parse_args()
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(args.model).unwrap_python_model()
    kinds: dict[str, list[bytes]] = {}
    for text in [*args.own, *args.other]:
        name, _, folder = text.partition("=")
        kinds[name] = list(files(Path(folder)))
    kinds |= {"photos": list(png(photos())), "noise": list(png(noise())), "gradients, blank": list(png(plain()))}
    print("| images | number | warned about | median distance over the limit |")
    print("|---|---|---|---|")
    for name, contents in kinds.items():
        share, distance = warned(Asked(model), contents)
        print(f"| {name} | {len(contents)} | {share:.1%} | {f'{distance:.1f}' if distance else 'within it'} |")


class Asked:
    """A served model that takes bytes, without MLflow's signature."""

    def __init__(self, model: object) -> None:
        self._model = model

    def predict(self, rows: pd.DataFrame, params: dict[str, object]) -> pd.DataFrame:
        """Answer as the server does."""
        answer = self._model.predict(None, rows, params)  # type: ignore[attr-defined]
        return answer if isinstance(answer, pd.DataFrame) else pd.DataFrame(answer)


if __name__ == "__main__":
    main()
