"""A page behind a password, in the whole program: who has not logged in gets nothing."""

import pytest

from tests.browser.chromium import free_port, running

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

OURS = ("loras", "styles", "history", "downloads", "pictures/x/0")


def test_the_page_and_all_that_belongs_to_it_want_the_password(browser, tmp_path):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = ["launch.py", "--port", str(port), "--disable-in-browser", "--skip-install", "--output", str(tmp_path)]
    with running([*command, "--auth", "anna:correct horse"], address):
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        for path in OURS:
            assert context.request.get(f"{address}/easel/{path}").status == 401, path
        assert context.request.post(f"{address}/easel/read", data=b"x").status == 401
        assert context.request.get(f"{address}/config").status == 401
        wrong = {"username": "anna", "password": "wrong"}
        assert context.request.post(f"{address}/login", form=wrong).status == 400
        page.get_by_label("username").fill("anna")
        page.get_by_label("password").fill("correct horse")
        page.get_by_role("button", name="Login").click()
        expect(page.locator("#generate_button")).to_be_visible()
        assert context.request.get(f"{address}/easel/loras").status == 200
        page.fill("#positive_prompt textarea", "a red apple")
        page.fill("#steps input[type=number]", "2")
        page.click("#generate_button")
        expect(page.locator("#final_gallery a")).to_have_count(1, timeout=240_000)
        context.close()
