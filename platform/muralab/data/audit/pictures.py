"""What identifies the picture in a file, whatever the file is called: its pixels, its near-duplicates, a short hash.

These identities are logged with every trained run, so that it can be decided later, without the images, whether a
model has seen a picture. None of them shows anything of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from muralab.data.audit.facts import FileFacts
from muralab.data.audit.findings import BLANK_SPREAD, SAME_PICTURE, Finding

PICTURE_COLUMNS = ("pixels", "group", "hash")
"""Of the table of `identify_pictures`, beside `image`; text, empty where unknown."""
DIGEST_CHARACTERS = 16


def identify_pictures(table: pd.DataFrame, facts: Sequence[FileFacts], findings: Sequence[Finding]) -> pd.DataFrame:
    """The identity of every image's picture.

    Args:
        table: one row per image.
        facts: of the same images, in the same order.
        findings: of the audit of this table, which compared all pairs.

    Returns:
        Columns image; pixels (digest of the grey values); group (the smallest `pixels` among its near-duplicates and
        itself, equal for all of them); hash (perceptual, 64 bits; empty for a blank image). All are empty for an
        unreadable image.
    """
    images = [str(image) for image in table["image"]]
    pixels = {image: fact.pixels[:DIGEST_CHARACTERS] for image, fact in zip(images, facts)}
    group = dict(pixels)
    for members in _connect([finding.images for finding in findings if finding.kind in SAME_PICTURE]):
        smallest = min(pixels[image] for image in members)
        group |= dict.fromkeys(members, smallest)
    hashes = [f"{fact.hash:016x}" if fact.pixels and fact.spread >= BLANK_SPREAD else "" for fact in facts]
    return pd.DataFrame(
        {"image": images, "pixels": pixels.values(), "group": [group[image] for image in images], "hash": hashes},
        dtype=str,
    )


def _connect(groups: Sequence[Sequence[str]]) -> list[set[str]]:
    """Groups that share a member become one: an exact duplicate of a near-duplicate belongs to both."""
    connected: list[set[str]] = []
    for group in groups:
        touching = [one for one in connected if not one.isdisjoint(group)]
        connected = [one for one in connected if one.isdisjoint(group)]
        connected.append(set(group).union(*touching))
    return connected
