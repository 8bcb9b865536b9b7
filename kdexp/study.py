"""``python -m kdexp.study status NAME``: the former spelling of ``python -m kdexp status NAME``."""

import sys

from kdexp.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["status"]))
