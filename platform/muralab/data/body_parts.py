"""Body parts as radiographers write them -> the names that MURA uses."""

from __future__ import annotations

import re

_NAMES = {
    "elbow": ("elbow", "olecranon", "ellenbogen", "ellbogen", "coude", "codo", "gomito"),
    "finger": ("finger", "fingers", "thumb", "digit", "daumen", "doigt", "pouce", "pulgar"),
    "forearm": ("forearm", "radius", "ulna", "lowerarm", "unterarm"),
    "hand": ("hand", "hands", "metacarpal", "metacarpus", "mittelhand"),
    "humerus": ("humerus", "upperarm", "arm", "oberarm"),
    "shoulder": ("shoulder", "scapula", "schulter", "épaule", "epaule", "hombro", "spalla"),
    "wrist": ("wrist", "scaphoid", "carpus", "handgelenk", "poignet", "muñeca", "polso"),
}
PARTS = tuple(_NAMES)
"""Of MURA."""
_PART_OF = {word: part for part, words in _NAMES.items() for word in words}
_VAGUE = frozenset(("arm", "radius", "ulna", "digit"))
"""Words that name a part as BodyPartExamined, and too little within a description."""
_SIDES = frozenset(("l", "r", "lt", "rt", "left", "right", "links", "rechts", "li", "re", "bilateral", "both"))
_COMPOUNDS = {"upper arm": "upperarm", "lower arm": "lowerarm", "fore arm": "forearm"}


def read_part(examined: str, *descriptions: str) -> tuple[str, bool]:
    """The body part that a header names.

    Args:
        examined: BodyPartExamined, such as HAND, "UPPER ARM" or "LWRIST".
        descriptions: of protocol, series and study, which are searched in this order if `examined` is empty.

    Returns:
        The part in lower case, MURA's name where there is one, or else `examined` itself; "" if nothing names one. And
        whether it was guessed from a description.

    >>> read_part("LT WRIST")
    ('wrist', False)
    >>> read_part("", "Handgelenk rechts, 2 Ebenen")
    ('wrist', True)
    """
    words = _words(examined)
    if words:
        joined = " ".join(words)
        known = {_PART_OF[word] for word in words if word in _PART_OF}
        return (known.pop() if len(known) == 1 else joined), False
    for description in descriptions:
        known = {_PART_OF[word] for word in _words(description) if word in _PART_OF and word not in _VAGUE}
        if len(known) == 1:
            return known.pop(), True
    return "", False


def _words(text: str) -> list[str]:
    """Words in lower case without those that name a side; also of "LWRIST"."""
    plain = re.sub(r"[\W\d_]+", " ", text.lower()).strip()
    for compound, word in _COMPOUNDS.items():
        plain = plain.replace(compound, word)
    words = [word for word in plain.split() if word not in _SIDES]
    return [word[1:] if word[:1] in ("l", "r") and word[1:] in _PART_OF else word for word in words]
