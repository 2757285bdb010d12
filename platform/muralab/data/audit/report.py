"""Audit every file of a table before anything is trained on it.

    audit = audit_images(read_index(root, "wrist"), folder=cache_folder)
    print(audit.summary())

Severities: an `error` makes figures wrong (an image on both sides of the split), a `warning` costs images or
deserves attention, a `note` is only unusual. Results are stored in the folder under digests of all rows and all files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.audit.facts import FileFacts, collect_facts
from muralab.data.audit.findings import FINDING_COLUMNS, KINDS, OLD_RELEASE, Finding, find_all, find_old_release
from muralab.data.audit.pictures import identify_pictures
from muralab.data.digests import FileDigests
from muralab.data.files import Progress, read_images
from muralab.data.images.value_range import ValueRange, describe_range, smallest_range
from muralab.data.names import NameKey, code_names
from muralab.data.value_ranges import DECIDE, RangeChoice
from muralab.errors import DataError

AUDIT_VERSION = 6
"""Part of the fingerprint; increase it when the checks or the stored content change."""
LABEL_COLUMNS = ["image", "label", "patient", "split"]
MEASURES = ("width", "height", "n_bytes", "brightness", "spread", "burned_in")
"""What is kept of the facts of each file, beside the identity of its picture."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The findings of a table's files."""

    findings: pd.DataFrame
    """one row per finding: kind (of KINDS), severity, images (tuple of image names), detail"""
    digest: str
    """of all rows (image, label, patient, split) and all bytes, 32 hex characters"""
    digests: dict[str, str]
    """the same for each value of `split`"""
    n_images: int
    """rows audited"""
    n_studies: int
    """studies among them"""
    n_patients: int
    """patients among them"""
    forms: dict[str, int]
    """images of each bit depth and colour, such as "8-bit grey" """
    value_range: ValueRange | None
    """stored values that are black and white in images whose files do not say so"""
    n_scaled: int
    """number of these images"""
    pictures: pd.DataFrame
    """one row per image: see `identify_pictures`"""
    measures: pd.DataFrame
    """one row per image: image and `MEASURES` (px, bytes, grey levels); zeros for an unreadable file"""

    @property
    def burned_in(self) -> list[str]:
        """Images whose file says that names may be burned into the pixels."""
        return [str(image) for image in self.measures.loc[self.measures["burned_in"].astype(bool), "image"]]

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind, including zeros, in the order of KINDS."""
        found = Counter(self.findings["kind"])
        return {kind: found[kind] for kind in KINDS}

    def table(self) -> pd.DataFrame:
        """One row per kind found: kind, severity (the worst), findings, images, example (detail of the first)."""
        rows = []
        for kind, group in self.findings.groupby("kind", sort=False):
            worst = next(level for level in ("error", "warning", "note") if level in set(group["severity"]))
            n_images = len({image for images in group["images"] for image in images})
            example = group.loc[group["severity"] == worst, "detail"].iloc[0]
            rows.append((kind, worst, len(group), n_images, example))
        return pd.DataFrame(rows, columns=["kind", "severity", "findings", "images", "example"])

    def warnings(self) -> list[str]:
        """One line per kind with an error or a warning; unreadable files are listed elsewhere, one by one."""
        table = self.table()
        serious = table[table["severity"].isin(("error", "warning")) & (table["kind"] != "unreadable")]
        return [
            f"Audit: {row.kind} ({row.severity}), {row.findings} found in {row.images} images; {row.example}."
            for row in serious.itertuples()
        ]

    def coded(self, key: NameKey | None) -> Audit:
        """The same with codes instead of names; the audit itself without a key."""
        if key is None:
            return self
        images = [tuple(key.code("image", name) for name in names) for names in self.findings["images"]]
        details = [key.hide(row.detail, row.quoted) for row in self.findings.itertuples()]
        findings = self.findings.assign(
            images=pd.Series(images, index=self.findings.index, dtype=object),
            detail=pd.Series(details, index=self.findings.index, dtype=object),
            quoted=pd.Series([()] * len(details), index=self.findings.index, dtype=object),
        )
        pictures, measures = (code_names(table, key) for table in (self.pictures, self.measures))
        return replace(self, findings=findings, pictures=pictures, measures=measures)

    def paragraph(self) -> str:
        """What was read and how much was found."""
        forms = ", ".join(f"{count:,} {form}" for form, count in self.forms.items())
        levels = Counter(self.findings["severity"])
        counted = [(levels[level], level) for level in ("error", "warning", "note") if levels[level]]
        found = ", ".join(f"{count} {level}{'s' * (count > 1)}" for count, level in counted)
        return (
            f"{self.n_images:,} images of {self.n_studies:,} studies and {self.n_patients:,} patients were read and "
            f"hashed ({forms}). {self._values()}Found: {found or 'nothing to mention'}. Digest {self.digest}."
        )

    def _values(self) -> str:
        """The value range, as a sentence; empty where all files say what is white."""
        if self.value_range is None:
            return ""
        return (
            f"{self.n_scaled:,} of them do not say which values are black and white; they are scaled by the range "
            f"of the training images, {describe_range(self.value_range)}. "
        )

    def summary(self) -> str:
        """The paragraph, followed by a table of the findings if there are any."""
        table = self.table()
        if table.empty:
            return self.paragraph()
        lines = [
            f"{row.kind:<22} {row.severity:<8} {row.findings:>6} {row.images:>7}  {row.example}"
            for row in table.itertuples()
        ]
        head = f"{'kind':<22} {'severity':<8} {'number':>6} {'images':>7}  example"
        return "\n".join([self.paragraph(), "", head, *lines])


def audit_images(
    table: pd.DataFrame,
    *,
    folder: Path,
    facts: Mapping[str, FileFacts] | None = None,
    digests: FileDigests | None = None,
    value_range: RangeChoice = DECIDE,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit every image of a table, or return the stored result of the same files and labels.

    Args:
        table: rows as `read_index` returns them; `split` may hold any names, for instance the sets of `Splits`.
        folder: holds the results; created if missing.
        facts: path -> facts of files already decoded; only the others are read.
        digests: of the table's files; None: looked up in the folder.
        value_range: in which the facts were measured; by default that of the rows of `train`, or of all rows if there
            are none.
        workers: threads (decoding and hashing release the interpreter lock); None takes one per core.
        progress: called with (images done, images in total) while files are read.

    Raises:
        DataError: the table is empty, a file exists and cannot be read, or the folder cannot be written.
    """
    if table.empty:
        raise DataError("There is no image to audit: the table is empty.")
    table = table.sort_values("image", ignore_index=True)
    digests = digests or FileDigests(table, folder)
    if next(Path(folder).glob(f"audit-{_rows_key(table, value_range)}-*.json"), None) is not None:
        digests.read(workers=workers, progress=progress)  # much faster than to audit again
    stored = _result_file(table, folder, digests, value_range)
    if stored is not None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return _from_json(stored.read_text(encoding="utf-8"), table)
    known = dict(facts or {})
    unread = [path for path in table["path"] if path not in known]
    first_range = None if value_range == DECIDE else value_range
    consumers = [collect_facts(known), digests.collect]
    read_images(unread, consumers, value_range=first_range, workers=workers, progress=progress)
    decided = _own_range(table, known) if value_range == DECIDE else value_range
    if decided != first_range:
        again = [path for path in table["path"] if known[path].stored is not None]
        read_images(again, [collect_facts(known)], value_range=decided, workers=workers, progress=progress)
    digests.supply({path: fact.digest for path, fact in known.items()})
    digests.save()
    audit = _audit(table, [known[path] for path in table["path"]], decided)
    file = _result_file(table, folder, digests, value_range)
    assert file is not None  # all digests are known now
    _write(audit, file)
    return audit


def is_audited(
    table: pd.DataFrame, *, folder: Path, digests: FileDigests | None = None, value_range: RangeChoice = DECIDE
) -> bool:
    """Whether the folder holds the audit of these files and labels, as far as their digests are known."""
    file = _result_file(table, folder, digests or FileDigests(table, folder), value_range)
    return file is not None and file.is_file()


def _result_file(table: pd.DataFrame, folder: Path, digests: FileDigests, value_range: RangeChoice) -> Path | None:
    """Where the audit of a table is stored; None if not all files' digests are known."""
    pictures = digests.key(table)
    if pictures is None:
        return None
    return Path(folder).absolute() / f"audit-{_rows_key(table, value_range)}-{pictures}.json"


def _rows_key(table: pd.DataFrame, value_range: RangeChoice) -> str:
    """Digest of what the audit reads of the rows of a table, in any order, and of the range of values."""
    rows = table.sort_values("image", ignore_index=True)[[*LABEL_COLUMNS, "study"]].to_csv()
    return hashlib.blake2b(f"audit {AUDIT_VERSION} {value_range} {rows}".encode(), digest_size=8).hexdigest()


def _own_range(table: pd.DataFrame, facts: Mapping[str, FileFacts]) -> ValueRange | None:
    """The range of the training rows, or of all rows where none is one."""
    rows = table[table["split"] == "train"] if (table["split"] == "train").any() else table
    return smallest_range(stored for path in rows["path"] if (stored := facts[path].stored) is not None)


def _audit(table: pd.DataFrame, facts: list[FileFacts], value_range: ValueRange | None) -> Audit:
    findings = find_all(table, facts, value_range)
    return Audit(
        findings=_to_frame(findings),
        digest=_digest(table, facts),
        digests=_digests(table, facts),
        n_images=len(table),
        n_studies=int(table["study"].nunique()),
        n_patients=int(table["patient"].nunique()),
        forms=dict(Counter(fact.form for fact in facts).most_common()),
        value_range=value_range,
        n_scaled=sum(fact.stored is not None for fact in facts),
        pictures=identify_pictures(table, facts, findings),
        measures=measure_files(table, facts),
    )


def measure_files(table: pd.DataFrame, facts: Sequence[FileFacts]) -> pd.DataFrame:
    """The `MEASURES` of the files of a table, from their facts in the same order."""
    columns = {name: [getattr(fact, name) for fact in facts] for name in MEASURES}
    return pd.DataFrame({"image": table["image"].to_list(), **columns})


def _digests(table: pd.DataFrame, facts: list[FileFacts]) -> dict[str, str]:
    """The digest of each split."""
    positions = {str(split): [*group] for split, group in table.groupby("split", sort=True).indices.items()}
    return {split: _digest(table.iloc[own], [facts[position] for position in own]) for split, own in positions.items()}


def _digest(table: pd.DataFrame, facts: list[FileFacts]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    columns = [table[column].astype(str).tolist() for column in LABEL_COLUMNS]
    for row in zip(*columns, (fact.digest for fact in facts)):
        digest.update(("\t".join(row) + "\n").encode())
    return digest.hexdigest()


def _to_frame(findings: list[Finding]) -> pd.DataFrame:
    return pd.DataFrame([asdict(finding) for finding in findings], columns=list(FINDING_COLUMNS))


def _write(audit: Audit, file: Path) -> None:
    plain = ("digest", "digests", "n_images", "n_studies", "n_patients", "forms", "value_range", "n_scaled")
    content = {name: getattr(audit, name) for name in plain}
    content["findings"] = audit.findings[audit.findings["kind"] != OLD_RELEASE].to_dict(orient="records")
    content["pictures"] = audit.pictures.to_dict(orient="list")
    content["measures"] = audit.measures.to_dict(orient="list")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as path:
            path.write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise DataError(f"The audit cannot be written to {file.parent}: {error.strerror or error}.") from error


def _from_json(text: str, table: pd.DataFrame) -> Audit:
    """A stored audit, with the finding that depends on where the tree is now instead of on its files."""
    content = json.loads(text)
    findings = [_to_finding(row) for row in content.pop("findings")]
    findings += find_old_release(table, [])
    pictures = pd.DataFrame(content.pop("pictures"), dtype=str)
    measures = pd.DataFrame(content.pop("measures"))
    ends = content.pop("value_range")
    value_range = None if ends is None else (int(ends[0]), int(ends[1]))
    return Audit(findings=_to_frame(findings), pictures=pictures, measures=measures, value_range=value_range, **content)


def _to_finding(row: Mapping[str, Any]) -> Finding:
    """A finding from JSON, which has lists for tuples."""
    return Finding(**{**row, "images": tuple(row["images"]), "quoted": tuple(map(tuple, row["quoted"]))})
