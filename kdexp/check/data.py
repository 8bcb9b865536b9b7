"""What a task's files hold, and whether a local teacher can read it: looked at before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from kdexp.config.resolve import source_folder, stated
from kdexp.config.schema import Config
from kdexp.models import source
from kdexp.tasks.base import DataContext, Task


def problems(config: Config, task: Task) -> list[str]:
    """Return what is wrong with a task's data on this machine, and with a local teacher's tokenizer."""
    teacher = config.teacher
    model, options = source.location(teacher)
    folder = source_folder(teacher.source)
    if folder is None:  # of the hub: its tokenizer is looked at when it has been fetched
        options = {}
    said = {} if folder is None else stated(folder)
    context = DataContext(
        model=model,
        options=options,
        vocab_size=teacher.vocab_size,
        positions=source.positions(said),
        max_length=config.recipe.max_length,
        root=config.data.root,
        heldout=config.data.heldout,
        cache=Path(config.runtime.store).expanduser().absolute() / "cache",
    )
    return task.unusable(context)
