"""Entry point of `python -m tfsaliency`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
