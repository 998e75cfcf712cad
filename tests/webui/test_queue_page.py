"""The queue in a browser: a server that is killed, moving by keys and by dragging, editing, pausing, many pictures."""

import pytest

from tests.browser.chromium import arrive, free_port, running, visit

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright, to look at the page")
expect = playwright.expect
expect.set_options(timeout=20_000)  # milliseconds; the machine may be busy

pytestmark = pytest.mark.browser

PROMPT, STEPS = "#positive_prompt textarea", "#steps input[type=number]"
WAITING = "ul.tasks li.waiting .excerpt"
LONG, MANY = 200, 9  # steps and pictures: it runs for the whole test


@pytest.fixture(scope="module")
def shared(browser, address):
    """One page for the tests that leave nothing behind in the queue."""
    with visit(browser, address) as page:
        yield page


def generate(page, prompt, steps=4):
    page.fill(STEPS, str(steps))
    page.fill(PROMPT, prompt)
    page.keyboard.press("Control+Enter")


def queue(page, *prompts, steps=1, pictures=MANY):
    """A task that runs on and on, and one that waits for each of `prompts`."""
    page.fill("#image_number input[type=number]", str(pictures))
    generate(page, "running", LONG)
    expect(page.locator("ul.tasks li.running")).to_have_count(1)
    page.fill("#image_number input[type=number]", "1")
    for count, prompt in enumerate(prompts, 1):
        generate(page, prompt, steps)
        expect(page.locator("ul.tasks li.waiting")).to_have_count(count)


def press(page, action, prompt=None):
    where = page.locator("ul.tasks li", has_text=prompt) if prompt else page.locator("#tasks")
    where.locator(f"[data-action={action}]").click()


def cancel_all(page):
    page.once("dialog", lambda dialog: dialog.accept())
    press(page, "cancel_all")
    expect(page.locator("ul.tasks li")).to_have_count(0)


def test_the_queue_survives_a_kill_of_the_server_and_is_offered_again(browser, tmp_path):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = ["-m", "tests.webui.stand_in", str(port), str(tmp_path)]
    context, others = browser.new_context(), browser.new_context()
    page, other = context.new_page(), others.new_page()
    with running([*command, "0.15"], address, kill=True):
        arrive(page, address)
        queue(page, "a red fox", "a blue boat", "a green tree", pictures=1)
        press(page, "up", "a green tree")
        expect(page.locator(WAITING)).to_have_text(["a red fox", "a green tree", "a blue boat"])
        arrive(other, address)
        generate(other, "my secret")
        expect(other.locator(WAITING)).to_have_text(["my secret"])
    with running([*command, "0.01"], address):
        offer, theirs = page.locator(".left-over"), other.locator(".left-over")  # both pages come back by themselves
        expect(offer).to_contain_text("1 task was under way and 3 were waiting when Easel ended", timeout=60_000)
        expect(offer).to_contain_text("running; a red fox; a green tree and 1 more")
        expect(offer).to_be_in_viewport(ratio=1)
        expect(page.locator("ul.tasks li")).to_have_count(0)
        expect(theirs).to_contain_text("1 task was waiting when Easel ended: my secret", timeout=60_000)
        assert "my secret" not in page.content() and "red fox" not in other.content()
        press(page, "take_up")
        press(other, "forget")
        expect(offer).to_have_count(0)
        expect(theirs).to_have_count(0)
        expect(page.locator("#final_gallery a")).to_have_count(4, timeout=60_000)
        made = page.locator("#final_gallery a").evaluate_all("shots => shots.map((shot) => shot.dataset.prompt)")
        assert made == ["a blue boat", "a green tree", "a red fox", "running"]  # the newest first
        arrive(other, address)
        other.wait_for_timeout(300)
        expect(theirs).to_have_count(0)
        expect(other.locator("#final_gallery a")).to_have_count(0)
    context.close()
    others.close()


def test_tasks_are_reordered_by_keys_and_it_is_said(shared):
    queue(shared, "first", "second", "third")
    status, focus = shared.locator("#queue_status"), "document.activeElement.getAttribute('aria-label')"
    shared.locator("ul.tasks li", has_text="third").locator("[data-action=edit]").focus()
    shared.keyboard.press("Alt+ArrowUp")
    expect(shared.locator(WAITING)).to_have_text(["first", "third", "second"])
    expect(status).to_have_text("Moved to place 2 of 3")
    shared.wait_for_function(f"{focus} === 'Edit: third'")  # the focus went with the task
    shared.keyboard.press("Alt+ArrowUp")
    expect(shared.locator(WAITING)).to_have_text(["third", "first", "second"])
    shared.keyboard.press("Alt+ArrowUp")
    expect(status).to_have_text("It is the first already")
    shared.locator("ul.tasks li", has_text="first").locator("[data-action=down]").press("Enter")
    expect(shared.locator(WAITING)).to_have_text(["third", "second", "first"])
    assert status.get_attribute("role") == "status"
    cancel_all(shared)


def test_keys_pressed_quickly_add_up(shared):
    queue(shared, "first", "second", "third")
    shared.locator("ul.tasks li", has_text="first").locator("[data-action=down]").focus()
    shared.evaluate(
        """() => { for (let n = 0; n < 2; n++) document.activeElement.dispatchEvent(
            new KeyboardEvent('keydown', {key: 'ArrowDown', altKey: true, bubbles: true})); }"""
    )
    expect(shared.locator(WAITING)).to_have_text(["second", "third", "first"])
    cancel_all(shared)


def test_a_task_is_dragged_to_another_place(shared):
    queue(shared, "first", "second", "third")
    grip = shared.locator("ul.tasks li", has_text="third").locator(".grip")
    grip.scroll_into_view_if_needed()
    start, target = grip.bounding_box(), shared.locator("ul.tasks li", has_text="first").bounding_box()
    shared.mouse.move(start["x"] + 10, start["y"] + 10)
    shared.mouse.down()
    shared.mouse.move(start["x"] + 10, target["y"] + 30)
    shared.mouse.move(start["x"] + 10, target["y"] + 3)
    expect(shared.locator("#drop_line")).to_be_visible()
    shared.mouse.up()
    expect(shared.locator(WAITING)).to_have_text(["third", "first", "second"])
    expect(shared.locator("#drop_line")).to_be_hidden()
    shared.mouse.move(start["x"] + 10, start["y"] + 10)
    shared.mouse.down()
    shared.mouse.move(start["x"] + 10, target["y"])
    shared.keyboard.press("Escape")  # gives up the drag, and stops nothing
    shared.mouse.up()
    expect(shared.locator("ul.tasks li.running")).to_have_count(1)
    expect(shared.locator(WAITING)).to_have_text(["third", "first", "second"])
    cancel_all(shared)


def test_a_waiting_task_is_edited_and_keeps_its_place(shared):
    queue(shared, "a red fox", "a blue boat", steps=7)
    expect(shared.locator("#random_seed input")).to_be_checked()
    press(shared, "edit", "a red fox")
    button = shared.locator("#generate_button")
    expect(button).to_have_text("Put it back")
    expect(shared.locator(PROMPT)).to_have_value("a red fox")
    expect(shared.locator(STEPS)).to_have_value("7")
    expect(shared.locator("#random_seed input")).not_to_be_checked()
    expect(shared.locator(WAITING)).to_have_text(["a red fox", "a blue boat"])
    expect(shared.locator("ul.tasks li.waiting .state").first).to_have_text("being edited")
    shared.fill(PROMPT, "a brown fox")
    shared.keyboard.press("Control+Enter")
    expect(shared.locator(WAITING)).to_have_text(["a brown fox", "a blue boat"])
    expect(button).to_have_text("Generate")
    expect(shared.locator("#random_seed input")).to_be_checked()
    press(shared, "edit", "a blue boat")
    expect(button).to_have_text("Put it back")
    press(shared, "keep", "a blue boat")
    expect(button).to_have_text("Generate")
    expect(shared.locator(WAITING)).to_have_text(["a brown fox", "a blue boat"])
    cancel_all(shared)


def test_another_page_of_the_browser_leaves_alone_the_task_that_one_edits(page, address):
    queue(page, "a red fox", "a blue boat")
    other = page.context.new_page()
    arrive(other, address)
    press(page, "edit", "a red fox")
    expect(page.locator("#generate_button")).to_have_text("Put it back")
    generate(other, "a green tree", 1)
    expect(other.locator(WAITING)).to_have_text(["a red fox", "a blue boat", "a green tree"])
    expect(other.locator("#generate_button")).to_have_text("Generate")
    generate(page, "a brown fox", 1)
    expect(page.locator(WAITING)).to_have_text(["a brown fox", "a blue boat", "a green tree"])
    expect(page.locator("#generate_button")).to_have_text("Generate")
    other.close()
    cancel_all(page)


def test_a_pause_holds_what_waits_until_one_goes_on(page):
    queue(page, "second")
    press(page, "hold")
    expect(page.locator(".queue-bar")).to_contain_text("Paused; what runs is still finished")
    page.keyboard.press("Escape")
    expect(page.locator("ul.tasks li.running")).to_have_count(0)
    page.wait_for_timeout(300)
    expect(page.locator("ul.tasks li.waiting .state")).to_have_text("paused")
    expect(page.locator("#progress-bar")).to_contain_text("Paused")
    press(page, "release")
    expect(page.locator("#final_gallery a")).to_have_count(1)
    expect(page.locator("#final_gallery a")).to_have_attribute("data-prompt", "second")


def test_all_tasks_are_cancelled_after_a_question(shared):
    queue(shared, "second", "third")
    shared.once("dialog", lambda dialog: dialog.dismiss())
    press(shared, "cancel_all")
    shared.wait_for_timeout(200)
    expect(shared.locator("ul.tasks li")).to_have_count(3)
    cancel_all(shared)
    expect(shared.locator("#stop_button")).to_be_hidden()


def test_waiting_tasks_say_how_long_they_will_take_once_the_machine_is_known(page):
    generate(page, "to learn from", steps=10)
    expect(page.locator("#final_gallery a")).to_have_count(1)
    queue(page, "thirty", steps=100)
    expect(page.locator("ul.tasks li.waiting .facts")).to_contain_text("100 steps · about ")
    expect(page.locator(".queue-bar .facts")).to_contain_text("2 tasks · about ")
    cancel_all(page)


def open_part(page, title):
    page.get_by_role("button", name=title).click()


def test_a_list_of_prompts_from_a_file_becomes_a_task_each(page, tmp_path):
    (tmp_path / "one.txt").write_text("a fox\n\na boat\n")
    (tmp_path / "two.txt").write_text("a tree")
    open_part(page, "A list of prompts")
    page.set_input_files("#read_prompts", [tmp_path / "one.txt", tmp_path / "two.txt"])
    expect(page.locator("#prompt_list textarea")).to_have_value("a fox\n\na boat\na tree")
    page.fill(STEPS, "1")
    page.click("#queue_list")
    expect(page.locator("#final_gallery a")).to_have_count(3)
    page.fill("#prompt_list textarea", "")
    page.click("#queue_list")
    expect(page.locator("#message")).to_contain_text("The list is empty")


def test_a_folder_of_prompts_is_read_whatever_its_files_were_written_with(page, tmp_path):
    folder = tmp_path / "prompts"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_bytes("Käse\r\nBär".encode("latin-1"))
    (folder / "b.md").write_bytes("крот".encode("utf-16"))
    (folder / "more" / "c.txt").write_text("a fox", encoding="utf-8-sig")
    (folder / "picture.png").write_bytes(bytes(range(256)))
    open_part(page, "A list of prompts")
    page.set_input_files("#read_prompt_folder", folder)
    expect(page.locator("#prompt_list textarea")).to_have_value("Käse\nBär\nкрот\na fox")
    page.fill("#prompt_list textarea", "")
    page.set_input_files("#read_prompts", [{"name": "odd.txt", "mimeType": "text/plain", "buffer": bytes(range(256))}])
    expect(page.locator("#message")).to_contain_text("odd.txt: no text, so it was left out.")
    expect(page.locator("#prompt_list textarea")).to_have_value("")


def choose(page, box, name):
    page.click(f"#{box} input")
    page.get_by_role("option", name=name, exact=True).click()


def test_a_grid_of_two_settings_ends_in_a_sheet_on_the_stage(page):
    page.fill(PROMPT, "a red fox")
    open_part(page, "A grid of two settings")
    expect(page.locator("#grid_told")).to_contain_text("1-9 (+2)")
    page.fill("#grid_x_values :is(input, textarea)", "1-2")
    choose(page, "grid_y", "Prompt: seek and replace")
    expect(page.locator("#grid_told")).to_contain_text("apple is sought")
    page.fill("#grid_y_values :is(input, textarea)", "fox, bear, owl")
    expect(page.locator("#grid_told")).to_contain_text("2 × 3 = 6 pictures")
    page.click("#make_grid")
    expect(page.locator("#final_gallery a")).to_have_count(7)
    expect(page.locator("#stage a.shot")).to_have_count(1)
    expect(page.locator("#stage a.shot")).to_have_attribute("data-prompt", "All pictures on one: a red fox")
    expect(page.locator("#progress-bar")).to_contain_text("6 of 6 images")
    prompts = page.locator("#final_gallery a").evaluate_all("shots => shots.map((shot) => shot.dataset.prompt)")
    assert sorted(set(prompts[1:])) == ["a red bear", "a red fox", "a red owl"]
    page.fill("#grid_x_values :is(input, textarea)", "1-90")
    page.click("#make_grid")
    expect(page.locator("#message")).to_contain_text("90 x 3 values are 270 pictures; at most 100")


def test_a_waiting_grid_is_edited_with_its_axes(page, address):
    queue(page)
    open_part(page, "A grid of two settings")
    page.fill("#grid_x_values :is(input, textarea)", "3, 5")
    page.fill(PROMPT, "grid of steps")
    page.click("#make_grid")
    expect(page.locator("ul.tasks li.waiting .facts")).to_contain_text("grid of 2 images")
    arrive(page, address)  # the part of the page for grids is folded again
    press(page, "edit", "grid of steps")
    expect(page.locator(PROMPT)).to_have_value("grid of steps")
    expect(page.locator("#grid_x_values :is(input, textarea)")).to_have_value("3, 5")
    expect(page.locator("#make_grid")).to_have_text("Put it back")
    expect(page.locator("#generate_button")).to_have_text("Generate")
    page.fill("#grid_x_values :is(input, textarea)", "3, 5, 7")
    page.click("#make_grid")
    expect(page.locator("ul.tasks li.waiting .facts")).to_contain_text("grid of 3 images")
    expect(page.locator("#make_grid")).to_have_text("Make the grid")
    cancel_all(page)


@pytest.mark.parametrize("dark", [False, True])
def test_the_queue_fits_a_narrow_phone(browser, address, dark):
    with visit(browser, address, width=360, height=740) as page:
        if dark:
            page.click("#theme_toggle")
        queue(page, "a" * 200, "b " * 100)
        press(page, "hold")
        open_part(page, "A list of prompts")
        open_part(page, "A grid of two settings")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        wide = "e => { const r = e.getBoundingClientRect(); return r.width && (r.right > 361 || r.left < -1) }"
        assert page.evaluate(f"[...document.querySelectorAll('button, input, textarea')].filter({wide}).length") == 0
        small = "e => { const r = e.getBoundingClientRect(); return r.height < 24 || r.width < 24 }"
        assert page.evaluate(f"[...document.querySelectorAll('#tasks button')].filter({small}).length") == 0
        cancel_all(page)
        press(page, "release")
