"""``python -m kdexp.store VERB``: the former spelling of ``python -m kdexp store VERB``."""

import sys

from kdexp.store.store import main

if __name__ == "__main__":
    sys.exit(main())
