"""Make core/text/data/clip_merges.txt.xz, the merges of CLIP's tokenizer, from the openai-clip 1.0.1 package.

    pip download --no-deps openai-clip==1.0.1
    python tools/make_clip_merges.py openai-clip-1.0.1.tar.gz

The package is read as an archive and never imported. Both ends are checked against known SHA-256 sums.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import lzma
import tarfile
from pathlib import Path

MEMBER = "openai-clip-1.0.1/clip/bpe_simple_vocab_16e6.txt.gz"
MEMBER_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
MERGES_SHA256 = "d308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02"
MERGES = 48_894  # 49,408 tokens less 2 x 256 byte letters and the two special tokens
TARGET = Path(__file__).resolve().parents[1] / "core" / "text" / "data" / "clip_merges.txt.xz"


def merges_text(package: Path) -> bytes:
    """The merges, a line each, in order. Raises ValueError if `package` does not hold the known file."""
    with tarfile.open(package) as archive:
        member = archive.extractfile(MEMBER)
        if member is None:
            raise ValueError(f"{MEMBER} in {package} is not a file.")
        packed = member.read()
    _check(packed, MEMBER_SHA256, f"{MEMBER} in {package}")
    lines = gzip.decompress(packed).decode("utf-8").split("\n")  # the first line is a version header
    merges = "".join(f"{line}\n" for line in lines[1 : MERGES + 1]).encode("utf-8")
    _check(merges, MERGES_SHA256, "The list of merges")
    return merges


def _check(data: bytes, wanted: str, name: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise ValueError(f"{name} has the SHA-256 {found}; it must have {wanted}.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tokenizer's list of merges from the openai-clip package.")
    parser.add_argument("package", type=Path, help="openai-clip-1.0.1.tar.gz")
    parser.add_argument("--output", type=Path, default=TARGET)
    arguments = parser.parse_args()
    packed = lzma.compress(merges_text(arguments.package), preset=9 | lzma.PRESET_EXTREME)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    part = arguments.output.with_name(arguments.output.name + ".part")
    part.write_bytes(packed)
    part.replace(arguments.output)
    print(f"{arguments.output}: {len(packed)} bytes")


if __name__ == "__main__":
    main()
