"""arguments: the command line. Standard library only, so that `--help` answers at once, before anything is installed."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

from core.near import meant

PRECISIONS = ("fp32", "fp16", "bf16")
CLIP_PRECISIONS = (*PRECISIONS, "fp8", "fp8-e5m2")
UNET_PRECISIONS = (*CLIP_PRECISIONS, "int8")

# What a precision costs against 32 bits, from docs/memory.md: final latents, of the decoder pixels.
COSTS = {
    ("unet", "bf16"): "pictures off by about 0.5 %, 4 % at the worst",
    ("unet", "fp8"): "weights of 8 bits, pictures off by about 6 %, 21 % at the worst",
    ("unet", "fp8-e5m2"): "weights of 8 bits, pictures off by about 7 %, 43 % at the worst",
    ("unet", "int8"): "weights of 8 bits, pictures off by about 2 %, 19 % at the worst",
    ("vae", "fp16"): "about 63 dB from fp32; SDXL's own can overflow in it",
    ("vae", "bf16"): "about 52 dB from fp32",
    ("clip", "bf16"): "pictures off by about 0.2 %, 3 % at the worst",
    ("clip", "fp8"): "weights of 8 bits, pictures off by about 1 %, 6 % at the worst",
    ("clip", "fp8-e5m2"): "weights of 8 bits, pictures off by about 2 %, 44 % at the worst",
}

# The reference's memory modes -> what they come to here: a field of Config and its value. Networks stay on the device as
# long as nothing else needs the room, so that the modes which ask for just that need no budget.
MEMORY_MODES: dict[str, tuple[str, object, str]] = {
    "--always-gpu": ("memory_budget", "auto", "the same as --memory-budget auto"),
    "--always-high-vram": ("memory_budget", "auto", "the same as --memory-budget auto"),
    "--always-normal-vram": ("memory_budget", "auto", "the same as --memory-budget auto"),
    "--always-low-vram": ("memory_budget", 4, "the same as --memory-budget 4"),
    "--always-no-vram": ("memory_budget", 1, "the same as --memory-budget 1"),
}
OFFLOAD_MODES: dict[str, tuple[str, object, str]] = {
    "--always-offload-from-vram": ("offload", True, "give the device's memory back after each request"),
    "--disable-offload-from-vram": ("offload", False, "keep models on the device between requests (default)"),
}

# Flags of the reference that change nothing here -> (how many values they take, why they change nothing).
WITHOUT_EFFECT: dict[str, tuple[int | str, str]] = {
    "--disable-header-check": ("?", "pages of other sites can never give orders to Easel."),
    "--web-upload-size": (1, "the page has limits of its own."),
    "--external-working-path": ("+", "name folders in config.json."),
    "--temp-path": (1, "Easel keeps no pictures in a temporary folder and never empties one."),
    "--cache-path": (
        1,
        "Easel caches no pictures; .cache holds checksums, the waiting tasks and how long pictures take.",
    ),
    "--async-cuda-allocation": (0, "torch decides."),
    "--disable-async-cuda-allocation": (0, "torch decides."),
    "--disable-xformers": (0, "Easel does not use xformers."),
    "--disable-ipex-hijack": (0, "Easel does not patch torch."),
    "--preview-option": (1, "every picture is previewed, at next to no cost; the setting preview switches it off."),
    "--disable-server-log": (0, "only what matters is logged."),
    "--disable-server-info": (0, "only what matters is logged."),
    "--debug-mode": (0, "python launch.py doctor says what is wrong."),
    "--multi-user": (0, "visitors never see each other's pictures."),
    "--is-windows-embedded-python": (0, "Easel makes its own environment."),
    "--disable-analytics": (0, "nothing is ever reported to anybody."),
    "--disable-preset-download": (0, "nothing is downloaded without asking."),
    "--disable-metadata": (
        0,
        "it is a setting: save_metadata, in the page, in config.json's defaults, or by --set save_metadata=false.",
    ),
    "--disable-image-log": (0, "finished pictures are always kept; --output DIR names where."),
    "--disable-preset-selection": (0, "a preset changes nothing before it is chosen."),
    "--disable-enhance-output-sorting": (0, "pictures keep the order in which they were made."),
    "--enable-auto-describe-image": (0, "Easel does not describe pictures yet."),
    "--attention-split": (0, "each attention is computed in the way that is fastest for its shape."),
    "--attention-quad": (0, "each attention is computed in the way that is fastest for its shape."),
    "--attention-pytorch": (0, "each attention is computed in the way that is fastest for its shape."),
    "--disable-attention-upcast": (0, "attention is not computed in another precision than the rest."),
    "--pytorch-deterministic": (0, "a seed is the same picture on the same machine without it."),
    "--directml": ("?", "Easel computes on CUDA, ROCm, MPS or the CPU; python launch.py doctor says on which."),
    "--rebuild-hash-cache": ("?", "checksums are made beside the work, when a model is first used."),
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags of `argv` by name; a flag that is not given is absent, apart from `command` and its own arguments.

    `command` is "page", "generate", "download", "convert", "doctor", "test" or "add-user". Ends the program as argparse does:
    exit code 0 after `--help`, 2 for a flag that does not exist.
    """
    parser = _parser()
    _refuse_unknown_flags(parser, argv)
    args, rest = parser.parse_known_args(argv)
    args.command = args.command or "page"
    if args.command == "test":
        args.pytest = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _refuse_unknown_flags(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """End the program if `argv` has a flag that no command has: argparse would take its value for the command."""
    commands = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    if "test" in argv:  # what follows is pytest's
        return
    known = {flag for each in (parser, *commands.values()) for flag in each._option_string_actions}
    for word in itertools.takewhile(lambda word: word != "--", argv):
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag not in known:
            advice = meant(flag, known, "").replace("'", "")
            parser.exit(
                2, f"There is no flag {flag}. {advice} `python launch.py --help` lists them.\n".replace("  ", " ")
            )


class _NoEffect(argparse.Action):
    """Remembers that the flag was given, so that it can be told that it changes nothing."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        told = getattr(namespace, "no_effect", [])
        namespace.no_effect = [*told, f"{option} changes nothing: {WITHOUT_EFFECT[option or ''][1]}"]


def _reference_flags(parser: argparse.ArgumentParser) -> None:
    for flag, (values, _) in WITHOUT_EFFECT.items():
        parser.add_argument(
            flag, nargs=values, action=_NoEffect, dest="no_effect", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python launch.py",
        description="Easel turns a prompt into pictures. Without a command it opens its page in the browser.",
        epilog="`python launch.py COMMAND --help` lists the flags of a command.",
        allow_abbrev=False,
    )
    _page_flags(parser)
    _engine_flags(parser)
    _install_flags(parser)
    _reference_flags(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _generate(commands)
    _download(commands)
    _convert(commands)
    doctor = commands.add_parser(
        "doctor", help="say what this machine is, what is wrong and what to do", allow_abbrev=False
    )
    _engine_flags(doctor)
    _install_flags(doctor)
    test = commands.add_parser(
        "test",
        help="run linter, type checker and all tests; further arguments go to pytest",
        description="Runs linter, type checker and all tests, those of the page where Chromium is installed. Further arguments go to "
        "pytest.",
        allow_abbrev=False,
    )
    _install_flags(test)
    add_user = commands.add_parser(
        "add-user", help="ask for a password and let that user in (kept hashed in auth.json)"
    )
    add_user.add_argument("name", help="the user's name")
    return parser


def _generate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    generate = commands.add_parser(
        "generate",
        help="make pictures without the page",
        description="Makes pictures and prints the path of each file. Exit code 0: done, 2: bad input, 1: failure, 130: stopped.",
        allow_abbrev=False,
    )
    generate.add_argument("prompt", help="what the picture shows")
    generate.add_argument(
        "--seed", help="whole number; the same seed and settings give the same picture (default: random)"
    )
    generate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        dest="fields",
        help="any setting by its name, for example --set steps=20; can be given several times",
    )
    generate.add_argument("--json", action="store_true", help="print one JSON object an event")
    generate.add_argument(
        "--preset", default=argparse.SUPPRESS, metavar="NAME", help="a file of the folders user_presets and presets"
    )
    _engine_flags(generate)
    _install_flags(generate)


def _download(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    download = commands.add_parser(
        "download",
        help="fetch model files, after saying which and how large",
        description="Fetches files that Easel knows, or those of a preset. Asks before it begins; ended at any time, it goes on "
        "the next time. Exit code 0: all there, 2: bad input or no, 1: failure, 130: stopped.",
        allow_abbrev=False,
    )
    download.add_argument("names", nargs="*", metavar="NAME", help="a file by its name; --list names them")
    download.add_argument("--preset", default=argparse.SUPPRESS, metavar="NAME", help="all files of this preset")
    download.add_argument("--list", action="store_true", help="name the files that Easel knows, with their sizes")
    download.add_argument("--yes", action="store_true", help="do not ask")
    _folder_flags(download)
    _install_flags(download)


def _convert(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    convert = commands.add_parser(
        "convert",
        help="make a safetensors file of a model in a pickle (.ckpt, .pt, .pth, .bin)",
        description="Reads the tensors of a pickle, in a process of its own that can run nothing of it, and writes them to a "
        "safetensors file. Takes checkpoints, LoRAs, embeddings, preview decoders, upscalers and other files of tensors, and "
        "the folder of a GPT-2 prompt expander. The original stays as it is and nothing is overwritten. Prints the new path. "
        "Exit code 0: done, 2: refused, with the reason, 1: failure.",
        allow_abbrev=False,
    )
    convert.add_argument("path", metavar="PATH", help="the file, or the folder of a GPT-2 model")
    convert.add_argument(
        "--output",
        metavar="FOLDER",
        dest="folder",
        help="where the new file goes (default: its kind's folder in models)",
    )
    convert.add_argument(
        "--models-path", metavar="DIR", dest="models", default=argparse.SUPPRESS, help="your models folder"
    )
    _install_flags(convert)


def _page_flags(parser: argparse.ArgumentParser) -> None:
    page = parser.add_argument_group("page", argument_default=argparse.SUPPRESS)
    page.add_argument(
        "--listen",
        nargs="?",
        const="0.0.0.0",
        metavar="IP",
        dest="host",
        help="let other computers in, at this address (without IP: at every address); needs a user and password",
    )
    page.add_argument("--port", help="port of the page (default 7865)")
    page.add_argument("--share", action="store_true", help="make a public address; needs a user and password")
    page.add_argument("--auth", metavar="USER:PASSWORD", help="who may use the page; safer: the command add-user")
    page.add_argument(
        "--preset",
        metavar="NAME",
        help="settings that the page starts with where a browser does not remember its own: a file of the folders user_presets "
        "and presets",
    )
    page.add_argument("--theme", choices=("light", "dark"), help="colours (default: as the browser prefers)")
    page.add_argument(
        "--language",
        metavar="NAME",
        help="of the page: de, en, es, fr, ja, ru, zh or a file in language/ (default: as the browser prefers)",
    )
    browser = page.add_mutually_exclusive_group()
    browser.add_argument("--in-browser", action="store_true", help="open the browser (default)")
    browser.add_argument(
        "--disable-in-browser", action="store_false", dest="in_browser", help="do not open the browser"
    )


def _folder_flags(parser: argparse.ArgumentParser) -> None:
    folders = parser.add_argument_group("folders", argument_default=argparse.SUPPRESS)
    folders.add_argument(
        "--output", "--output-path", metavar="DIR", dest="outputs", help="where pictures go (default: outputs)"
    )
    folders.add_argument(
        "--models-path",
        metavar="DIR",
        dest="models",
        help="your models folder; its folder checkpoints is searched first",
    )
    folders.add_argument(
        "--hf-mirror", metavar="URL", dest="hf_mirror", help="an address that serves the files of huggingface.co"
    )
    folders.add_argument(
        "--always-download-new-model",
        action="store_false",
        dest="older_models",
        help="don't make do with an older checkpoint where a preset's own is missing",
    )


def _engine_flags(parser: argparse.ArgumentParser) -> None:
    _folder_flags(parser)
    engine = parser.add_argument_group("device and precision", argument_default=argparse.SUPPRESS)
    mode = engine.add_mutually_exclusive_group()
    mode.add_argument(
        "--memory-budget",
        metavar="GIB",
        help="memory of the device that the networks and their work may take (default auto: what is free)",
    )
    mode.add_argument(
        "--always-cpu",
        nargs="?",
        const="all",
        metavar="THREADS",
        dest="always_cpu",
        help="use no GPU, and this many threads (without THREADS: as many as there are cores)",
    )
    _constants(mode, MEMORY_MODES)
    _constants(engine.add_mutually_exclusive_group(), OFFLOAD_MODES)
    engine.add_argument("--gpu-device-id", metavar="N", help="which GPU, counted from 0")
    everything = engine.add_mutually_exclusive_group()
    for precision in ("fp32", "fp16"):
        everything.add_argument(
            f"--all-in-{precision}",
            action="store_const",
            const=precision,
            dest="all_precision",
            help=f"every network in {precision}"
            + (" but the image decoder, which can overflow" * (precision == "fp16")),
        )
    for part, precisions, words in (
        ("unet", UNET_PRECISIONS, "the denoising network"),
        ("vae", PRECISIONS, "the image decoder"),
        ("clip", CLIP_PRECISIONS, "the text encoders"),
    ):
        choice = engine.add_mutually_exclusive_group()
        for precision in precisions:
            choice.add_argument(
                f"--{part}-in-{'fp8-e4m3fn' if precision == 'fp8' else precision}",
                action="store_const",
                const=precision,
                dest=f"{part}_precision",
                help=f"{words} in {precision}" + _cost(part, precision),
            )
    engine.add_argument(
        "--int8-linears",
        action="store_true",
        help="linear layers of the denoising network multiply in int8: faster, weights in int8, pictures off by about 2 %% "
        "(docs/memory.md)",
    )
    engine.add_argument("--vae-in-cpu", action="store_true", help="the image decoder on the CPU")


def _cost(part: str, precision: str) -> str:
    """What stands behind the words of a flag; "" where nothing is lost or nothing was measured."""
    cost = COSTS.get((part, precision), "").replace("%", "%%")
    return f": {cost} (docs/memory.md)" if cost else ""


def _constants(group: argparse._MutuallyExclusiveGroup, flags: dict[str, tuple[str, object, str]]) -> None:
    """Flags that each stand for one value of a field."""
    for flag, (field, value, words) in flags.items():
        group.add_argument(flag, action="store_const", const=value, dest=field, help=words)


def _install_flags(parser: argparse.ArgumentParser) -> None:
    install = parser.add_argument_group("installation", argument_default=argparse.SUPPRESS)
    install.add_argument(
        "--torch",
        metavar="BUILD",
        dest="torch",
        help="the build of torch: cpu, cu126, cu128, cu130, rocm7.2, or default (what pip takes by itself); "
        "without this flag the launcher picks the one that fits",
    )
    install.add_argument(
        "--skip-install", action="store_true", help="install nothing and use the Python that runs this program"
    )
