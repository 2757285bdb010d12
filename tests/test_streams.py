"""Nothing that happens to standard output ends a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muralab.streams import SafeStream, secure_streams
from tests.processes import environment

PRINTING = (
    "import sys\nfrom muralab.streams import secure_streams\nsecure_streams()\n"
    "for _ in range(3000):\n    print('AUROC ━━╌╌ 0.9' * 10, flush=True)\n"
    "print('an error', file=sys.stderr)\nopen(sys.argv[1], 'w').write('done')\n"
)


def run(tmp_path: Path, before: str = "", after: str = "", **values: str) -> bool:
    """Whether a process that prints a lot reaches its end with code 0, started with redirections of a shell."""
    script, done = tmp_path / "printing.py", tmp_path / "done"
    script.write_text(PRINTING, encoding="utf-8")
    command = f"{before}{sys.executable} {script} {done} {after}"
    code = subprocess.run(["bash", "-c", command], env=environment(**values), timeout=60, check=False).returncode
    return code == 0 and done.exists()


@pytest.mark.parametrize("after", [">&-", "2>&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full", "| head -1 >/dev/null"])
def test_a_stream_that_cannot_be_written(tmp_path: Path, after: str) -> None:
    assert run(tmp_path, before="set -o pipefail; ", after=after)


def test_a_stream_that_lacks_characters(tmp_path: Path) -> None:
    assert run(tmp_path, after=f"> {tmp_path / 'out'}", PYTHONIOENCODING="ascii")
    assert (tmp_path / "out").read_bytes().startswith(b"AUROC ???? 0.9")


def test_a_file_opened_later_does_not_become_standard_output(tmp_path: Path) -> None:
    code = "import os\nfrom muralab.streams import secure_streams\nsecure_streams()\n"
    code += f"file = open({str(tmp_path / 'x')!r}, 'w'); print('text'); os._exit(file.fileno())"
    done = subprocess.run(["bash", "-c", '"$0" -c "$1" >&- 2>&-', sys.executable, code], env=environment(), timeout=60)
    assert done.returncode > 2


@pytest.mark.parametrize(("columns", "kept"), [("0", False), ("", False), ("-3", False), ("wide", False), ("80", True)])
def test_an_impossible_width_is_ignored(monkeypatch: pytest.MonkeyPatch, columns: str, kept: bool) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setenv("COLUMNS", columns)
    secure_streams()
    assert ("COLUMNS" in os.environ) == kept


def test_other_attributes_are_the_streams_own() -> None:
    stream: Any = SafeStream(sys.__stdout__)  # type: ignore[arg-type]
    assert stream.fileno() == 1
