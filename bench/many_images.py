"""What would a million images need: index, split by patient, audit, cache, an epoch's input, evaluation?

    python -m bench.many_images      (about two minutes on two cores; --full: up to 200,000 images)

The jobs of `bench.growth`, once each on small simulated images, every time in a new process. Time is CPU
time, extrapolated with the exponent between the two largest sizes; memory is what a job adds, extrapolated on a line
through them; disk is what it writes. Images are 64 px (a file of about 4 KB): the time to decode real radiographs
is in the rows `audit` and `input` of the other benchmarks.
"""

from __future__ import annotations

from bench.common import Options, Row, run
from bench.growth import JOBS, STEEPEST, Cost, costs, exponent

MILLION = 1_000_000
LARGEST_MIB = 16 * 1024


def million_row(name: str, sizes: list[int], found: list[Cost]) -> Row:
    """Time and memory of a job at a million images."""
    (n_before, n_last), (before, last) = sizes[-2:], found[-2:]
    grows = exponent(sizes[-2:], [before[0], last[0]])
    time_s = last[0] * (MILLION / n_last) ** grows
    memory = last[1] + (MILLION - n_last) * max(0.0, last[1] - before[1]) / (n_last - n_before)
    return Row(
        what=f"scale: {name} of {MILLION:,} images, extrapolated from {n_last:,}: memory",
        ours=f"{memory / 1024:.1f} GiB",
        theirs=f"limit {LARGEST_MIB / 1024:.0f} GiB",
        ratio=memory / LARGEST_MIB,
        at_most=1.0,
        note=f"{time_s:.0f} s of CPU time, exponent {grows:.2f} (linear up to {STEEPEST}); measured "
        + " / ".join(f"{s:.2f} s, {mib:.0f} MiB" for s, mib in found)
        + f" at {' / '.join(f'{n:,}' for n in sizes)}",
    )


def measure(options: Options) -> list[Row]:
    """Measure all jobs at all sizes."""
    sizes = [10_000, 40_000, 100_000, 200_000] if options.full else [2_000, 10_000]
    found = costs(sizes, repeats=1)
    return [million_row(name, sizes, found[name]) for name in JOBS]


if __name__ == "__main__":
    run(measure, __doc__)
