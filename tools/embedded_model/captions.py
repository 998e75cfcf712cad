"""Honest English captions of scenes: names, keywords, style, size, place and ground, and nothing that isn't there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from data import BLACK, COLOUR_NAMES, STYLES, THINGS, WHITE
from numpy.random import Generator
from scene import LINE, MIDDLE, NONE, PLACES, Scene

UNCOUNTED = {  # names without an article
    "grapes", "cherries", "coffee", "pizza", "fire", "sushi", "bread", "cheese", "broccoli", "popcorn", "noodles", "ramen",
    "pancakes", "milk", "beer", "corn", "sweetcorn", "chocolate", "lightning", "jeans", "trousers", "scissors", "headphones",
    "books", "dice", "fries", "rice", "honey", "juice", "peanuts", "blueberries", "earth", "tennis", "bowling", "luggage",
    "socks", "gloves", "glasses", "eyeglasses", "sunglasses", "lips", "footprints", "paws", "eyes", "poo", "swords", "santa",
    "tea", "soccer", "football", "hot coffee", "ice cream", "french fries", "red wine", "blue jeans", "paw prints", "planet earth",
    "santa claus", "fallen leaves", "brown leaves", "green leaves", "clapping hands", "crossed swords", "dark glasses",
    "bowling pins", "tongue out",
}  # fmt: skip
COLOUR_WORDS = {*COLOUR_NAMES, "gold", "golden"}

NEUTRAL = ("", "", "", "", "a picture of ", "an emoji of ", "an icon of ")
BEFORE = {  # by style; a caption names its style here or at its end
    "3d": ("a 3d render of ", "a 3d icon of ", "a glossy 3d picture of "),
    "flat": ("a flat icon of ", "a flat vector picture of ", "a flat illustration of "),
    "line": ("line art of ", "black line art of ", "a line drawing of ", "a line icon of "),
    "drawing": ("a drawing of ", "a shaded drawing of ", "a cartoon of ", "a cartoon drawing of "),
}
AFTER = {
    "3d": (", 3d", ", glossy 3d", ", 3d render", ", 3d style"),
    "flat": (", flat", ", flat vector", ", flat design", ", flat style"),
    "line": (", line art", ", black line art", ", lineart", ", line art style"),
    "drawing": (", drawing", ", shaded drawing", ", cartoon", ", drawing style"),
}
ADJECTIVES = {"3d": "3d ", "flat": "flat ", "line": "line art ", "drawing": "cartoon "}
GROUNDS = (
    ("{} on a {} background", 0.45), ("{}, {} background", 0.3), ("{} with a {} background", 0.1), ("{} on {}", 0.15),
)  # fmt: skip
GRADIENTS = (("{} on a {} to {} gradient background", 0.5), ("{}, {} and {} gradient background", 0.5))
PLACED = {
    1: ("on the left", "on the left side"),
    2: ("on the right", "on the right side"),
    3: ("at the top",),
    4: ("at the bottom",),
}
BESIDE = (("{} and {}", 0.5), ("{} next to {}", 0.2), ("{} on the left and {} on the right", 0.3))
ABOVE = (("{} and {}", 0.4), ("{} above {}", 0.6))
SMALL = ("small ", "little ", "tiny ")
UNNAMED_WHITE, UNNAMED_3D = 0.5, 0.5  # shares of these
UNNAMED_GROUND, UNNAMED = 0.1, 0.15  # shares of the other grounds; of the other styles, of sizes, of places
KEYWORDS, ONE_PART = 0.1, 0.05  # shares of captions


def with_article(name: str) -> str:
    if name in UNCOUNTED:
        return name
    vowel = name[0] in "aeio" or (name[0] == "u" and name.startswith("umb"))
    return f"{'an' if vowel else 'a'} {name}"


def on_ground(text: str, ground: int) -> str:
    """`text` on the colour of that number: "a fox on an orange background"."""
    return f"{text} on {with_article(f'{COLOUR_NAMES[ground]} background')}"


def pick(options: Sequence[tuple[str, float]], rng: Generator) -> str:
    return options[int(rng.choice(len(options), p=[share for _, share in options]))][0]


def any_of(options: Sequence[str], rng: Generator) -> str:
    return options[int(rng.integers(len(options)))]


def name_of(thing: int, style: int, rng: Generator) -> str:
    """The first name half the time. Line art has no colours, so its names have none either."""
    names = THINGS[thing].names
    name = names[0] if rng.random() < 0.5 else any_of(names, rng)
    if style == LINE:
        name = " ".join(word for word in name.split() if word not in COLOUR_WORDS) or name
    return name


def caption(scene: Scene, rng: Generator, *, high: bool = False) -> str:
    """What the scene shows: its things always, a white ground and the 3D style half the time, all else nearly always.

    What is left open is what a negative prompt can take away: guidance weighs pictures of the prompt, and makes no others.
    For the same reason a few captions name one part of the scene and nothing else. `high`: the picture is higher than wide,
    so that the second thing is below the first.
    """
    if rng.random() < ONE_PART:
        return one_part(scene, rng)
    style = STYLES[scene.style]
    where = rng.random()  # is the style named: before, at the end, or as an adjective
    named = rng.random() >= (UNNAMED_3D if scene.style == 0 else UNNAMED)
    small = scene.small and rng.random() >= UNNAMED

    def title(thing: int) -> str:
        name = name_of(thing, scene.style, rng)
        adjectives = any_of(SMALL, rng) if small else ""
        if named and where < 0.1:
            adjectives += ADJECTIVES[style]
        if rng.random() < 0.3:
            return adjectives + name
        return with_article(adjectives + name) if name not in UNCOUNTED else adjectives + name

    text = title(scene.thing)
    if scene.second != NONE:
        text = pick(ABOVE if high else BESIDE, rng).format(text, title(scene.second))
    if scene.place != MIDDLE and rng.random() >= UNNAMED:
        text += f" {any_of(PLACED[scene.place], rng)}"
    if named and 0.1 <= where < 0.45:
        text = any_of(BEFORE[style], rng) + text
    elif not named:
        text = any_of(NEUTRAL, rng) + text
    white = scene.ground == WHITE and scene.fade == NONE
    if rng.random() >= (UNNAMED_WHITE if white else UNNAMED_GROUND):
        colours = [COLOUR_NAMES[c] for c in (scene.ground, scene.fade) if c != NONE]
        text = pick(GROUNDS if scene.fade == NONE else GRADIENTS, rng).format(text, *colours)
    if named and where >= 0.45:
        text += any_of(AFTER[style], rng)
    words = THINGS[scene.thing].keywords
    if scene.second == NONE and words and rng.random() < KEYWORDS:
        text += "".join(f", {words[i]}" for i in rng.permutation(len(words))[: 1 + int(rng.integers(2))])
    return white_lines(text.replace(" a orange ", " an orange "), scene)


def one_part(scene: Scene, rng: Generator) -> str:
    """A keyword, the style or the ground of the scene: "animal", "flat", "blue background"."""
    thing = scene.second if scene.second != NONE and rng.random() < 0.5 else scene.thing
    words = THINGS[thing].keywords
    part = any_of(("style", "ground", "keyword") if words else ("style", "ground"), rng)
    if part == "keyword":
        return any_of(words, rng)
    if part == "style":
        options = [words.strip(" ,") for words in (*AFTER[STYLES[scene.style]], ADJECTIVES[STYLES[scene.style]])]
        return white_lines(any_of(options, rng), scene)
    colours = [COLOUR_NAMES[c] for c in (scene.ground, scene.fade) if c != NONE]
    ground = f"{' and '.join(colours)} {'gradient ' if len(colours) > 1 else ''}background"
    return with_article(ground) if rng.random() < 0.5 else ground


def white_lines(text: str, scene: Scene) -> str:
    return text.replace("black line art", "white line art") if scene.ground == BLACK else text


def phrases(things: int) -> Iterator[str]:
    """Every word that a caption of the first `things` may have."""
    for thing in THINGS[:things]:
        yield from (with_article(name) for name in thing.names)
        yield from thing.keywords
    yield from COLOUR_NAMES
    yield from NEUTRAL
    for style in STYLES:
        yield from BEFORE[style]
        yield ADJECTIVES[style]
        yield from AFTER[style]
    for options in (GROUNDS, GRADIENTS, BESIDE, ABOVE):
        yield from (form.replace("{}", " ") for form, _ in options)
    for words in PLACED.values():
        yield from words
    yield from SMALL
    yield from PLACES
    yield "white line art, a an the with against in of , ."
