"""Which code of the platform this process runs: version, commit, uncommitted changes, a digest of its sources."""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import muralab
from muralab.tracking.tags import Tag

PACKAGE = Path(muralab.__file__).parent
CODE_PATHS = ("platform", "recipes", "MLproject", "pyproject.toml", "requirements.txt", "conda.yaml")
"""Of a checkout: what decides what a command computes."""
MAX_DIFF_CHARACTERS = 5_000_000
COMMIT_CHARACTERS = 12
DIRTY = "dirty"


@dataclass(frozen=True, kw_only=True)
class PlatformVersion:
    """The code of the platform."""

    version: str
    commit: str = ""
    """Of the checkout that tracks this package; empty for an installed package."""
    dirty: bool = False
    """Whether the checkout's code differs from its commit."""
    code: str = ""
    """Digest of the package's Python files, 32 hex characters."""

    def __str__(self) -> str:
        """Such as `0.1.0+3a5f0c1d2e4b.dirty`."""
        local = [self.commit[:COMMIT_CHARACTERS]] if self.commit else []
        local += [DIRTY] if self.dirty else []
        return f"{self.version}+{'.'.join(local)}" if local else self.version

    @property
    def tags(self) -> dict[str, str]:
        """Of every run and model version that this process writes."""
        return {Tag.PLATFORM: str(self), Tag.PLATFORM_CODE: self.code}

    @property
    def commit_tag(self) -> dict[str, str]:
        """MLflow's own tag of the commit; empty without one."""
        return {Tag.GIT_COMMIT: self.commit} if self.commit else {}


@functools.cache
def platform_version() -> PlatformVersion:
    """The code of this process, as it was when this was first called."""
    code = digest_package(PACKAGE)
    found = find_checkout(PACKAGE)
    if found is None:
        return PlatformVersion(version=muralab.__version__, code=code)
    root, commit = found
    return PlatformVersion(version=muralab.__version__, commit=commit, dirty=is_dirty(root), code=code)


@functools.cache
def uncommitted_changes() -> str:
    """The difference between the code of the checkout and its commit, as a patch; empty where there is none."""
    found = find_checkout(PACKAGE) if platform_version().dirty else None
    return "" if found is None else diff_checkout(found[0])


def describe_commit(tags: Mapping[str, str]) -> str:
    """The commit that a run is tagged with, and whether its code was edited; empty without one."""
    commit = tags.get(Tag.GIT_COMMIT, "")
    return f"{commit} with uncommitted changes" if commit and tags.get(Tag.PLATFORM, "").endswith(DIRTY) else commit


def find_checkout(package: Path) -> tuple[Path, str] | None:
    """Root and commit of the checkout that tracks a package; None for one installed inside another project."""
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    lines = (_git(package, "rev-parse", "--show-toplevel", "HEAD") or "").splitlines()
    return (Path(lines[0]), lines[1]) if len(lines) == 2 else None


def is_dirty(root: Path) -> bool:
    """Whether the code of a checkout differs from its commit; new files count if they are Python code."""
    entries = (_git(root, "status", "--porcelain", "-z", "-uall", "--", *CODE_PATHS) or "").split("\0")
    return any(entry and (not entry.startswith("??") or entry.endswith(".py")) for entry in entries)


def diff_checkout(root: Path) -> str:
    """The difference between the code of a checkout and its commit, with new Python files."""
    changed = _git(root, "diff", "HEAD", "--", *CODE_PATHS) or ""
    new = (_git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE_PATHS) or "").split("\0")
    parts = [changed, *(_diff_of_new(root, name) for name in new if name.endswith(".py"))]
    return "".join(parts)[:MAX_DIFF_CHARACTERS]


def _diff_of_new(root: Path, name: str) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = (root / name).read_text(encoding="utf-8").splitlines(keepends=True)
        diff = difflib.unified_diff([], lines, "/dev/null", f"b/{name}")
        return f"diff --git a/{name} b/{name}\nnew file mode 100644\n{''.join(diff)}"
    return ""


def digest_package(package: Path) -> str:
    """Digest of the names and contents of a package's Python files, 32 hex characters."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(package.rglob("*.py")):
        with contextlib.suppress(OSError):
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    with contextlib.suppress(OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    return None
