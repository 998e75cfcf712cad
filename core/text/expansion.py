"""Prompt expansion: what continues a prompt when the style "Fooocus V2" asks for it, and how its text is made."""

from __future__ import annotations

import logging

import torch

from core.errors import BadModelFile, ModelNotFound, UserError
from core.prompt.plan import ImagePlan
from core.text.gpt2 import SEEDS, Check, Gpt2Expander, Gpt2Folder, gpt2_folders
from core.text.phrases import Phrases
from core.text.vocabulary import Vocabulary
from core.weights.files import Files
from core.weights.memory import Memory

log = logging.getLogger(__name__)


class Expansions:
    """Continues prompts by the GPT-2 model in the user's folders, or by the program's own phrases.

    The model is loaded when it is first wanted, stays, and is loaded anew when its files change. `half`: in float16.
    """

    def __init__(self, files: Files, memory: Memory, *, half: bool = False) -> None:
        self._files = files
        self._memory = memory
        self._dtype = torch.float16 if half else torch.float32
        self._phrases = Phrases()
        self._gpt2: Gpt2Expander | None = None
        self._stamp: tuple[object, ...] = ()
        self._in_use: Gpt2Expander | None = None  # None: the phrases
        self._choice = "auto"
        self._damaged: dict[tuple[object, ...], BadModelFile] = {}  # by stamp: what turned out only at the first words
        self._notices: list[str] = []
        self._told: set[str] = set()

    def refresh(self, choice: str = "auto") -> None:
        """Make ready what `choice` names: "gpt2", "phrases", or "auto": GPT-2 if a folder with it can be used.

        Which one it is becomes a notice, once. Raises ModelNotFound and BadModelFile where "gpt2" was asked for.
        """
        self._in_use, self._choice = None, choice
        if choice == "phrases":
            return
        folders = gpt2_folders(self._files.paths())
        places = ", ".join(map(str, self._files.folders)) or "any folder"
        problem: UserError = ModelNotFound(
            f"There is no GPT-2 model in {places}. Easel downloads none; of the folder fooocus_expansion of a Fooocus "
            "installation, `python launch.py convert FOLDER` makes one."
        )
        for folder in folders:
            try:
                self._in_use = self._load(folder)
            except UserError as error:
                problem = error
                continue
            self._tell(f"Fooocus V2 continues prompts with the GPT-2 model in {folder.path}.")
            return
        if choice == "gpt2":
            raise problem
        self._tell(f"Fooocus V2 continues prompts with Easel's own phrases. {problem}")

    def __call__(self, plan: ImagePlan, vocabulary: Vocabulary, *, check: Check | None = None) -> str:
        """The main text of `plan` with what comes behind it. `vocabulary` is the base model's.

        A GPT-2 model that turns out to be damaged is passed over from now on. Raises as `refresh`.
        """
        seed = plan.seed % SEEDS
        if self._in_use is None:
            said, unwanted = ", ".join(plan.positive), ", ".join(plan.negative)
            return self._phrases(plan.main, seed, vocabulary, said=said, unwanted=unwanted)
        draw_on = plan.settings.noise_device
        if not self._in_use.remembers(plan.main, seed, draw_on):
            self.bring()
        try:
            return self._in_use(plan.main, seed, draw_on=draw_on, check=check)
        except BadModelFile as error:
            self._damaged[self._stamp] = error
            self.forget()
            self.refresh(self._choice)
            return self(plan, vocabulary, check=check)

    def bring(self) -> None:
        """Bring the model, if it is in use, to the device where it computes."""
        if self._in_use is not None and self._memory.device.type != "mps":
            self._memory.bring(self._in_use.network)

    def take_notices(self) -> list[str]:
        """Which expander is in use and why, as sentences; each is given once."""
        notices, self._notices = self._notices, []
        return notices

    def forget(self) -> None:
        """Let go of the model; the next refresh loads it anew."""
        if self._gpt2 is not None:
            self._memory.drop(self._gpt2.network)
        self._gpt2 = self._in_use = None

    def _load(self, folder: Gpt2Folder) -> Gpt2Expander:
        stamp = folder.stamp
        if stamp in self._damaged:
            raise self._damaged[stamp]
        if self._gpt2 is None or self._stamp != stamp:
            loaded = Gpt2Expander.load(folder, self._dtype)
            self.forget()  # only now: a folder that cannot be loaded does not cost the model that another one gave
            self._gpt2, self._stamp = loaded, stamp
            log.info("Loaded the prompt expander in %s", folder.path)
        return self._gpt2

    def _tell(self, notice: str) -> None:
        if notice not in self._told:
            self._told.add(notice)
            self._notices.append(notice)
