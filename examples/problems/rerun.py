"""`python rerun.py ...` is `batchq rerun ...`."""

import sys

from batchq.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "rerun")
    sys.exit(main())
