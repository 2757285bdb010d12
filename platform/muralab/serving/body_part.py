"""Whether a DICOM file says that it shows another body part than the model was trained on.

BodyPartExamined is free in practice: other languages, sides, abbreviations. Only a value that names one known part, and
not the model's, contradicts it; anything else (EXTREMITY, HAND/WRIST, an empty value) says nothing.
"""

from __future__ import annotations

import re

from muralab.data.body_parts import PARTS, read_part

ELSEWHERE = frozenset(
    (
        *("chest", "thorax", "lung", "rib", "ribs", "sternum", "heart", "breast", "abdomen", "pelvis", "becken", "hip"),
        *("femur", "thigh", "knee", "knie", "genou", "patella", "tibia", "fibula", "leg", "ankle", "foot", "fuss"),
        *("pied", "toe", "toes", "calcaneus", "heel", "skull", "schädel", "head", "jaw", "mandible", "orbit", "sinus"),
        *("teeth", "neck", "spine", "cspine", "tspine", "lspine", "tlspine", "sspine", "sacrum", "coccyx"),
    )
)
"""Words of DICOM's defined terms, and some of other languages, for parts that MURA does not have."""


def contradiction(value: str, part: str) -> str:
    """A warning where a file names another part than a model's; empty where it does not. It never quotes the file.

    Args:
        value: BodyPartExamined of a file; empty where it has none.
        part: of the model, such as `wrist`; a model of `all` parts is contradicted only by what MURA lacks.
    """
    if part not in (*PARTS, "all"):
        return ""
    named, _ = read_part(value)
    if named not in PARTS:
        named = "not of the arm" if set(re.findall(r"[^\W\d_]+", named)) & ELSEWHERE else ""
    if not named or named == part or (part == "all" and named in PARTS):
        return ""
    return f"the file names another body part ({named}) than this model's ({part})"
