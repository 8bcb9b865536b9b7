"""TED on raw text: continual pretraining through task-aware filters (Liang et al. 2023, arXiv 2210.01351).

The task is the language model's own. Stage I trains filters on layers of the pretrained teacher and of the student,
each with a language head of its own; stage II pretrains the student with the filters of both. No code of this part of
the paper was released: docs/methods.md says what is known of it, and what is chosen here.
"""

from __future__ import annotations

from typing import ClassVar

from kdexp.common.registry import build
from kdexp.config import schema
from kdexp.config.schema import Config
from kdexp.heads.base import LANGUAGE
from kdexp.methods import agnostic, distill, ted
from kdexp.methods.base import Facts, Method
from kdexp.store.stage import Stage
from kdexp.train.question import PRETRAINED

LEARNS = "kdexp.objectives.ted_text.TextFilters"


class Settings(ted.Settings, agnostic.Settings):
    """Group ``objective``."""


class TedText(Method):
    """Filters of the pretrained teacher and of the student, then the student through them, all on raw text."""

    Settings: ClassVar[type[schema.Objective]] = Settings

    def problems(self, config: Config) -> list[str]:
        """See :class:`~kdexp.methods.base.Method`."""
        assert isinstance(config.objective, Settings)
        if build(config.task).head.auto_class not in LANGUAGE:
            return [
                f"objective.method=ted_text learns from raw text, and task={config.task['name']} has labels: use "
                "objective=ted, or task=mlm or clm."
            ]
        wrong, stage = agnostic.doubly_ended(config), config.objective.filters
        if not wrong and agnostic.budget(config) and stage.steps is None and stage.epochs is None:
            wrong.append(
                "objective.budget ends stage II, and nothing says when stage I ends: give objective.filters.steps=..."
            )
        return wrong + ted.unfit(config) + agnostic.unheard(config, config.objective.teacher)

    def plan(self, config: Config, facts: Facts) -> Stage:
        """Return stage II; its parents are the filters of both, and the student's start and an adapted teacher."""
        assert isinstance(config.objective, Settings)
        adapted, config = config.objective.teacher == "adapted", agnostic.adapting(agnostic.plain(config))
        teacher = distill.teacher_stage(config, facts) if adapted else None
        start = distill.start_stage(config, facts, teacher)
        filters = {
            f"{side}_filters": ted.filter_stage(config, facts, side, teacher, start, LEARNS)
            for side in ("teacher", "student")
        }
        return distill.training(
            config, facts, "ted_text.match", "joint", distill.phase_terms(config, "joint"),
            distill.phase_recipe(config, "joint"), teacher, start, action="agnostic.pretrain",
            teaches=None if adapted else PRETRAINED, parents=filters, more=agnostic.budget(config),
        )  # fmt: skip
