"""How far does it scale: nodes, trials, a store that is far away, images?

    python -m bench.scale            (about ten minutes on two cores; --full: two hours)

The rows of `bench.many_nodes`, `bench.many_trials` and `bench.many_images`, one after the other.
"""

from __future__ import annotations

from bench import many_images, many_nodes, many_trials
from bench.common import Options, Row, run


def measure(options: Options) -> list[Row]:
    """Measure all of it."""
    return [row for part in (many_nodes, many_trials, many_images) for row in part.measure(options)]


if __name__ == "__main__":
    run(measure, __doc__)
