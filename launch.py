"""Easel: `python launch.py` opens the page; `--help` lists the commands. The one place that wires everything together.

This file is read by whatever Python the user has, so it must parse on every one since 2.7.
"""

from __future__ import print_function

import os
import sys

OLDEST = (3, 10)
STAND_IN = "easel"  # the preset of the checkpoint that comes with the program: it works where another's is missing
ROOT = os.path.dirname(os.path.abspath(__file__))


def main(argv):
    """Run the command that `argv` names; the exit code."""
    if sys.version_info < OLDEST:
        sys.stderr.write(
            "Easel needs Python 3.10 or newer, and this is Python %d.%d. Get one from python.org (or your system's "
            "packages) and start again with it, for example: python3.12 launch.py\n" % sys.version_info[:2]
        )
        return 2
    from core import arguments
    from core.errors import BadInput, UserError

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may have letters that a terminal has not
    args = arguments.parse(argv)
    try:
        return run(args, argv)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def run(args, argv):
    """Make the environment, go into it, and do there what `args` says."""
    from pathlib import Path

    from core import bootstrap
    from core.cli import given_settings
    from core.config import Config, make_config_file
    from core.presets import load_preset
    from core.torch_build import chosen_build

    root = Path(ROOT)
    if args.command == "add-user":  # before the configuration, which may be refused for want of a user
        return add_user(root / "auth.json", args.name)
    config = Config.load(vars(args), os.environ, root)
    load_preset(config.preset, *config.preset_folders)
    if args.command == "generate":
        given_settings(args.prompt, args.seed, args.fields)  # a typing error is told before anything is installed
    python = Path(sys.executable)
    entered = os.environ.pop(bootstrap.ENTERED, None)
    if not (getattr(args, "skip_install", False) or os.environ.get("EASEL_NO_VENV")):
        environment = bootstrap.Environment(bootstrap.environment_folder(root, os.environ))
        chosen = chosen_build(getattr(args, "torch", None), os.environ)
        if args.command == "doctor":  # it says what is missing rather than installing it
            python = environment.python if os.path.exists(environment.python) else python
        else:
            needs = bootstrap.Needs.read(root, tests=args.command == "test")
            bootstrap.ensure(environment, needs, chosen, say=lambda words: print(words, file=sys.stderr))
            python = environment.python
    if not entered:
        environ = bootstrap.process_environment(os.environ, own=python != Path(sys.executable))
        return bootstrap.enter(python, Path(__file__).resolve(), argv, environ)
    for words in getattr(args, "no_effect", []):
        print(words, file=sys.stderr)
    if args.command in ("page", "generate"):
        make_config_file(root)
    return COMMANDS[args.command](config, args)


def serve(config, args):
    """Open the page and stay until Ctrl-C or SIGTERM; then end within two seconds, whatever is under way."""
    import gc
    import signal
    import threading
    from functools import partial

    from core.access import Door
    from core.errors import BadConfig
    from core.port import port_trouble
    from core.presets import settings_of
    from core.presets_shelf import Shelf
    from core.private_paths import without

    trouble = port_trouble(config.host, config.port)
    if trouble:
        raise BadConfig(trouble)
    speak("INFO")
    gc.disable()  # until the page is there: looking again and again through what the imports make took a fifth of their time
    from core.handler import handler
    from core.output.history import History
    from core.pace import Pace
    from core.queue_store import QueueStore
    from core.weights.download import announced_size
    from core.weights.download import download as fetch
    from core.weights.fetching import Downloads
    from core.weights.files import Catalog
    from core.weights.lora_info import lora_info
    from core.worker import MOST_OF_ONE, Worker
    from webui import server
    from webui.app import App
    from webui.texts import read_languages

    catalog = Catalog(config.checkpoints, hash_cache=config.hash_cache, others=config.model_folders)
    preset = chosen_preset(config, catalog)
    languages = read_languages(config.languages, config.language)
    for words in languages.problems:
        print(words, file=sys.stderr)
    # Behind a password everybody has a history of their own: the pictures of others are not theirs to see.
    shared = config.open_to_others or bool(config.users)
    resources = prompt_resources(config, catalog)
    history = History(config.outputs, config.picture_folders, private=shared, styles=resources.styles.read)
    store, pace = QueueStore(config.queue_file), Pace(config.pace_file)
    carry_out = partial(handler, history=history, created_by=config.created_by)
    most = MOST_OF_ONE if shared else None
    shown = without(config.private_paths) if config.open_to_others else str
    worker = Worker(carry_out, lambda: make_pipeline(config, catalog), store, pace, most_of_one=most, shown=shown)
    door = Door(config.users, config.users_file)
    shelf = Shelf(
        catalog=catalog,
        own=config.user_presets,
        program=config.presets,
        first=config.preset,
        stand_in=STAND_IN,
        defaults=config.defaults,
        hosts=config.download_hosts,
        older_models=config.older_models,
    )

    app = App(
        worker=worker,
        history=history,
        shelf=shelf,
        downloads=Downloads(partial(fetch, mirror=config.hf_mirror), partial(announced_size, mirror=config.hf_mirror)),
        open_to_others=config.open_to_others,
        max_image_number=config.max_image_number,
        lora_rows=config.lora_rows,
        lora_weights=(config.lora_min_weight, config.lora_max_weight),
        aspect_ratios=config.aspect_ratios,
        languages=languages,
        notices=tuple(map(shown, config.notices + languages.problems)),
        models=catalog.names,
        files=lambda kind: catalog.files(kind).names(),
        hashes=catalog.known_hashes,
        resources=resources,
        lora_info=lambda name: lora_info(catalog.files("loras").find(name), name),
        native_size=lambda name: catalog.info(name or catalog.default()).native_size,
        defaults=lambda name: settings_of(catalog, preset, {"base_model": name} if name else {}),
        recommended=lambda name: settings_of(catalog, {}, {"base_model": name} if name else {}),
        shown=shown,
    )

    def ready(address):
        print("Easel is ready at %s   (Ctrl-C ends it)" % address, flush=True)
        gc.enable()
        worker.start()  # now, so that importing torch does not hold up the page
        history.start()

    def end(number, frame):
        last_resort = threading.Timer(1.5, os._exit, [0])  # a checksum or a connection under way may not hold us up
        last_resort.daemon = True
        last_resort.start()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    server.serve(
        app,
        host=config.host,
        port=config.port,
        share=config.share,
        auth=door.check if config.users else None,
        gone=door.gone,
        in_browser=config.in_browser,
        theme=config.theme,
        ready=ready,
    )
    worker.close(timeout=0.5)
    history.close(timeout=0.5)
    sys.stdout.flush()
    if not config.share:  # the tunnel is closed by an ordinary exit, which takes seconds, because it takes torch apart
        os._exit(0)
    return 0


def generate(config, args):
    """Make pictures without the page: the same worker, handler and pipeline."""
    from functools import partial

    from core import cli
    from core.handler import handler
    from core.output.history import History
    from core.performance import as_wanted
    from core.presets import settings_of
    from core.settings import random_seed
    from core.task import AsyncTask
    from core.weights.files import Catalog
    from core.worker import Worker

    speak("WARNING")
    catalog = Catalog(config.checkpoints, hash_cache=config.hash_cache, others=config.model_folders)
    given = cli.given_settings(args.prompt, args.seed, args.fields)
    preset = dict({"seed": random_seed()}, **chosen_preset(config, catalog))
    task = AsyncTask(as_wanted(settings_of(catalog, preset, given), given))
    history = History(config.outputs)
    carry_out = partial(handler, history=history, created_by=config.created_by)
    worker = Worker(carry_out, lambda: make_pipeline(config, catalog))
    worker.start()
    worker.submit(task)
    code = cli.generate(task, AsyncTask.events, cli.reporter(args.json))
    worker.close(timeout=0.5)
    history.close(timeout=0.5)
    return code


def chosen_preset(config, catalog):
    """The settings that the preset and the configuration come to with the files that are there; says what is amiss."""
    from core.presets import load_preset
    from core.presets_choice import choose

    preset = load_preset(config.preset, *config.preset_folders, hosts=config.download_hosts)
    choice = choose(
        preset,
        catalog,
        config.preset_folders,
        config.defaults,
        stand_in=STAND_IN,
        older_models=config.older_models,
    )
    for note in config.notices + choice.notes:
        print(note, file=sys.stderr)
    return choice.settings


def download(config, args):
    """Fetch model files by name, or those of a preset, after asking."""
    from core import cli_download
    from core.presets import load_preset
    from core.weights.files import Catalog
    from core.weights.needs import named, needed

    speak("WARNING")
    if args.list:
        cli_download.tell_sources()
        return 0
    catalog = Catalog(config.checkpoints, others=config.model_folders)
    needs = named(args.names, catalog)
    if "preset" in args:
        preset = load_preset(config.preset, *config.preset_folders, hosts=config.download_hosts)
        for note in preset.notes:
            print(note, file=sys.stderr)
        settings = dict(config.defaults.settings, **preset.settings)
        needs += needed(settings, catalog, preset.downloads, config.defaults.downloads)
    return cli_download.download(needs, mirror=config.hf_mirror, yes=args.yes)


def convert(config, args):
    """Make a safetensors file of a model in a pickle."""
    from core import cli_convert

    searched = dict(config.model_folders, checkpoints=config.checkpoints)
    return cli_convert.convert(args.path, args.folder, models=config.models, searched=searched)


def make_pipeline(config, catalog):
    """The engine. Called in the worker's thread, because it imports torch."""
    from core.device import choose_device
    from core.pipeline import Pipeline

    pipeline = Pipeline(catalog, choose_device(config), config.outputs)
    pipeline.prompt_resources = prompt_resources(config, catalog)
    return pipeline


def prompt_resources(config, catalog):
    """What prompts may name: styles, wildcards, LoRAs, embeddings."""
    from core.prompt.resources import PromptResources
    from core.prompt.styles import StyleLibrary
    from core.prompt.wildcards import Wildcards

    return PromptResources(
        styles=StyleLibrary(config.styles),
        wildcards=Wildcards(config.wildcards),
        loras=catalog.files("loras").names,
        embeddings=catalog.files("embeddings").names,
    )


def speak(level):
    """Show on stderr what the program logs from `level` on, and the warnings of all others."""
    import logging

    logging.basicConfig(level="WARNING", format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for package in ("core", "webui"):
        logging.getLogger(package).setLevel(level)


def doctor(config, args):
    """Say what this machine is and what is wrong with it; 0 if nothing is."""
    from core.doctor import examine, told

    findings = []
    for finding in examine(config):
        findings.append(finding)
        print(told(finding))
    wrong = sum(finding.wrong for finding in findings)
    print("\nEverything is fine." if not wrong else "\n%d thing(s) to do." % wrong)
    return 1 if wrong else 0


def run_tests(config, args):
    """Linter, formatter, type checker, tests; 0 if all of them are content. Pytest's closing line is the last one."""
    import shutil

    checks = ("ruff check .", "ruff format --check .", "mypy")
    failed = [check for check in checks if run_module(check.split())]
    pytest = ["pytest", "-n", "2", "--dist", "loadgroup"]
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        print(
            "The tests of the page need Chromium. Get it with: apt-get install chromium (Debian, Ubuntu), "
            "brew install chromium (macOS); it must be on the PATH as chromium or google-chrome."
        )
        pytest.extend(["-m", "not browser"])
        if os.environ.get("CI"):
            failed.append("tests of the page (no Chromium)")
    if failed:
        print("FAILED: " + "; ".join(failed))
    pytest.extend(args.pytest)
    return 1 if run_module(pytest) or failed else 0


def run_module(words):
    """Run a module of this Python as a program in the project's folder; its exit code."""
    import subprocess

    sys.stdout.flush()
    command = [sys.executable, "-m"]
    command.extend(words)
    return subprocess.call(command, cwd=ROOT)


def add_user(file, name):
    """Ask for a password twice and let `name` use the page."""
    import getpass

    from core.access import add_user as add
    from core.errors import BadConfig

    typed = []
    try:
        for prompt in ("Password for %s: " % name, "The same again: "):
            typed.append(getpass.getpass(prompt))
    except EOFError:
        pass
    if len(typed) < 2:
        raise BadConfig("No password was given; nothing has been changed. It is asked for at a terminal.")
    password, again = typed
    if again != password:
        raise BadConfig("The two passwords differ; nothing has been changed.")
    aside = add(file, name, password)
    if aside:
        print("The auth.json that was there could not be read; it is %s now." % aside)
    print(
        "%s may now use the page (if Easel runs without a password, start it anew). The users are kept in %s"
        % (name, file)
    )
    return 0


COMMANDS = {
    "page": serve,
    "generate": generate,
    "download": download,
    "convert": convert,
    "doctor": doctor,
    "test": run_tests,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
