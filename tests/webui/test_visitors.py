import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from webui.visitors import COOKIE, LOOPBACK, Visitors, owner_of

PAGE = {"accept": "text/html"}


def client(hosts=LOOPBACK, base_url="http://127.0.0.1:7865", **options):
    async def hello(request):
        return PlainTextResponse("hello")

    visitors = Middleware(Visitors, hosts=hosts, **options)
    app = Starlette(routes=[Route("/", hello, methods=["GET", "POST"])], middleware=[visitors])
    return TestClient(app, base_url=base_url)


def test_a_browser_gets_one_cookie_that_scripts_and_other_sites_cannot_use():
    browser = client()
    given = browser.get("/", headers=PAGE).headers["set-cookie"]
    assert "HttpOnly" in given and "SameSite=Lax" in given and "Secure" not in given
    assert "set-cookie" not in browser.get("/").headers


def test_the_cookie_lives_a_year_from_the_last_page_on():
    browser = client()
    given = browser.get("/", headers=PAGE).headers["set-cookie"]
    assert "Max-Age=31536000" in given
    assert browser.get("/", headers=PAGE).headers["set-cookie"] == given


def test_whose_browser_is_there_is_told_with_all_that_is_sent_to_it():
    seen = []
    browser = client(seen=seen.append)
    owner = owner_of(browser.get("/", headers=PAGE).headers["set-cookie"].split(";")[0])
    assert seen == []
    browser.get("/")
    assert set(seen) == {owner}


def test_cookies_are_256_random_bits_and_no_two_are_alike():
    owners = {owner_of(client().get("/", headers=PAGE).headers["set-cookie"].split(";")[0]) for _ in range(20)}
    assert len(owners) == 20 and None not in owners
    assert {len(owner) for owner in owners} == {43}  # 32 bytes in base 64


def test_over_https_the_cookie_stays_on_https():
    assert "Secure" in client(None, "https://easel.example").get("/", headers=PAGE).headers["set-cookie"]


def test_d5_a_page_may_fetch_nothing_from_another_server_and_send_nothing_there():
    policy = client().get("/", headers=PAGE).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'self'" and rules["object-src"] == "'none'" and rules["form-action"] == "'self'"
    assert not any("http" in places or "*" in places for places in rules.values())


@pytest.mark.parametrize(
    "cookies", [None, "", f"{COOKIE}=short", f"{COOKIE}={'a' * 42}/", "other=1", f"{COOKIE}={'a' * 44}"]
)
def test_a_cookie_that_we_did_not_give_is_nobody(cookies):
    assert owner_of(cookies) is None


def test_a_name_that_points_here_by_a_trick_is_refused():
    assert client().get("/", headers={"host": "evil.example"}).status_code == 403
    for host in ("localhost:7865", "127.0.0.1", "[::1]:7865"):
        assert client().get("/", headers={"host": host}).status_code == 200
    assert client(hosts=None).get("/", headers={"host": "my-computer.local"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://127.0.0.1:7865"}, 200),
        ({"origin": "http://127.0.0.1:3000"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_only_our_own_page_may_change_something(headers, status):
    assert client().post("/", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 404), ("none", 404)]
)
@pytest.mark.parametrize("path", ["/logout", "/logout/", "/%6cogout"])
def test_no_other_page_logs_anybody_out(path, site, status):
    assert client().get(path, headers={"sec-fetch-site": site}).status_code == status


def test_behind_a_proxy_the_name_that_it_forwards_counts():
    headers = {"origin": "https://easel.example", "x-forwarded-host": "easel.example"}
    assert client(hosts=None).post("/", headers=headers).status_code == 200
