"""One run as MLflow shows it, brought up to date from the run's files; every sender ends here.

**No number is ever shown twice**, whenever a sender is killed:

1. A point's timestamp comes from ``metrics.jsonl``, so a repeated point is the same row, and the key of MLflow's SQL
   stores (run, metric, step, timestamp, value) drops it. MLflow 3.17 has no other kind of store by default.
2. The byte position up to which the file was sent travels as the tag ``kdexp.position`` in the same ``log_batch`` as
   the points it counts. That tag (what the store *has*) decides where to go on, not a local note.
3. A resumed run repeats the steps since its checkpoint in the file; of points with the same name and step the first
   is shown.
4. The tag also names the file by its first line: a run that was deleted and started afresh gets a run of its own,
   the old one is marked ``kdexp.kind=superseded``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kdexp.tracking.describe import clean, final_metrics, params_of, tags_of
from kdexp.tracking.files import METRICS, Facts, Point, first_line, first_shown, write_marker
from kdexp.tracking.mlflow_store import public

if TYPE_CHECKING:
    from mlflow.entities import Run

    from kdexp.tracking.mlflow_store import Store

log = logging.getLogger("kdexp.tracking")

STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "running": "RUNNING"}
ARTIFACTS = ("result.json", ".hydra/config.yaml", "run.log")
PREDICTIONS = "predictions"
STATUS_TAG = "kdexp.status"  # "finished" only once all the rest is there
BATCH_METRICS = 900  # MLflow takes 1,000 items a batch
BATCH_PARAMS = 90  # ... of which 100 params


class View:
    """The MLflow run of one run folder; made for one look at the folder, then thrown away.

    Args:
        store: where to show it.
        facts: the run; ``facts.folder`` holds the files that are shown.

    Attributes:
        position: bytes of ``metrics.jsonl`` that the store has.
        sent: points that this object has sent.
    """

    def __init__(self, store: Store, facts: Facts) -> None:
        self.store, self.facts = store, facts
        self.metrics = facts.folder / METRICS
        self.run_id = self.parent_id = ""
        self.position = self.sent = 0
        self._tags: dict[str, str] = {}

    def show(self) -> bool:
        """Bring the store up to date; False when it already had everything.

        Raises:
            Exception: the store's, whatever is wrong with it. What has arrived stays; the next look goes on there.
        """
        self.attach()
        ended = self.facts.state != "running" and self._tags.get("kdexp.closed") != self.facts.stamp
        if ended:
            self.judge()
        self.feed()
        if ended:
            self.finish()
        write_marker(
            self.facts.folder,
            uri=public(self.store.uri),
            experiment=self.facts.study,
            run_id=self.run_id,
            position=self.position,
            stamp=self.facts.stamp,
            state="synced",
            error=None,
        )
        return bool(self.sent or ended)

    def attach(self) -> None:
        """Find or create the MLflow run, send params and tags that it lacks, learn how far it is."""
        facts, folder = self.facts, self.facts.folder
        with self.store.lock(folder.parent):
            experiment, self.parent_id = self.store.study(facts.study, folder.parent)
            run = self._find(experiment) or self._create(experiment)
        self.run_id, self._tags = run.info.run_id, run.data.tags
        self.position = _position(self._tags)[1]
        if facts.state == "running" and run.info.status != "RUNNING":
            self.store.client.update_run(self.run_id, status="RUNNING")
            self._batch(tags={STATUS_TAG: "running"})
        params = {k: v for k, v in params_of(facts.config).items() if k not in run.data.params}
        tags = {k: v for k, v in tags_of(facts).items() if self._tags.get(k) != v and k != STATUS_TAG}
        if params or tags:
            self._batch(params=params, tags=tags)

    def _find(self, experiment: str) -> Run | None:
        """This run's MLflow run; one that was fed from another file of the same name is set aside."""
        run = self.store.find(experiment, "run", self.facts.name)
        if run is None:
            return None
        fed_from, position = _position(run.data.tags)
        size = self.metrics.stat().st_size if self.metrics.exists() else 0
        if fed_from and (fed_from != first_line(self.metrics) or position > size):
            self.store.client.set_tag(run.info.run_id, "kdexp.kind", "superseded")
            return None
        return run

    def _create(self, experiment: str) -> Run:
        tags = {
            "mlflow.parentRunId": self.parent_id,
            "mlflow.source.name": "kdexp",
            "kdexp.kind": "run",
            "kdexp.name": self.facts.name,
            STATUS_TAG: "running",
        }
        start = self.facts.started or round(time.time() * 1000)
        return self.store.client.create_run(experiment, start_time=start, run_name=self.facts.name, tags=tags)

    def feed(self) -> None:
        """Send every complete line of ``metrics.jsonl`` that the store does not have."""
        waiting: list[Point] = []
        end = self.position
        for end, points in first_shown(self.metrics, self.position):
            waiting += points
            if len(waiting) >= BATCH_METRICS // 2:
                self._send(waiting, end)
                waiting = []
        if end > self.position:
            self._send(waiting, end)

    def _send(self, points: list[Point], end: int) -> None:
        tag = {"kdexp.position": f"{first_line(self.metrics)}:{end}"}
        rest = points
        while len(rest) > BATCH_METRICS:  # the position goes with the last part
            self._batch(points=rest[:BATCH_METRICS])
            rest = rest[BATCH_METRICS:]
        self._batch(points=rest, tags=tag)
        self.position = end
        self.sent += len(points)

    def _batch(
        self, points: Iterable[Point] = (), params: dict[str, str] | None = None, tags: dict[str, str] | None = None
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(clean(p.name), p.value, p.milliseconds, p.step) for p in points]
        pairs = [Param(k, v) for k, v in (params or {}).items()]
        while len(pairs) > BATCH_PARAMS:
            self.store.client.log_batch(self.run_id, params=pairs[:BATCH_PARAMS])
            pairs = pairs[BATCH_PARAMS:]
        labels = [RunTag(k, v) for k, v in (tags or {}).items()]
        self.store.client.log_batch(self.run_id, metrics=metrics, params=pairs, tags=labels)

    @property
    def _result(self) -> dict[str, Any]:
        return self.facts.result if self.facts.state == "finished" else {}

    @property
    def _ended(self) -> int:
        return self.facts.ended or round(time.time() * 1000)

    def judge(self) -> None:
        """Final metrics of a run that has ended; first, for MLflow's comparison opens on what came first."""
        finals = final_metrics(self._result).items()
        self._batch(points=[Point(name, value, 0, self._ended) for name, value in finals])

    def finish(self) -> None:
        """Data set, artifacts and status of a run that has ended."""
        facts = self.facts
        self._dataset(self._result.get("task", {}))
        if (facts.config.get("tracking") or {}).get("artifacts", True):
            for path in (facts.folder / name for name in ARTIFACTS):
                if path.exists():
                    self.store.client.log_artifact(self.run_id, str(path))
            for path in sorted((facts.folder / PREDICTIONS).glob("*.safetensors")):
                self.store.client.log_artifact(self.run_id, str(path), PREDICTIONS)
        self.store.client.set_terminated(self.run_id, STATUS.get(facts.state, "FAILED"), end_time=self._ended)
        self._batch(tags={**tags_of(facts), "kdexp.closed": facts.stamp})

    def _dataset(self, task: dict[str, Any]) -> None:
        """Name and content hash of the data; of little weight, so a store that refuses it is only noted."""
        if not task.get("data_hash"):
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.exceptions import MlflowException

        name, digest = self.facts.labels.get("task", "task"), str(task["data_hash"])
        data = Dataset(name, digest[:36], "local", json.dumps({"sha256": digest}), profile=json.dumps(task.get("rows")))
        inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
        try:
            self.store.client.log_inputs(self.run_id, inputs)
        except MlflowException as problem:
            log.info("tracking: the data set of %s was not noted: %s", self.facts.name, problem)


def _position(tags: dict[str, str]) -> tuple[str, int]:
    """``(first line's hash, byte offset)`` that the store has of the run's file."""
    name, _, offset = tags.get("kdexp.position", "").partition(":")
    return name, int(offset) if offset.isdigit() else 0
