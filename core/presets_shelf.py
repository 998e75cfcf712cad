"""presets_shelf: all that a page does with presets: list, choose, save, rename, delete and take back. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import BadSetting, UserError
from core.presets import DEFAULT, Preset, left_out, list_presets, load_preset, settings_of
from core.presets_choice import Choice, choose, switched
from core.presets_store import delete_preset, preset_diff, rename_preset, restore_preset, save_preset, trashed_presets
from core.settings import Settings
from core.weights.files import Catalog


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """The presets of an installation and what they come to with its files.

    `first` is the one that it starts with, `stand_in` the one that takes the place of a preset whose checkpoint is absent.
    """

    catalog: Catalog
    own: Path  # the user's folder; the only one that is written
    program: Path
    first: str = DEFAULT
    stand_in: str = DEFAULT
    defaults: Preset = field(default_factory=lambda: Preset(name=""))
    hosts: Sequence[str] = ()
    older_models: bool = True

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where presets are looked for, the user's first."""
        return (self.own, self.program)

    def names(self) -> list[str]:
        """All presets, the default one first."""
        return list_presets(*self.folders)

    def own_names(self) -> list[str]:
        """Those that the user may rename and delete."""
        return list_presets(self.own)

    def left_out(self) -> list[str]:
        """A sentence for each file of the user's that lies among the presets and cannot be one by its name."""
        return left_out(self.own)

    def own_name(self, name: str) -> str:
        """The user's preset that `name` would take the place of, large and small letters alike; "" if there is none."""
        return next((own for own in self.own_names() if own.casefold() == name.casefold()), "")

    def program_names(self) -> list[str]:
        """Those that came with the program."""
        return list_presets(self.program)

    @property
    def start(self) -> str:
        """`first`, unless it was renamed or deleted meanwhile: the program's default one then."""
        return self.first if self.first in self.names() else DEFAULT

    def choice(self, name: str) -> Choice:
        """Preset `name`, fitted to the files that are there. Raises BadSetting."""
        preset = load_preset(name, *self.folders, hosts=self.hosts)
        return choose(
            preset,
            self.catalog,
            self.folders,
            self.defaults,
            stand_in=self.stand_in,
            older_models=self.older_models,
        )

    def settings(self, name: str, base_model: str = "") -> Settings:
        """What preset `name` comes to, for `base_model` if one is named. Raises BadSetting, ModelNotFound, BadModelFile."""
        return settings_of(self.catalog, self.choice(name).settings, {"base_model": base_model} if base_model else {})

    def for_model(self, name: str, defaults: Callable[[str], Settings], base_model: str) -> Settings:
        """What is recommended for `base_model` while preset `name` is the chosen one: what that says holds on, unless it was
        made for a model of its own or is no more; `defaults` tell then. Raises ModelNotFound, BadModelFile."""
        try:
            own = "base_model" in self.choice(name).preset.settings
        except BadSetting:
            own = True
        return defaults(base_model) if own else self.settings(name, base_model)

    def switched(self, current: Settings, before: str, after: str) -> tuple[Settings, Choice]:
        """`current` after the change from preset `before` to preset `after`. Raises as `settings`."""
        return self._switched(current, self._plain(before), after)

    def _switched(self, current: Settings, before: Settings, after: str) -> tuple[Settings, Choice]:
        choice = self.choice(after)
        new = settings_of(self.catalog, choice.settings, {})
        return switched(current, before, new, choice.preset.settings), choice

    def _plain(self, name: str) -> Settings:
        """What preset `name` comes to; if it was deleted meanwhile, what the first one does."""
        try:
            return self.settings(name)
        except BadSetting:
            return self.settings(self.start)

    def held(self, current: Settings, *, with_prompt: bool = False) -> dict[str, tuple[Any, Any]]:
        """What a preset made of `current` would hold: field -> (the default, the value here)."""
        return preset_diff(current, *self._bases(current), with_prompt=with_prompt)

    def save(self, name: str, settings: Settings, *, with_prompt: bool = False, overwrite: bool = False) -> None:
        """Keep `settings` as the user's preset `name`. Raises BadSetting for a bad or taken name."""
        save_preset(
            name,
            settings,
            self.own,
            bases=self._bases(settings),
            with_prompt=with_prompt,
            replace=overwrite,
            taken=(self.program,),
        )

    def _bases(self, current: Settings) -> tuple[Settings, ...]:
        """What a preset is put on top of: the defaults, and what the checkpoint and the configuration make of them."""
        try:
            return Settings(), settings_of(self.catalog, self.defaults.settings, {"base_model": current.base_model})
        except UserError:  # the checkpoint is gone or damaged
            return (Settings(),)

    def rename(self, name: str, new_name: str) -> None:
        """Give the user's preset another name. Raises BadSetting."""
        rename_preset(name, new_name, self.own, taken=(self.program,))

    def delete(self, name: str, current: Settings) -> tuple[Settings, Choice]:
        """Put the user's preset into the trash; `current` after the change from it to `start`. Raises as `settings`."""
        before = self._plain(name)
        delete_preset(name, self.own)
        return self._switched(current, before, self.start)

    def restore(self) -> str:
        """Take back what was deleted or replaced last, under another name if its own is taken; returns the name.

        Raises BadSetting if there is nothing.
        """
        trash = trashed_presets(self.own)
        if not trash:
            raise BadSetting("No preset has been deleted.")
        return restore_preset(trash[0], self.own, taken=(self.program,)).stem
