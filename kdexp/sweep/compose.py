"""Composing hundreds of points in seconds, with exactly the result of composing each one by Hydra.

Hydra reads every file again for each point, some 90 ms. Here it composes each *group choice* once, and is asked which
files that takes: where two choices change files of different top-level keys, their combination is put together from
both; where they meet, Hydra composes the combination too. Plain values are laid over the result at the end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from kdexp.config.choices import base, missing
from kdexp.config.resolve import copied

FIXED = re.compile(r"\$\{(oc\.env:[^${}]*|\.\w[\w.]*)\}")
"""Interpolations in a group that no other group can change: of the environment, and of a sibling in the same group."""
Texts = tuple[str, ...]
Choices = dict[str, str | None]


class CompositionError(ValueError):
    """A point cannot be composed; the message is a sentence for people."""


@dataclass(frozen=True)
class Composed:
    """A composed point.

    Attributes:
        config: plain, without the ``hydra`` node; interpolations are resolved. Points share what is alike in them, so
            nobody may change it.
        choices: group -> chosen option, defaults included.
    """

    config: dict[str, Any]
    choices: Choices


@dataclass(frozen=True, eq=False)
class _Whole:
    """What Hydra made of some choices.

    Attributes:
        config: as composed, interpolations as they are written.
        choices: group -> chosen option.
        plain: as data, those top-level keys that depend on no others.
        literal: those of them in which nothing is interpolated.
    """

    config: DictConfig
    choices: Choices
    plain: dict[str, Any]
    literal: frozenset[str]


@dataclass(frozen=True)
class _Layout:
    """Where a combination of choices comes from: top-level key -> composition."""

    parts: dict[str, _Whole]
    choices: Choices


class Composer:
    """Composes points of one sweep.

    Args:
        loader: Hydra's configuration loader.
        master: the sweep's own composed configuration, with its ``hydra`` node.

    Attributes:
        tree: what had to be changed or resolved of the point composed last, interpolations as they are written: all of
            it where one depends on another group. The next point changes it.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig):
        self._loader, self._name = loader, master.hydra.job.config_name
        self._hydra = list(master.hydra.overrides.hydra)
        self._parse = cache(OverridesParser.create(config_loader=loader).parse_override)
        self._is_group = cache(lambda key: bool(loader.get_group_options(key, None, self._name, self._hydra)))
        self._files, self._layout = cache(self._files_of), cache(self._layout_of)
        self._wholes: dict[Texts, _Whole | CompositionError] = {}
        self._bases: dict[Texts, Texts] = {}  # keys of choices -> the first choices of these keys that were composed
        self.tree = DictConfig({}, flags={"struct": True})
        self._held: dict[str, _Whole] = {}  # top-level key -> the composition whose node the tree has there, unchanged

    def compose(self, overrides: Sequence[str]) -> Composed:
        """Compose one point.

        Raises:
            CompositionError: an unknown group, option or key.
        """
        try:
            choices, values = self._split([self._parse(text) for text in overrides])
            layout = self._layout(choices)
            changed = {str(value.key_or_group).partition(".")[0] for value in values}
            if all(top in whole.plain for top, whole in layout.parts.items()):
                config = {top: whole.plain[top] for top, whole in layout.parts.items()}
                config |= {top: copied(config[top]) for top in changed if top in config}
                literal = all(top in layout.parts and top in layout.parts[top].literal for top in changed)
                if literal and all(_laid_over(config, value) for value in values):
                    self._grow({}, set(), set())
                    return Composed(config, dict(layout.choices))
            alone = all(t in w.plain for t, w in layout.parts.items()) and not any(
                "${" in str(v.input_line) for v in values
            )
            parts = {t: whole for t, whole in layout.parts.items() if t in changed} if alone else layout.parts
            self._grow(parts, changed, {str(v.key_or_group) for v in values if not isinstance(v.value(), dict)})
            for value in values:
                _set(self.tree, value)
            config = {}
            for top, whole in layout.parts.items():
                fixed = top in whole.plain and top not in changed
                config[top] = whole.plain[top] if fixed else _resolved(self.tree, top)
        except (HydraException, OmegaConfBaseException) as error:
            raise CompositionError(sentence(error)) from error
        return Composed(config, dict(layout.choices))

    def _split(self, overrides: list[Override]) -> tuple[Texts, list[Override]]:
        """Tell what Hydra shall compose from the values to be laid over it, which Hydra would set last too."""
        values = [o for o in overrides if o.type == OverrideType.CHANGE and not o.package and not self._chooses(o)]
        others = [o for o in overrides if not any(o is value for value in values)]
        # Additions and deletions are Hydra's; beside a value of the same place their order counts.
        if any(_same_place(o, value) for o in others if not self._chooses(o) for value in values):
            others, values = overrides, []
        return tuple(str(o.input_line) for o in others), values

    def _chooses(self, override: Override) -> bool:
        """Tell whether an override chooses an option of a group."""
        return self._is_group(override.key_or_group) and not isinstance(override.value(), dict)

    def _layout_of(self, choices: Texts) -> _Layout:
        parsed = [self._parse(text) for text in choices]
        keys = tuple(override.get_key_element() for override in parsed)
        base = self._bases.get(keys, choices)
        swaps = [n for n, text in enumerate(choices) if text != base[n]]
        layout = None
        if len(swaps) > 1 and all(self._chooses(parsed[n]) for n in swaps):
            layout = self._apart(base, [(*base[:n], choices[n], *base[n + 1 :]) for n in swaps])
        if layout is None:
            whole = self._whole(choices)
            layout = _Layout(dict.fromkeys(map(str, whole.config), whole), whole.choices)
            self._bases.setdefault(keys, choices)
        return layout

    def _apart(self, base: Texts, ways: list[Texts]) -> _Layout | None:
        """Combine single changes of ``base``; None where two of them meet, or one of them is no configuration."""
        try:
            first, wholes = self._whole(base), [self._whole(way) for way in ways]
        except CompositionError:
            return None
        places = [self._places(base, way) for way in ways]
        if any("" in place for place in places) or len(set().union(*places)) < sum(map(len, places)):
            return None
        parts, choices = dict.fromkeys(map(str, first.config), first), dict(first.choices)
        for whole, place in zip(wholes, places, strict=True):
            parts = {top: source for top, source in parts.items() if top not in place or top in whole.config}
            parts |= {str(top): whole for top in whole.config if top in place}
            gone = first.choices.keys() - whole.choices.keys()
            choices = {group: option for group, option in choices.items() if group not in gone}
            choices |= {g: option for g, option in whole.choices.items() if first.choices.get(g) != option}
        return _Layout(parts, choices)

    def _places(self, base: Texts, way: Texts) -> set[str]:
        """Return the top-level keys into which files are merged that only one of two compositions has."""
        before, after = self._files(base), self._files(way)
        return {package.partition(".")[0] for _, package, _ in (before - after) + (after - before)}

    def _files_of(self, choices: Texts) -> Counter[tuple[str, str, bool]]:
        listed = self._loader.compute_defaults_list(self._name, [*self._hydra, *choices], RunMode.RUN)
        return Counter((str(d.config_path), d.package or "", bool(d.is_self)) for d in listed.defaults)

    def _whole(self, choices: Texts) -> _Whole:
        """Return Hydra's composition; what cannot be composed is remembered too, for many points may ask for it."""
        if choices not in self._wholes:
            try:
                self._wholes[choices] = self._by_hydra(choices)
            except (HydraException, OmegaConfBaseException) as error:
                self._wholes[choices] = CompositionError(sentence(error))
        whole = self._wholes[choices]
        if isinstance(whole, CompositionError):
            raise CompositionError(str(whole))
        return whole

    def _by_hydra(self, choices: Texts) -> _Whole:
        composed = self._loader.load_configuration(self._name, [*self._hydra, *choices], RunMode.RUN)
        parsed = [self._parse(text) for text in choices]
        lists = {str(o.key_or_group): o.value() for o in parsed if self._chooses(o)}  # Hydra's choices lack lists
        for group, option in {**composed.hydra.runtime.choices, **lists}.items():
            hidden = base(str(option))
            if hidden:
                known = self._loader.get_group_options(str(group).split("@")[0], None, self._name, self._hydra)
                named = [name for name in known if not name.startswith("_")]
                raise CompositionError(missing(f"{group}={_listed(option)}", hidden, str(group), named))
        config = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        raw = OmegaConf.to_container(config, resolve=False)
        assert isinstance(raw, dict)
        fixed = [str(top) for top, value in raw.items() if "${" not in FIXED.sub("", repr(value))]
        plain = {
            top: _resolved(config, top) for top in fixed if isinstance(raw[top], dict) or "$" not in repr(raw[top])
        }
        literal = frozenset(top for top in plain if "$" not in repr(raw[top]))
        return _Whole(config, dict(composed.hydra.runtime.choices), plain, literal)

    def _grow(self, parts: dict[str, _Whole], changed: set[str], replaced: set[str]) -> None:
        """Make the tree that of a point before its values: what differs from the point before is put back.

        Args:
            changed: top-level keys in which values will be set.
            replaced: keys that get a value as a whole, so that a top-level one (``seed``) need not be put back first.
        """
        held, self._held = self._held, {}  # should this be cut short, everything is put back the next time
        left = {top for top in parts if top in replaced and top in [*self.tree]}
        other = [t for t in {*self.tree, *parts} - left if t not in held or held[t] is not parts.get(t)]
        with open_dict(self.tree):
            for top in other:
                if top in [*self.tree]:  # `in self.tree` would resolve an interpolation
                    del self.tree[top]
            for whole in {id(whole): whole for whole in parts.values()}.values():
                wanted = [top for top in other if parts.get(top) is whole]
                if wanted:
                    self.tree.merge_with(OmegaConf.masked_copy(whole.config, wanted))
        self._held = {top: whole for top, whole in parts.items() if top not in changed}


def _listed(option: Any) -> str:
    """Return a choice, or a list of them, as it is written on the command line."""
    return str(option).replace("'", "").replace(" ", "")


def _same_place(one: Override, other: Override) -> bool:
    first, second = f"{one.key_or_group}.", f"{other.key_or_group}."
    return first.startswith(second) or second.startswith(first)


def _laid_over(config: dict[str, Any], override: Override) -> bool:
    """Set a value in plain data, if that is the same as setting it in a tree: a simple one, in place of another."""
    *path, last = str(override.key_or_group).split(".")
    value, node = override.value(), config
    for key in path:
        node = node[key] if isinstance(node, dict) and key in node else None  # type: ignore[assignment]
    simple = isinstance(value, bool | int | float | None) or (type(value) is str and "$" not in value)
    if not simple or not isinstance(node, dict) or isinstance(node.get(last, {}), dict | list):
        return False
    node[last] = value
    return True


def _set(tree: DictConfig, override: Override) -> None:
    """Set a value as Hydra does."""
    try:
        OmegaConf.update(tree, override.key_or_group, override.value(), merge=True)
    except (ConfigAttributeError, ConfigKeyError) as error:
        key, why = override.key_or_group, str(error).partition("\n")[0]
        text = f"Could not override '{key}'. To append to your config use +{override.input_line} {why}"
        raise CompositionError(text) from error


def _resolved(tree: DictConfig, top: str) -> Any:
    """Return a top-level key as data, interpolations resolved; ``???`` stays."""
    if OmegaConf.is_missing(tree, top):
        return "???"
    value = tree[top]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def sentence(error: BaseException) -> str:
    """Return an error of Hydra or OmegaConf as one line."""
    text = str(error).split("Config search path:")[0]  # says where all files are: no help against a misspelt name
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and isinstance(cause, OmegaConfBaseException):
        lines += [line.strip() for line in str(cause).splitlines()[:1]]
    return " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
