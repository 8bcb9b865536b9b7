"""``python -m kdexp.tracking VERB``: the former spelling of ``python -m kdexp tracking VERB``."""

import sys

from kdexp.cli.tracking import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
