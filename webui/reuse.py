"""Settings that come from elsewhere: a dropped picture, a pasted text, an entry of the log or of the history."""

from __future__ import annotations

from core.output.metadata import ReadMetadata, read_settings_text
from core.settings import Settings
from webui.app import App

MOST_TOLD = 12  # names of what could not be used


def reused(text: str, app: App) -> tuple[Settings, str]:
    """The settings that `text` stands for, and a sentence about what could not be used ("" if nothing).

    What the text does not say is as recommended for its model. Raises UserError if it holds no settings.
    """
    read = read_settings_text(text)
    names = list(app.models())
    given = dict(read.settings)
    missing = given.pop("base_model", "")
    model = missing if missing in names else _same_stem(read, names)
    settings = Settings.from_dict({**app.defaults(model).to_dict(), **given, "base_model": model})
    told = []
    if not model and (missing or read.model):
        told.append(f"The picture was made with the model {missing or read.model}, which is not here; another is used.")
    if read.unknown:
        listed = ", ".join(sorted(read.unknown)[:MOST_TOLD]) + (", ..." if len(read.unknown) > MOST_TOLD else "")
        told.append(f"These could not be used: {listed}.")
    return settings, " ".join(told)


def _same_stem(read: ReadMetadata, names: list[str]) -> str:
    """The model of the name that other programs write: without folder and ending."""
    return next((name for name in names if read.model and name.rsplit("/", 1)[-1].startswith(f"{read.model}.")), "")
