"""arguments: the command line. Standard library only, so that `--help` answers at once, before anything is installed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

PRECISIONS = ("fp32", "fp16", "bf16")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags of `argv` by name; a flag that is not given is absent, apart from `command` and its own arguments.

    `command` is "page", "generate", "doctor", "test" or "add-user". Ends the program as argparse does: exit code 0
    after `--help`, 2 for a flag that does not exist.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    args.command = args.command or "page"
    if args.command == "test":
        args.pytest = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


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
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _generate(commands)
    doctor = commands.add_parser(
        "doctor", help="say what this machine is, what is wrong and what to do", allow_abbrev=False
    )
    _engine_flags(doctor)
    _install_flags(doctor)
    test = commands.add_parser(
        "test", help="run linter, type checker and all tests; further arguments go to pytest", allow_abbrev=False
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
        description="Makes pictures and prints the path of each file. Exit code 0: done, 2: bad input, 1: failure.",
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
    generate.add_argument("--preset", default=argparse.SUPPRESS, metavar="NAME", help="a file of the folder presets")
    _engine_flags(generate)
    _install_flags(generate)


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
        "--preset", metavar="NAME", help="settings that the page starts with, a file of the folder presets"
    )
    page.add_argument("--theme", choices=("light", "dark"), help="colours (default: as the browser prefers)")
    browser = page.add_mutually_exclusive_group()
    browser.add_argument("--in-browser", action="store_true", help="open the browser (default)")
    browser.add_argument(
        "--disable-in-browser", action="store_false", dest="in_browser", help="do not open the browser"
    )


def _engine_flags(parser: argparse.ArgumentParser) -> None:
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
    engine = parser.add_argument_group("device and precision", argument_default=argparse.SUPPRESS)
    engine.add_argument(
        "--always-cpu",
        nargs="?",
        const="all",
        metavar="THREADS",
        dest="always_cpu",
        help="use no GPU, and this many threads (without THREADS: as many as there are cores)",
    )
    engine.add_argument("--gpu-device-id", metavar="N", help="which GPU, counted from 0")
    everything = engine.add_mutually_exclusive_group()
    for precision in ("fp32", "fp16"):
        everything.add_argument(
            f"--all-in-{precision}",
            action="store_const",
            const=precision,
            dest="all_precision",
            help=f"every network in {precision}",
        )
    for part, words in (("unet", "the denoising network"), ("vae", "the image decoder"), ("clip", "the text encoders")):
        choice = engine.add_mutually_exclusive_group()
        for precision in PRECISIONS:
            choice.add_argument(
                f"--{part}-in-{precision}",
                action="store_const",
                const=precision,
                dest=f"{part}_precision",
                help=f"{words} in {precision}",
            )
    engine.add_argument("--vae-in-cpu", action="store_true", help="the image decoder on the CPU")


def _install_flags(parser: argparse.ArgumentParser) -> None:
    install = parser.add_argument_group("installation", argument_default=argparse.SUPPRESS)
    install.add_argument(
        "--torch",
        metavar="BUILD",
        dest="torch",
        help="the build of torch: cpu, cu126, cu128, cu130, rocm7.2, xpu, or default (what pip takes by itself); "
        "without this flag the launcher picks the one that fits",
    )
    install.add_argument(
        "--skip-install", action="store_true", help="install nothing and use the Python that runs this program"
    )
