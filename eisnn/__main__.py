"""`python -m eisnn` is the command `eisnn`."""

import sys

from eisnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
