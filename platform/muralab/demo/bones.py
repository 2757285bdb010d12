"""The bones of the synthetic wrist and hand, in millimetres.

Coordinates: x to the side (negative towards the thumb), y along the forearm (negative is distal); the origin is the
radiocarpal joint.

Shape legend: n points of an outline, k samples along an axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
PROJECTIONS = ("frontal", "oblique", "lateral")
_SAMPLES = 48
_SIDE_SCALE = {"frontal": 1.0, "oblique": 0.72, "lateral": 0.3}
# x, y, half length along x, half length along y of each carpal bone [mm]
_CARPALS = {
    "scaphoid": (-11.0, -9.0, 7.0, 9.0),
    "lunate": (2.0, -7.5, 6.5, 7.0),
    "triquetrum": (14.0, -9.5, 6.0, 6.5),
    "pisiform": (17.0, -8.0, 4.0, 4.0),
    "trapezium": (-17.5, -22.0, 7.0, 6.5),
    "trapezoid": (-8.0, -23.5, 5.0, 5.5),
    "capitate": (2.0, -21.5, 6.0, 9.0),
    "hamate": (13.0, -22.5, 6.5, 8.0),
}
# base x, base y, head x, head y [mm]
_METACARPALS = (
    (-22.0, -29.0, -50.0, -60.0),
    (-12.0, -31.0, -22.0, -92.0),
    (0.5, -32.5, -1.5, -94.0),
    (10.0, -31.5, 17.0, -88.0),
    (19.0, -29.0, 34.0, -80.0),
)
_PHALANGES_MM = ((32.0, 24.0), (42.0, 25.0, 18.0), (46.0, 29.0, 19.0), (43.0, 27.0, 19.0), (34.0, 20.0, 17.0))


@dataclass(frozen=True, kw_only=True)
class Bone:
    """One projected bone.

    Attributes:
        name: such as "radius".
        axis: centre line from the distal to the proximal end, [k, 2] mm.
        half_width: half of the width along the axis, [k] mm.
        outline: closed outline, [n, 2] mm.
        cortex_mm: thickness of the bright rim.
        density: attenuation of the interior; 1 for normal bone.
    """

    name: str
    axis: Points
    half_width: Points
    outline: Points
    cortex_mm: float
    density: float = 1.0

    def moved(self, *, angle_degrees: float, about: Points, shift: Points) -> Bone:
        """The bone rotated about a point [2] and then shifted by [2] mm."""
        angle = np.deg2rad(angle_degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

        def move(points: Points) -> Points:
            moved: Points = (points - about) @ turn.T + about + shift
            return moved

        return replace(self, axis=move(self.axis), outline=move(self.outline))


def normals(axis: Points) -> Points:
    """Unit normal at each point of a line [k, 2]."""
    tangent = np.gradient(axis, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    return np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)


def sides(axis: Points, half_width: Points) -> tuple[Points, Points]:
    """The two long edges of a bone around an axis, [k, 2] mm each."""
    offset = normals(axis) * half_width[:, None]
    return axis + offset, axis - offset


def _along(bone: Bone) -> Points:
    """Distance of each point of the axis from the distal end, [k] mm."""
    steps = np.linalg.norm(np.diff(bone.axis, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def point_at(bone: Bone, distance_mm: float) -> int:
    """Index of the point of the axis at a distance from the distal end."""
    return int(np.clip(np.searchsorted(_along(bone), distance_mm), 4, len(bone.axis) - 5))


def resampled(bone: Bone, n_samples: int = 160) -> Bone:
    """The bone with evenly spaced samples along its axis, so that it can be cut at any distance."""
    along = _along(bone)
    at = np.linspace(0, along[-1], n_samples)
    axis = np.stack([np.interp(at, along, bone.axis[:, i]) for i in (0, 1)], axis=1)
    return replace(bone, axis=axis, half_width=np.interp(at, along, bone.half_width))


def _bone(name: str, axis: Points, half_width: Points, cortex_mm: float) -> Bone:
    left, right = sides(axis, half_width)
    outline = np.concatenate([left, right[::-1]])
    return Bone(name=name, axis=axis, half_width=half_width, outline=outline, cortex_mm=cortex_mm)


def _long_bone(
    name: str,
    ends: tuple[float, float, float, float],
    widths: tuple[float, float, float],
    flare_mm: float,
    bow_mm: float,
) -> Bone:
    """Build a tubular bone; `ends`: distal x, y, proximal x, y; `widths`: half widths distal, shaft, proximal [mm]."""
    t = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0.0, 1.0, _SAMPLES))  # denser at the ends, which are round
    distal, proximal = np.array(ends[:2]), np.array(ends[2:])
    length = float(np.linalg.norm(proximal - distal))
    axis = distal + t[:, None] * (proximal - distal)
    axis[:, 0] += bow_mm * np.sin(np.pi * t)
    along = t * length
    half = widths[1] + (widths[0] - widths[1]) * np.exp(-((along / flare_mm) ** 2))
    half += (widths[2] - widths[1]) * np.exp(-(((length - along) / flare_mm) ** 2))
    half *= _cap(along / (0.55 * widths[0])) * _cap((length - along) / (0.55 * widths[2]))
    return _bone(name, axis, half, cortex_mm=0.26 * widths[1])


def _cap(depth: Points) -> Points:
    """Relative width of a rounded end at a depth relative to the length of the rounding."""
    inside = 1.0 - np.clip(depth, 0.0, 1.0)
    width: Points = np.sqrt(np.clip(1.0 - inside**3, 0.0, 1.0))
    return width


def _carpal(name: str, box: tuple[float, float, float, float], rng: np.random.Generator) -> Bone:
    x, y, half_x, half_y = box
    t = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0.0, 1.0, 20))
    axis = np.stack([np.full_like(t, x), y + (2 * t - 1) * half_y], axis=1)
    axis[:, 0] += rng.normal(0, 0.6) * np.sin(np.pi * t)
    half = half_x * np.sqrt(np.clip(1 - np.abs(2 * t - 1) ** 2.4, 0, 1))
    half *= 1 + 0.12 * np.sin(2 * np.pi * (t + rng.random()))
    return _bone(name, axis, half, cortex_mm=1.0)


def build_wrist(rng: np.random.Generator) -> list[Bone]:
    """Build one patient's distal forearm, carpus and metacarpals in the frontal view."""
    slim = rng.normal(1.0, 0.06)
    radius_x, ulna_x = -7.0 + rng.normal(0, 0.8), 17.0 + rng.normal(0, 0.8)
    variance_mm = rng.normal(2.0, 1.5)
    bones = [
        _long_bone(
            "radius", (radius_x, 0.0, radius_x + 2, 150.0), (15.0 * slim, 8.0 * slim, 9.0), 20.0, rng.normal(-4, 1)
        ),
        _long_bone(
            "ulna", (ulna_x, variance_mm, ulna_x - 2, 150.0), (8.5 * slim, 6.5 * slim, 9.0), 14.0, rng.normal(1, 1)
        ),
    ]
    bones += [_carpal(name, box, rng) for name, box in _CARPALS.items()]
    return bones + _metacarpals(rng, slim)


def _metacarpals(rng: np.random.Generator, slim: float) -> list[Bone]:
    made = []
    for number, (base_x, base_y, head_x, head_y) in enumerate(_METACARPALS, start=1):
        ends = (head_x + rng.normal(0, 1), head_y + rng.normal(0, 2), base_x, base_y)
        widths = (7.0 * slim, 4.6 * slim, 7.0 * slim)
        made.append(_long_bone(f"metacarpal{number}", ends, widths, 11.0, rng.normal(0, 0.6)))
    return made


def build_hand(rng: np.random.Generator) -> list[Bone]:
    """Build one patient's hand in the frontal view: the bones of the wrist, and the phalanges."""
    bones = build_wrist(rng)
    spread = float(rng.uniform(0.75, 1.2))
    for number, lengths in enumerate(_PHALANGES_MM, start=1):
        metacarpal = next(bone for bone in bones if bone.name == f"metacarpal{number}")
        head, base = metacarpal.axis[0], metacarpal.axis[-1]
        angle = np.arctan2(*(head - base)) * spread + rng.normal(0, 0.04)
        for level, length in enumerate(lengths, start=1):
            step = np.array([np.sin(angle), np.cos(angle)])
            start, end = head + 1.8 * step, head + (1.8 + length) * step
            shaft = 4.6 - 0.7 * level
            ends = (float(end[0]), float(end[1]), float(start[0]), float(start[1]))
            bones.append(_long_bone(f"phalanx{number}{level}", ends, (1.3 * shaft, shaft, 1.55 * shaft), 7.0, 0.0))
            head = end
    return bones


def project(bones: list[Bone], projection: str) -> list[Bone]:
    """Project bones; in the lateral view they overlap."""
    scale = _SIDE_SCALE[projection]
    if scale == 1.0:
        return bones
    projected = []
    for bone in bones:
        axis = bone.axis * np.array([scale, 1.0])
        half = bone.half_width * (0.78 + 0.22 * scale)
        projected.append(_bone(bone.name, axis, half, bone.cortex_mm))
    return projected
