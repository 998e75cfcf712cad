"""Orders: what the form holds is sent to the desk, by the buttons that make pictures; what these say while a task is edited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from core.errors import UserError
from core.settings import Settings
from webui.form import Form
from webui.generate import Desk
from webui.render import problem
from webui.visitors import NO_COOKIE, owner_of

PUT_BACK = "Put it back"


@dataclass(frozen=True)
class Orders:
    """The buttons `button` (one picture's settings) and `make_grid`, with the form that they send."""

    desk: Desk
    form: Form
    button: Any
    make_grid: Any
    # Visitors who let seeds be drawn before they began to edit a task, which brings a seed of its own.
    _drew_seeds: set[str] = field(default_factory=set)

    @property
    def makers(self) -> list[Any]:
        """The buttons that make pictures."""
        return [self.button, self.make_grid]

    @property
    def inputs(self) -> set[Any]:
        """What `sent` needs."""
        return {*self.form.inputs, *self.makers}

    @property
    def outputs(self) -> list[Any]:
        """What `sent` may change."""
        return [self.form.message, self.form.controls["seed"], self.form.any_seed, *self.makers]

    def sent(
        self, values: Mapping[Any, Any], visitor: str, maker: Any, send: Callable[..., Settings], *, plain: bool = False
    ) -> dict[Any, Any]:
        """`maker` was pressed: give the controls' values by name to `send`, which queues them; what the page then shows.

        `send` also gets `visitor`, `any_seed`, and `in_place` if the button says that the task under edit is put back:
        another page of the same browser may be the one that edits. `plain`: the user's own values, not what a mode forces.
        Whole values, as far as may be: Gradio makes a component anew for each output that is left out.
        """
        by_name = self.form.plain(values) if plain else self.form.by_name(values)
        in_place = values[maker] == PUT_BACK
        try:
            settings = send(by_name, visitor, any_seed=bool(values[self.form.any_seed]), in_place=in_place)
        except UserError as error:
            return {self.form.message: problem(self.form.app.told(error))}
        known = {each: values[each] if values[each] == PUT_BACK else each.value for each in self.makers}
        buttons = self.editing(visitor) if in_place else known
        return {self.form.message: "", self.form.controls["seed"]: str(settings.seed)} | buttons

    def editing(self, visitor: str) -> dict[Any, Any]:
        """What the buttons say: the one that the task which `visitor` edits was made with puts it back."""
        edited = self.desk.app.worker.edited(visitor)
        maker = None if edited is None else self.make_grid if edited.grid else self.button
        updates: dict[Any, Any] = {each: PUT_BACK if each is maker else each.value for each in self.makers}
        if edited is None and visitor in self._drew_seeds:
            self._drew_seeds.discard(visitor)
            updates[self.form.any_seed] = True
        return updates

    def begin_edit(self, visitor: str, draws_seeds: bool) -> dict[Any, Any]:
        """`visitor` begins to edit a task: what the buttons say, and seeds are drawn again after it if they were before."""
        if draws_seeds:
            self._drew_seeds.add(visitor)
        return self.editing(visitor)


def visitor_of(request: gr.Request) -> str:
    """Whose browser sent `request`. Raises gr.Error for one without our cookie."""
    found = owner_of(request.headers.get("cookie"))
    if found is None:
        raise gr.Error(NO_COOKIE, print_exception=False)
    return found
