"""Pipeline: owns the loaded models; loads what a request needs, encodes its texts, samples and decodes."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.device import Device
from core.errors import BadPicture, BadSetting
from core.goals.text import start_from_text
from core.models.latent_format import PLAYGROUND, SDXL
from core.models.preview import LinearPreview, fit_linear
from core.prompt.plan import ImagePlan
from core.sampling.denoiser import Condition, Denoiser, network_denoiser
from core.sampling.guidance import guided
from core.sampling.noise import add_noise, noise_for
from core.sampling.prediction import Prediction, sampling_for
from core.sampling.samplers import SAMPLERS
from core.sampling.schedules import calculate_sigmas, slice_sigmas
from core.settings import Settings
from core.text.encode import TextConditions, TextEncoder
from core.text.size_conditioning import size_vectors
from core.text.tokenizer import ClipTokenizer
from core.weights.checkpoint import Checkpoint, load_checkpoint
from core.weights.files import Catalog, ModelInfo
from core.weights.memory import Memory, decoding_bytes, free_bytes, sampling_bytes

log = logging.getLogger(__name__)

Check = Callable[[], None]

PREVIEW_SCALE = 4  # preview pixels a latent cell: half the picture's side


class NotFinite(Exception):
    """A network gave NaN, infinity or a black picture; `part` is "UNet" or "VAE"."""

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


@dataclass(frozen=True)
class Conditions:
    """What the two sides of guidance are told. `negative` is None where it is not evaluated."""

    positive: TextConditions
    negative: TextConditions | None


@dataclass(frozen=True)
class DiffusionStep:
    """Step `index` (from 0) of about `total`: the latent `x` after it and the clean guess `x0` in it (network space)."""

    index: int
    total: int
    x: Tensor
    x0: Tensor


@dataclass(frozen=True)
class BaseModel:
    """The base model record: what is loaded, from which state of which file."""

    name: str
    stamp: tuple[str, int, int]  # path, size and time of change of the file
    checkpoint: Checkpoint
    text: TextEncoder
    preview: LinearPreview
    sha256: Future[str]

    @property
    def info(self) -> ModelInfo:
        """What the file's header says."""
        return self.checkpoint.info


class Pipeline:
    """Holds the models of one device. Not for several threads at once: the worker's thread is its only user."""

    def __init__(self, catalog: Catalog, device: Device, outputs: Path) -> None:
        self.catalog = catalog
        self.device = device
        self.outputs = outputs
        self._memory = Memory(device.torch_device)
        self._tokenizer = ClipTokenizer()
        self._base: BaseModel | None = None
        self._clip_skip = 2
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._notices = list(device.warnings)

    # Loading

    def refresh_everything(self, base_model: str = "", *, check: Check | None = None) -> None:
        """Bring the models to what a request needs; loads only what differs from the last time.

        `base_model` is a name of the catalogue, "" its default. Raises ModelNotFound, BadModelFile.
        """
        self.refresh_base_model(base_model or self.catalog.default())
        self.assert_model_integrity()
        self.prepare_text_encoder()
        if check:
            check()

    def refresh_base_model(self, name: str) -> None:
        """Load the checkpoint `name` unless it is loaded and its file unchanged. An error leaves the old one in place."""
        path = self.catalog.find(name)
        status = path.stat()
        stamp = (str(path), status.st_size, status.st_mtime_ns)
        if self._base is not None and self._base.stamp == stamp:
            return
        info = self.catalog.info(name)
        info.check_base()
        self._base = None  # two models at once may not fit
        self._memory.forget()
        began = time.monotonic()
        checkpoint = load_checkpoint(path, device=self.device)
        self._base = BaseModel(
            name=name,
            stamp=stamp,
            checkpoint=checkpoint,
            text=TextEncoder(checkpoint.clip_l, checkpoint.clip_g, self._tokenizer),
            preview=fit_linear(checkpoint.vae),
            sha256=self._hashing.submit(self.catalog.file_hash, path),
        )
        log.info("Loaded %s in %.1f s", name, time.monotonic() - began)

    def assert_model_integrity(self) -> None:
        """The base is there and of the SDXL class. Raises BadModelFile, or ModelNotFound when nothing is loaded."""
        self._loaded().info.check_base()

    def take_safer_precision(self, problem: NotFinite) -> str:
        """After NaN or a black picture: load the part anew in float32; returns the sentence for the user.

        Raises BadPicture when it has been in float32 already.
        """
        base = self._loaded()
        used = self.device.unet_dtype if problem.part == "UNet" else self.device.vae_dtype
        if used == torch.float32:
            self._base = None
            raise BadPicture(
                f"{base.name} gave no valid picture (NaN or black in the {problem.part}) even in 32-bit precision. The file "
                "may be damaged, or the settings extreme: try another sampler, a lower guidance scale or another model."
            )
        if problem.part == "UNet":
            self.device = replace(self.device, unet_dtype=torch.float32)
        else:
            self.device = replace(self.device, vae_dtype=torch.float32)
        self._base = None
        self._memory.forget()
        self.refresh_everything(base.name)
        return (
            f"The {problem.part} gave an invalid picture in {str(used).removeprefix('torch.')}; it now runs in 32-bit "
            "precision, which is slower, and the picture is made again."
        )

    def take_notices(self) -> list[str]:
        """What the user should know about the device, as sentences; each is given once."""
        notices, self._notices = self._notices, []
        return notices

    def free_memory(self) -> None:
        """After running out of memory: let go of everything; the next request loads anew."""
        self._base = None
        self._memory.forget()

    @property
    def base_name(self) -> str:
        """The catalogue's name of the loaded base model."""
        return self._loaded().name

    def base_hash(self) -> str:
        """SHA-256 of the base model's file, hexadecimal; waits until it is computed (in the background since loading)."""
        return self._loaded().sha256.result()

    # Text

    def prepare_text_encoder(self) -> None:
        """Bring the text encoders to the device."""
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

    def clip_encode(self, texts: Sequence[str], pool_top_k: int = 1, *, check: Check | None = None) -> TextConditions:
        """Encode `texts` each by itself: tokens joined in order, the first `pool_top_k` pooled vectors summed."""
        return self._loaded().text.encode(texts, self._clip_skip, pool_top_k, check=check)

    def clone_cond(self, conditions: TextConditions) -> TextConditions:
        """A copy that shares no memory."""
        return conditions.clone()

    def clear_all_caches(self) -> None:
        """Forget all encoded texts."""
        self._loaded().text.clear_cache()

    def process_prompt(self, plan: ImagePlan, settings: Settings, *, check: Check | None = None) -> Conditions:
        """The conditions of one picture. At guidance scale 1 the negative side is not even encoded."""
        self.set_clip_skip(settings.clip_skip)
        positive = self.clip_encode(plan.positive, plan.positive_pooled, check=check)
        if settings.guidance_scale == 1.0:
            return Conditions(positive, None)
        return Conditions(positive, self.clip_encode(plan.negative, plan.negative_pooled, check=check))

    # Sampling

    @torch.inference_mode()
    def process_diffusion(
        self, settings: Settings, plan: ImagePlan, conditions: Conditions, *, check: Check | None = None
    ) -> Iterator[DiffusionStep]:
        """Sample one picture, step by step. `check` is called between the blocks of the network and may raise.

        Raises NotFinite as soon as the network gives NaN or infinity, BadSetting for settings that do not go together.
        """
        prediction, scheduler = self._prediction(settings)
        start = start_from_text(settings)
        table = prediction.table
        sigmas = calculate_sigmas(settings.sampler, table, scheduler, settings.steps, start.strength)
        device = self.device.torch_device
        initial, noise = noise_for(
            settings.sampler, plan.seed, tuple(start.latent.shape), sigmas, device, settings.noise_device
        )
        sigmas = slice_sigmas(sigmas, last=settings.steps)  # ddim_uniform gives more steps than were asked for
        x = add_noise(start.latent.to(device), initial, sigmas[0], table.sigma_max)
        denoise = start.wrap(self._denoiser(settings, prediction, conditions, check))
        for step in SAMPLERS[settings.sampler](denoise, x, sigmas, noise=noise, table=table):
            if not torch.isfinite(step.x0).all():
                raise NotFinite("UNet")
            yield DiffusionStep(step.index, max(len(sigmas) - 1, step.index + 1), step.x, step.x0)

    @torch.inference_mode()
    def decode(self, latent: Tensor, settings: Settings, *, check: Check | None = None) -> NDArray[np.uint8]:
        """Latent (1, 4, h, w) in network space to uint8 pixels (8 h, 8 w, 3); tiled where memory is short.

        Raises NotFinite for NaN, infinity or a picture that is black all over.
        """
        vae = self._loaded().checkpoint.vae
        height, width = latent.shape[2:]
        need = decoding_bytes(height, width, self.device.vae_dtype.itemsize)
        if self.device.vae_device == self.device.torch_device:
            self._memory.bring(vae, need)
        latent_format = PLAYGROUND if self._prediction(settings)[0].kind == "edm" else SDXL
        raw = latent_format.to_raw(latent.to(self.device.vae_device))
        tiled = need > free_bytes(raw.device)
        image = vae.decode_tiled(raw, check=check) if tiled else vae.decode(raw, check=check)
        if not torch.isfinite(image).all():
            raise NotFinite("VAE")
        # The reference cuts the fraction off rather than rounding; so the same latent is the same file.
        pixels = ((image.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy()
        if not pixels.any() and self.device.vae_dtype != torch.float32:
            raise NotFinite("VAE")
        return pixels

    @torch.inference_mode()
    def preview(self, x0: Tensor) -> bytes:
        """A JPEG of the clean guess `x0` (1, 4, h, w), PREVIEW_SCALE pixels a cell."""
        pixels = self._loaded().preview(x0)
        picture = Image.fromarray(pixels)
        picture = picture.resize(
            (picture.width * PREVIEW_SCALE, picture.height * PREVIEW_SCALE), Image.Resampling.BICUBIC
        )
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        return buffer.getvalue()

    def _loaded(self) -> BaseModel:
        if self._base is None:
            raise BadSetting("No base model is loaded. Choose one.")
        return self._base

    def _prediction(self, settings: Settings) -> tuple[Prediction, str]:
        info = self._loaded().info
        kind = info.prediction if settings.prediction == "auto" else settings.prediction
        zero = info.zero_terminal_snr if settings.zero_terminal_snr == "auto" else settings.zero_terminal_snr == "on"
        return sampling_for(settings.scheduler, kind, zero)

    def _denoiser(
        self, settings: Settings, prediction: Prediction, conditions: Conditions, check: Check | None
    ) -> Denoiser:
        unet = self._loaded().checkpoint.unet
        dtype = self.device.unet_dtype
        cells = settings.height // 8, settings.width // 8
        rows = 1 if conditions.negative is None else 2
        need = sampling_bytes(rows, *cells, dtype.itemsize)
        self._memory.bring(unet, need)

        def network(x: Tensor, timestep: Tensor, context: Tensor, y: Tensor | None) -> Tensor:
            return unet(x, timestep, context, y, check=check)

        positive = _condition(conditions.positive, settings, settings.adm_scaler_positive)
        negative = conditions.negative
        return guided(
            network_denoiser(network, prediction, dtype),
            positive,
            positive if negative is None else _condition(negative, settings, settings.adm_scaler_negative),
            scale=settings.guidance_scale,
            progress=prediction.table.progress,
            sharpness=settings.sharpness,
            mimic_scale=settings.adaptive_cfg,
            batched=need <= free_bytes(self.device.torch_device),
        )


def _condition(text: TextConditions, settings: Settings, scale: float) -> Condition:
    if text.pooled is None:
        raise BadSetting("The base model has no pooled text vector; it is no SDXL checkpoint.")
    end = settings.adm_scaler_end
    vectors = size_vectors(text.pooled, settings.width, settings.height, scale=scale, end=end)
    return Condition(text.tokens, vectors.emphasised, vectors.consistent, end)
