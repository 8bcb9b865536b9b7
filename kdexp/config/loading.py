"""How Hydra reads and composes configurations here: each file within bounds, each judged (:mod:`.guard`).

A file is judged where Hydra has given its content a place in the configuration, and a composition before Hydra makes an
object of it, also for ``--cfg``, ``--help`` and each point of a grid. Refusals are
:class:`~kdexp.common.problems.ConfigError`: one message, exit code 2, nothing imported, nothing written.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from kdexp.common.problems import ConfigError
from kdexp.common.registry import allowed_packages
from kdexp.config import guard

MOST_BYTES, MOST_DEPTH, MOST_SIZE = 256 * 1024, 32, 1_000_000
"""Bounds of a file: its bytes, its nesting, and its characters and nodes when all aliases are written out."""
MOST_EXPANDED = 2_000_000
"""Bound of what the interpolations of a composition's files can grow to: n of them multiply a text by up to 3^(n/3)."""
OWN_SIZE = 6000
"""Characters of kdexp's own configuration that a file can refer to."""
TAGS = {f"tag:yaml.org,2002:{n}" for n in "str int float bool null map seq merge timestamp value".split()}
UNUSED_RESOLVERS = ("oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.select")


def bounded(path: Path) -> None:
    """Refuse a configuration file whose content cannot be held, before it is read into objects.

    Raises:
        ConfigError: too large, nested too deeply, aliases that multiply, tags for other things than plain values.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ConfigError([f"{path} has {size} bytes: a configuration file has {MOST_BYTES} at most."])
    try:
        _measure(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path} is no YAML: {' '.join(str(error).split())}"]) from None
    except ValueError as error:
        raise ConfigError([f"{path} {error}"]) from None


def _measure(text: str) -> None:
    """Walk through a YAML text, event by event, and stop where it passes a bound."""
    sizes: dict[str | None, int] = {}  # anchor -> size of what it stands for, once that is complete
    open_nodes: list[list[Any]] = [[None, 0]]  # anchor and size of each node around the present place
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if getattr(event, "tag", None) not in (None, "!", *TAGS):
            raise ValueError(f"has the tag {event.tag}: a configuration holds plain values only.")
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1])
            if len(open_nodes) > MOST_DEPTH:
                raise ValueError(f"is nested more than {MOST_DEPTH} deep: write it flatter.")
            continue
        anchor, size = getattr(event, "anchor", None), 0
        if isinstance(event, yaml.AliasEvent):
            anchor, size = None, sizes.get(event.anchor, MOST_SIZE)  # one inside what it stands for has no end
        elif isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
        sizes |= {anchor: size} if anchor else {}
        open_nodes[-1][1] += size
        if open_nodes[-1][1] >= MOST_SIZE:
            raise ValueError(f"would hold more than {MOST_SIZE:,} letters, its aliases written out: use fewer of them.")


def refused_arguments(arguments: Iterable[str]) -> list[str]:
    """Return a sentence for every flag of Hydra that would load a pickle."""
    return [
        f"{argument}: kdexp loads no pickled jobs. The same command continues a run by itself."
        for argument in arguments
        if argument.startswith("--e") and "--experimental-rerun".startswith(argument.partition("=")[0])
    ]


def install(conf: str, sweepers: Iterable[str]) -> None:
    """Have everything that Hydra reads and composes in this process judged. For the program, before ``hydra.main``.

    Args:
        conf: kdexp's own configuration folder, whose files are trusted as its code is.
        sweepers: the names of kdexp's sweepers.
    """
    import hydra._internal.hydra as inside
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.plugins import Plugins
    from omegaconf import DictConfig, OmegaConf

    own = yaml.safe_load((Path(conf) / "config.yaml").read_text(encoding="utf-8"))["hydra"]
    trusted = {f"file://{conf}", "pkg://hydra.conf", "structured://"}
    Plugins.instance()  # registers the readers that are replaced here
    readers, kept = SourcesRegistry.instance().types, dict[str, Any]()

    reader: Any = readers["file"]  # that of choices.hide_bases

    class Files(reader):
        """Reads the files of a folder, each within bounds."""

        def load_config(self, config_path: str) -> Any:
            path = Path(self.path) / self._normalize_file_name(config_path)
            if not path.is_relative_to(self.path) or ".." in Path(config_path).parts:
                raise ConfigError([f"{config_path}: a configuration file is named from its folder on, without '..'."])
            if f"file://{self.path}" in trusted:  # read once a process: a grid composes its choices from the same files
                if config_path not in kept:
                    kept[config_path] = super().load_config(config_path)
                return copy.deepcopy(kept[config_path])
            if path.is_file():
                bounded(path)
            return super().load_config(config_path)

    class Packages(ImportlibResourcesConfigSource):
        """Reads the files of a package, which has to be imported for that."""

        def __init__(self, provider: str, path: str):
            package = path.removeprefix("pkg://").replace("/", ".").rstrip(".")
            if not f"{package}.".startswith(("hydra.conf.", *allowed_packages())):
                raise ConfigError(
                    [f"{path} is not searched: it would be imported. Give a folder, or allow it with KDEXP_TARGETS."]
                )
            super().__init__(provider, path)

    class Loader(ConfigLoaderImpl):
        """Hydra's composition; what it puts together is judged."""

        refused: ConfigError | None = None
        mode: tuple[Any, DictConfig] | None = None  # what was asked to learn the mode, and what was composed for it

        def load_configuration(
            self, config_name: Any, overrides: Any, run_mode: Any, from_shell: Any = True,
            validate_sweep_overrides: Any = True,
        ) -> DictConfig:  # fmt: skip
            if self.refused is not None:
                raise self.refused
            asked = (config_name, list(overrides), run_mode, from_shell)
            held, self.mode = self.mode, None
            if held is not None and held[0] == asked:
                parsed = OverridesParser.create(config_loader=self).parse_overrides(overrides)
                self.validate_sweep_overrides_legal(overrides=parsed, run_mode=run_mode, from_shell=from_shell)
                return held[1]
            try:
                composed = self._judged(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
            except ConfigError as error:
                if not validate_sweep_overrides:  # Hydra looks for the mode, and takes no refusal
                    self.refused = error
                raise
            if not validate_sweep_overrides:  # a grid is composed with the same words right after
                self.mode = asked, composed
            return composed

        def _judged(self, *args: Any, **kwargs: Any) -> DictConfig:
            self.size, self.references = OWN_SIZE, 0
            composed = super().load_configuration(*args, **kwargs)
            hydra: Any = OmegaConf.to_container(composed.hydra, resolve=False)
            problems = guard.composed_problems(hydra, own, sweepers)
            for words in hydra["overrides"].values():
                problems += [problem for word in words for problem in guard.reference_problems(word)]
            if problems:
                raise ConfigError(problems)
            return composed

        def _process_config_searchpath(self, config_name: Any, parsed_overrides: Any, repo: Any) -> None:
            said = any(override.get_key_element() == "hydra.searchpath" for override in parsed_overrides)
            primary = repo.load_config(config_path=config_name) if config_name is not None and not said else None
            path = None if primary is None or primary.path in trusted else "hydra.searchpath"
            if primary is not None and path and OmegaConf.select(primary.config, path) is not None:
                raise ConfigError([f"{config_name}: {path} is for the command line to say."])
            super()._process_config_searchpath(config_name, parsed_overrides, repo)

        def _load_single_config(self, default: Any, repo: Any) -> Any:
            result = super()._load_single_config(default, repo)
            if result.path not in trusted:
                content: Any = OmegaConf.to_container(result.config, resolve=False)
                name = f"{str(result.path).removeprefix('file://')}/{default.config_path}.yaml"
                if not isinstance(content, dict):
                    raise ConfigError([f"{name} holds no settings: a mapping of keys to values is needed."])
                problems = guard.judged(content)
                texts = list(guard.texts(content))
                self.size += sum(map(len, texts)) + 20 * len(texts)
                self.references += sum(text.count("${") for text in texts)
                if self.size * 3 ** min(self.references / 3, 40) > MOST_EXPANDED:
                    problems.append("has too many interpolations for what they may grow to: write values out.")
                if problems:
                    raise ConfigError([f"{name}: {problem}" for problem in problems])
            return result

    readers["file"], readers["pkg"] = Files, Packages
    inside.ConfigLoaderImpl = Loader  # type: ignore[misc]
    for name in UNUSED_RESOLVERS:
        OmegaConf.clear_resolver(name)
    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)


_ABSENT = object()


def _environment(variable: str, default: Any = _ABSENT) -> str | None:
    """As OmegaConf's own resolver, for the variables that a configuration may read.

    Raises:
        ValueError: another variable.
        KeyError: the variable is not set, and there is no default.
    """
    if not guard.readable(variable):
        raise ValueError(guard.unreadable(variable))
    if variable in os.environ:
        return os.environ[variable]
    if default is _ABSENT:
        raise KeyError(f"the environment variable {variable} is not set")
    return None if default is None else str(default)
