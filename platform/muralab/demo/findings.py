"""Abnormal findings of synthetic studies: fractures, plates with screws, lytic holes, a worn joint.

A `Finding` is drawn once per study; `add_finding` is a deterministic function of it, called for each view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from muralab.demo.bones import Bone, Points, normals, point_at, resampled, sides

KINDS = ("fracture", "plate", "holes", "joint")
KIND_WEIGHTS = (0.34, 0.35, 0.25, 0.06)
_CARPUS = ("scaphoid", "lunate", "triquetrum", "pisiform")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The finding of a study.

    Attributes:
        kind: one of KINDS.
        bone: name of the affected bone.
        seed: of all other properties, the same in all views of the study.
    """

    kind: str
    bone: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """A line [k, 2] mm with a width and a strength: added attenuation for dense bone, coverage (0 to 1) for metal.

    Objects far from the film are blurred.
    """

    points: Points
    width_mm: float
    strength: float
    blur_mm: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A lytic hole: centre [2] and radii [2] in mm, and its rotation."""

    centre: Points
    radii_mm: Points
    angle_degrees: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that a view shows, in millimetres."""

    bones: list[Bone]
    holes: list[Hole] = field(default_factory=list)
    sclerosis: list[Stroke] = field(default_factory=list)
    metal: list[Stroke] = field(default_factory=list)


def draw_finding(part: str, kind: str, rng: np.random.Generator) -> Finding:
    """Draw the bone and the seed of a finding, for a part ("wrist" or "hand")."""
    if part == "hand":
        bone = str(rng.choice([f"metacarpal{n}" for n in range(2, 6)] + ["phalanx21", "phalanx31", "phalanx41"]))
    else:
        bone = "ulna" if kind == "holes" and rng.random() < 0.2 else "radius"
    return Finding(kind=kind, bone=bone, seed=int(rng.integers(2**31)))


def add_finding(scene: Scene, finding: Finding, projection: str) -> Scene:
    """The scene with the finding added, as seen in a projection."""
    rng = np.random.default_rng(finding.seed)
    return _ADDERS[finding.kind](scene, finding.bone, projection, rng)


def _find(scene: Scene, name: str) -> Bone:
    return next(bone for bone in scene.bones if bone.name == name)


def _place(bone: Bone, low: float, high: float, rng: np.random.Generator) -> float:
    """Draw a distance from the distal end [mm]; low and high are those of the radius and scale with the bone."""
    length = float(np.linalg.norm(bone.axis[-1] - bone.axis[0]))
    return float(rng.uniform(low, high) * min(length / 90.0, 1.0))


def _is_carried(name: str, by: str) -> bool:
    """Whether a bone moves with the distal fragment of another."""
    if by in ("radius", "ulna"):
        return name not in ("radius", "ulna")
    ray, level = (by[-1], 0) if by.startswith("metacarpal") else (by[-2], int(by[-1]))
    return name.startswith(f"phalanx{ray}") and int(name[-1]) > level


def _cut(bone: Bone, index: int, skew: int, rng: np.random.Generator) -> tuple[Bone, Bone]:
    """Cut a bone obliquely, with a jagged edge, into its distal and proximal fragments."""
    left, right = sides(bone.axis, bone.half_width)
    a, b = index + skew, index - skew
    weights = np.linspace(0, 1, 7)[1:-1, None]
    line = left[a] + weights * (right[b] - left[a])
    line[:, 1] += rng.normal(0, 0.14 * bone.half_width[index], len(line))
    distal = np.concatenate([left[:a], line, right[:b][::-1]])
    proximal = np.concatenate([left[a:], right[b:][::-1], line[::-1]])
    return (
        replace(bone, axis=bone.axis[:index], half_width=bone.half_width[:index], outline=distal),
        replace(bone, axis=bone.axis[index:], half_width=bone.half_width[index:], outline=proximal),
    )


def _add_fracture(scene: Scene, name: str, projection: str, rng: np.random.Generator) -> Scene:
    """A displaced fracture: a lucent gap, a step in the cortex, an angle; distal bones move with the fragment."""
    bone = resampled(_find(scene, name))
    index = point_at(bone, _place(bone, 20, 38, rng))
    distal, proximal = _cut(bone, index, int(rng.integers(-6, 7)), rng)
    width = 2 * float(bone.half_width[index])
    side = rng.choice([-1.0, 1.0])
    seen = {"frontal": 1.0, "oblique": 1.0, "lateral": 1.25}[projection]
    angle = side * rng.uniform(8, 20) * seen
    shift = np.array([side * rng.uniform(0.3, 0.6) * width * seen, -max(rng.uniform(0.18, 0.3) * width, 2.5)])
    about = bone.axis[index]
    bones = [proximal]
    for other in scene.bones:
        if other.name == name:
            bones.append(distal.moved(angle_degrees=angle, about=about, shift=shift))
        elif _is_carried(other.name, name):
            bones.append(other.moved(angle_degrees=angle, about=about, shift=shift))
        elif name == "radius" and other.name == "ulna" and rng.random() < 0.5:
            bones += _broken_ulna(other, angle, rng)
        else:
            bones.append(other)
    bones += _chips(bone, index, shift, rng)
    return replace(
        scene, bones=[other.moved(angle_degrees=-0.5 * angle, about=about, shift=-0.5 * shift) for other in bones]
    )


def _broken_ulna(bone: Bone, angle: float, rng: np.random.Generator) -> list[Bone]:
    bone = resampled(bone)
    index = point_at(bone, rng.uniform(12, 34))
    distal, proximal = _cut(bone, index, int(rng.integers(-3, 4)), rng)
    shift = np.array([np.sign(angle) * rng.uniform(2, 6), -rng.uniform(2, 4)])
    return [proximal, distal.moved(angle_degrees=0.8 * angle, about=bone.axis[index], shift=shift)]


def _chips(bone: Bone, index: int, shift: Points, rng: np.random.Generator) -> list[Bone]:
    """Draw small loose fragments around a fracture."""
    half, middle = float(bone.half_width[index]), bone.axis[index] + 0.5 * shift
    chips = []
    for _ in range(int(rng.integers(2, 5))):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 6))
        reach = half * rng.uniform(0.18, 0.42, 6)
        centre = middle + rng.uniform(-1.0, 1.0, 2) * np.array([1.5, 0.7]) * half
        outline = centre + np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
        line = np.stack([outline[0], outline[3]])
        chips.append(
            replace(bone, name="chip", density=1.6, axis=line, half_width=np.full(2, 0.2 * half), outline=outline)
        )
    return chips


def _add_plate(scene: Scene, name: str, projection: str, rng: np.random.Generator) -> Scene:
    """A plate along the shaft, with 6 to 9 threaded screws across the bone."""
    bone = resampled(_find(scene, name))
    length_mm = float(np.linalg.norm(bone.axis[-1] - bone.axis[0]))
    scale = min(length_mm / 90.0, 1.0)
    start, end = point_at(bone, rng.uniform(6, 12) * scale), point_at(bone, rng.uniform(62, 82) * scale)
    normal, half = normals(bone.axis), bone.half_width
    side = float(rng.choice([-1.0, 1.0]))
    offset = side * (1.0 if projection == "lateral" else rng.uniform(0.35, 0.8))
    shaft_mm = float(np.median(half))
    path = bone.axis + normal * offset * np.minimum(half, 1.25 * shaft_mm)[:, None]
    thick_mm = shaft_mm * (0.35 if projection == "lateral" else rng.uniform(0.6, 0.85))
    metal = [Stroke(points=path[start:end], width_mm=thick_mm, strength=1.0)]
    screw_mm = 0.26 * shaft_mm
    for at in np.linspace(start + 3, end - 3, int(rng.integers(8, 12))).astype(int):
        reach = half[at] * rng.uniform(0.8, 1.05)
        tip = bone.axis[at] - side * normal[at] * reach
        metal += _screw(path[at], tip, screw_mm)
    return replace(scene, metal=scene.metal + metal)


def _screw(head: Points, tip: Points, width_mm: float) -> list[Stroke]:
    t = np.linspace(0, 1, max(int(np.linalg.norm(tip - head) / (0.4 * width_mm)), 3))
    across = normals(np.stack([head, tip]))[0]
    thread = head + t[:, None] * (tip - head) + across * (0.3 * width_mm * (-1.0) ** np.arange(len(t)))[:, None]
    cap = np.stack([head - across * 0.6 * width_mm, head + across * 0.6 * width_mm])
    return [
        Stroke(points=thread, width_mm=width_mm, strength=1.0),
        Stroke(points=cap, width_mm=1.5 * width_mm, strength=1.0),
    ]


def _add_holes(scene: Scene, name: str, projection: str, rng: np.random.Generator) -> Scene:
    """Three to five lytic holes with a thin sclerotic rim; the largest span most of the bone's width."""
    bone = resampled(_find(scene, name))
    holes, distance = [], _place(bone, 7, 14, rng)
    for _ in range(int(rng.integers(3, 6))):
        index = point_at(bone, distance)
        half = float(bone.half_width[index])
        radius = half * rng.uniform(0.55, 0.8)
        aside = rng.uniform(-0.25, 0.25) * half * (0.5 if projection == "lateral" else 1.0)
        centre = bone.axis[index] + normals(bone.axis)[index] * aside
        radii = np.array([radius, radius * rng.uniform(0.9, 1.5)])
        holes.append(Hole(centre=centre, radii_mm=radii, angle_degrees=float(rng.uniform(-25, 25))))
        distance += 2.1 * float(radii[1]) + rng.uniform(0, 2)
    return replace(scene, holes=scene.holes + holes)


def _add_worn_joint(scene: Scene, name: str, _projection: str, rng: np.random.Generator) -> Scene:
    """Joint-space loss: the distal bones move onto the bone, both sides are denser, with small cysts below."""
    bone = _find(scene, name)
    sink = np.array([0.0, rng.uniform(2.2, 3.2) * (1.0 if name == "radius" else 0.6)])
    bones = []
    for other in scene.bones:
        if _is_carried(other.name, name):
            other = other.moved(angle_degrees=0.0, about=bone.axis[0], shift=sink)
            if other.name in _CARPUS:
                other = replace(other, density=1.35)
        bones.append(other)
    half = float(bone.half_width.max())
    across = np.linspace(-0.85, 0.85, 9)[:, None] * np.array([half, 0.0])
    thick_mm = 0.3 * half
    dense = [Stroke(points=bone.axis[0] + across + np.array([0.0, 0.6 * thick_mm]), width_mm=thick_mm, strength=0.75)]
    cysts = []
    for _ in range(int(rng.integers(1, 3))):
        centre = bone.axis[0] + np.array([rng.uniform(-0.5, 0.5) * half, rng.uniform(0.55, 0.8) * half])
        cysts.append(Hole(centre=centre, radii_mm=np.array([0.22, 0.2]) * half, angle_degrees=0.0))
    return replace(scene, bones=bones, sclerosis=scene.sclerosis + dense, holes=scene.holes + cysts)


_ADDERS: dict[str, Callable[[Scene, str, str, np.random.Generator], Scene]] = {
    "fracture": _add_fracture,
    "plate": _add_plate,
    "holes": _add_holes,
    "joint": _add_worn_joint,
}
