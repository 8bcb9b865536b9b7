"""``python -m kdexp.store VERB``: the former spelling of ``python -m kdexp store VERB``."""

import sys

from kdexp.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["store", *sys.argv[1:]]))
