"""access: who may use the page. Passwords are kept as scrypt hashes and compared in constant time; guessing gets slow."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import BadConfig

log = logging.getLogger(__name__)

_N, _R, _P = 2**15, 8, 1  # about 0.1 s and 32 MiB a guess
_MAX_MEMORY = 96 * 2**20  # bytes; a hash that asks for more is refused by OpenSSL
WITHOUT_WAITING = 3  # wrong passwords
LONGEST_WAIT = 30.0  # seconds
FORGIVEN = 900.0  # seconds since the last wrong password
MOST_VISITORS = 4096  # that are remembered
_NOBODY = f"scrypt${_N}${_R}${_P}${base64.b64encode(bytes(16)).decode()}${base64.b64encode(bytes(32)).decode()}"


@dataclass(frozen=True)
class Users:
    """Names and password hashes. Falsy when there is nobody: then the page asks for no password."""

    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def check(self, name: str, password: str) -> bool:
        """Whether `name` may come in with `password`. Takes as long for a name that does not exist."""
        known = name in self.hashes
        return _matches(password, self.hashes[name] if known else _NOBODY) and known


class Door:
    """Lets `users` in, and looks at their `file` again whenever that changes; without one they stay as they are.

    A file that cannot be read, or is no more, lets nobody in.
    """

    def __init__(self, users: Users, file: Path | None = None) -> None:
        self._users, self._file = users, file
        self._stamp = self._look()
        self._gone: set[str] = set()

    def check(self, name: str, password: str) -> bool:
        """As `Users.check`, with the users of now."""
        self._reread()
        return self._users.check(name, password)

    def gone(self) -> set[str]:
        """Who was taken out since the last call, or has another password: they are to log in again."""
        self._reread()
        gone, self._gone = self._gone, set()
        return gone

    def _reread(self) -> None:
        stamp = self._look()
        if stamp == self._stamp or self._file is None:
            return
        before, self._stamp = self._users, stamp
        try:
            self._users = read_users(self._file)
        except BadConfig as error:
            log.error("Nobody can log in: %s", error)
            self._users = Users()
        self._gone |= {name for name, digest in before.hashes.items() if self._users.hashes.get(name) != digest}

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat() if self._file else None
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size) if status else None


class Throttle:
    """How long a visitor waits after wrong passwords: 1 s after WITHOUT_WAITING of them, then twice as long each time.

    Visitors are told apart by `visitor_at`. One is forgotten after FORGIVEN seconds, or when there are too many others.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and when the last one was

    def wait(self, visitor: str) -> float:
        """Seconds until the next password of `visitor` may be looked at."""
        wrong = self._count(visitor)
        return min(LONGEST_WAIT, 2.0 ** (wrong - WITHOUT_WAITING)) if wrong >= WITHOUT_WAITING else 0.0

    def failed(self, visitor: str) -> None:
        """A password of `visitor` was wrong."""
        self._wrong[visitor] = (min(99, self._count(visitor) + 1), self._clock())
        self._wrong.move_to_end(visitor)
        while len(self._wrong) > MOST_VISITORS:
            self._wrong.popitem(last=False)

    def _count(self, visitor: str) -> int:
        wrong, last = self._wrong.get(visitor, (0, 0.0))
        return wrong if self._clock() - last < FORGIVEN else 0


def visitor_at(address: str) -> str:
    """Who is at an IP address: of IPv6 the first 64 bits, because one visitor has all that follow."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))


def hash_password(password: str) -> str:
    """`scrypt$n$r$p$salt$key`, salt and key in base64; a new salt at every call."""
    salt = secrets.token_bytes(16)
    return f"scrypt${_N}${_R}${_P}${base64.b64encode(salt).decode()}${base64.b64encode(_key(password, salt, _N, _R, _P)).decode()}"


def user_from_text(text: str, origin: str) -> Users:
    """The one user written as USER:PASSWORD. Raises BadConfig naming `origin`; the password is never repeated."""
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise BadConfig(f"{origin} must be USER:PASSWORD, neither of them empty.")
    return Users({name: hash_password(password)})


def read_users(file: Path) -> Users:
    """The users of an auth.json: a list of {"user": NAME, "hash": "scrypt$..."}; nobody if there is no such file.

    Raises BadConfig for a file that cannot be read: a lock that does not work must not look like a door without one.
    """
    advice = "Make it anew with: python launch.py add-user NAME"
    if not file.exists():
        return Users()
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"{file} cannot be read ({error}). {advice}") from None
    if not isinstance(entries, list) or not entries:
        raise BadConfig(f"{file} holds no list of users. {advice}")
    hashes = {}
    for entry in entries:
        name, password_hash = (entry.get("user"), entry.get("hash")) if isinstance(entry, dict) else (None, None)
        if not (isinstance(name, str) and name and isinstance(password_hash, str) and _readable(password_hash)):
            raise BadConfig(
                f'{file}: every user must be written as {{"user": NAME, "hash": "scrypt$..."}}; plain passwords and '
                f"other hashes are not accepted. {advice}"
            )
        hashes[name] = password_hash
    return Users(hashes)


def add_user(file: Path, name: str, password: str) -> Path | None:
    """Let `name` in with `password`, keeping the other users of `file`. Raises BadConfig for an empty name or password.

    A file that cannot be read is kept under another name, which is returned.
    """
    if not name or ":" in name or not password:
        raise BadConfig("Name and password must not be empty, and a name has no colon.")
    aside = None
    try:
        users = read_users(file)
    except BadConfig:
        users, aside = Users(), _free_name(file)
    hashes = {**users.hashes, name: hash_password(password)}
    entries = [{"user": user, "hash": password_hash} for user, password_hash in hashes.items()]
    draft = file.with_name(file.name + ".new")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            json.dump(entries, stream, indent=2)
        if aside:
            file.replace(aside)
        draft.replace(file)
    except OSError as error:
        raise BadConfig(f"{file} cannot be written ({error.strerror}). Make its folder writable.") from None
    return aside


def _free_name(file: Path) -> Path:
    numbers = ("", *range(2, 1000))
    return next(place for number in numbers if not (place := file.with_name(f"{file.name}.old{number}")).exists())


def _key(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=32)


def _parts(password_hash: str) -> tuple[bytes, int, int, int, bytes]:
    """Salt, n, r, p, key. Raises ValueError."""
    scheme, n, r, p, salt, key = password_hash.split("$")
    if scheme != "scrypt":
        raise ValueError(scheme)
    return base64.b64decode(salt, validate=True), int(n), int(r), int(p), base64.b64decode(key, validate=True)


def _readable(password_hash: str) -> bool:
    try:
        salt, n, r, p, key = _parts(password_hash)
        return len(key) == 32 and len(_key("", salt, n, r, p)) == 32
    except ValueError:
        return False


def _matches(password: str, password_hash: str) -> bool:
    salt, n, r, p, key = _parts(password_hash)
    return hmac.compare_digest(_key(password, salt, n, r, p), key)
