"""Render a scene in millimetres as an 8-bit synthetic radiograph.

Attenuation adds up along the ray. The exposure is set after everything is drawn, so that neither the brightness nor the
contrast of an image reveals its content.

Shape legend: H height, W width in px.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from muralab.demo.bones import Bone, Points
from muralab.demo.findings import Hole, Scene, Stroke

Layer = NDArray[np.float32]
_SUBPIXEL_BITS = 4


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Position of the scene in the image: the affine matrix [2, 3] maps millimetres to pixels."""

    shape: tuple[int, int]
    matrix: Points
    px_per_mm: float

    def to_pixels(self, points: Points) -> Points:
        """Convert points [n, 2] from mm to pixels."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]


def draw_pose(centre_mm: Points, field_mm: float, rng: np.random.Generator) -> Pose:
    """Draw size, zoom, rotation, mirroring and shift of one view; the longer side shows `field_mm`."""
    longer = int(rng.integers(300, 449))
    ratio = float(rng.uniform(0.68, 1.0))
    zoom = rng.uniform(1.2, 1.45) if rng.random() < 0.12 else rng.uniform(0.82, 1.12)
    quarter_turns = int(rng.choice([0, 1, 2, 3], p=[0.84, 0.06, 0.04, 0.06]))
    shape = (longer, int(longer * ratio)) if quarter_turns % 2 == 0 else (int(longer * ratio), longer)
    angle = rng.normal(0, 14) + 90.0 * quarter_turns
    px_per_mm = longer / (field_mm * zoom)
    radians, flip = np.deg2rad(angle), rng.choice([-1.0, 1.0])
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    linear = px_per_mm * turn @ np.diag([flip, 1.0])
    middle = np.array([shape[1], shape[0]]) * rng.uniform(0.36, 0.64, 2)
    matrix = np.concatenate([linear, (middle - linear @ centre_mm)[:, None]], axis=1)
    return Pose(shape=shape, matrix=matrix, px_per_mm=float(px_per_mm))


def render(scene: Scene, pose: Pose, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Render the radiograph of a scene, uint8 [H, W]."""
    texture = _texture(pose.shape, 1.1, rng) + 0.8 * _texture(pose.shape, 2.6, rng)
    body = _soft_tissue(scene.bones, pose, rng)
    bone = _bone_layer(scene.bones, pose, texture)
    for stroke in scene.sclerosis:
        bone += stroke.strength * _stroke(stroke, pose, blur_mm=0.8) * (bone > 0.2)
    for hole in scene.holes:
        _open_hole(bone, hole, pose, rng)
    attenuation = body + bone
    if rng.random() < 0.3:
        attenuation += _cast(body, pose, rng)
    metal = np.zeros(pose.shape, np.float32)
    for stroke in scene.metal:
        np.maximum(metal, stroke.strength * _stroke(stroke, pose, blur_mm=stroke.blur_mm), out=metal)
    return _expose(attenuation, metal, rng)


def _texture(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> Layer:
    """Smooth noise [H, W] with mean 0 and standard deviation 1."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), sigma)
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _fill(outline: Points, shape: tuple[int, int]) -> NDArray[np.uint8]:
    mask = np.zeros(shape, np.uint8)
    points = np.round(outline * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    return mask


def _soft_tissue(bones: list[Bone], pose: Pose, rng: np.random.Generator) -> Layer:
    """Soft tissue around all bones, thicker in the middle, with streaks of muscle and fat."""
    height, width = pose.shape
    small = (height // 4 + 1, width // 4 + 1)
    mask = np.zeros(small, np.uint8)
    margin = 2 * rng.uniform(4, 14) * pose.px_per_mm / 4
    for bone in bones:
        points = np.round(pose.to_pixels(bone.axis) / 4 * 16).astype(np.int32)
        reach = int(2 * bone.half_width.mean() * pose.px_per_mm / 4 + margin)
        cv2.polylines(mask, [points], False, 255, thickness=max(reach, 1), shift=4)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3) * (4 / pose.px_per_mm)
    thick = np.sqrt(np.clip(depth / rng.uniform(12, 20), 0, 1)).astype(np.float32)
    thick = cv2.GaussianBlur(cv2.resize(thick, (width, height), interpolation=cv2.INTER_LINEAR), (0, 0), 2.0)
    streaks = cv2.resize(_texture((height // 12 + 2, width // 12 + 2), 1.2, rng), (width, height))
    return np.asarray(thick * (rng.uniform(0.4, 0.85) + 0.05 * streaks), dtype=np.float32)


def _bone_layer(bones: list[Bone], pose: Pose, texture: Layer) -> Layer:
    layer = np.zeros(pose.shape, np.float32)
    for bone in bones:
        outline = pose.to_pixels(bone.outline)
        low = np.maximum(np.floor(outline.min(axis=0)).astype(int) - 3, 0)
        high = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 4, np.array(pose.shape[::-1]))
        if np.any(high - low < 3):
            continue
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        mask = _fill(outline - low, (int(high[1] - low[1]), int(high[0] - low[0])))
        depth = cv2.distanceTransform(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 5)
        layer[window] += _shade(depth[1:-1, 1:-1], bone, pose.px_per_mm, texture[window])
    return layer


def _shade(depth_px: Layer, bone: Bone, px_per_mm: float, texture: Layer) -> Layer:
    """Attenuation of a bone by the depth below its edge: a bright cortex around a textured interior."""
    cortex_px = max(bone.cortex_mm * px_per_mm, 1.5)
    edge = np.clip(depth_px / 1.5, 0, 1)
    rim = np.exp(-((depth_px / cortex_px) ** 2))
    inside = 1.0 - rim
    return np.asarray(
        bone.density * edge * (0.5 * rim + inside * (0.5 + 0.055 * texture) + 0.3 * rim), dtype=np.float32
    )


def _stroke(stroke: Stroke, pose: Pose, *, blur_mm: float) -> Layer:
    """Coverage of a line, [H, W] in 0..1."""
    mask = np.zeros(pose.shape, np.uint8)
    points = np.round(pose.to_pixels(stroke.points) * 2**_SUBPIXEL_BITS).astype(np.int32)
    thickness = max(round(stroke.width_mm * pose.px_per_mm), 1)
    cv2.polylines(mask, [points], False, 255, thickness=thickness, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    layer = mask.astype(np.float32) / 255.0
    return cv2.GaussianBlur(layer, (0, 0), blur_mm * pose.px_per_mm) if blur_mm else layer


def _open_hole(bone: Layer, hole: Hole, pose: Pose, rng: np.random.Generator) -> None:
    """Remove bone inside a wavy ellipse and leave a thin dense rim, in place."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    wave = 1 + 0.07 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.05 * np.sin(3 * angle + rng.uniform(0, 6))
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * wave[:, None] * hole.radii_mm
    turn = np.deg2rad(hole.angle_degrees)
    ring = ring @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + hole.centre
    mask = cv2.GaussianBlur(_fill(pose.to_pixels(ring), pose.shape), (0, 0), 1.0).astype(np.float32) / 255.0
    grown = cv2.GaussianBlur(_fill(pose.to_pixels((ring - hole.centre) * 1.16 + hole.centre), pose.shape), (0, 0), 1.0)
    rim = np.clip(grown.astype(np.float32) / 255.0 - mask, 0, 1)
    bone *= 1.0 - 0.92 * mask
    bone += 0.5 * rim * (bone > 0.25)


def _cast(body: Layer, pose: Pose, rng: np.random.Generator) -> Layer:
    """Attenuation of a plaster cast around the limb, with the pattern of its bandage."""
    reach = max(int(rng.uniform(4, 8) * pose.px_per_mm), 3)
    grown = cv2.blur((body > 0.15).astype(np.float32), (2 * reach + 1, 2 * reach + 1))
    weave = cv2.resize(_texture((pose.shape[0] // 5, pose.shape[1] // 5), 1.0, rng), pose.shape[::-1])
    return np.asarray(np.clip(2 * grown, 0, 1) * (rng.uniform(0.15, 0.4) + 0.03 * weave), dtype=np.float32)


def _expose(attenuation: Layer, metal: Layer, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Apply film response and noise; only the limb sets brightness and contrast, so that metal does not darken it."""
    film = 1.0 - np.exp(-rng.uniform(0.6, 1.5) * attenuation)
    film += 0.012 * rng.standard_normal(film.shape, dtype=np.float32) + 0.012 * _texture(film.shape, 0.7, rng)
    seen = film[attenuation > 0.25]
    low, high = np.percentile(seen if seen.size > 99 else film, (2, 96))
    scaled = np.clip((film - low) / max(high - low, 0.05), -1.0, 2.0)
    scaled = np.sign(scaled) * np.abs(scaled) ** rng.uniform(0.75, 1.35)
    grey = rng.uniform(45, 95) + rng.uniform(85, 140) * scaled
    grey += rng.uniform(-25, 25) * np.linspace(-0.5, 0.5, film.shape[1], dtype=np.float32)[None]
    grey = np.where(grey > 195, 195 + 40 * np.tanh((grey - 195) / 40), grey)
    white = rng.uniform(222, 252) + 4 * rng.standard_normal(film.shape, dtype=np.float32)
    cover = np.clip(metal, 0, 1)
    grey = grey + cover * (np.maximum(white, grey) - grey)
    return np.asarray(np.clip(grey, rng.uniform(0, 12), 255), dtype=np.uint8)
