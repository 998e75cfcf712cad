"""Fetch the emoji pictures and turn them into one array: `python tools/embedded_model/prepare.py`.

Two npm packages, versions pinned and checked against the SHA-512 that npm published, are fetched with `npm pack` (nothing
in them is run). Written to the work folder: `pictures.npy`, uint8 (N, 256, 256, 4) straight-alpha RGBA, and
`pictures.json`, for each row its code points and English label. Rows of things.json come first, in its order; then all
others without skin tones, flags and parts, which serve the VAE only.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import logging
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from data import THINGS, WORK, code_spellings
from PIL import Image

log = logging.getLogger(__name__)

PICTURES = (
    "@lobehub/fluent-emoji-3d@1.1.0",
    "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
)
LABELS = (
    "emojibase-data@17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)
COMPONENTS, FLAGS = 2, 9  # groups of emojibase that are no pictures of things
SIDE = 256


def fetch(package: str, integrity: str, folder: Path) -> Path:
    """The package's archive in `folder`, fetched with `npm pack` unless it is there.

    Raises SystemExit if its SHA-512 is not the pinned one.
    """
    name, version = package.rsplit("@", 1)
    archive = folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", package, "--silent"], cwd=folder, check=True)
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != integrity:
        raise SystemExit(f"{archive} has the checksum {found}, not {integrity}. Delete it and run this again.")
    return archive


def read_labels(archive: Path) -> list[dict[str, Any]]:
    """Entries of emojibase's English table that show a thing, in its order."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/en/data.json")
        assert member is not None
        entries = json.load(member)
    return [e for e in entries if e.get("group") not in (None, COMPONENTS, FLAGS)]


def read_pictures(archive: Path) -> dict[str, bytes]:
    """The webp files of the package by code points, such as `1f34e`."""
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.name.startswith("package/assets/") and m.name.endswith(".webp")]
        return {Path(m.name).stem: file.read() for m in members if (file := tar.extractfile(m)) is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--work", type=Path, default=WORK, help="folder for data and training state (default %(default)s)"
    )
    folder = parser.parse_args().work / "data"
    folder.mkdir(parents=True, exist_ok=True)
    files = read_pictures(fetch(*PICTURES, folder))
    entries = read_labels(fetch(*LABELS, folder))

    labels = {e["hexcode"].lower(): e["label"] for e in entries}
    first = [next(s for s in code_spellings(thing.code) if s in files) for thing in THINGS]
    others = [next((s for s in code_spellings(code) if s in files), "") for code in labels]
    codes = list(dict.fromkeys(first + [code for code in others if code]))
    pictures = np.zeros((len(codes), SIDE, SIDE, 4), np.uint8)
    for row, code in enumerate(codes):
        picture = Image.open(io.BytesIO(files[code])).convert("RGBA")
        pictures[row] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    np.save(folder / "pictures.npy", pictures)
    named = [{"code": c, "label": next((labels[s] for s in code_spellings(c) if s in labels), c)} for c in codes]
    (folder / "pictures.json").write_text(json.dumps(named, indent=0, ensure_ascii=False), encoding="utf-8")
    log.info("%d pictures, of %d things, in %s", len(codes), len(THINGS), folder)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
