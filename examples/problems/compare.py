"""`python compare.py ...` is `batchq compare ...`."""

import sys

from batchq.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "compare")
    sys.exit(main())
