"""Run all benchmarks, one after the other, each in a process of its own, and print one table of the results.

    make bench                       (under 20 minutes on two idle cores)
    make bench-full                  (several hours; more rounds, larger inputs, several seeds)
    python -m bench.run steps input  (a selection)

`--markdown FILE` writes the table as in docs/benchmarks.md, with the machine, the versions and the date.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.common import Row, build_parser, read_rows, table

BENCHMARKS = (
    "input",
    "frozen",
    "steps",
    "gpu",
    "gpu_steps",
    "sweep",
    "draws",
    "pruning",
    "searchers",
    "tracking",
    "startup",
    "intervals",
    "seeds",
    "audit",
    "growth",
    "manifest",
    "serving",
)
PACKAGES = ("torch", "timm", "mlflow", "ray", "numpy", "albumentations", "opencv-python-headless")


def run_benchmark(name: str, arguments: Sequence[str]) -> list[Row] | None:
    """The rows of one benchmark; None if it failed, after printing its errors."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        command = [sys.executable, "-m", f"bench.{name}", "--json", str(rows), *arguments]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0 and rows.exists():
            return read_rows(rows)
        print(done.stderr[-4000:], file=sys.stderr)
        return None


def describe_machine() -> str:
    """Processor, cores, load, versions and date in one line."""
    model = platform.machine()
    with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    load = os.getloadavg()[1]
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores (load of the last 5 minutes {load:.1f}); "
        f"Python {platform.python_version()}, {versions}; {datetime.date.today().isoformat()}."
    )


def main() -> None:
    """Run the named benchmarks and print the table; exit with 1 if one failed (a missed target is not a failure)."""
    parser = build_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="benchmark", help=f"any of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--markdown", type=Path, help="write the table to this file as Markdown")
    given = parser.parse_args()
    arguments = ["--weights", given.weights, *(["--full"] if given.full else [])]
    unknown = sorted(set(given.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown benchmark: {', '.join(unknown)}; expected {', '.join(BENCHMARKS)}")
    found: list[Row] = []
    failed: list[str] = []
    machine, started = describe_machine(), time.monotonic()
    for name in given.names or BENCHMARKS:
        began = time.monotonic()
        rows = run_benchmark(name, arguments)
        found += rows or []
        failed += [name] if rows is None else []
        print(f"{name}: {'failed' if rows is None else 'done'} after {time.monotonic() - began:.0f} s", flush=True)
    summary = f"{machine} Total {(time.monotonic() - started) / 60:.1f} minutes."
    print(f"\n{summary}\n\n{table(found)}")
    missed = [row.what for row in found if row.met is False]
    print(
        f"\n{sum(row.met is True for row in found)} targets met, {len(missed)} missed{': ' * bool(missed)}"
        f"{'; '.join(missed)}."
    )
    if failed:
        print(f"Failed: {', '.join(failed)}.")
    if given.markdown:
        given.markdown.write_text(f"{summary}\n\n{table(found, markdown=True)}\n", encoding="utf-8")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
