"""``python -m kdexp.check FILE``: the former spelling of ``python -m kdexp vectors FILE``."""

import sys

from kdexp.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["vectors", *sys.argv[1:]]))
