"""Metadata in files: it comes back from every format, and nothing that a file holds does more than raise BadMetadata."""

import io
import json
import random
import zlib
from dataclasses import fields, replace
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.errors import BadMetadata
from core.output.a1111 import NOT_OF_THE_PICTURE, to_text
from core.output.embedded import texts_in
from core.output.metadata import (
    JPEG_EXIF_LIMIT,
    LONGEST_TEXT,
    exif_bytes,
    png_info,
    read_settings,
    read_settings_text,
    to_json,
)
from core.output.record import Record
from core.output.save import encode_picture
from core.settings import Settings

SETTINGS = Settings(
    prompt="ein roter Apfel, 日本 😀\nzweite Zeile", negative_prompt='blurry "x"', base_model="Easel Mini.safetensors",
    width=320, height=256, seed=2**62 + 1, guidance_scale=5.5, scheduler="tcd", sharpness=0.0,
)  # fmt: skip
SHA = "fedcba9876543210" * 4
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def record(**changes):
    return Record(
        Settings(**{**SETTINGS.to_dict(), **changes}), SHA, created=datetime(2026, 11, 23, 18, 30, tzinfo=timezone.utc)
    )


def saved(**changes):
    return encode_picture(PIXELS, record(**changes))[0]


@pytest.mark.parametrize("name", ["Ann", 'Ann, "Bo": Steps: 9, x', "名前"])
@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_who_made_a_picture_is_written_beside_its_settings(output_format, name):
    """In our JSON, and as `User` in the text that other programs read; D67: nothing at all is written for nobody."""
    data, _ = encode_picture(PIXELS, replace(record(output_format=output_format), created_by=name))
    texts = texts_in(io.BytesIO(data))
    ours, theirs = ("easel", "parameters") if output_format == "png" else ("ImageDescription", "UserComment")
    assert json.loads(texts[ours])["created_by"] == name
    assert texts[theirs].rpartition("User: ")[2] in (name, json.dumps(name, ensure_ascii=False))
    for read in (read_settings(data), read_settings_text(texts[theirs])):
        assert read.settings["seed"] == SETTINGS.seed and not read.unknown
    nobody = record(output_format=output_format)
    assert "created_by" not in to_json(nobody) and "User" not in to_text(nobody)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_all_settings_come_back_from_every_format(output_format, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(saved(output_format=output_format))
    data = path.read_bytes()
    for source in (path, str(path), data, io.BytesIO(data)):
        read = read_settings(source)
        assert Settings.from_dict(read.settings) == record(output_format=output_format).settings
        assert (read.source, read.unknown, read.model_hash) == ("easel", {}, SHA)


def only_text(output_format, **changes):
    """A file of ours without our JSON, as other programs leave it."""
    image, data = Image.fromarray(PIXELS), io.BytesIO()
    if output_format == "png":
        info = PngInfo()
        info.add_text("parameters", Image.open(io.BytesIO(saved(**changes))).info["parameters"])
        image.save(data, "png", pnginfo=info)
    else:
        exif = Image.Exif()
        exif.load(exif_bytes(record(**changes))[0])
        del exif[0x010E]
        image.save(data, output_format, exif=exif)
    return data.getvalue()


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_text_form_alone_gives_all_settings_of_the_picture(output_format):
    read = read_settings(only_text(output_format))
    assert read.source == "a1111"
    for f in fields(Settings):
        if f.name not in NOT_OF_THE_PICTURE:
            assert read.settings[f.name] == getattr(SETTINGS, f.name), f.name
    assert (read.model, read.model_hash) == ("Easel Mini", SHA[:10])


BRACED = "{{masterpiece}}, 1girl\nNegative prompt: bad\nSteps: 28, Sampler: Euler a, Seed: 5, Size: 832x1216"


def test_a_text_that_begins_with_a_brace_is_read_though_it_is_no_json():
    read = read_settings_text(BRACED)
    assert (read.source, read.settings["prompt"], read.settings["seed"]) == ("a1111", "{{masterpiece}}, 1girl", 5)
    assert read_settings_text(f"  {BRACED}").settings["height"] == 1216
    assert read_settings(png_with(chunk(b"tEXt", b"parameters\0" + BRACED.encode()))).settings["steps"] == 28


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_the_text_form_alone_is_enough_for_a_prompt_that_begins_with_a_brace(output_format):
    read = read_settings(only_text(output_format, prompt="{a|b} cat"))
    assert (read.source, read.settings["prompt"], read.settings["seed"]) == ("a1111", "{a|b} cat", SETTINGS.seed)


@pytest.mark.parametrize("text", ['{"steps": 3', "{a|b} cat", '{"steps": 3\nSteps: ', "{a}\nSteps: 3, Seed 4"])
def test_what_is_neither_json_nor_text_is_reported_as_damaged_json(text):
    with pytest.raises(BadMetadata, match="they are no JSON"):
        read_settings_text(text)


def test_the_json_names_program_version_model_and_time_in_ascii():
    written = to_json(record())
    assert written.isascii()
    values = json.loads(written)
    assert (values["program"], values["base_model_sha256"]) == ("Easel", SHA)
    assert values["created"] == "2026-11-23T18:30:00+00:00"
    assert values["settings"] == json.loads(json.dumps(SETTINGS.to_dict()))


def test_png_text_is_an_international_chunk_only_where_latin_1_is_not_enough():
    assert b"tEXtparameters" in saved(prompt="a café")
    assert b"iTXtparameters" in saved(prompt="日本")
    assert b"tEXteasel" in saved(prompt="日本")


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_exif_has_a_utf_16_comment_in_the_sub_directory_in_the_files_byte_order(output_format):
    """D33: all letters, in the place where other programs look."""
    exif = Image.open(io.BytesIO(saved(output_format=output_format))).getexif()
    assert exif[0x0131] == "Easel 0.1.0"
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    assert exif.endian == ">"
    assert comment[8:].decode("utf-16-be").startswith("ein roter Apfel, 日本 😀")


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16"])
def test_a_comment_in_the_other_byte_order_is_read_too(code):
    exif, data = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a cat\nSteps: 3, Seed: 4, Sampler: Euler".encode(code)
    Image.fromarray(PIXELS).save(data, "jpeg", exif=exif)
    assert read_settings(data.getvalue()).settings["seed"] == 4


def test_without_metadata_nothing_is_in_the_file():
    for output_format in ("png", "jpeg", "webp"):
        data = saved(output_format=output_format, save_metadata=False)
        assert b"Easel" not in data and b"Apfel" not in data
        with pytest.raises(BadMetadata, match="carries no settings"):
            read_settings(data)


def test_a_jpeg_drops_the_text_form_first_then_our_own_and_then_warns():
    def forms(prompt):
        block, warning = exif_bytes(record(prompt=prompt), JPEG_EXIF_LIMIT)
        assert len(block) <= JPEG_EXIF_LIMIT
        exif = Image.Exif()
        exif.load(block)
        return 0x010E in exif, 0x9286 in exif.get_ifd(0x8769), warning is not None

    assert forms("a" * 20_000) == (True, True, False)
    assert forms("日" * 10_000) == (True, False, False)  # six bytes a letter in JSON, two more in the text
    assert forms("日" * 15_000) == (False, True, False)
    assert forms("😀" * 20_000) == (False, False, True)


def test_a_jpeg_is_saved_whatever_the_length_of_its_prompts():
    """D33: settings that have no room cost a warning, not the picture."""
    data, warnings = encode_picture(
        PIXELS, record(prompt="😀" * 20_000, negative_prompt="😀" * 20_000, output_format="jpeg")
    )
    assert Image.open(io.BytesIO(data)).size == (48, 32)
    assert len(warnings) == 1 and "too long" in warnings[0]
    for output_format in ("png", "webp"):
        data, warnings = encode_picture(
            PIXELS, record(prompt="😀" * 20_000, negative_prompt="\x00" * 20_000, output_format=output_format)
        )
        assert warnings == ()
        assert read_settings(data).settings["prompt"] == "😀" * 20_000


def test_pasted_texts_are_read():
    assert read_settings_text(to_json(record())).settings == SETTINGS.to_dict()
    assert read_settings_text('{"prompt": "a cat", "steps": 12.0}').settings == {"prompt": "a cat", "steps": 12}
    assert read_settings_text("a cat\nSteps: 3, Seed: 4, Sampler: Euler").source == "a1111"


def test_what_cannot_be_used_is_named_and_the_rest_is_kept():
    read = read_settings_text(
        '{"settings": {"steps": 0, "seed": 1e400, "width": 64, "magic": [1], "prompt": {"a": 1}, "sampler": NaN}}'
    )
    assert read.settings == {"width": 64}
    assert read.unknown == {"steps": "0", "seed": "inf", "magic": "[...]", "prompt": "{...}", "sampler": "nan"}


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "[]", '{"settings": 3}', '{"settings": {}}', "[" * 500_000, '{"settings":' * 80_000, '{"seed":' + "9" * 900_000 + "}",
     '{"guidance_scale":0.' + "9" * 900_000 + "}", '{"seed": 1' + "0" * 39 + "}", '{"prompt": "' + "a" * LONGEST_TEXT + '"}', '{"seed": 1e999}', "\ud800",
     '{"steps": ' + "[" * 900 + "]" * 900 + "}"],
)  # fmt: skip
def test_bad_texts_are_an_error_that_a_user_can_read(text):
    with pytest.raises(BadMetadata):
        read_settings_text(text)


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png_with(*chunks):
    plain, mark = saved(save_metadata=False), 8 + 25
    return plain[:mark] + b"".join(chunks) + plain[mark:]


@pytest.mark.parametrize(
    "data",
    [
        png_with(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * 50_000_000))),
        png_with(chunk(b"iTXt", b"easel\0\1\0\0\0" + zlib.compress(b"{" * 50_000_000))),
        png_with(*[chunk(b"tEXt", b"easel\0" + b"x" * 1_100_000)]),
        png_with(chunk(b"tEXt", b"easel\0{")),
        png_with(chunk(b"eXIf", b"MM\0*\0\0\0\x08" + b"\xff" * 400)),
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\xff\xff\xff\xffWEBPVP8X",
    ],
    ids=[
        "zip bomb",
        "international zip bomb",
        "too long",
        "no JSON",
        "mad Exif",
        "empty",
        "GIF",
        "PNG head",
        "WebP head",
    ],
)
def test_bad_pictures_are_an_error_that_a_user_can_read(data):
    with pytest.raises(BadMetadata):
        read_settings(data)


def test_a_damaged_json_falls_back_to_the_text():
    info = png_info(record())
    data = io.BytesIO()
    Image.fromarray(PIXELS).save(data, "png", pnginfo=info)
    at = data.getvalue().index(b"tEXteasel")
    length = int.from_bytes(data.getvalue()[at - 4 : at], "big")
    broken = data.getvalue()[: at - 4] + chunk(b"tEXt", b"easel\0{ not JSON") + data.getvalue()[at + length + 8 :]
    assert read_settings(broken).settings["seed"] == SETTINGS.seed
    assert read_settings(broken).source == "a1111"


def test_a_missing_file_and_a_folder_are_an_error_that_a_user_can_read(tmp_path):
    for path in (tmp_path / "none.png", tmp_path, "a\0b"):
        with pytest.raises(BadMetadata):
            read_settings(path)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it finds odd in a damaged file
@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_mutated_files_are_read_or_refused_but_nothing_else(output_format):
    chance = random.Random(3)
    good = saved(output_format=output_format)
    head = good.index(b"settings") + 200 if output_format == "jpeg" else len(good)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1500):
        bad = bytearray(good)
        for _ in range(chance.choice([1, 1, 2, 8, 64])):
            at = chance.randrange(min(head, len(bad)))
            action = chance.randrange(3)
            if action == 0:
                bad[at] = chance.randrange(256)
            elif action == 1:
                del bad[at : at + chance.randrange(1, 9)]
            else:
                bad[at:at] = chance.choice([b"\0", b"\xff\xff", b"{", b'"', b"easel\0", chance.randbytes(4)])
        try:
            read = read_settings(bytes(bad))
        except BadMetadata:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            Settings.from_dict(read.settings)  # whatever is read is valid
    assert min(outcomes.values()) > 0


def test_mutated_texts_are_read_or_refused_but_nothing_else():
    chance = random.Random(4)
    goods = [to_json(record()), Image.open(io.BytesIO(saved())).info["parameters"]]
    bits = [
        "{",
        "}",
        "[",
        '"',
        "\\",
        "\\u",
        "\\ud800",
        ",",
        ":",
        "\n",
        "9" * 5000,
        "1e999",
        "NaN",
        "\0",
        "Steps: ",
        "null",
        "\ud800",
        "💥",
    ]
    read = 0
    for _ in range(4000):
        bad = chance.choice(goods)
        for _ in range(chance.choice([1, 2, 5])):
            at, end = sorted(chance.choices(range(len(bad)), k=2))
            bad = bad[:at] + chance.choice(bits) + bad[(end if chance.random() < 0.2 else at) :]
        try:
            Settings.from_dict(read_settings_text(bad).settings)
            read += 1
        except BadMetadata:
            pass
    assert read > 100
