"""`python -m maqd.cli`."""

import sys

from maqd.cli import main

if __name__ == "__main__":
    sys.exit(main())
