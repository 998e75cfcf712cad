"""Who guesses passwords waits; who mistypes one does not notice. (The hashes are in test_config.py.)"""

import os
from pathlib import Path

from core.access import (
    FORGIVEN,
    LONGEST_WAIT,
    MOST_VISITORS,
    WITHOUT_WAITING,
    Door,
    Throttle,
    add_user,
    read_users,
    user_from_text,
    visitor_at,
)


class Clock:
    """Stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_wait_doubles_with_every_wrong_password_and_has_an_end() -> None:
    """D6."""
    throttle = Throttle(Clock())
    waits = []
    for _ in range(WITHOUT_WAITING + 8):
        waits.append(throttle.wait("a"))
        throttle.failed("a")
    assert waits == [0.0] * WITHOUT_WAITING + [1.0, 2.0, 4.0, 8.0, 16.0, *[LONGEST_WAIT] * 3]
    assert throttle.wait("b") == 0.0


def test_wrong_passwords_are_forgiven_after_a_while() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(WITHOUT_WAITING):
        throttle.failed("a")
    clock.now += FORGIVEN - 1
    assert throttle.wait("a") == 1.0
    clock.now += 1
    assert throttle.wait("a") == 0.0
    throttle.failed("a")
    assert throttle.wait("a") == 0.0


def test_many_visitors_take_no_more_memory_than_some() -> None:
    throttle = Throttle(Clock())
    for number in range(2 * MOST_VISITORS):
        throttle.failed(str(number))
    assert len(throttle._wrong) == MOST_VISITORS and str(2 * MOST_VISITORS - 1) in throttle._wrong


def test_a_visitor_has_one_ipv4_address_or_all_of_an_ipv6_network() -> None:
    assert visitor_at("192.0.2.7") == visitor_at("::ffff:192.0.2.7") == "192.0.2.7"
    assert visitor_at("2001:db8::1") == visitor_at("2001:db8::ffff:1") != visitor_at("2001:db8:0:1::1")
    assert visitor_at("fe80::1%eth0") == visitor_at("fe80::1")
    assert visitor_at("testclient") == "testclient" and len(visitor_at("x" * 1000)) == 64


def later(file: Path) -> None:
    """As if `file` had been written a second later."""
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def test_d6_who_comes_or_goes_in_the_file_comes_or_goes_at_once(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    add_user(file, "ann", "one")
    add_user(file, "bob", "two")
    door = Door(read_users(file), file)
    assert door.check("ann", "one") and door.check("bob", "two") and door.gone() == set()
    add_user(file, "ann", "three")
    add_user(file, "eve", "four")
    later(file)
    assert door.check("eve", "four") and not door.check("ann", "one")
    assert door.gone() == {"ann"} and door.gone() == set()
    file.write_text("[")
    later(file)
    assert door.gone() == {"ann", "bob", "eve"} and not door.check("bob", "two")
    file.unlink()
    assert not door.check("bob", "two")


def test_a_user_of_the_command_line_stays() -> None:
    door = Door(user_from_text("ann:one", "--auth"))
    assert door.check("ann", "one") and door.gone() == set()
