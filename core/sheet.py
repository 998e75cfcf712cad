"""sheet: all pictures of a request on one: the cells of a grid with labels, or one beside the other. Saved as PNG.

The pictures are read from disk one by one and made smaller where the sheet would become too large, so that a hundred of
them need no more memory than the sheet itself. No torch; Pillow only where it is needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from core.errors import HistoryError, OutputError
from core.events import Saved, Warned
from core.output.files import explained
from core.output.log import append_log
from core.output.metadata import png_info
from core.output.record import Record
from core.output.save import ENCODERS, place
from core.task import AsyncTask, Interrupted

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

    Font: TypeAlias = FreeTypeFont | ImageFont

LONGEST_SIDE = 8192  # pixels of a sheet
MOST_PIXELS = 2**25  # of a sheet: 100 MB of memory
SMALLEST_CELL = 64  # pixels; what a label needs to be read
MOST_LINES = 3  # of a label
PAPER, INK, EMPTY, FILLER = (255, 255, 255), (24, 24, 24), (226, 226, 226), (0, 0, 0)
# For writing that the font which comes with Pillow has no letters for, looked for where systems keep their fonts.
WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "msyh.ttc", "Hiragino Sans GB.ttc", "arialuni.ttf", "DejaVuSans.ttf")

Remember: TypeAlias = Callable[[Path, Record], object]


@dataclass(frozen=True)
class Sheet:
    """What stands where. `pictures` by column and row; labels are empty where there are none."""

    pictures: Mapping[tuple[int, int], Path]
    columns: int
    rows: int
    across: tuple[str, ...] = ()  # above the columns
    down: tuple[str, ...] = ()  # left of the rows
    filler: tuple[int, int, int] = EMPTY


def sheets(
    task: AsyncTask, record: Record, outputs: Path, remember: Remember | None = None
) -> Iterator[Saved | Warned]:
    """Make and save the sheet that `task` asks for of its pictures, if it asks for one and there are at least two.

    A sheet that cannot be saved is a warning: the pictures are there. After Stop or Skip there is none.
    """
    pictures = {number: Path(path) for number, path in sorted(task.made.items())}
    if len(pictures) < 2 or not (task.grid or task.settings.image_grid):
        return
    try:
        image = draw(of_grid(task, pictures) if task.grid else in_rows(list(pictures.values())), check=task.check)
        path = _saved(image, record, _told(task, pictures), "sheet" if task.grid else "grid", outputs)
    except OSError as problem:
        yield Warned(message=f"The sheet of all pictures cannot be saved: {explained(problem)}")
        return
    except Interrupted:
        return
    try:
        append_log(path, record)
        if remember:
            remember(path, record)
    except (OutputError, HistoryError) as problem:
        yield Warned(message=str(problem))
    width, height = image.size
    yield Saved(path=str(path), seed=record.settings.seed, width=width, height=height, sheet=True)


def of_grid(task: AsyncTask, pictures: Mapping[int, Path]) -> Sheet:
    """The cells of a grid with their labels."""
    assert task.grid is not None
    x, y = task.grid.x, task.grid.y
    cells = {(task.cells[number].column, task.cells[number].row): path for number, path in pictures.items()}
    across = tuple(f"{x.label}: {x.shown(n)}" for n in range(len(x.values)))
    down = tuple(f"{y.label}: {y.shown(n)}" for n in range(len(y.values))) if y else ()
    return Sheet(cells, len(across), len(down) or 1, across, down)


def in_rows(pictures: Sequence[Path]) -> Sheet:
    """As square as may be, row by row, the rest black."""
    columns = math.ceil(math.sqrt(len(pictures)))
    places = {(number % columns, number // columns): path for number, path in enumerate(pictures)}
    return Sheet(places, columns, math.ceil(len(pictures) / columns), filler=FILLER)


def draw(
    sheet: Sheet, longest: int = LONGEST_SIDE, most: int = MOST_PIXELS, check: Callable[[], None] = lambda: None
) -> Image:
    """The sheet as RGB, at most `longest` pixels a side and `most` in all. A picture that is gone leaves its cell empty.

    `check` is called before each picture and may raise.
    """
    from PIL import Image, ImageDraw

    cell = _cell(sheet)
    labels = bool(sheet.across or sheet.down)
    gap = max(2, round(min(cell) / 64)) if labels else 0
    scale = 1.0
    for _ in range(20):  # the labels take room of their own, which depends on the size of the cells
        wide, high = (max(1, int(side * scale)) for side in cell)
        size = max(11, min(48, round(min(wide, high) / 16)))
        top, left = (side or gap for side in _margins(sheet, wide, size))
        width = left + sheet.columns * (wide + gap) - gap + (gap if labels else 0)
        height = top + sheet.rows * (high + gap) - gap + (gap if labels else 0)
        if max(width, height) <= longest and width * height <= most:
            break
        scale *= min(longest / width, longest / height, math.sqrt(most / (width * height))) * 0.99
    paper = Image.new("RGB", (width, height), PAPER if labels else sheet.filler)
    pen = ImageDraw.Draw(paper)
    for column, text in enumerate(sheet.across):
        _write(pen, text, (left + column * (wide + gap), 0, wide, top), size)
    for row, text in enumerate(sheet.down):
        _write(pen, text, (0, top + row * (high + gap), left, high), size)
    for row in range(sheet.rows):
        for column in range(sheet.columns):
            check()
            corner = left + column * (wide + gap), top + row * (high + gap)
            picture = _small(sheet.pictures.get((column, row)), (wide, high))
            if picture is None:
                pen.rectangle((*corner, corner[0] + wide - 1, corner[1] + high - 1), fill=sheet.filler)
            else:
                inset = (wide - picture.width) // 2, (high - picture.height) // 2
                paper.paste(picture, (corner[0] + inset[0], corner[1] + inset[1]))
    return paper


def _cell(sheet: Sheet) -> tuple[int, int]:
    """Width and height that hold every picture."""
    from PIL import Image

    wide = high = SMALLEST_CELL
    for path in sheet.pictures.values():
        with suppress(OSError), Image.open(path) as image:
            wide, high = max(wide, image.width), max(high, image.height)
    return wide, high


def _small(path: Path | None, size: tuple[int, int]) -> Image | None:
    from PIL import Image

    if path is None:
        return None
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except OSError:
        return None
    picture.thumbnail(size, Image.Resampling.LANCZOS)
    return picture


def _margins(sheet: Sheet, wide: int, size: int) -> tuple[int, int]:
    """Room above for the columns' labels and at the left for the rows', in pixels."""
    pad = size // 2

    def lines(texts: Sequence[str], room: int) -> list[str]:
        return [line for text in texts for line in _wrapped(text, room, size)]

    across = max((len(_wrapped(text, wide - 2 * pad, size)) for text in sheet.across), default=0)
    top = across * _leading(size) + 2 * pad if across else 0
    room = max(wide // 2, 8 * size)
    left = max((math.ceil(_font(line, size).getlength(line)) for line in lines(sheet.down, room)), default=0)
    return top, left + 2 * pad if left else 0


def _write(pen: ImageDraw, text: str, box: tuple[int, int, int, int], size: int) -> None:
    """Write `text` in the middle of `box` (left, top, width, height)."""
    left, top, width, height = box
    lines = _wrapped(text, width - size, size)
    y = top + (height - len(lines) * _leading(size)) / 2
    for line in lines:
        font = _font(line, size)
        pen.text((left + (width - font.getlength(line)) / 2, y), line, fill=INK, font=font)
        y += _leading(size)


def _wrapped(text: str, room: int, size: int) -> list[str]:
    """`text` in at most MOST_LINES lines of `room` pixels."""
    lines: list[str] = []
    line = ""
    font = _font(text, size)
    for character in " ".join(text.split()):
        if line and font.getlength(line + character) > room:
            at = line.rfind(" ") + 1 or len(line)
            lines, line = [*lines, line[:at].rstrip()], line[at:]
        line += character
    lines.append(line)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][:-1] + "…"]
    return lines


def _leading(size: int) -> int:
    return round(size * 1.3)


def _font(text: str, size: int) -> Font:
    from PIL import ImageFont

    if any(ord(character) > 0x24F and character != "…" for character in text):  # beyond the Latin alphabets
        for name in WIDE_FONTS:
            with suppress(OSError):
                return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _told(task: AsyncTask, pictures: Mapping[int, Path]) -> dict[str, Any]:
    """What the sheet's own metadata says of it: the axes, and the files."""
    names = [path.name for path in pictures.values()]
    return {**(task.grid.to_dict() if task.grid else {}), "pictures": names}


def _saved(image: Image, record: Record, told: Mapping[str, Any], word: str, outputs: Path) -> Path:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if record.settings.save_metadata:
        info = png_info(record)
        info.add_text("easel_sheet", json.dumps(told))
    data = BytesIO()
    image.save(data, "PNG", pnginfo=info, **ENCODERS["png"])
    created: datetime = record.created
    folder = outputs.absolute() / created.strftime("%Y-%m-%d")
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{created.strftime('%H-%M-%S')}_{record.settings.seed}_{word}"
    return place(data.getvalue(), folder, stem, ".png")
