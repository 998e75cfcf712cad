"""A page behind a password, in a browser: what happens when the login ends."""

import pytest

from tests.browser.chromium import free_port, running
from tests.webui.behind_password import RIGHT

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

PROMPT = "#positive_prompt textarea"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("door"), free_port()
    with running(["-m", "tests.webui.behind_password", str(port), str(folder)], f"http://127.0.0.1:{port}") as address:
        yield address


def log_in(page):
    page.get_by_label("username").fill("anna")
    page.get_by_label("password").fill(RIGHT)
    page.get_by_role("button", name="Login").click()
    expect(page.locator("#generate_button")).to_be_visible()


def test_when_the_login_has_ended_the_page_asks_for_it_and_what_was_typed_is_there_after_it(browser, address):
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    log_in(page)
    context.request.get(f"{address}/logout")  # as another tab may
    page.fill(PROMPT, "a red apple")
    page.click("#becomes summary")
    log_in(page)
    expect(page.locator(PROMPT)).to_have_value("a red apple")
    context.close()
