"""The installation's choices: which source wins, what is refused, and who may come in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import access, arguments
from core.access import Users, add_user, hash_password, read_users, user_from_text
from core.config import Config
from core.errors import BadConfig, UserError
from core.private_paths import without
from core.weights.files import Files


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow hash is the point of scrypt, but not of these tests."""
    monkeypatch.setattr(access, "_N", 16)


def load(root: Path, *argv: str, environ: dict[str, str] | None = None) -> Config:
    return Config.load(vars(arguments.parse(argv)), environ or {}, root)


def test_the_defaults_are_local_and_under_the_program_folder(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert (config.host, config.port, config.share, config.in_browser) == ("127.0.0.1", 7865, False, True)
    assert config.outputs == tmp_path / "outputs"
    assert config.checkpoints == (tmp_path / "models/checkpoints",)
    assert not config.open_to_others


def test_arguments_win_over_environment_and_environment_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"port": 1001, "theme": "dark", "preset": "fast"}')
    environ = {"EASEL_PORT": "1002", "EASEL_THEME": "light"}
    config = load(tmp_path, "--port", "1003", environ=environ)
    assert (config.port, config.theme, config.preset) == (1003, "light", "fast")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ('{"port": "high"}', r"port in .*config\.json is 'high'; it must be a whole number from 1 to 65535"),
        ('{"prot": 80}', r"no 'prot'. Did you mean 'port'\?"),
        ('{"port": 80', "cannot be read"),
        ("[1]", "must hold a JSON object"),
        ('{"in_browser": "maybe"}', "must be true or false"),
        ('{"theme": "pink"}', "one of: auto, light, dark"),
        ('{"outputs": 5}', "path of a folder"),
        ('{"port": true}', "whole number"),
        ('{"port": 80.5}', "whole number"),
        ('{"checkpoints": []}', "at least one folder"),
        ('{"device": "quantum"}', "one of: auto, cpu, cuda, mps"),
    ],
)
def test_a_wrong_file_is_told_with_the_name_of_the_value(tmp_path: Path, file: str, told: str) -> None:
    (tmp_path / "config.json").write_text(file)
    with pytest.raises(BadConfig, match=told):
        load(tmp_path)


def test_a_wrong_flag_or_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="--port is '70000'"):
        load(tmp_path, "--port", "70000")
    with pytest.raises(BadConfig, match="EASEL_PORT is 'x'"):
        load(tmp_path, environ={"EASEL_PORT": "x"})
    with pytest.raises(BadConfig, match="--always-cpu is 'many'"):
        load(tmp_path, "--always-cpu", "many")
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match=r"--output is .* must be a folder"):
        load(tmp_path, "--output", str(tmp_path / "file"))


def test_the_users_own_checkpoints_come_before_those_of_the_program(tmp_path: Path) -> None:
    config = load(tmp_path, "--models-path", str(tmp_path / "mine"))
    assert config.checkpoints == (tmp_path / "mine/checkpoints", tmp_path / "models/checkpoints")
    (tmp_path / "config.json").write_text('{"checkpoints": ["a", "b"]}')
    assert load(tmp_path).checkpoints == (tmp_path / "a", tmp_path / "b")


def test_precision_flags_for_one_network_win_over_those_for_all(tmp_path: Path) -> None:
    config = load(tmp_path, "--all-in-fp16", "--vae-in-fp32", "--always-cpu", "3")
    assert (config.unet_precision, config.vae_precision, config.clip_precision) == ("fp16", "fp32", "fp16")
    assert (config.device, config.threads) == ("cpu", 3)
    for everything in (("--always-cpu",), ("--always-cpu", "-1")):  # the reference's word for all threads
        config = load(tmp_path, *everything)
        assert (config.device, config.threads, config.unet_precision) == ("cpu", None, "auto")
    for precision, decoder in (("fp16", "auto"), ("fp32", "fp32")):  # SDXL's decoder overflows in fp16
        config = load(tmp_path, f"--all-in-{precision}")
        assert (config.unet_precision, config.vae_precision, config.clip_precision) == (precision, decoder, precision)


@pytest.mark.parametrize("flags", [("--listen",), ("--share",), ("--listen", "192.168.1.5"), ("--listen", "::")])
def test_a_page_open_to_others_needs_a_password(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with pytest.raises(BadConfig, match=f"{flags[0]}.*add-user"):
        load(tmp_path, *flags)
    for config in (
        load(tmp_path, *flags, "--auth", "ann:secret"),
        load(tmp_path, *flags, environ={"EASEL_AUTH": "ann:secret"}),
    ):
        assert config.open_to_others
        assert config.users.check("ann", "secret")


def test_no_folder_of_this_installation_is_told_to_visitors_as_a_whole_path(tmp_path: Path) -> None:
    root, disk = tmp_path / "srv/easel", tmp_path / "disk"
    file = disk / "hub/snapshots/x.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    root.mkdir(parents=True)
    (root / "config.json").write_text(json.dumps({"loras": ["models/loras", str(disk / "Lora")], "outputs": str(disk)}))
    config = load(root)
    config = replace(config, checkpoints=(*config.checkpoints, file))
    shown = without(config.private_paths)
    for kind, words in (
        ("checkpoints", "…/models/checkpoints, …/x.safetensors."),
        ("loras", "…/models/loras, …/loras."),
    ):
        places = config.checkpoints if kind == "checkpoints" else config.model_folders[kind]
        with pytest.raises(UserError) as told:
            Files(places, kind).find("y.safetensors")
        assert words[:-1] in shown(str(told.value)) and str(tmp_path) not in shown(str(told.value))
    assert (
        shown(f"It cannot be saved in {config.outputs / '2026'}: full.")
        == "It cannot be saved in …/outputs/2026: full."
    )


def test_that_a_password_hides_the_folders_of_others_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"picture_folders": [str(tmp_path)]}))
    assert not load(tmp_path).notices
    (notice,) = load(tmp_path, "--auth", "ann:secret").notices
    assert "picture_folders" in notice


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "localhost", "::1"])
def test_loopback_addresses_are_not_open_to_others(tmp_path: Path, host: str) -> None:
    assert not load(tmp_path, "--listen", host).open_to_others


def test_only_the_right_name_with_the_right_password_comes_in() -> None:
    users = user_from_text("ann:a:b", "test")  # a password may have colons
    assert users.check("ann", "a:b")
    assert not users.check("ann", "a")
    assert not users.check("bob", "a:b")
    assert not users.check("", "")


def test_passwords_are_kept_salted_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    add_user(file, "ann", "secret")
    add_user(file, "bob", "secret")
    text = file.read_text()
    first, second = json.loads(text)
    assert "secret" not in text
    assert first["hash"] != second["hash"]
    assert file.stat().st_mode & 0o077 == 0
    users = read_users(file)
    assert users.check("ann", "secret") and users.check("bob", "secret")
    assert "scrypt" not in repr(users)


def test_a_changed_password_replaces_the_old_one(tmp_path: Path) -> None:
    add_user(tmp_path / "auth.json", "ann", "old")
    add_user(tmp_path / "auth.json", "ann", "new")
    users = read_users(tmp_path / "auth.json")
    assert users.check("ann", "new") and not users.check("ann", "old")


@pytest.mark.parametrize(
    "content",
    [
        "[]", "{}", "nonsense", '[{"user": "ann"}]', '[{"user": "ann", "pass": "plain"}]', '[{"user": "", "hash": "x"}]',
        '[{"user": "ann", "hash": "5e884898da28047151d0e56f8dc62927"}]', '["ann"]', '[{"user": "ann", "hash": "scrypt$3$8$1$AA==$AA=="}]',
        json.dumps([{"user": "ann", "hash": f"scrypt${2**24}$8$1$AAAA${'A' * 43}="}]),
    ],
)  # fmt: skip
def test_a_broken_list_of_users_is_refused_rather_than_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / "auth.json").write_text(content)
    with pytest.raises(BadConfig, match="add-user"):
        load(tmp_path)


def test_a_list_of_users_that_cannot_be_read_is_kept_aside_for_a_new_one(tmp_path: Path) -> None:
    """The refusal says: make it anew."""
    file = tmp_path / "auth.json"
    for number in ("", "2"):
        file.write_text('[{"user": "ann", "pass": "plain"}]')
        assert add_user(file, "bob", "secret") == tmp_path / f"auth.json.old{number}"
        assert "plain" in (tmp_path / f"auth.json.old{number}").read_text()
    assert add_user(file, "ann", "secret") is None
    assert read_users(file).check("bob", "secret") and read_users(file).check("ann", "secret")


@pytest.mark.parametrize("text", ["ann", "ann:", ":secret", ""])
def test_a_credential_without_name_or_password_is_refused(text: str) -> None:
    with pytest.raises(BadConfig, match="USER:PASSWORD") as caught:
        user_from_text(text, "--auth")
    assert "secret" not in str(caught.value)


def test_nobody_is_falsy_and_never_comes_in() -> None:
    assert not Users()
    assert not Users().check("", "")
    assert Users({"ann": hash_password("x")})


def parse(*argv: str) -> dict[str, Any]:
    return vars(arguments.parse(argv))


def test_flags_before_and_after_the_command_both_count() -> None:
    args = parse("--always-cpu", "2", "generate", "a cat", "--output", "x", "--set", "steps=2", "--set", "width=64")
    assert (args["command"], args["always_cpu"], args["outputs"], args["fields"]) == (
        "generate",
        "2",
        "x",
        ["steps=2", "width=64"],
    )


def test_without_a_command_the_page_is_meant_and_absent_flags_are_absent() -> None:
    assert parse() == {"command": "page"}


def test_arguments_after_test_go_to_pytest_in_their_order() -> None:
    assert parse("test", "tests/test_config.py", "-k", "name", "--maxfail=1")["pytest"] == [
        "tests/test_config.py", "-k", "name", "--maxfail=1"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--prot", "1"], "There is no flag --prot. Did you mean --port?"),
        (["generate", "x", "--sed=3"], "There is no flag --sed. Did you mean --seed?"),
        (["generate", "x", "--qqq", "red"], "There is no flag --qqq. `python launch.py --help` lists them."),
        (["download", "--seed", "3"], "unrecognized arguments: --seed"),
        (["generate"], "usage"),
        (["paint"], "usage"),
    ],
)
def test_an_unknown_flag_or_command_ends_with_code_2(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err
