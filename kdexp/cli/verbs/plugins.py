"""``kdexp plugins``: what installed packages bring to kdexp."""

from __future__ import annotations

from kdexp.common import contributed
from kdexp.common.arguments import JSON, Command, print_json


def run(json: bool) -> int:
    """Print each plugin and its choices; 1 if one cannot be used."""
    wrong = contributed.problems()
    if json:
        told = [
            {
                "name": plugin.name,
                "package": plugin.package,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "choices": plugin.choices,
            }
            for plugin in contributed.plugins()
        ]
        print_json({"plugins": told, "problems": wrong})
        return 1 if wrong else 0
    for plugin in contributed.plugins():
        print(f"{plugin.name}: {plugin.package}, of {plugin.distribution} {plugin.version}")
        for group, names in plugin.choices.items():
            print(f"  {group}: {', '.join(names)}")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{len(contributed.plugins())} plugins are installed (entry points {contributed.GROUP})")
    return 1 if wrong else 0


VERB = Command("Installed packages that bring objectives, inits, tasks, methods.", run, {"json": JSON})
