"""The sheet of style samples: where each cell is, how large it may be, and that what was drawn is not drawn again."""

import json

from PIL import Image
from tiny import write_checkpoint

from core.prompt.style_files import Style
from tools import style_samples
from tools.style_samples import CELL, COLUMNS, LARGEST, Sheet, samples, thumbnail


def solid(number):
    return Image.new("RGB", (CELL, CELL), (number % 256, 40, 200))


def test_each_style_has_the_cell_that_the_index_says(tmp_path):
    sheet = Sheet(tuple((f"style {n}", solid(3 * n)) for n in range(2 * COLUMNS + 3)))
    (tmp_path / "a.webp").write_bytes(sheet.webp())
    index = json.loads(sheet.index())
    with Image.open(tmp_path / "a.webp") as picture:
        assert picture.size == (CELL * COLUMNS, CELL * 3)
        for number, name in enumerate(index["names"]):
            x, y = number % index["columns"], number // index["columns"]
            red = picture.getpixel((x * index["cell"] + CELL // 2, y * index["cell"] + CELL // 2))[0]
            assert abs(red - 3 * number) <= 8, name


def test_the_sheet_stays_small_however_rich_the_pictures_are(monkeypatch):
    noise = Image.effect_noise((CELL, CELL), 100).convert("RGB")
    sheet = Sheet((("a", noise),))
    assert LARGEST < 2**20 * 1.5
    monkeypatch.setattr(style_samples, "LARGEST", 0.8 * (rich := len(sheet.webp())))
    assert len(sheet.webp()) <= 0.8 * rich


def test_a_thumbnail_is_the_middle_square():
    picture = Image.new("RGB", (300, 100), "red")
    picture.paste("blue", (100, 0, 200, 100))
    assert thumbnail(picture).getcolors() == [(CELL * CELL, (0, 0, 255))]


def test_what_was_drawn_is_drawn_again_only_when_something_changes(tmp_path, monkeypatch):
    painted = []

    class Stub:
        def __init__(self, *_):
            pass

        def paint(self, prompt, style):
            painted.append((prompt, style.name))
            return solid(1)

    monkeypatch.setattr(style_samples, "Painter", Stub)
    (tmp_path / "model").write_bytes(b"1")
    styles = [Style("A", "a {prompt}"), Style("B", "b {prompt}")]
    for prompt, given in (
        ("fox", styles),
        ("fox", styles),
        ("fox", [styles[0], Style("B", "other")]),
        ("cat", styles[:1]),
    ):
        assert [name for name, _ in samples(given, prompt, tmp_path / "model", tmp_path / "work", 1)] == [
            s.name for s in given
        ]
    assert painted == [("fox", "A"), ("fox", "B"), ("fox", "B"), ("cat", "A")]


def test_the_whole_tool_draws_with_the_engine(tmp_path, capsys):
    limit = 2
    write_checkpoint(tmp_path / "tiny.safetensors", metadata={"easel.settings": '{"steps": 2}'})
    arguments = ["--limit", str(limit), "--checkpoint", tmp_path / "tiny.safetensors", "--out", tmp_path / "out"]
    style_samples.main([*map(str, arguments), "--work", str(tmp_path / "work"), "--threads", "1"])
    assert len(json.loads((tmp_path / "out" / "styles.json").read_text())["names"]) == limit
    assert (tmp_path / "out" / "styles.webp").stat().st_size > 100
    assert f"{limit} samples" in capsys.readouterr().out
