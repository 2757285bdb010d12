"""`python -m muralab`."""

from __future__ import annotations

import sys

try:
    from muralab.cli import main
except ModuleNotFoundError as error:
    if (error.name or "").startswith("muralab"):
        raise
    sys.exit(
        f"muralab: {sys.executable} has no '{error.name}', so it is not the Python of the environment. In a checkout "
        "use .venv/bin/muralab, which every make target writes; elsewhere install requirements.txt."
    )

if __name__ == "__main__":
    main()
