"""Foreign layouts of a part, renamed entry by entry, before any weight is read. No torch.

Each function takes and gives tensors by name, prefix cut off; what it does not know keeps its name.
"""

from __future__ import annotations

from dataclasses import replace

from core.models.names import DIFFUSERS_UNET, DIFFUSERS_VAE, ldm_unet_name, ldm_vae_name, open_clip_names
from core.weights.header import TensorEntry

Entries = dict[str, TensorEntry]


def text_encoder_l(entries: Entries) -> Entries:
    """CLIP-L: `text_model.` is put in front where old files lack it; a projection, which nothing uses, is left out."""
    named = {name if name.startswith("text_") else f"text_model.{name}": entry for name, entry in entries.items()}
    return {name: entry for name, entry in named.items() if not name.startswith("text_projection")}


def text_encoder_g(entries: Entries) -> Entries:
    """open_clip's names to transformers'. A packed q, k, v is three tensors one behind the other: entries of their own."""
    renamed: Entries = {}
    for name, entry in entries.items():
        names = open_clip_names(name) or [name]
        if name == "text_projection.weight":  # the spelling that is output x input
            entry = replace(entry, shape=entry.shape[::-1], transposed=True)
        rows, length = entry.shape[:1], (entry.end - entry.start) // len(names)
        for i, new in enumerate(names):
            shape = (rows[0] // len(names), *entry.shape[1:]) if rows else ()
            start = entry.start + i * length
            renamed[new] = replace(entry, shape=shape, start=start, end=start + length)
    return renamed


def text_encoder(entries: Entries, *, projection: bool) -> Entries:
    """A text encoder from a file of its own, in transformers' layout or open_clip's; bigG has a `projection`."""
    named = {
        f"text_model.{name}" if name.startswith(("embeddings.", "encoder.", "final_layer_norm.")) else name: entry
        for name, entry in text_encoder_g(entries).items()
    }
    return {name: entry for name, entry in named.items() if projection or not name.startswith("text_projection")}


def autoencoder(entries: Entries) -> Entries:
    """diffusers' names to the single-file ones, if it is they; its attention has matrices instead of 1x1 convolutions."""
    if DIFFUSERS_VAE not in entries:
        return entries
    levels = sum(name.startswith("decoder.up_blocks.") and name.endswith(".resnets.0.norm1.weight") for name in entries)
    renamed: Entries = {}
    for name, entry in entries.items():
        new = ldm_vae_name(name, levels)
        matrix = ".attn_1." in new and len(entry.shape) == 2
        renamed[new] = replace(entry, shape=(*entry.shape, 1, 1)) if matrix else entry
    return renamed


def network(entries: Entries) -> Entries:
    """diffusers' names of a denoising network to the single-file ones, if it is they."""
    if DIFFUSERS_UNET not in entries:
        return entries

    def blocks(way: str) -> list[int]:
        counts: list[int] = []
        while found := sum(
            name.startswith(f"{way}_blocks.{len(counts)}.resnets.") and name.endswith(".norm1.weight")
            for name in entries
        ):
            counts.append(found)
        return counts

    down, up = blocks("down"), blocks("up")
    attended = {level for level in range(len(up)) if any(f"up_blocks.{level}.attentions." in name for name in entries)}
    return {ldm_unet_name(name, down, up, attended): entry for name, entry in entries.items()}
