"""What identifies the picture in a file, whatever the file is called: its bytes, its pixels, near-duplicates, a hash.

These identities are logged with every trained run, so that it can be decided later, without the images, whether a
model has seen a picture, and whether a picture has changed since. None of them shows anything of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from muralab.data.audit.facts import FileFacts
from muralab.data.audit.findings import BLANK_SPREAD, SAME_PICTURE, Finding

PICTURE_COLUMNS = ("file", "pixels", "group", "hash")
"""Of the table of `identify_pictures`, beside `image`; text, empty where unknown."""
DIGEST_CHARACTERS = 16


def identify_pictures(table: pd.DataFrame, facts: Sequence[FileFacts], findings: Sequence[Finding]) -> pd.DataFrame:
    """The identity of every image's picture.

    Args:
        table: one row per image.
        facts: of the same images, in the same order.
        findings: of the audit of this table, which compared all pairs.

    Returns:
        Columns image; file (digest of the bytes; empty for a missing file); pixels (digest of the grey values); group
        (the smallest `pixels` among its near-duplicates and itself, equal for all of them); hash (perceptual, 64 bits;
        empty for a blank image). The last three are empty for an unreadable image.
    """
    images = [str(image) for image in table["image"]]
    pixels = {image: fact.pixels[:DIGEST_CHARACTERS] for image, fact in zip(images, facts)}
    group = dict(pixels)
    for members in _connect([finding.images for finding in findings if finding.kind in SAME_PICTURE]):
        smallest = min(pixels[image] for image in members)
        group |= dict.fromkeys(members, smallest)
    hashes = [f"{fact.hash:016x}" if fact.pixels and fact.spread >= BLANK_SPREAD else "" for fact in facts]
    columns = {
        "image": images,
        "file": [fact.digest[:DIGEST_CHARACTERS] for fact in facts],
        "pixels": pixels.values(),
        "group": [group[image] for image in images],
        "hash": hashes,
    }
    return pd.DataFrame(columns, dtype=str)


def changed_pictures(before: pd.DataFrame, now: pd.DataFrame) -> list[str] | None:
    """The images of one table whose files have other bytes in another.

    Args:
        before: image and file of `identify_pictures`; images that it does not identify are not compared.
        now: the same of the present files, of any images.

    Returns:
        Names, sorted; None if no image that both have is identified, as in tables of earlier versions.
    """
    if "file" not in before:
        return None
    both = before.loc[before["file"] != "", ["image", "file"]].merge(now[["image", "file"]], on="image")
    if both.empty:
        return None
    return sorted(both.loc[both["file_x"] != both["file_y"], "image"])


def _connect(groups: Sequence[Sequence[str]]) -> list[set[str]]:
    """Groups that share a member become one: an exact duplicate of a near-duplicate belongs to both."""
    connected: list[set[str]] = []
    for group in groups:
        touching = [one for one in connected if not one.isdisjoint(group)]
        connected = [one for one in connected if one.isdisjoint(group)]
        connected.append(set(group).union(*touching))
    return connected
