"""The command line of kdexp with runs that sleep and a small configuration; started by the tests as a process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
REAL = HERE.parents[1] / "conf"


def main() -> int:
    """Run the command line."""
    import hydra
    import stub_spec

    from kdexp.cli import errors
    from kdexp.sweep import plugins

    os.environ["HYDRA_FULL_ERROR"] = "1"
    stub_spec.take_over()
    plugins.register()
    from kdexp.launch.local import Local

    if "STUB_PRELOAD" not in os.environ:
        Local.preload = ()
    sys.argv += ["--config-dir", str(REAL)]
    try:
        hydra.main(version_base="1.3", config_path=str(HERE / "conf"), config_name="config")(lambda cfg: None)()
    except BaseException as error:
        return errors.report(error, sys.argv[1:], str(HERE / "conf"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
