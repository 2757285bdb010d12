"""Look at every file before anything is learnt from it: what is broken, doubled, leaking, contradictory or odd.

    audit = audit_images(read_index(root, "wrist"), folder=cache_folder)
    print(audit.summary())

Severities: an `error` makes figures wrong (a picture on both sides of the split), a `warning` costs images or deserves
a look, a `note` is only unusual. The result is kept in the folder under a fingerprint of all files and labels.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from muralab.data.audit.findings import FINDING_COLUMNS, KINDS, Finding, find_all, find_old_release
from muralab.data.audit.near_duplicates import FileFacts, read_facts
from muralab.data.files import fingerprint_files
from muralab.errors import DataError

AUDIT_VERSION = 3
CHUNK = 64
LABEL_COLUMNS = ["image", "label", "patient", "split"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found in a table's files."""

    findings: pd.DataFrame
    """a row a finding: kind (of KINDS), severity, images (tuple of image names), detail"""
    digest: str
    """over all rows (image, label, patient, split) and all bytes, 32 hex characters"""
    digests: dict[str, str]
    """the same of each value of `split` alone"""
    n_images: int
    """rows audited"""
    n_studies: int
    """studies among them"""
    n_patients: int
    """patients among them"""
    forms: dict[str, int]
    """images of each bit depth and colour, such as "8-bit grey" """

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind, zeros included, in the order of KINDS."""
        found = Counter(self.findings["kind"])
        return {kind: found[kind] for kind in KINDS}

    def table(self) -> pd.DataFrame:
        """A row a kind that was found: kind, severity (the worst), findings, images, example (detail of the first)."""
        rows = []
        for kind, group in self.findings.groupby("kind", sort=False):
            worst = next(level for level in ("error", "warning", "note") if level in set(group["severity"]))
            n_images = len({image for images in group["images"] for image in images})
            example = group.loc[group["severity"] == worst, "detail"].iloc[0]
            rows.append((kind, worst, len(group), n_images, example))
        return pd.DataFrame(rows, columns=["kind", "severity", "findings", "images", "example"])

    def warnings(self) -> list[str]:
        """A line a kind of which an error or a warning was found; unreadable files are named elsewhere, one by one."""
        table = self.table()
        serious = table[table["severity"].isin(("error", "warning")) & (table["kind"] != "unreadable")]
        return [
            f"Audit: {row.kind} ({row.severity}), {row.findings} found in {row.images} images; {row.example}."
            for row in serious.itertuples()
        ]

    def paragraph(self) -> str:
        """What was read and how much was found."""
        forms = ", ".join(f"{count:,} {form}" for form, count in self.forms.items())
        levels = Counter(self.findings["severity"])
        counted = [(levels[level], level) for level in ("error", "warning", "note") if levels[level]]
        found = ", ".join(f"{count} {level}{'s' * (count > 1)}" for count, level in counted)
        return (
            f"{self.n_images:,} images of {self.n_studies:,} studies and {self.n_patients:,} patients were read and "
            f"hashed ({forms}). Found: {found or 'nothing to mention'}. Digest {self.digest}."
        )

    def summary(self) -> str:
        """The paragraph, and below it a table of what was found (none if nothing was)."""
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
    table: pd.DataFrame, *, folder: Path, workers: int | None = None, progress: Progress | None = None
) -> Audit:
    """Read, decode and hash every image of a table, or take the result of an earlier look at the same files.

    Args:
        table: rows as `read_index` returns them; `split` may hold any names, for instance the roles of `Splits`.
        folder: where results are kept; made if it is not there.
        workers: threads (decoding and hashing free the interpreter); None takes one per core.
        progress: called with (images done, images in all) while files are read.

    Raises:
        DataError: the table is empty, or the folder cannot be written.
    """
    if table.empty:
        raise DataError("There is no image to audit: the table is empty.")
    table = table.sort_values("image", ignore_index=True)
    labels = hashlib.blake2b(table[LABEL_COLUMNS].to_csv().encode(), digest_size=8).hexdigest()
    release = [finding.detail for finding in find_old_release(table, [])]  # depends on the root's name and its lists
    purpose = f"audit {AUDIT_VERSION} {labels} {release}"
    file = Path(folder).absolute() / f"audit-{fingerprint_files(table, purpose)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        return _from_json(file.read_text(encoding="utf-8"))
    facts = _read_all(table["path"].tolist(), workers or os.cpu_count() or 1, progress)
    audit = Audit(
        findings=_to_frame(find_all(table, facts)),
        digest=_digest(table, facts),
        digests=_digests(table, facts),
        n_images=len(table),
        n_studies=int(table["study"].nunique()),
        n_patients=int(table["patient"].nunique()),
        forms=dict(Counter(fact.form for fact in facts).most_common()),
    )
    _write(audit, file)
    return audit


def _read_all(paths: list[str], workers: int, progress: Progress | None) -> list[FileFacts]:
    """The facts of all files, in their order."""

    def read_chunk(first: int) -> list[FileFacts]:
        return [read_facts(path) for path in paths[first : first + CHUNK]]

    facts: list[FileFacts] = []
    with ThreadPoolExecutor(workers, thread_name_prefix="muralab-audit") as pool:
        try:
            for chunk in pool.map(read_chunk, range(0, len(paths), CHUNK)):
                facts += chunk
                if progress is not None:
                    progress(len(facts), len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return facts


def _digests(table: pd.DataFrame, facts: list[FileFacts]) -> dict[str, str]:
    """Each split's digest."""
    places = {str(split): [*group] for split, group in table.groupby("split", sort=True).indices.items()}
    return {split: _digest(table.iloc[own], [facts[place] for place in own]) for split, own in places.items()}


def _digest(table: pd.DataFrame, facts: list[FileFacts]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    columns = [table[column].astype(str).tolist() for column in LABEL_COLUMNS]
    for row in zip(*columns, (fact.digest for fact in facts)):
        digest.update(("\t".join(row) + "\n").encode())
    return digest.hexdigest()


def _to_frame(findings: list[Finding]) -> pd.DataFrame:
    return pd.DataFrame([asdict(finding) for finding in findings], columns=list(FINDING_COLUMNS))


def _write(audit: Audit, file: Path) -> None:
    """Write the result beside its name and rename it, so that a reader never sees half of it."""
    content = {
        name: getattr(audit, name) for name in ("digest", "digests", "n_images", "n_studies", "n_patients", "forms")
    }
    content["findings"] = audit.findings.to_dict(orient="records")
    temporary = file.with_suffix(f".tmp-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise DataError(f"The audit cannot be written to {file.parent}: {error.strerror or error}.") from error


def _from_json(text: str) -> Audit:
    content = json.loads(text)
    findings = [Finding(**{**row, "images": tuple(row["images"])}) for row in content.pop("findings")]
    return Audit(findings=_to_frame(findings), **content)
