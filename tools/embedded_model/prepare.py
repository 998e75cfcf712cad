"""Fetch the emoji pictures and turn them into arrays: `python tools/embedded_model/prepare.py`.

npm packages, versions pinned and checked against the SHA-512 that npm published, are fetched with `npm pack` (nothing in
them is run). Written to the work folder, a file a style: `pictures_STYLE.npy`, uint8 (N, 256, 256, 4) straight-alpha RGBA,
empty where the style lacks a picture, and `pictures.json`, for each row its code points and English label. Rows of
things.json come first, in its order; then all others without skin tones, flags and parts, which serve the autoencoder and
the judge of styles only.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data import STYLES, THINGS, WORK, code_spellings
from PIL import Image

log = logging.getLogger(__name__)

PICTURES = {  # style: package and checksum
    "3d": (
        "@lobehub/fluent-emoji-3d@1.1.0",
        "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    ),
    "flat": (
        "@iconify-json/fluent-emoji-flat@1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
    "line": (
        "@iconify-json/fluent-emoji-high-contrast@1.2.6",
        "sha512-esqhZPpkrF7sNX3NsLoh8KW64okEr/bzko7WNnFP+qTJGAqDPDYjp0925yxuivXy3HtVQB8xhIKu3+Nq1byX5w==",
    ),
    "drawing": (
        "@iconify-json/noto@1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
}
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


def read_json(archive: Path, name: str) -> Any:
    """A JSON file of a package."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"package/{name}")
        assert member is not None
        return json.load(member)


def read_labels(archive: Path) -> list[dict[str, Any]]:
    """Entries of emojibase's English table that show a thing, in its order."""
    return [e for e in read_json(archive, "en/data.json") if e.get("group") not in (None, COMPONENTS, FLAGS)]


def read_webp(archive: Path) -> dict[str, Callable[[], bytes]]:
    """The webp files of a package by code points, such as `1f34e`."""
    with tarfile.open(archive) as tar:
        members = [m for m in tar if m.name.startswith("package/assets/") and m.name.endswith(".webp")]
        files = {Path(m.name).stem: file.read() for m in members if (file := tar.extractfile(m)) is not None}
    return {code: lambda data=data: data for code, data in files.items()}  # type: ignore[misc]


def read_svg(archive: Path) -> dict[str, Callable[[], bytes]]:
    """The drawings of an Iconify package by code points, each as a function that renders it to a PNG."""
    import resvg_py

    table = read_json(archive, "icons.json")

    def render(icon: dict[str, Any]) -> bytes:
        width, height = (icon.get(key, table.get(key, 16)) for key in ("width", "height"))
        box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" color="black">{icon["body"]}</svg>'
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))

    icons = table["icons"]
    names = read_json(archive, "chars.json")
    return {code: lambda icon=icons[name]: render(icon) for code, name in names.items() if name in icons}  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--work", type=Path, default=WORK, help="folder for data and training state (default %(default)s)"
    )
    folder = parser.parse_args().work / "data"
    folder.mkdir(parents=True, exist_ok=True)
    labels = {e["hexcode"].lower(): e["label"] for e in read_labels(fetch(*LABELS, folder))}
    codes = list(dict.fromkeys([thing.code for thing in THINGS]))
    taken = {spelling for code in codes for spelling in code_spellings(code)}
    codes += [code for code in labels if not taken & {code, code.replace("-fe0f", "")}]
    for style in STYLES:
        read = read_webp if style == "3d" else read_svg
        files = read(fetch(*PICTURES[style], folder))
        pictures = np.zeros((len(codes), SIDE, SIDE, 4), np.uint8)
        for row, code in enumerate(codes):
            if spelling := next((s for s in code_spellings(code) if s in files), ""):
                picture = Image.open(io.BytesIO(files[spelling]())).convert("RGBA")
                pictures[row] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        np.save(folder / f"pictures_{style}.npy", pictures)
        there = np.asarray(pictures[..., 3].any(axis=(1, 2)))
        log.info("%s: %d pictures, of %d things of %d", style, there.sum(), there[: len(THINGS)].sum(), len(THINGS))
    named = [{"code": c, "label": next((labels[s] for s in code_spellings(c) if s in labels), c)} for c in codes]
    (folder / "pictures.json").write_text(json.dumps(named, indent=0, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
