"""`python list.py ...` is `batchq list ...`."""

import sys

from batchq.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "list")
    sys.exit(main())
