"""The interface of a method: from a configuration to the stages of a run.

A method is one file in ``kdexp/methods/`` with one class, named by ``objective.method``; its name is the file's.
What a stage *does* is a function in the same file, ``action(phase)``, named ``file.function`` by its stage.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from kdexp.common.problems import near
from kdexp.common.registry import allowed_packages, build, load, target
from kdexp.config import schema
from kdexp.config.identity import digest
from kdexp.config.schema import Config
from kdexp.models.shared_layers import effective_layers
from kdexp.objectives import layer_maps
from kdexp.store.stage import Stage, order

PACKAGE = "kdexp.methods."


@dataclass(frozen=True)
class Facts:
    """What the keys of stages hold beside the configuration: contents, not names.

    Attributes:
        data: content hash of the task's data.
        origin: identity of the teacher's pretrained weights.
        dtype: what the numbers are computed in (``fp32`` or ``bf16``), decided for this machine.
        of: gives the content hash of the data of another configuration: of a stage that is not the run's task's.
        origin_of: gives the identity of the pretrained weights of another configuration's teacher.
        own: identity of the checkpoint that the student brings; '' = it brings none.
        before: stages that make what the others are given; the teacher's weights come from the last of them.
        further: content hash of training rows that nobody has labelled, beside labelled ones; None = there are none.
    """

    data: str
    origin: str
    dtype: str
    of: Callable[[Config], str] = field(default=lambda config: digest([config.task]), compare=False)
    _: KW_ONLY
    origin_of: Callable[[Config], str] = field(default=lambda config: config.teacher.source, compare=False)
    own: str = ""
    before: tuple[Stage, ...] = ()
    further: str | None = None


class Method(ABC):
    """Lays a run out.

    Class attributes:
        Settings: type of the group ``objective``; a method with keys of its own names a subclass of
            :class:`kdexp.config.schema.Objective` that holds them.
        auto: the mapping that ``mapping=auto`` stands for; None = each objective's own default.
        joins: whoever teaches is asked by :meth:`kdexp.train.phase.Phase.teacher` alone, which joins what two models
            say of an example that each reads in its own tokens.
        unlabelled: its students may learn from rows that the teacher has labelled (``task.unlabelled``).
    """

    Settings: ClassVar[type[schema.Objective]] = schema.Objective
    auto: ClassVar[str | None] = None
    joins: ClassVar[bool] = False
    unlabelled: ClassVar[bool] = False

    def problems(self, config: Config) -> list[str]:
        """Say what would stop this method, as sentences for people; types and bounds have been checked."""
        return []

    def inside(self, config: Config) -> Config | None:
        """Return the configuration of the stages that :meth:`init_stage` gives, where it is not the run's.

        Its problems are said with the run's. None = it is the run's, or too much is wrong to tell.
        """
        return None

    def beside(self, config: Config) -> dict[str, Config]:
        """Return the configurations of stages with other teachers, by the keys of these; their problems are said."""
        return {}

    @abstractmethod
    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return the last stage of a run; its parents are the rest."""

    def init_stage(self, config: Config, facts: Facts, teacher: Stage | None) -> Stage:
        """Return the stage whose encoder a student starts from, for an init that asks for one (``Init.method``).

        Args:
            teacher: the stage of the run's fine-tuned teacher; None = the ordinary one.
        """
        raise NotImplementedError(f"{type(self).__name__} serves no init")


@cache
def method(name: str) -> Method:
    """Return a method by its name (a file in ``kdexp/methods/``), or by the path of a class of an allowed package.

    Raises:
        ValueError: there is none of that name.
    """
    if "." in name:
        chosen = load(name, (PACKAGE,), "objective.method")
        if not (inspect.isclass(chosen) and issubclass(chosen, Method)) or inspect.isabstract(chosen):
            raise ValueError(f"objective.method={name} is no method: name a subclass of kdexp.methods.base.Method.")
        return chosen()
    chosen = _classes().get(name)
    if chosen is None:
        known = sorted(_classes())
        raise ValueError(f"objective.method={name} is unknown; choose one of: {', '.join(known)}.{near(name, known)}")
    return chosen()


@cache
def _classes() -> dict[str, type[Method]]:
    """Return kdexp's own methods by the names of their files; a file without a :class:`Method` is a part of another."""
    classes: dict[str, type[Method]] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(PACKAGE + info.name)
        for member in vars(module).values():
            own = inspect.isclass(member) and issubclass(member, Method) and member.__module__ == module.__name__
            if own and not inspect.isabstract(member):
                classes[info.name] = member
    return classes


def action(name: str) -> Callable[..., Any]:
    """Return what carries a stage out, by its registered name: ``file.function``, or a path of an allowed package.

    Raises:
        ValueError: not allowed, or not there.
    """
    return load(name if name.startswith(allowed_packages()) else PACKAGE + name, (PACKAGE,), "stage.action")


def stages(config: Config, facts: Facts) -> list[Stage]:
    """Return a run's stages in the order of execution, the last one being the student's."""
    return order([*facts.before, method(config.objective.method).plan(config, facts)])


# --- what methods and checks ask of a configuration ------------------------------------------------------------------


def terms(config: Config, phase: str) -> dict[str, dict[str, Any]]:
    """Return the weighted terms of a phase: ``intermediate``, ``prediction`` or ``joint`` (both)."""
    objective = config.objective
    both = {**objective.intermediate, **objective.prediction}
    return {"intermediate": objective.intermediate, "prediction": objective.prediction, "joint": both}[phase]


def listens(config: Config) -> bool:
    """Tell whether a term of a run's objective hears a teacher."""
    return any(target(spec).uses_teacher for spec in terms(config, "joint").values())


def epochs(config: Config, phase: str) -> int:
    """Return how many epochs a phase has, if the recipe counts epochs; a joint one has those of prediction."""
    joint = phase == "joint" or config.objective.schedule == "joint"
    asked = config.objective.epochs.prediction if joint else getattr(config.objective.epochs, phase)
    return config.recipe.epochs if asked is None else asked


def pairs(config: Config, spec: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the matched layers of one term: (student layer, teacher layer), 1-based, 0 = embedding output.

    Raises:
        ValueError: the mapping does not fit the two depths.
    """
    objective = target(spec)
    if objective.layers == "none":
        return []
    chosen = spec.get("mapping") or config.mapping
    chosen = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
    if chosen == {"name": "auto"}:
        chosen["name"] = method(config.objective.method).auto or "auto"
    student, deep = config.student, config.teacher.num_layers
    assert deep is not None  # checks have refused a teacher of unknown depth
    return layer_maps.resolve(
        chosen,
        objective,
        effective_layers(student.num_layers, student.sharing),
        deep,
        build(config.init).layers(student.num_layers, deep),
        own_layers=student.num_layers if student.sharing != "none" else None,
    )
