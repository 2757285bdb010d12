"""Environments of processes that tests start."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(**values: str) -> dict[str, str]:
    """This process's environment, with the checkout on the path and some values."""
    return os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"} | values
