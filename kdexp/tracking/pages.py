"""What MLflow's pages show first of a study: a kind of experiment, and a saved view with its runs by score.

A saved view is MLflow's own (button *Views*, since 3.17): a tag of the experiment that holds, as JSON, what the page
keeps of columns, filter, order and charts. Without it the page shows one folded row, and charts of that row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

from kdexp.common import sqlite

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment: model training, not the GenAI pages."""
VIEW = "kdexp"
"""The saved view's key, in its tag and in an address."""
TAG = f"mlflow.sharedViewState.{VIEW}"
TAG_LENGTH = 5000  # MLflow's limit
NEWEST = 5
"""Studies whose addresses are printed."""
SECTION = "Scores"


def view(varied: Sequence[str], milliseconds: int) -> str:
    """Return the value of :data:`TAG`: a study's runs, best first, with what differs between them.

    Args:
        varied: params that differ between runs; each is a column, and an axis of the parallel coordinates.
        milliseconds: since 1970, when the view was made.
    """
    bars = {**_CHART, "uuid": "score", "type": "BAR", "metricKey": "score", "runsCountToCompare": 20}
    parallel = {
        **_CHART, "uuid": "parallel", "type": "PARALLEL", "selectedParams": [*varied], "selectedMetrics": ["score"],
        "showAllRuns": True,
    }  # fmt: skip
    state = {
        "searchFilter": "tags.`kdexp.kind` = 'run'",
        "orderByKey": "metrics.`score`",
        "orderByAsc": False,
        "selectedColumns": ["metrics.`score`", *(f"params.`{name}`" for name in varied)],
        "compareRunSections": [
            {"uuid": SECTION, "name": SECTION, "display": True, "isReordered": True, "deleted": False,
             "isGenerated": False}
        ],
        "compareRunCharts": [bars, parallel] if varied else [bars],
        "isAccordionReordered": True,
    }  # fmt: skip
    said = {"name": "Runs by score", "createdAt": milliseconds, "updatedAt": milliseconds, "state": json.dumps(state)}
    text = json.dumps(said)
    return text if len(text) <= TAG_LENGTH else view(varied[:-1], milliseconds)


_CHART = {"metricSectionId": SECTION, "deleted": False, "isGenerated": False}


def address(server: str, experiment: str) -> str:
    """Return where a study's view is: its runs by score, as charts.

    Args:
        server: address of MLflow's pages.
        experiment: its id.
    """
    asked = {"workflowType": "machine_learning", "viewStateShareKey": VIEW, "compareRunsMode": "CHART"}
    return f"{server}/#/experiments/{experiment}/runs?{urlencode(asked)}"


def addresses(server: str, store: Path) -> list[tuple[str, str]]:
    """Return (study, address) of the studies in an SQLite store that have a view, the newest first, at most five."""
    query = f"""select e.name, e.experiment_id from experiments e join experiment_tags t using (experiment_id)
        where t.key = ? and e.lifecycle_stage = 'active' order by e.last_update_time desc limit {NEWEST}"""
    with closing(sqlite.read_only(store)) as connection:
        return [(name, address(server, str(number))) for name, number in connection.execute(query, (TAG,))]
