"""How long does the command line take to print its help, and which heavy libraries does it load?

python -m bench.startup          (seconds)
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from bench.common import Options, Row, run, seconds

LIMIT_S = 1.0
HEAVY = ("torch", "pandas", "mlflow", "ray", "matplotlib", "sklearn", "cv2")
LOADED = f"import sys, muralab, muralab.cli; print(*[m for m in {HEAVY!r} if m in sys.modules])"


def measure(options: Options) -> list[Row]:
    """The time of `--help`, and the heavy libraries that are loaded."""
    command = [sys.executable, "-m", "muralab", "--help"]
    times = [
        seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        for _ in range(21 if options.full else 9)
    ]
    loaded = subprocess.run([sys.executable, "-c", LOADED], check=True, capture_output=True, text=True).stdout.split()
    return [
        Row(
            what="startup: python -m muralab --help",
            ours=f"{statistics.median(times):.2f} s",
            theirs=f"limit {LIMIT_S:.0f} s",
            ratio=statistics.median(times) / LIMIT_S,
            spread=(min(times), max(times)),
            at_most=1.0,
        ),
        Row(
            what="startup: heavy libraries that `import muralab` and the command line load",
            ours=", ".join(loaded) or "none",
            theirs=f"none of {', '.join(HEAVY)}",
            ratio=float(len(loaded)),
            at_most=0.0,
        ),
    ]


if __name__ == "__main__":
    run(measure, __doc__)
