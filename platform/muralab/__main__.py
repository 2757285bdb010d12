"""`python -m muralab`."""

from __future__ import annotations

from muralab.cli import main

if __name__ == "__main__":
    main()
