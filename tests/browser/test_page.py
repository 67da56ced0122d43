"""What a person sees and does on the page."""

import httpx
import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own

expect.set_options(timeout=60_000)

# Counts the different texts that RET's panel shows.
WATCH = """() => {
  window.shown = new Set();
  const place = document.getElementById("written");
  const watcher = new MutationObserver(() => window.shown.add(place.textContent));
  watcher.observe(place, {childList: true, characterData: true, subtree: true});
}"""
PAINTED = """() => {
  const canvas = document.getElementById("cells");
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
}"""


def ask(page: Page, text: str) -> None:
    page.fill("#input", text)
    page.click("#ask button")


def test_every_stage_answers_a_text_and_no_other_host_is_asked(page: Page, url: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.wait_for_selector("body[data-ready]")
    ask(page, "an owl sleeps near the fire")
    expect(page.locator("#nearest li").first).to_contain_text("an owl sleeps by the fire")
    expect(page.locator("#nearest li")).to_have_count(4)
    expect(page.locator("#chosen")).not_to_be_empty()
    expect(page.locator("#climb polyline")).to_have_count(1)
    page.wait_for_function(PAINTED)
    expect(page.locator("#stages li.ready")).not_to_have_count(0)
    assert {one.split("/")[2] for one in asked if not one.startswith("data:")} == {url.split("/")[2]}


def test_ret_is_shown_as_it_writes_and_ends_with_its_answer(page: Page, url: str) -> None:
    body = {"texts": ["a cat sleeps"], "decoder": "ret"}
    answer = httpx.post(f"{url}/v1/decode", json=body, timeout=60).json()["results"][0]["text"]
    page.evaluate(WATCH)
    ask(page, "a cat sleeps")
    page.wait_for_function("text => document.getElementById('written').textContent === text", arg=answer)
    assert page.evaluate("window.shown.size") > 3


@pytest.mark.parametrize(("given", "said"), [("[1, 2, 3]", "384"), ("[1, oops]", "list of numbers")])
def test_an_error_says_what_is_wrong_until_the_next_question(page: Page, given: str, said: str) -> None:
    ask(page, given)
    expect(page.get_by_role("alert")).to_contain_text(said)
    ask(page, "a cat")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_the_slider_walks_from_one_text_to_another(page: Page) -> None:
    page.fill("#other", "two owls")
    page.click("#path button")
    expect(page.locator("#stations li")).to_have_count(9)
    last = page.locator("#stations li").last.text_content()
    page.locator("#place").focus()
    page.keyboard.press("End")
    expect(page.locator("#between")).to_have_text(last or "")
    expect(page.locator("#stations li").last).to_have_class("here")


def test_the_steps_of_the_lattice_can_be_looked_at_one_by_one(page: Page) -> None:
    ask(page, "a cat")
    page.wait_for_function(PAINTED)
    page.locator("#step").focus()
    page.keyboard.press("Home")
    expect(page.locator("#step-number")).to_have_text("0")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#step-number")).to_have_text("1")


def test_a_narrow_screen_shows_everything_without_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    ask(page, "a cat sleeps by the river")
    expect(page.locator("#candidates li").first).to_be_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360


def test_a_server_that_is_gone_is_told(page: Page) -> None:
    page.route("**/v1/embeddings", lambda route: route.abort())
    ask(page, "a cat")
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
