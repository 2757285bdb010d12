"""One view of a synthetic study: the patient's bones, the finding, and confounders that carry no information."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from muralab.demo.bones import PROJECTIONS, Points, build_hand, build_wrist, project
from muralab.demo.findings import Finding, Scene, Stroke, add_finding
from muralab.demo.render import draw_pose, render

# part -> builder, centre of the image [mm], longer side [mm]
_PARTS = {
    "wrist": (build_wrist, np.array([3.0, 12.0]), 110.0),
    "hand": (build_hand, np.array([0.0, -82.0]), 205.0),
}
PARTS = tuple(_PARTS)
_PENUMBRA_MM = 0.3  # blur of metal next to the limb, above the film
# Chosen so that, including plates, normal and abnormal images show equally much metal.
_METAL_CHANCE = {None: 0.52, "plate": 0.0, "fracture": 0.3, "holes": 0.3, "joint": 0.3}


def render_view(
    part: str, *, patient_seed: int, finding: Finding | None, view: int, seed: np.random.SeedSequence
) -> bytes:
    """Render one view as a PNG.

    Args:
        part: "wrist" or "hand".
        patient_seed: of the patient's anatomy.
        finding: what the study shows; None for a normal study.
        view: index of the view, which decides the projection.
        seed: of pose, exposure and confounders of this view.
    """
    rng = np.random.default_rng(seed)
    build, centre, field_mm = _PARTS[part]
    projection = PROJECTIONS[view % len(PROJECTIONS)]
    scene = Scene(bones=project(build(np.random.default_rng(patient_seed)), projection))
    if part == "wrist":
        scene = _bend(scene, rng)
    if finding is not None:
        scene = add_finding(scene, finding, projection)
    chance = _METAL_CHANCE[finding.kind if finding else None]
    scene = replace(scene, metal=scene.metal + _harmless_metal(chance, centre, field_mm, rng))
    pose = draw_pose(centre + rng.uniform(-0.1, 0.1, 2) * field_mm, field_mm, rng)
    grey = _collimate(render(scene, pose, rng), rng)
    _add_marker(grey, rng)
    return _encode(grey, is_rgb=rng.random() < 0.25)


def _bend(scene: Scene, rng: np.random.Generator) -> Scene:
    """Bend a wrist towards the thumb or the little finger, as patients do when positioned."""
    angle, origin = float(rng.normal(0, 12)), np.zeros(2)
    shift = np.array([rng.normal(0, 1.5), 0.0])
    bones = [
        bone if bone.name in ("radius", "ulna") else bone.moved(angle_degrees=angle, about=origin, shift=shift)
        for bone in scene.bones
    ]
    return replace(scene, bones=bones)


def _harmless_metal(chance: float, centre: Points, field_mm: float, rng: np.random.Generator) -> list[Stroke]:
    """Draw metal next to the bones, as large and bright as a plate: a splint, a wire or a chain of rings."""
    if rng.random() >= chance:
        return []
    side = rng.choice([-1.0, 1.0]) * rng.uniform(0.19, 0.3) * field_mm
    middle = centre + np.array([side, rng.uniform(-0.2, 0.3) * field_mm])
    t = np.linspace(-0.5, 0.5, 40)
    length = rng.uniform(0.4, 0.65) * field_mm
    tilt = rng.normal(0, 0.2)
    line = middle + np.stack([t * length * np.sin(tilt), t * length * np.cos(tilt)], axis=1)
    kind = rng.choice(["splint", "wire", "rings"])
    if kind == "splint":
        return [_beside(line, rng.uniform(0.06, 0.09) * field_mm)]
    if kind == "wire":
        line[:, 0] += 0.06 * field_mm * np.sin(rng.uniform(6, 14) * t + rng.uniform(0, 6))
        return [_beside(line, rng.uniform(0.04, 0.06) * field_mm)]
    angle = np.linspace(0, 2 * np.pi, 24)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    radii = rng.uniform(0.04, 0.08, int(rng.integers(3, 6))) * field_mm
    places = line[np.linspace(2, 37, len(radii)).astype(int)]
    return [_beside(place + radius * ring, 0.034 * field_mm) for place, radius in zip(places, radii)]


def _beside(line: Points, width_mm: float) -> Stroke:
    return Stroke(points=line, width_mm=float(width_mm), strength=1.0, blur_mm=_PENUMBRA_MM)


def _collimate(grey: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blacken the area outside the beam, in about half of the images."""
    if rng.random() < 0.45:
        return grey
    height, width = grey.shape
    size = (width * rng.uniform(0.82, 1.0), height * rng.uniform(0.82, 1.0))
    box = cv2.boxPoints(((width / 2, height / 2), size, float(rng.normal(0, 4))))
    mask = np.zeros(grey.shape, np.uint8)
    cv2.fillPoly(mask, [np.round(box).astype(np.int32)], 255)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.2)
    return np.asarray(grey * (mask / 255.0) + rng.uniform(0, 8) * (1 - mask / 255.0), dtype=np.uint8)


def _add_marker(grey: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Write a side marker, L or R, into a corner of most images, in place."""
    if rng.random() < 0.25:
        return
    height, width = grey.shape
    scale = float(rng.uniform(0.8, 1.5))
    x = int(rng.choice([0.05, 0.85]) * width + rng.uniform(0, 0.05) * width)
    y = int(rng.choice([0.12, 0.9]) * height + rng.uniform(0, 0.05) * height)
    letter = str(rng.choice(["L", "R"]))
    cv2.putText(grey, letter, (x, y), cv2.FONT_HERSHEY_DUPLEX, scale, int(rng.integers(215, 256)), 2, cv2.LINE_AA)


def _encode(grey: NDArray[np.uint8], *, is_rgb: bool) -> bytes:
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if is_rgb else grey
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise RuntimeError("OpenCV failed to encode an image as PNG")
    return bytes(data)
