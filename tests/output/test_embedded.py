"""Where texts are in files: every kind of chunk and tag, at any place, damaged or oversized, and what is left of them after."""

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
from foreign_samples import A1111, FOOOCUS, PIXELS, chunk, comment, png, png_with, with_exif, with_hidden
from PIL import Image, ImageCms

from core.errors import BadMetadata
from core.output.metadata import LONGEST_TEXT, read_settings, stripped

SEED = 2**32 - 1
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">'
    "a &lt;b&gt; cat&#xA;Steps: 3, Seed: 4, Sampler: Euler</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iTXt packed"])
def test_every_kind_of_png_text_is_read(kind):
    data = png({"Title": "x", "parameters": A1111}, kind)
    assert read_settings(data).settings["seed"] == SEED


def test_utf_8_in_a_latin_1_chunk_is_read_as_it_was_meant():
    text = "日本 é\nSteps: 3, Seed: 4, Sampler: Euler"
    assert read_settings(png_with(chunk(b"tEXt", b"parameters\0" + text.encode()))).settings["prompt"] == "日本 é"
    latin = "café\nSteps: 3, Seed: 4, Sampler: Euler"
    assert (
        read_settings(png_with(chunk(b"tEXt", b"parameters\0" + latin.encode("latin-1")))).settings["prompt"] == "café"
    )


def test_a_text_behind_the_pixels_is_read():
    plain = png({})
    data = plain[:-12] + chunk(b"tEXt", b"parameters\0" + A1111.encode()) + plain[-12:]
    assert read_settings(data).settings["seed"] == SEED


def test_a_png_that_breaks_off_in_its_pixels_is_read():
    data = png({"parameters": A1111})
    assert read_settings(data[: data.index(b"IDAT") + 20]).settings["seed"] == SEED


def test_a_chunk_with_a_wrong_checksum_is_passed_over():
    data = png({"parameters": A1111, "prompt": "x"})
    at = data.index(b"4294967295")
    with pytest.raises(BadMetadata):
        read_settings(data[:at] + b"5" + data[at + 1 :])


def test_a_png_s_exif_is_read():
    exif, data = Image.Exif(), io.BytesIO()
    exif[0x0131] = "program"  # Pillow takes a block with nothing but a sub-directory for empty
    exif.get_ifd(0x8769)[0x9286] = comment(A1111)
    Image.fromarray(PIXELS).save(data, "png", exif=exif)
    assert read_settings(data.getvalue()).settings["seed"] == SEED


@pytest.mark.parametrize(
    "bomb",
    [
        chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 50_000_000)),
        chunk(b"iTXt", b"easel\0\1\0\0\0" + zlib.compress(b"{" * 50_000_000)),
        chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(b"<" * 50_000_000)),
        *(
            chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress((text * LONGEST_TEXT)[:LONGEST_TEXT]))
            for text in (b"<dc:description>", b"<dc:description><rdf:Alt><rdf:li ", b"parameters  ")
        ),
        chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(b"<dc:description>" + b" " * (LONGEST_TEXT - 99))),
        chunk(b"tEXt", b"prompt\0" + b"{" * 5_000_000),
        chunk(b"zTXt", b"parameters\0\0" + b"no zlib"),
        chunk(b"iTXt", b"parameters"),
        chunk(b"zTXt", b""),
        chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 9000),
        *([chunk(b"tEXt", b"k%d\0x" % i) for i in range(3)]),
    ],
    ids=[
        "zip",
        "packed",
        "xmp",
        "starts",
        "lists",
        "words",
        "blank",
        "long",
        "damaged",
        "short",
        "empty",
        "exif",
        "one",
        "two",
        "three",
    ],
)
def test_a_bomb_is_no_metadata_and_does_not_hide_what_is_good(bomb):
    started = time.process_time()
    with pytest.raises(BadMetadata):
        read_settings(png_with(bomb))
    good = chunk(b"tEXt", b"UserComment\0" + A1111.encode())
    assert read_settings(png_with(bomb, good)).settings["seed"] == SEED
    assert time.process_time() - started < 5


def test_a_bomb_says_that_it_is_too_long():
    with pytest.raises(BadMetadata, match=f"at most {LONGEST_TEXT}"):
        read_settings(png_with(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 50_000_000))))


def test_a_hundred_thousand_chunks_and_texts_end():
    many = b"".join(chunk(b"tEXt", b"k\0v") for _ in range(100_000))
    with pytest.raises(BadMetadata):
        read_settings(png_with(many))


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_xmp_is_read(output_format):
    if output_format == "png":
        data = png({"XML:com.adobe.xmp": XMP}, "iTXt")
    else:
        out = io.BytesIO()
        Image.fromarray(PIXELS).save(out, output_format, xmp=XMP.encode())
        data = out.getvalue()
    read = read_settings(data)
    assert (read.settings["prompt"], read.settings["seed"]) == ("a <b> cat", 4)


def test_a_jpeg_comment_is_read():
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "jpeg", comment=A1111.encode())
    assert read_settings(out.getvalue()).settings["seed"] == SEED


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_both_byte_orders_is_read(order):
    text = comment(A1111)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    first = struct.pack(order + "IHHHIII", 8, 1, 0x8769, 4, 1, 26, 0)
    second = struct.pack(order + "HHHIII", 1, 0x9286, 7, len(text), 44, 0)
    block = b"Exif\0\0" + head + first + second + text
    plain = with_exif({})
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    assert read_settings(data).settings["seed"] == SEED


def test_circles_in_exif_end():
    block = b"Exif\0\0MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x8769, 4, 1, 8, 8)
    plain = with_exif({})
    with pytest.raises(BadMetadata):
        read_settings(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:])


# Without metadata


def pixels_of(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.size, image.mode, image.tobytes(), image.info.get("icc_profile")


def encoded(output_format, **options):
    exif = Image.Exif()
    exif[0x0131] = "Secret program"
    exif.get_ifd(0x8769)[0x9286] = comment(A1111)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    out = io.BytesIO()
    picture = Image.fromarray(PIXELS)
    picture.save(out, output_format, exif=exif, icc_profile=profile, xmp=XMP.encode(), **options)
    return out.getvalue()


def secret_files():
    rgba = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 200, dtype=np.uint8)])
    plain = png({"parameters": A1111, "easel": FOOOCUS}, "zTXt", pixels=rgba)
    yield (
        "png",
        plain[:-12] + chunk(b"tIME", b"\x07\xea\1\1\1\1\1") + chunk(b"prVt", b"Secret") + plain[-12:] + b"Secret",
    )
    yield "jpeg", encoded("jpeg", quality=95, optimize=True, progressive=True, comment=b"Secret") + b"Secret"
    yield "jpeg baseline", encoded("jpeg", restart_marker_blocks=1)
    yield "webp", encoded("webp", quality=90) + b"Secret"
    yield "webp lossless", encoded("webp", lossless=True)


@pytest.mark.parametrize(
    ("name", "data"), list(secret_files()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_stripping_leaves_the_pixels_and_nothing_else(name, data):
    clean = stripped(data)
    assert pixels_of(clean) == pixels_of(data)
    for word in (b"Secret", b"lighthouse", b"Exif", b"parameters", b"adobe:ns", b"UNICODE", b"tIME"):
        assert word not in clean
    assert not Image.open(io.BytesIO(clean)).getexif()
    assert stripped(clean) == clean
    assert stripped(io.BytesIO(data)) == clean
    with pytest.raises(BadMetadata, match="carries no settings"):
        read_settings(clean)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_stripping_our_own_pictures_copies_what_is_encoded(output_format, tmp_path):
    path = tmp_path / "p"
    path.write_bytes(encoded(output_format))
    assert pixels_of(stripped(path)) == pixels_of(path.read_bytes())
    assert len(stripped(path)) < path.stat().st_size


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_picture_that_is_to_be_turned_stays_so(output_format):
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x0131] = 6, "Secret"
    Image.fromarray(PIXELS).save(out, output_format, exif=exif)
    clean = stripped(out.getvalue())
    assert dict(Image.open(io.BytesIO(clean)).getexif()) == {0x0112: 6}
    assert b"Secret" not in clean
    assert pixels_of(clean) == pixels_of(out.getvalue())


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_animations_stay(output_format):
    frames = [Image.fromarray(np.roll(PIXELS, 9 * i, axis=0)) for i in range(3)]
    out = io.BytesIO()
    options = {"lossless": True} if output_format == "webp" else {}
    frames[0].save(
        out,
        output_format,
        save_all=True,
        append_images=frames[1:],
        duration=100,
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0",
        **options,
    )
    with Image.open(io.BytesIO(stripped(out.getvalue()))) as image:
        assert image.n_frames == 3
        for i, frame in enumerate(frames):
            image.seek(i)
            assert image.convert("RGB").tobytes() == frame.tobytes()


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_a_text_hidden_in_alpha_is_taken_out_and_the_colours_stay(output_format):
    pixels, out = with_hidden(A1111.encode()), io.BytesIO()
    Image.fromarray(pixels).save(out, output_format, lossless=True, exact=True)
    clean = np.asarray(Image.open(io.BytesIO(stripped(out.getvalue()))))
    assert (clean[..., :3] == pixels[..., :3]).all()
    assert (clean[..., 3:] == 255).all()  # WebP leaves an alpha channel away that says nothing


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        png({})[:60],
        with_exif({})[:200],
        with_exif({}, "webp")[:60],
        b"RIFF\4\0\0\0WEBP",
        b"\xff\xd8\xff" + b"\xff" * 99_999,
    ],
)
def test_what_is_no_whole_picture_cannot_be_stripped(data):
    with pytest.raises(BadMetadata):
        stripped(data)


def test_mutated_files_are_stripped_or_refused_but_nothing_else():
    chance = random.Random(5)
    done = 0
    files = [data for _, data in secret_files()]
    for _ in range(600):
        bad = bytearray(chance.choice(files))
        for _ in range(chance.choice([1, 3, 20])):
            at = chance.randrange(len(bad))
            bad[at : at + chance.choice([0, 1, 4])] = chance.choice(
                [b"", b"\xff", b"\xff\xda", b"\0\0", chance.randbytes(4)]
            )
        try:
            assert len(stripped(bytes(bad))) <= len(bad) + 100
            done += 1
        except BadMetadata:
            pass
    assert done > 50
