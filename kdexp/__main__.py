"""``python -m kdexp``: see :mod:`kdexp.cli.main`."""

import sys

from kdexp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
