"""What pyproject.toml cannot say: a wheel has one package, ``kdexp``, and in it ``analysis`` and ``conf``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class Build(build_py):
    """Copies the two folders into the package; an editable install finds them where they are."""

    def run(self) -> None:
        """Build as ever, then copy."""
        folders = () if self.editable_mode else ("analysis", "conf")
        if folders:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # of an earlier build, with files that are gone
        super().run()
        for name in folders:
            shutil.copytree(name, Path(self.build_lib, "kdexp", name), ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": Build})
