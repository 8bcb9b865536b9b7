"""Composing hundreds of points in seconds, with exactly the result of composing each one by Hydra.

Hydra composes a point in some 90 ms: it reads every file again. Here only the *distinct choices of groups* are
composed: when another choice of one group changes nothing but that group's own part of the configuration (the list of
merged files tells), a point is put together from parts; value overrides are then applied by Hydra's own function, in
their order. A group that writes elsewhere too is composed in full with each combination.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict
from omegaconf.errors import OmegaConfBaseException

from kdexp import choices

Groups = dict  # dict[str, str]: group -> override text


class CompositionError(ValueError):
    """A point cannot be composed; the message is a sentence for people."""


@dataclass(frozen=True)
class Composed:
    """A composed point.

    Attributes:
        config: without its ``hydra`` node, interpolations not yet resolved.
        choices: group -> chosen option, defaults included.
    """

    config: DictConfig
    choices: dict[str, str | None]


@dataclass(frozen=True)
class _Part:
    config: DictConfig
    choices: dict[str, str | None]
    files: Counter[tuple[str, str, bool]]  # (file, package, is the primary's own content)


class _PristineRepository(CachingConfigRepository):
    """Reads each file once and hands out copies (merging changes what it is given)."""

    def load_config(self, config_path: str) -> Any:
        return copy.deepcopy(super().load_config(config_path))


class Composer:
    """Composes points of one sweep.

    Args:
        loader: Hydra's configuration loader.
        master: the sweep's own composed configuration, with its ``hydra`` node.
    """

    def __init__(self, loader: Any, master: DictConfig):
        self._name = master.hydra.job.config_name
        self._hydra = list(master.hydra.overrides.hydra)
        self._parser = OverridesParser.create(config_loader=loader)
        _, repository = loader._parse_overrides_and_create_caching_repo(self._name, self._hydra)
        self._loader = loader
        self._repository = _PristineRepository(repository)
        self._parsed: dict[str, tuple[Any, bool]] = {}
        self._parts: dict[tuple[str, ...], _Part] = {}
        self._places: dict[tuple[str | None, str | None], str | None] = {}
        self._base: Groups | None = None
        self._own = DictConfig({})
        self._swapped: set[str] = set()

    @contextmanager
    def point(self, overrides: Sequence[str]) -> Iterator[Composed]:
        """Compose one point; what is yielded is valid inside the ``with`` block only (the next point reuses it).

        Raises:
            CompositionError: an unknown group, option or key.
        """
        touched: dict[str, Any] = {}
        try:
            groups, others = self._split(overrides)
            config, choices = self._assemble(groups)
            for top in {override.key_or_group.split(".")[0] for override in others}:
                touched[top] = copy.deepcopy(config._get_node(top, validate_access=False))
            ConfigLoaderImpl._apply_overrides_to_config(others, config)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            for top, node in touched.items():
                _put(config, top, node)
            raise CompositionError(sentence(error)) from error
        try:
            yield Composed(config, choices)
        finally:
            for top, node in touched.items():
                _put(config, top, node)

    def _split(self, overrides: Sequence[str]) -> tuple[Groups, list[Any]]:
        groups: Groups = {}
        others = []
        for text in overrides:
            if text not in self._parsed:
                override = self._parser.parse_override(text)
                is_group = self._repository.group_exists(override.key_or_group)
                self._parsed[text] = override, is_group and not isinstance(override.value(), dict)
            override, is_choice = self._parsed[text]
            if is_choice:
                groups[override.get_key_element()] = text
            else:
                others.append(override)
        return groups, others

    def _assemble(self, groups: Groups) -> tuple[DictConfig, dict[str, str | None]]:
        """Return the configuration of a choice of groups: parts of it are swapped in, nothing is copied."""
        if self._base is None:
            self._own = self._part(groups).config.copy()
            self._base = groups
        changed = [k for k in dict.fromkeys([*self._base, *groups]) if self._base.get(k) != groups.get(k)]
        places: dict[str | None, list[str]] = {}
        for key in changed:
            places.setdefault(self._place(key, groups.get(key)), []).append(key)
        if None in places:
            whole = self._part(groups)
            return whole.config, whole.choices
        base = self._part(self._base)
        for place in self._swapped - {p for p in places if p}:
            _put(self._own, place, base.config._get_node(place))
        choices = dict(base.choices)
        for at, keys in places.items():
            place = str(at)
            part = self._part(self._changed(keys, groups))
            _put(self._own, place, part.config._get_node(place))
            for key in keys:
                group = key.lstrip("+~")
                kept = {g: o for g, o in choices.items() if not f"{g}/".startswith(f"{group}/")}
                choices = kept | {g: o for g, o in part.choices.items() if f"{g}/".startswith(f"{group}/")}
        self._swapped = {place for place in places if place is not None}
        return self._own, choices

    def _changed(self, keys: list[str], groups: Groups) -> Groups:
        """Return the base with some groups as in ``groups``, in an order that keeps appended groups in theirs."""
        assert self._base is not None
        out = {k: t for k, t in self._base.items() if k not in keys or k in groups}
        return {**out, **{k: groups[k] for k in keys if k in groups}}

    def _place(self, key: str, text: str | None) -> str | None:
        """Return the one top-level key that a choice changes against the base; None when it changes more."""
        if (key, text) not in self._places:
            assert self._base is not None
            base = self._part(self._base)
            try:
                part = self._part(self._changed([key], {key: text} if text else {}))
            except (HydraException, CompositionError):  # not beside the base's other choices: they change with it
                self._places[key, text] = None
                return None
            other = (base.files - part.files) + (part.files - base.files)
            tops = {package.split(".")[0] for _, package, _ in other} or {key.lstrip("+~").split("/")[0].split("@")[0]}
            self._places[key, text] = tops.pop() if len(tops) == 1 and "" not in tops else None
        return self._places[key, text]

    def _part(self, groups: Groups) -> _Part:
        """Compose a choice of groups in full, once."""
        mark = tuple(groups.values())
        if mark not in self._parts:
            parsed = self._parser.parse_overrides([*self._hydra, *groups.values()])
            listed = create_defaults_list(
                repo=self._repository,
                config_name=self._name,
                overrides_list=parsed,
                prepend_hydra=True,
                skip_missing=False,
            )
            self._refuse_bases(listed.overrides.known_choices | _values(groups))
            defaults = [d for d in listed.defaults if (d.package or "").split(".")[0] != "hydra"]
            config = self._loader._compose_config_from_defaults_list(defaults=defaults, repo=self._repository)
            with open_dict(config):
                config.pop("hydra", None)
            OmegaConf.set_struct(config, True)
            files = Counter((str(d.config_path), d.package or "", bool(d.is_self)) for d in defaults)
            self._parts[mark] = _Part(config, dict(listed.overrides.known_choices), files)
        return self._parts[mark]

    def _refuse_bases(self, chosen: Mapping[str, Any]) -> None:
        for group, value in chosen.items():
            base = choices.base(str(value))
            if base:
                known = self._repository.get_group_options(group.split("@")[0])
                raise CompositionError(choices.missing(f"{group}={value}", base, group, known))


def _values(groups: Groups) -> dict[str, str]:
    """Return what is chosen of each group: the texts of ``groups`` without their keys."""
    parted = (text.partition("=") for text in groups.values())
    return {key.lstrip("+~"): value for key, _, value in parted}


def _put(config: DictConfig, key: str, node: Any) -> None:
    """Set a top-level node as it is, without copying it; None removes the key."""
    with open_dict(config), flag_override(config, "no_deepcopy_set_nodes", True):
        if node is None:
            config.pop(key, None)
        else:
            node._set_parent(None)  # a node of the same tree would be copied
            config._set_item_impl(key, node)


def sentence(error: BaseException) -> str:
    """Return an error of Hydra or OmegaConf as one line."""
    text = str(error).split("Config search path:")[0]  # says where all files are: no help against a misspelt name
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and isinstance(cause, OmegaConfBaseException):
        lines += [line.strip() for line in str(cause).splitlines()[:1]]
    return " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
