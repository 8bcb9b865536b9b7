"""Data sets of the Hugging Face hub: fetched once into the cache as parquet, read from there ever after."""

from __future__ import annotations

import glob
import os
import tempfile
from pathlib import Path

from kdexp.common import network
from kdexp.common.redact import without_secrets


def switched_off() -> str | None:
    """The environment setting that forbids the hub's data (such as ``HF_HUB_OFFLINE=1``), or None."""
    return network.switched_off("HF_DATASETS_OFFLINE")


def in_library_cache(dataset: str, config: str | None, revision: str | None) -> bool:
    """Whether the library ``datasets`` has prepared this set before (it then loads without a network).

    Args:
        revision: a commit, which must be the prepared one; None = any.
    """
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    base = Path(os.environ.get("HF_DATASETS_CACHE") or Path(home) / "datasets")
    prepared = base / dataset.replace("/", "___") / (config or "default")
    return prepared.is_dir() if revision is None else any(prepared.glob(f"*/{glob.escape(revision)}"))


def fetched(cache: Path | None, dataset: str, config: str | None, commit: str | None) -> bool:
    """Whether a commit of a data set was fetched before: it is then read without a network."""
    return commit is not None and (place(cache, dataset, config, commit) / "complete").is_file()


def commit(cache: Path, dataset: str, config: str | None, revision: str | None, ask: bool) -> str | None:
    """Return which commit of a data set is read; None if that is not known and nobody may be asked.

    Raises:
        ValueError: it cannot be had, in a sentence.
    """
    if not network.nameable(dataset):
        raise ValueError(f"task.hub={dataset}: data sets of the hub are called OWNER/NAME (such as nyu-mll/glue)")
    if revision is not None and not network.proper(revision):
        raise ValueError(f"task.hub_revision={revision}: no branch, tag or commit is called so")
    known, off = network.remembered("dataset", dataset, revision).commit, switched_off()
    kept = known is not None and (fetched(cache, dataset, config, known) or in_library_cache(dataset, config, known))
    label = f"task.hub={dataset}" + (f" (revision {revision})" if revision else "")
    remedy = "or give the files with KDEXP_DATA or data.root=..."
    if not ask or (kept and (off or network.is_commit(revision))):
        return known
    if off:
        begin = f"{label} is not in the local cache and the hub is switched off ({off})"
        raise ValueError(f"{begin}: unset {off.partition('=')[0]}, {remedy}")
    answer = network.ask("dataset", dataset, revision, "README.md")
    if answer.commit is None:
        rest = f" (the local cache has commit {known}: HF_HUB_OFFLINE=1 uses that)" if kept and answer.absent else ""
        raise ValueError(f"{label}: {answer.trouble}, {remedy}{rest}")
    return answer.commit


def default_cache() -> Path:
    """Where downloads go when no cache folder is given."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdexp"


def place(cache: Path | None, dataset: str, config: str | None, revision: str | None) -> Path:
    """Folder of a fetched data set."""
    parts = [p.replace("/", "--") for p in (dataset, config or "default", revision or "main")]
    return Path(cache or default_cache()) / "hub" / "__".join(parts)


def fetch(
    cache: Path | None,
    dataset: str,
    config: str | None,
    revision: str | None,
    splits: dict[str, str],
    optional: list[str],
) -> dict[str, Path]:
    """Return a parquet file a split, downloading what is not there; one process downloads, others wait.

    Args:
        cache: folder, or None for :func:`default_cache`.
        dataset: hub id.
        config: its configuration, or None.
        revision: commit or tag, or None for the newest.
        splits: our split name -> the hub's.
        optional: our names of splits that may be missing.

    Raises:
        ValueError: the hub cannot be reached, or it has no such data set or split.
    """
    from filelock import FileLock

    folder = place(cache, dataset, config, revision)
    paths = {ours: folder / f"{theirs}.parquet" for ours, theirs in splits.items()}
    if not (folder / "complete").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "complete").is_file():
                _download(folder, dataset, config, revision)
    absent = [splits[ours] for ours, path in paths.items() if ours not in optional and not path.is_file()]
    if absent:
        have = ", ".join(sorted(p.stem for p in folder.glob("*.parquet")))
        raise ValueError(f"task.hub={dataset} has no split {', '.join(absent)}; it has {have}: change task.hub_splits")
    return {ours: path for ours, path in paths.items() if path.is_file()}


def _download(folder: Path, dataset: str, config: str | None, revision: str | None) -> None:
    """Write a parquet file a split into ``folder``; what the library prepares on the way goes again."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".preparing-", ignore_cleanup_errors=True) as aside:
        try:
            from datasets import load_dataset

            prepared = None if in_library_cache(dataset, config, revision) else aside
            # What comes of the hub lies in its cache, what is made of it in the folder of what is prepared.
            places = (folder, network.repository("dataset", dataset))
            splits = network.while_it_grows(
                lambda: load_dataset(dataset, config, revision=revision, cache_dir=prepared),
                lambda: [network.size(place) for place in places],
            )
        except ImportError as error:
            raise ValueError(f"task.hub={dataset} needs the package datasets: pip install datasets") from error
        except Exception as error:  # many kinds, of several libraries
            said = without_secrets(" ".join(str(error).split()))[:300].rstrip(".")
            raise ValueError(
                f"task.hub={dataset} ({config or 'default'}) cannot be loaded from the hub: "
                f"{type(error).__name__}: {said}. Check the name and the network, or give the files "
                "with KDEXP_DATA or data.root=...; the same command tries again."
            ) from error
        for name, split in splits.items():
            split.to_parquet(f"{aside}/{name}.parquet")
            os.replace(f"{aside}/{name}.parquet", folder / f"{name}.parquet")
    (folder / "complete").touch()
