"""Easel: `python launch.py` opens the page; `--help` lists the commands. The one place that wires everything together.

This file is read by whatever Python the user has, so it must parse on every one since 2.7.
"""

from __future__ import print_function

import os
import sys

OLDEST = (3, 10)
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
    from core.errors import BadConfig, BadSetting, ModelNotFound, UserError

    args = arguments.parse(argv)
    try:
        return run(args, argv)
    except (BadConfig, BadSetting, ModelNotFound) as error:
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
    from core.config import Config
    from core.torch_build import chosen_build

    root = Path(ROOT)
    config = Config.load(vars(args), os.environ, root)
    if args.command == "add-user":
        return add_user(root / "auth.json", args.name)
    if args.command == "generate":
        given_settings(args.prompt, args.seed, args.fields)  # a typing error is told before anything is installed
    python = Path(sys.executable)
    entered = os.environ.pop(bootstrap.ENTERED, None)
    if not (getattr(args, "skip_install", False) or os.environ.get("EASEL_NO_VENV")):
        environment = bootstrap.Environment(bootstrap.environment_folder(root, os.environ))
        chosen = chosen_build(getattr(args, "torch", None), os.environ)
        if args.command == "doctor":  # it says what is missing rather than installing it
            python = environment.python if environment.python.exists() else python
        else:
            needs = bootstrap.Needs.read(root, tests=args.command == "test")
            bootstrap.ensure(environment, needs, chosen, say=lambda words: print(words, file=sys.stderr))
            python = environment.python
    if not entered:
        environ = bootstrap.process_environment(os.environ)
        return bootstrap.enter(python, Path(__file__).resolve(), argv, environ)
    return COMMANDS[args.command](config, args)


def serve(config, args):
    """Open the page and stay until Ctrl-C."""
    raise NotImplementedError


def generate(config, args):
    """Make pictures without the page."""
    raise NotImplementedError


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
    import subprocess

    checks = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
    failed = [" ".join(check) for check in checks if subprocess.call([sys.executable, "-m"] + check, cwd=ROOT)]
    only = []
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        print("The tests of the page need Chromium. Get it with: apt-get install chromium (Debian, Ubuntu), brew install chromium (macOS).")
        only = ["-m", "not browser"]
        if os.environ.get("CI"):
            failed.append("the tests of the page (no browser)")
    if failed:
        print("FAILED: " + "; ".join(failed))
    sys.stdout.flush()
    tests = subprocess.call([sys.executable, "-m", "pytest", "-n", "2"] + only + args.pytest, cwd=ROOT)
    return 1 if failed or tests else 0


def add_user(file, name):
    """Ask for a password twice and let `name` use the page."""
    import getpass

    from core.access import add_user as add
    from core.errors import BadConfig

    password = getpass.getpass("Password for %s: " % name)
    if getpass.getpass("The same again: ") != password:
        raise BadConfig("The two passwords differ; nothing has been changed.")
    add(file, name, password)
    print("%s may now use the page; restart Easel if it is running. The users are kept in %s" % (name, file))
    return 0


COMMANDS = {"page": serve, "generate": generate, "doctor": doctor, "test": run_tests}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
