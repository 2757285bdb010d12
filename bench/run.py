"""All benches, one after the other, each in a process of its own, and one table of what they found.

    make bench                       (under 20 minutes on two idle cores)
    make bench-full                  (some hours; more rounds, larger inputs, several seeds)
    python -m bench.run steps input  (some of them)

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

BENCHES = (
    "input",
    "frozen",
    "steps",
    "gpu",
    "sweep",
    "pruning",
    "tracking",
    "starting",
    "intervals",
    "audit",
    "growth",
    "serving",
)
PACKAGES = ("torch", "timm", "mlflow", "ray", "numpy", "albumentations", "opencv-python-headless")


def run_bench(name: str, arguments: Sequence[str]) -> list[Row] | None:
    """The rows of one bench, or None where it failed; its own output passes through."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        command = [sys.executable, "-m", f"bench.{name}", "--json", str(rows), *arguments]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0 and rows.exists():
            return read_rows(rows)
        print(done.stderr[-4000:], file=sys.stderr)
        return None


def describe_machine() -> str:
    """Processor, cores, load, versions and date, a line."""
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
    """Run what was named, print the table, and leave with 1 where a bench failed (a missed target is no failure)."""
    parser = build_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="bench", help=f"of {', '.join(BENCHES)}; none: all")
    parser.add_argument("--markdown", type=Path, help="write the table there as markdown")
    given = parser.parse_args()
    arguments = ["--weights", given.weights, *(["--full"] if given.full else [])]
    unknown = sorted(set(given.names) - set(BENCHES))
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}")
    found: list[Row] = []
    failed: list[str] = []
    machine, started = describe_machine(), time.monotonic()
    for name in given.names or BENCHES:
        began = time.monotonic()
        rows = run_bench(name, arguments)
        found += rows or []
        failed += [name] if rows is None else []
        print(f"{name}: {'failed' if rows is None else 'done'} after {time.monotonic() - began:.0f} s", flush=True)
    summary = f"{machine} All in {(time.monotonic() - started) / 60:.1f} minutes."
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
