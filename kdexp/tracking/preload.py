"""Importing this module imports all of MLflow that a run needs, and touches no store.

A process that forks runs (``multiprocessing``'s fork server) preloads it, so that the import, two seconds of one core,
is paid once for a study and not in every run. It starts no thread and opens no connection: safe to fork.
"""

from kdexp.tracking import mlflow_store

mlflow_store.load()

import filelock  # noqa: E402, F401
from mlflow.store.tracking import sqlalchemy_store  # noqa: E402

import kdexp.tracking.view  # noqa: E402, F401

sqlalchemy_store.sqlalchemy.orm.configure_mappers()  # a fifth of a second that each child would pay
