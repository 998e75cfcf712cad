"""Pipeline: owns the loaded models; loads what a request needs, encodes its texts, samples and decodes."""

from __future__ import annotations

import io
import logging
import sys
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from core.conditions import Conditions
from core.device import Device
from core.diffusion import DiffusionStep, Job, diffuse
from core.errors import BadModelFile, BadPicture, BadSetting, UserError, out_of_memory
from core.goals.text import start_from_text
from core.models.interposer import Interposer
from core.models.latent_format import SD15, SDXL, LatentSpace
from core.models.preview import Preview
from core.models.vae import ONE_TILE, SD15_SCALE, VAE
from core.models.vae_rows import decode_in_rows, rows_bytes
from core.prompt.embedding_names import MARK
from core.prompt.plan import ImagePlan
from core.prompt.resources import PromptResources
from core.sampling.refiner import ALMOST_ALL, OWN_STEPS, swap_threshold
from core.sampling.shortcuts import Turns
from core.settings import Lora, Settings
from core.stages import Workplace, base_prediction, base_stage, refiner_stage, sdxl_space
from core.text.encode import TextCache, TextConditions, TextEncoder
from core.text.expansion import Expansions
from core.text.tokenizer import ClipTokenizer
from core.weights import lora
from core.weights.checkpoint import Checkpoint, load_vae, open_checkpoint
from core.weights.files import Catalog, ModelInfo
from core.weights.info import PARTS
from core.weights.memory import Memory, Way, decoding_bytes
from core.weights.plain import plain_weights
from core.weights.previews import DecoderPreview, preview_for
from core.weights.refiner import Refiner, check_pair, load_interposer, load_refiner, twin

log = logging.getLogger(__name__)

Check = Callable[[], None]

MOST_ON_CPU = 5 * 2**29  # bytes; a picture that takes more is decoded by rows, which takes a third and no longer
IN_ROWS = "Memory ran short: the picture is now decoded a few rows at a time."
IN_TILES = (
    "Memory ran short: the picture is now decoded in tiles, which takes longer and may differ in its finest shades."
)
ON_THE_CPU = "Memory ran short: the picture is now decoded on the processor, which takes longer."
MERGED_ON_CPU = "Memory ran short: LoRAs are now merged on the processor, which takes longer."
NO_SMALL_DECODER = (
    "The picture was decoded by the VAE as usual: no small decoder that fits this model was found. Put one, such as "
    "taesdxl_decoder.safetensors, into the folder vae_approx."
)
NO_STEP_CACHE = (
    "Every step ran the whole network: the sampler {} chooses its own noise levels, so the step cache has no effect "
    "with it."
)
BLACK = (
    "The picture is black all over, in 32-bit precision as well. If that is not what you wanted, try another sampler, a lower "
    "guidance scale or another model."
)
NEXT_TO_1 = 1e-4  # a guidance scale no further from 1 leaves nothing of the negative prompt to be seen
WAIT = 0.1  # seconds between two looks at whether Stop was pressed
PATIENCE = 10.0  # seconds that a picture waits for the checksum of a file
PREVIEW_SCALE = 4  # preview pixels a latent cell: half the picture's side


class NotFinite(Exception):
    """A network gave NaN, infinity or a black picture; `part` is "UNet" or "VAE"."""

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


@dataclass(frozen=True)
class BaseModel:
    """The base model record: what is loaded, from which state of which file."""

    name: str
    stamp: tuple[str, int, int]  # path, size and time of change of the file
    encoder_stamps: Mapping[str, tuple[str, int, int]]  # of text encoders that come from other files
    vae_stamp: tuple[str, int, int]  # of the file that the VAE comes from
    checkpoint: Checkpoint
    text: TextEncoder
    preview: Preview
    sha256: Future[str]

    @property
    def info(self) -> ModelInfo:
        """What the file's header says."""
        return self.checkpoint.info


@dataclass(frozen=True)
class RefinerModel:
    """The refiner record. `space` is there if its latents are of a kind of their own (SD 1.x)."""

    name: str
    stamp: tuple[str, int, int]
    refiner: Refiner
    space: LatentSpace | None = None
    synthetic: bool = False  # the base model's own network, without what is added to the base model alone


class Pipeline:
    """Holds the models of one device. Not for several threads at once: the worker's thread is its only user."""

    def __init__(self, catalog: Catalog, device: Device, outputs: Path) -> None:
        self.catalog = catalog
        self.device = device
        self._usual_device = device  # as it was asked for: `device` itself may be in a safer precision for a while
        self._safer_for: tuple[str, int, int] | None = None  # the stamp of the base model that it is so for
        self._black = False  # whether a picture was black in the safest precision as well
        self.outputs = outputs
        self.prompt_resources = PromptResources()
        self._memory = Memory(device.torch_device, device.memory_budget)
        self._vae_memory = self._memory if device.vae_device == device.torch_device else Memory(device.vae_device)
        self._tokenizer = ClipTokenizer()
        self._base: BaseModel | None = None
        self._refiner: RefinerModel | None = None
        self._interposer: Interposer | None = None
        self._loras = lora.Loras(catalog.files("loras"))
        half = device.torch_device.type == "cuda" and device.unet_dtype != torch.float32
        self._expansions = Expansions(catalog.files("prompt_expansion"), self._memory, half=half)
        self._clip_skip = 2
        self._texts: TextCache = OrderedDict()
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._notices = list(device.warnings)

    # Loading

    def refresh_everything(
        self,
        base_model: str = "",
        *,
        parts: Mapping[str, str] | None = None,
        refiner_model: str = "",
        use_synthetic_refiner: bool = False,
        loras: Sequence[Lora] = (),
        base_loras: Sequence[Lora] = (),
        expander: str = "",
        check: Check | None = None,
    ) -> None:
        """Bring the models to what a request needs; loads only what differs from the last time.

        `base_model` and `refiner_model` are names of the catalogue; "" is its default, and no refiner. A refiner that is
        the base model's file is none. `use_synthetic_refiner` counts where no refiner is named. `parts` as in
        `refresh_base_model`; `expander` as in the settings, "" where no prompt is to be continued. Raises ModelNotFound,
        BadModelFile.
        """
        text = (
            weakref.ref(self._base.text) if self._base else None
        )  # or it would keep the old model while another is read
        if not base_model:
            base_model = self.catalog.default([part for part, file in (parts or {}).items() if file])
        self.refresh_base_model(base_model, parts, check=check)
        self.assert_model_integrity()
        if use_synthetic_refiner and not refiner_model:
            self.synthesize_refiner_model()
        else:
            self.refresh_refiner_model(refiner_model, check=check)
        self.refresh_loras(loras, base_loras, check=check)
        if expander:
            self._expansions.refresh(expander)
        if check:
            check()
        if (
            text is None or self._loaded().text is not text()
        ):  # later on they are brought for texts that are not remembered
            self.prepare_text_encoder()

    def refresh_base_model(
        self, name: str, parts: Mapping[str, str] | None = None, *, check: Check | None = None
    ) -> None:
        """Load the checkpoint `name` unless it is loaded and its file unchanged.

        `parts` names files that a VAE or a text encoder comes from instead (keys of PARTS; "" is the checkpoint's own).
        Another VAE alone is loaded alone. A missing file, and whatever files' headers tell of damage or parts that do not
        belong together, leaves the old model in place. Where `check`, which is called between the tensors, raises, or a disk
        fails, there is none until the next refresh.
        """
        path = self.catalog.find(name)
        chosen = {part: self.catalog.files(PARTS[part]).find(file) for part, file in (parts or {}).items() if file}
        stamp, vae_stamp = _stamp(path), _stamp(chosen.get("vae", path))
        encoder_stamps = {part: _stamp(file) for part, file in chosen.items() if part != "vae"}
        same = self._base is not None and (self._base.stamp, self._base.encoder_stamps) == (stamp, encoder_stamps)
        if same and self._loaded().vae_stamp == vae_stamp:
            return
        info = self.catalog.info(name)
        info.check_base(chosen.keys())
        if stamp != self._safer_for:
            self._take_usual_precision()
        if same:
            self._refresh_vae(chosen.get("vae", path), check)
            return
        opened = open_checkpoint(path, chosen=chosen)
        self._base = self._refiner = None  # two models at once may not fit
        self._memory.forget()
        began = time.monotonic()
        checkpoint = opened.load(device=self.device, unet_room=self._unet_room(), check=check)
        self._base = BaseModel(
            name=name,
            stamp=stamp,
            encoder_stamps=encoder_stamps,
            vae_stamp=vae_stamp,
            checkpoint=checkpoint,
            text=TextEncoder(
                checkpoint.clip_l,
                checkpoint.clip_g,
                self._tokenizer,
                embeddings=self.catalog.files("embeddings"),
                memory=self._memory,
                cache=self._texts,
                files=(stamp, *sorted(encoder_stamps.items()), self.device.text_dtype),
            ),
            preview=preview_for(checkpoint.vae, self.catalog.files("vae_approx")),
            sha256=self._hashing.submit(self.catalog.file_hash, path),
        )
        log.info("Loaded %s in %.1f s", name, time.monotonic() - began)
        self._tell_note(info)

    def _unet_room(self) -> int | None:
        """Bytes that a network may take in the type it computes in; None: its weights go on to a device of their own."""
        rooms = {"cpu": self._memory.room_for_weights(), "mps": 0}  # on a Mac it is converted on its way to the GPU
        return rooms.get(self.device.torch_device.type)

    def _refresh_vae(self, path: Path, check: Check | None = None) -> None:
        """Take the VAE in the file at `path`, its own or a whole checkpoint, and the preview that suits it."""
        base = self._loaded()
        vae = load_vae(path, dtype=self.device.vae_dtype, unet=base.checkpoint.unet.config, check=check)
        self._drop(base.checkpoint.vae, base.preview)
        checkpoint = replace(base.checkpoint, vae=vae)
        preview = preview_for(vae, self.catalog.files("vae_approx"))
        self._base = replace(base, vae_stamp=_stamp(path), checkpoint=checkpoint, preview=preview)
        log.info("Took the VAE of %s", path.name)

    def refresh_refiner_model(self, name: str, *, check: Check | None = None) -> None:
        """Load the checkpoint `name` as refiner unless it is loaded and its file unchanged; "" lets go of it.

        The base model's own file counts as "": it would go on as the base model does. A file that is there and cannot be
        loaded leaves no refiner. Raises ModelNotFound, BadModelFile.
        """
        base, loaded = self._loaded(), self._refiner
        path = self.catalog.find(name) if name else None
        stamp = _stamp(path) if path else None
        if loaded is not None and not loaded.synthetic and loaded.stamp == stamp:
            return
        if loaded is not None:
            self._refiner = None
            self._memory.rest(loaded.refiner.unet)  # before it is dropped: the base model may share its weights
            self._drop(loaded.refiner.unet)
            if loaded.space is not None:
                self._drop(loaded.space.vae, loaded.space.preview)
            log.info("Let go of the refiner %s", loaded.name)
        if path is None or stamp is None or path.samefile(base.checkpoint.info.path):
            return
        self.catalog.info(name).check_refiner()
        began = time.monotonic()
        refiner = load_refiner(path, device=self.device, unet_room=self._unet_room(), check=check)
        check_pair(refiner, base.text.clip_l, base.text.clip_g)
        space = None
        if refiner.vae is not None:
            preview = preview_for(refiner.vae, self.catalog.files("vae_approx"), SD15_SCALE)
            space = LatentSpace(refiner.vae, SD15, preview)
        self._refiner = RefinerModel(name, stamp, refiner, space)
        log.info("Loaded the refiner %s in %.1f s", name, time.monotonic() - began)
        self._tell_note(refiner.info)

    def _drop(self, network: nn.Module, preview: Preview | None = None) -> None:
        """`network`, and what makes its previews, are about to be gone."""
        self._memory.drop(network)
        if isinstance(preview, DecoderPreview):
            self._memory.drop(preview.decoder)

    def _tell_note(self, info: ModelInfo) -> None:
        if info.note:
            self._notices.append(f"About {info.name}: {info.note}")

    def synthesize_refiner_model(self) -> None:
        """Make the base model its own refiner: the same weights, but for what is added to the base model alone."""
        base = self._loaded()
        if self._refiner is not None and self._refiner.synthetic and self._refiner.stamp == base.stamp:
            return
        self._refiner = None
        self._memory.rest(base.checkpoint.unet)  # what makes its blocks come and go is not to be copied with it
        network = Refiner(base.info, twin(base.checkpoint.unet))
        self._refiner = RefinerModel(base.name, base.stamp, network, synthetic=True)
        log.info("%s is its own refiner", base.name)

    def refresh_loras(
        self, loras: Sequence[Lora], base_loras: Sequence[Lora] = (), *, check: Check | None = None
    ) -> None:
        """Put `loras` on base model and refiner, `base_loras` on the base model alone; changes only the weights that differ.

        Each model goes without the files that fit the other alone. Raises ModelNotFound, and BadModelFile for a file that is
        damaged or fits neither; the models then are as before.
        """
        base, refiner = self._loaded(), self._refiner
        model = lora.Model(
            base.name,
            base.checkpoint.unet,
            base.text.clip_l,
            base.text.clip_g,
            twin=refiner.refiner.unet if refiner and refiner.synthetic else None,
        )
        second = lora.Model(refiner.name, refiner.refiner.unet, refines=True) if refiner else None
        matched = self._loras.match(model, loras, base_loras, refiner=second)
        if second:
            self._put_loras(second, matched, check)
        base.text.identity = self._put_loras(model, matched, check)
        self._notices += matched.warnings

    def _put_loras(self, model: lora.Model, matched: lora.Matched, check: Check | None) -> Hashable:
        put = partial(self._loras.put, model, matched, check=check)  # goes on where it was broken off
        on_device = Way("merge", 0, partial(put, device=self.device.torch_device))
        on_cpu = Way("merge on the CPU", 0, partial(put, device=torch.device("cpu")), MERGED_ON_CPU)
        return self._memory.run(model.unet, [on_device, on_cpu])

    def assert_model_integrity(self) -> None:
        """The base is there and of the SDXL class. Raises BadModelFile, or ModelNotFound when nothing is loaded."""
        self._loaded().info.check_base(PARTS)  # what the file lacks came from elsewhere, or it would not be loaded

    def take_safer_precision(self, problem: NotFinite) -> str:
        """After NaN or a black picture: the next refresh loads the part in float32; returns the sentence for the user.

        Raises BadPicture when it has been in float32 already.
        """
        base = self._loaded()
        models = f"{base.name} with the refiner {self._refiner.name}" if self._refiner else base.name
        used = self._precision(problem.part)
        if used == torch.float32:
            self.free_memory()
            self._take_usual_precision()
            raise BadPicture(
                f"{models} gave no valid picture (NaN or black in the {problem.part}) even in 32-bit precision. The file "
                "may be damaged, or the settings extreme: try another sampler, a lower guidance scale or another model."
            )
        if problem.part == "UNet":
            self.device = replace(self.device, unet_dtype=torch.float32, unet_storage=None, int8_linears=False)
        else:
            self.device = replace(self.device, vae_dtype=torch.float32)
        self._safer_for = base.stamp
        self.free_memory()
        return (
            f"The {problem.part} gave an invalid picture in {str(used).removeprefix('torch.')}; it now runs in 32-bit "
            "precision, which is slower, and the picture is made again."
        )

    def _take_usual_precision(self) -> None:
        """Go back to the precision that was asked for: another model is wanted, or the safer one was of no use."""
        if self.device is not self._usual_device:
            self.free_memory()
        self.device, self._safer_for, self._black = self._usual_device, None, False

    def _precision(self, part: str) -> torch.dtype:
        """What the weights of `part`, "UNet" or "VAE", are in."""
        return self.device.vae_dtype if part == "VAE" else self.device.unet_storage or self.device.unet_dtype

    def take_notices(self) -> list[str]:
        """What the user should know about device and model files, as sentences; each is given once."""
        notices, self._notices = self._notices, []
        notices += self._memory.take_notices() + self._vae_memory.take_notices() + self._expansions.take_notices()
        return notices + (self._base.text.take_notices() if self._base else [])

    def rest(self) -> None:
        """Between requests: what one needed is no longer done, and memory is given back where this installation wants it so."""
        self._memory.take_as_usual()
        if self._black:
            self._take_usual_precision()
        if self.device.offload:
            self._memory.rest_all()

    def step_down(self, problem: Exception) -> str | None:
        """After running out of memory where nothing else helped: everything leaves the device; what to tell the user.

        None if `problem` is something else.
        """
        if not out_of_memory(problem):
            return None
        self._memory.take_little()
        return "Memory ran short: the picture is made again with as little of it as possible, which is slower."

    def free_memory(self) -> None:
        """After running out of memory: let go of everything; the next request loads anew."""
        self._base = self._refiner = self._interposer = None
        self._expansions.forget()
        self._memory.forget()

    @property
    def base_name(self) -> str:
        """The catalogue's name of the loaded base model; "" if none is loaded."""
        return self._base.name if self._base else ""

    def base_hash(self, check: Check | None = None) -> str:
        """SHA-256 of the base model's file, hexadecimal; waits for it (computed in the background since loading).

        "" if the file cannot be read any more, or is not read to its end within PATIENCE. `check` is called while it waits
        and may raise.
        """
        return _awaited(self._loaded().sha256, check)

    def hashes(self, settings: Settings, loras: Sequence[Lora], check: Check | None = None) -> dict[str, str]:
        """SHA-256, hexadecimal, of the files that acted on a picture beside the base model's, by their names.

        The picture is made by then, so a file that is gone is left out, and so is a name of two different files. Waits, and
        `check`, as in `base_hash`.
        """
        found: dict[str, str] = {}
        several: set[str] = set()  # names of which each kind has a file of its own
        for name, digest in self.begin_hashes(settings, loras):
            digits = _awaited(digest, check)
            if digits and found.setdefault(name, digits) != digits:
                several.add(name)
        return {name: digits for name, digits in found.items() if name not in several}

    def begin_hashes(self, settings: Settings, loras: Sequence[Lora]) -> list[tuple[str, Future[str]]]:
        """Have what `hashes` tells computed in the background, beside the sampling: each file's name and digest to be."""
        refined = self._refiner is not None and not self._refiner.synthetic
        wanted = [
            (settings.refiner_model if refined else "", "checkpoints"),
            (settings.vae, "vae"),
            *((one.name, "loras") for one in loras if one.enabled and one.weight),
        ]
        begun = []
        for name, kind in wanted:
            try:
                path = self.catalog.files(kind).find(name) if name else None
            except UserError as problem:
                log.warning("No checksum: %s", problem)
                continue
            if path:
                begun.append((name, self._hashing.submit(self.catalog.file_hash, path)))
        return begun

    # Text

    def prepare_text_encoder(self) -> None:
        """Bring the text encoders to the device, and what continues prompts where a network does. Raises as
        `assert_model_integrity`."""
        self.assert_model_integrity()
        self._expansions.bring()
        checkpoint = self._loaded().checkpoint
        for encoder in (checkpoint.clip_l, checkpoint.clip_g):
            if encoder is not None:
                self._memory.bring(encoder)

    def set_clip_skip(self, clip_skip: int) -> None:
        """Which hidden layer the next encodes take, counted from the end (1 = last)."""
        self._clip_skip = clip_skip

    def clip_encode_single(self, text: str, *, check: Check | None = None) -> TextConditions:
        """Encode one text; the result is cached by text and clip skip across requests."""
        return self.clip_encode([text], check=check)

    def clip_encode(
        self, texts: Sequence[str], pool_top_k: int = 1, *, strict: bool = False, check: Check | None = None
    ) -> TextConditions:
        """Encode `texts` each by itself: tokens joined in order, the first `pool_top_k` pooled vectors summed."""
        return self._loaded().text.encode(texts, self._clip_skip, pool_top_k, strict=strict, check=check)

    def clone_cond(self, conditions: TextConditions) -> TextConditions:
        """A copy that shares no memory."""
        return conditions.clone()

    def clear_all_caches(self) -> None:
        """Forget all encoded texts."""
        self._loaded().text.clear_cache()

    def expand_prompt(self, plan: ImagePlan, *, check: Check | None = None) -> ImagePlan:
        """`plan` with the text that continues its prompt in `settings.prompt_expansion`, if one is asked for and missing."""
        if not plan.expansion or plan.settings.prompt_expansion:
            return plan
        text = self._expansions(plan, self._loaded().text.vocabulary, check=check)
        log.info("Continued the prompt with seed %d: %s", plan.seed, text)
        return replace(plan, settings=replace(plan.settings, prompt_expansion=text))

    def process_prompt(self, plan: ImagePlan, settings: Settings, *, check: Check | None = None) -> Conditions:
        """The conditions of one picture. At guidance scale 1 there is no negative side; next to 1 it is the positive one.

        Raises BadModelFile for a text encoder that gives NaN or infinity.
        """
        self.set_clip_skip(settings.clip_skip)
        continued = self.expand_prompt(plan, check=check).settings.prompt_expansion if plan.expansion else ""
        texts = (*plan.positive, *([continued] if continued else ()))
        encode = partial(self.clip_encode, strict=settings.strict_compatibility, check=check)
        positive = encode(texts, plan.positive_pooled)
        self._check_finite(positive, texts)
        scale = settings.guidance_scale
        negative = None if scale == 1.0 else positive
        if abs(scale - 1) >= NEXT_TO_1:
            negative = encode(plan.negative, plan.negative_pooled)
            self._check_finite(negative, plan.negative)
        self._let_encoders_go()
        return Conditions(positive, negative)

    def _check_finite(self, conditions: TextConditions, texts: Sequence[str]) -> None:
        """Raise BadModelFile, with what may be to blame, unless `conditions`, which were made of `texts`, are all numbers."""
        base, tokens, pooled = self._loaded(), conditions.tokens, conditions.pooled
        if tokens.isfinite().all() and (pooled is None or pooled.isfinite().all()):
            return
        self.clear_all_caches()  # they would come back though the cause is gone
        width_l = base.text.clip_l.config.width if base.text.clip_l else 0
        side, words = ("g", "CLIP-G") if tokens[:, :, :width_l].isfinite().all() else ("l", "CLIP-L")
        stamp = base.encoder_stamps.get(f"text_encoder_{side}")
        problem = (
            f"The text encoder {words} of {Path(stamp[0]).name if stamp else base.name} gave NaN or infinity for this "
            "prompt. The file may be damaged; download it again, or take another one."
        )
        if base.text.identity or any(MARK in text.lower() for text in texts):
            problem += " A LoRA or an embedding may be the cause, too; try without them."
        if self.device.text_dtype is not None:
            problem += " The precision chosen for the text encoders may be the cause, too; leave it at auto."
        raise BadModelFile(problem)

    def _let_encoders_go(self) -> None:
        """Views of the file need no memory while nothing is encoded; the system reads their pages again when they are."""
        text = self._loaded().text
        for encoder in (text.clip_l, text.clip_g):
            plain = None if encoder is None else plain_weights(encoder)
            if plain:
                plain.let_go_all()

    # Sampling

    def get_candidate_vae(self, settings: Settings, denoise: float = 1.0) -> tuple[LatentSpace, LatentSpace | None]:
        """In which space a picture is encoded that a run of strength `denoise` starts from, and in which space once more.

        The second one is the refiner's, for the part of a run that follows a vae swap; None if there is none.
        """
        base, refiner = self._space(settings), self._refiner
        if refiner is None or refiner.space is None:
            return base, None
        if denoise > ALMOST_ALL:
            return base, refiner.space
        if denoise > swap_threshold(settings.steps, settings.switch_step):
            return base, None
        return refiner.space, None

    @torch.inference_mode()
    def vae_parse(self, latent: Tensor) -> Tensor:
        """A raw latent (1, 4, h, w) of the base model as one of the refiner: itself unless the refiner has its own VAE.

        Raises ModelNotFound if the interposer's file, which that takes, is not there.
        """
        if self._refiner is None or self._refiner.space is None:
            return latent
        interposer = self._load_interposer()
        self._memory.bring(interposer)
        return self._memory.run(interposer, [Way("interpose", 0, lambda: interposer(latent))])

    @torch.inference_mode()
    def process_diffusion(
        self, settings: Settings, plan: ImagePlan, conditions: Conditions, *, check: Check | None = None
    ) -> Iterator[DiffusionStep]:
        """Sample one picture, step by step. `check` is called between the blocks of the network and may raise.

        Raises NotFinite as soon as the network gives NaN or infinity, BadSetting for settings that do not go together,
        ModelNotFound if a file is missing that they need.
        """
        base, model, space = self._loaded(), self._refiner, self._space(settings)
        turns = self._turns(settings)
        work = Workplace(self.device, self._memory, settings, check, turns)
        job = Job(
            settings=settings,
            seed=plan.seed,
            start=start_from_text(settings),
            device=self.device.torch_device,
            base=base_stage(work, base.checkpoint.unet, base.info, conditions, space),
        )
        if model is not None:
            own = model.space or space
            stage = refiner_stage(work, model.refiner, base.text.clip_l, conditions, own, synthetic=model.synthetic)
            job = replace(job, refiner=stage, convert=self.vae_parse if model.space else None)
        if job.convert and job.swap == "vae":
            self._load_interposer()  # a missing file is told before the first step
        for step in diffuse(job):
            if not torch.isfinite(step.x0).all():
                raise NotFinite("UNet")
            yield step
            if turns:
                turns.done(step.index, step.total)

    @torch.inference_mode()
    def decode(
        self, latent: Tensor, settings: Settings, space: LatentSpace | None = None, *, check: Check | None = None
    ) -> NDArray[np.uint8]:
        """Latent (1, 4, h, w) in network space to uint8 pixels (8 h, 8 w, 3); tiled where memory is short.

        A draft by the small decoder is made where the settings ask for one and there is one; else the user is told.

        `space` is what a step says it is of; None: the base model's. Raises NotFinite for NaN or infinity, and for a picture
        that is black all over as long as a part can be run in a safer precision; after that the user is told.
        """
        space = space or self._space(settings)
        image = self._draft(latent, space) if settings.final_decoder == "preview" else None
        if image is None or not _shows_something(image):  # of a draft that fails the VAE is not to blame
            raw = space.format.to_raw(latent.to(self.device.vae_device))
            image = self._decoded(space.vae, raw, check)
        if not torch.isfinite(image).all():
            raise NotFinite("VAE")
        # The reference cuts the fraction off rather than rounding; so the same latent is the same file.
        pixels = ((image.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy()
        if not pixels.any():
            for part in ("VAE", "UNet"):
                if self._precision(part) != torch.float32:
                    raise NotFinite(part)
            self._black = True  # it may have been asked for
            self._notices.append(BLACK)
        return pixels

    @torch.inference_mode()
    def preview(self, x0: Tensor, space: LatentSpace | None = None) -> bytes:
        """A JPEG of the clean guess `x0` (1, 4, h, w) of `space` (None: the base model's), PREVIEW_SCALE pixels a cell."""
        preview = space.preview if space else self._loaded().preview
        if isinstance(preview, DecoderPreview) and not self._memory.bring_beside(preview.decoder, preview.working(x0)):
            preview = preview.linear
        pixels = preview(x0)
        size = (x0.shape[3] * PREVIEW_SCALE, x0.shape[2] * PREVIEW_SCALE)
        picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        return buffer.getvalue()

    def _loaded(self) -> BaseModel:
        if self._base is None:
            raise BadSetting("No base model is loaded. Choose one.")
        return self._base

    def _space(self, settings: Settings) -> LatentSpace:
        base = self._loaded()
        space = LatentSpace(base.checkpoint.vae, SDXL, base.preview)
        return sdxl_space(space, base_prediction(base.info, settings)[0])

    def _turns(self, settings: Settings) -> Turns | None:
        """Which steps of one picture run the whole network; None: all of them."""
        if settings.step_cache == 1:
            return None
        if settings.sampler in OWN_STEPS:  # their error estimates would be deceived
            self._notices.append(NO_STEP_CACHE.format(settings.sampler))
            return None
        return Turns(settings.step_cache)

    def _draft(self, latent: Tensor, space: LatentSpace) -> Tensor | None:
        """The image of `latent` by the small decoder that makes previews, enlarged if it gives a smaller one; None: there is none."""
        base = self._loaded()
        own = space.vae is base.checkpoint.vae
        small = base.preview if own else space.preview  # a space of another scale has its linear map only
        if not isinstance(small, DecoderPreview):
            self._notices.append(NO_SMALL_DECODER)
            return None
        known = (SDXL if own else space.format).to_network(space.format.to_raw(latent))
        self._memory.bring(small.decoder, small.working(known))
        way = Way("draft", 0, lambda: small.decoded(known))
        image = self._memory.run(small.decoder, [way]).float()
        size = [space.vae.config.ratio * side for side in latent.shape[2:]]
        return image if list(image.shape[2:]) == size else F.interpolate(image, size, mode="bicubic")

    def _decoded(self, vae: VAE, raw: Tensor, check: Check | None) -> Tensor:
        """The image of the raw latent `raw`, by the quickest way that there is memory for."""
        height, width = raw.shape[2:]
        element = self.device.vae_dtype.itemsize
        whole, tile = decoding_bytes(height, width, element), decoding_bytes(64, 64, element)
        rows = rows_bytes(height, width, element)
        several = max(height, width) > ONE_TILE
        if raw.device.type == "cpu" and whole > MOST_ON_CPU:
            whole = sys.maxsize
            self._vae_memory.empty_cache()  # what sampling left free lies in pieces too small for whole maps
        ways = [
            Way("decode", whole, partial(vae.decode, raw, check=check)),
            Way("decode rows", rows, partial(decode_in_rows, vae, raw, check=check), IN_ROWS),
            Way("decode tiles", tile, partial(vae.decode_tiled, raw, check=check), IN_TILES, differs=several),
        ]
        if self.device.vae_device != self.device.torch_device:
            return self._vae_memory.run(vae, ways)

        def off_the_device() -> Tensor:
            self._memory.rest(vae)
            return vae.decode_tiled(raw.cpu(), check=check)

        if raw.device.type != "cpu":
            ways.append(Way("decode on the CPU", 0, off_the_device, ON_THE_CPU, differs=several))
        self._memory.bring(vae, max(rows, tile))  # rows give the picture as it is: others leave rather than that
        return self._memory.run(vae, ways)

    def _load_interposer(self) -> Interposer:
        if self._interposer is None:
            self._interposer = load_interposer(self.catalog.files("vae_approx"))
        return self._interposer


def _awaited(digest: Future[str], check: Check | None) -> str:
    """What `digest` comes to, "" if the file could not be read or takes longer than PATIENCE. `check` is called while it
    waits, and may raise."""
    begun = time.monotonic()
    while check and not wait([digest], WAIT).done:
        check()
        if time.monotonic() - begun > PATIENCE:
            log.info("The picture is saved without a checksum: it takes too long")
            return ""
    try:
        return digest.result()
    except OSError as problem:
        log.warning("No checksum: %s", problem)
        return ""


def _shows_something(image: Tensor) -> bool:
    """Whether `image`, of -1 to 1, is finite and not black all over."""
    return bool(torch.isfinite(image).all() and (image > -1 + 2 / 255).any())


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns
