"""`python -m pointrend`: the command line, for torchrun and wherever the script is not on the path."""

from __future__ import annotations

import sys

from pointrend.cli import main

if __name__ == "__main__":
    sys.exit(main())
