"""The platform's code that a run is tagged with: its commit, whether it was edited, and how."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from muralab.tracking.platform_version import (
    PACKAGE,
    PlatformVersion,
    describe_commit,
    diff_checkout,
    digest_package,
    find_checkout,
    is_dirty,
    platform_version,
)


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean checkout with a package."""
    package = tmp_path / "checkout" / "platform" / "muralab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1"\n')
    git(tmp_path / "checkout", "init", "--quiet")
    git(tmp_path / "checkout", "add", ".")
    git(tmp_path / "checkout", "commit", "--quiet", "-m", "first")
    return tmp_path / "checkout"


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    found = find_checkout(checkout / "platform" / "muralab")
    assert found is not None
    assert found[0].samefile(checkout)
    assert len(found[1]) == 40
    assert not is_dirty(checkout)


def test_an_edited_file_is_dirty_and_in_the_diff(checkout: Path) -> None:
    (checkout / "platform" / "muralab" / "__init__.py").write_text('__version__ = "2"\n')
    assert is_dirty(checkout)
    assert '-__version__ = "1"\n+__version__ = "2"\n' in diff_checkout(checkout)


def test_a_new_module_is_dirty_and_the_diff_can_be_applied(checkout: Path, tmp_path: Path) -> None:
    new = checkout / "platform" / "muralab" / "new.py"
    new.write_text("x = 1\ny = 2\n")
    assert is_dirty(checkout)
    (tmp_path / "patch").write_text(diff_checkout(checkout))
    new.unlink()
    git(checkout, "apply", str(tmp_path / "patch"))
    assert new.read_text() == "x = 1\ny = 2\n"


def test_results_and_notes_in_the_checkout_are_not_code(checkout: Path) -> None:
    (checkout / "results.csv").write_text("a\n")
    (checkout / "platform" / "notes.txt").write_text("a\n")
    assert not is_dirty(checkout)
    assert diff_checkout(checkout) == ""


def test_a_package_inside_another_project_has_no_commit(checkout: Path) -> None:
    installed = checkout / "site-packages" / "muralab"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert find_checkout(installed) is None


def test_the_digest_covers_names_and_contents_of_python_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1\n")
    first = digest_package(tmp_path)
    (tmp_path / "a.txt").write_text("1\n")
    assert digest_package(tmp_path) == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert digest_package(tmp_path) != first


def test_this_process_names_its_own_code() -> None:
    found = platform_version()
    assert found.code == digest_package(PACKAGE)
    assert found.tags["muralab.platform"].startswith(f"{found.version}+{found.commit[:12]}")


def test_versions_as_text() -> None:
    assert str(PlatformVersion(version="1.2")) == "1.2"
    assert str(PlatformVersion(version="1.2", commit="a" * 40, dirty=True)) == "1.2+aaaaaaaaaaaa.dirty"


def test_an_edited_commit_is_not_described_as_the_commit() -> None:
    tags = {"mlflow.source.git.commit": "abc", "muralab.platform": "1.2+abc"}
    assert describe_commit(tags) == "abc"
    assert describe_commit({**tags, "muralab.platform": "1.2+abc.dirty"}) == "abc with uncommitted changes"
