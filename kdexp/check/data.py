"""What a task's files hold, and whether the teacher can read it: looked at before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from kdexp.config.resolve import source_folder, stated
from kdexp.config.schema import Config, Teacher
from kdexp.models import source
from kdexp.tasks.base import DataContext, Task


def problems(config: Config, task: Task) -> list[str]:
    """Return what is wrong with a task's data on this machine, and with the models' tokenizers.

    That of a model of the hub has been fetched with its description (:mod:`kdexp.check.probes`). Where the hub is not
    asked (``dry=true``), the cache may lack it: then nothing is said of it.
    """
    own = source.own(config)
    found = task.unusable(_context(config, config.teacher))
    return found if own is None else list(dict.fromkeys(found + task.unusable(_context(config, own))))


def _context(config: Config, reader: Teacher) -> DataContext:
    model, options = source.location(reader)
    folder = source_folder(reader.source, reader.commit)
    is_away = folder is None or not any((folder / name).is_file() for name in source.VOCABULARIES)
    if is_away and source_folder(reader.source) is None and (config.dry or config.plan == "show"):
        options = {}
    said = {} if folder is None else stated(folder)
    return DataContext(
        model=model,
        options=options,
        vocab_size=reader.vocab_size,
        positions=source.positions(said),
        max_length=config.recipe.max_length,
        root=config.data.root,
        heldout=config.data.heldout,
        cache=Path(config.runtime.store).expanduser().absolute() / "cache",
        who=reader.who,
        place=reader.place,
    )
