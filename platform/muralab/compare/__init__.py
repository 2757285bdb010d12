"""One architecture against another: every recipe unchanged, several seeds, one budget, one sentence."""

from __future__ import annotations

from muralab.compare.run import run_compare

__all__ = ["run_compare"]
