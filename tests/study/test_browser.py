"""The page in a real browser: two readers, the keyboard alone, a narrow screen, no address but the server."""

import socket
from collections import Counter
from contextlib import contextmanager

import pytest
from browser import DESK, SMALL, playwright, violations
from study_server import served

from histoloom.study.answers import opened_answers
from histoloom.study.create import create_study
from histoloom.study.folder import ANSWERS, open_study, read_key
from histoloom.study.settings import StudyConfig
from histoloom.web.app import STATIC


def log_in(page, token: str) -> None:
    page.get_by_label("Your token").fill(token)
    page.get_by_role("button", name="Log in").click()
    page.locator("#place").wait_for()


def answer(page, step: int) -> None:
    """Answer the present item with the keyboard, and wait for the next."""
    before = page.locator("#place").inner_text()
    fill(page, step)
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#place")).not_to_have_text(before)


def fill(page, step: int, ratings: str = "3425") -> None:
    """Choose an answer, then the four ratings, once the image is there."""
    page.locator("#answer:enabled").wait_for()
    page.keyboard.press(str(step))
    for rating in ratings:
        page.keyboard.press("Tab")
        page.keyboard.press(rating)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def study(sides, tmp_path):
    """Twelve items that count, one control, one repeat, two practice items, two readers."""
    create_study(sides, StudyConfig(n=12, readers=2, practice=2), tmp_path / "study")
    return tmp_path / "study"


def test_two_readers_finish_and_one_of_them_loses_the_connection_half_way(study, open_page):
    port, total = free_port(), len(read_key(study)["items"])
    with served(study, port=port) as running:
        one, other = open_page(port), open_page(port)
        log_in(one, running.tokens["reader-1"])
        log_in(other, running.tokens["reader-2"])
        assert one.locator("#place").inner_text() == f"Practice: item 1 of {total}"
        for number in range(6):
            answer(one, number % 6 + 1)
            answer(other, 6 - number % 6)
        one.locator("#answer:enabled").wait_for()
        running.process.kill()
        running.process.wait()
        fill(one, 5)
        one.keyboard.press("Enter")
        one.get_by_text("The server does not answer").wait_for()
    with served(study, port=port):
        assert one.locator("#answer input[value='5']").is_checked()
        one.get_by_role("button", name="Save and go on").click()
        one.get_by_text(f"Item 8 of {total}").wait_for()
        for number in range(7, total):
            answer(one, number % 6 + 1)
        other.reload()
        other.get_by_text(f"Item 7 of {total}").wait_for()
        for number in range(6, total):
            answer(other, 6 - number % 6)
        one.get_by_role("heading", name="Thank you").wait_for()
        other.get_by_role("heading", name="Thank you").wait_for()
    with opened_answers(study / ANSWERS) as answers:
        given = answers.all()
    assert Counter(answer.reader for answer in given) == {"reader-1": total, "reader-2": total}
    orders = open_study(study).orders
    of_first = {answer.item: answer.answer for answer in given if answer.reader == "reader-1"}
    assert [of_first[item] for item in orders["reader-1"][:8]] == [1, 2, 3, 4, 5, 6, 5, 2]


def test_the_keyboard_alone_answers_pauses_and_goes_on_in_another_window(study, open_page):
    with served(study) as running:
        page = open_page(running.port)
        playwright.expect(page.get_by_label("Your token")).to_be_focused()
        page.keyboard.type(running.tokens["reader-1"])
        page.keyboard.press("Enter")
        page.locator("#place").wait_for()
        page.keyboard.press("+")
        assert page.locator("#scale").inner_text() == enlarged(page)
        fill(page, 2, "3451")
        page.keyboard.press("Enter")
        page.get_by_text("item 2 of").wait_for()
        page.get_by_role("button", name="Pause").focus()
        page.keyboard.press("Enter")
        page.get_by_label("Your token").wait_for()
        again = open_page(running.port)
        log_in(again, running.tokens["reader-1"])
        assert "item 2 of" in again.locator("#place").inner_text()
    with opened_answers(study / ANSWERS) as answers:
        given = answers.all()
    assert [(one.answer, dict(one.ratings)) for one in given] == [
        (2, {"detail": 3, "stain": 4, "architecture": 5, "quality": 1})
    ]


def enlarged(page) -> str:
    """The scale that the image has on the screen."""
    return page.evaluate("Math.round(100 * document.querySelector('.window img').clientWidth / 32) + ' %'")


def test_two_tabs_of_one_reader_answer_an_item_once(study, open_page):
    with served(study) as running:
        page = open_page(running.port)
        log_in(page, running.tokens["reader-1"])
        tab = page.context.new_page()
        tab.goto(page.url)
        tab.locator("#place").wait_for()
        answer(page, 1)
        tab.get_by_label("6 surely synthetic").check()
        for group in tab.locator("#ratings fieldset").all():
            group.get_by_label("4").check()
        tab.get_by_role("button", name="Save and go on").click()
        tab.get_by_text("You have answered this item already").wait_for()
        assert "item 2 of" in tab.locator("#place").inner_text()
    with opened_answers(study / ANSWERS) as answers:
        assert [one.answer for one in answers.all()] == [1]


@pytest.fixture
def first_page(sides, tmp_path, open_page):
    """`first_page(mode, size)`: a new study, and its page in the browser before and after the login."""

    @contextmanager
    def start(mode: str, size: dict):
        create_study(sides, StudyConfig(n=12, readers=1, practice=2, mode=mode), tmp_path / "study")
        with served(tmp_path / "study") as running:
            page = open_page(running.port, size)
            yield page, lambda: log_in(page, running.tokens["reader-1"])

    return start


@pytest.mark.parametrize(("mode", "images"), [("single", 1), ("pairs", 2)])
def test_a_page_waits_for_its_images_fits_a_narrow_screen_and_zooms_them_all(first_page, mode, images):
    asked = []

    def lose_the_last(route):
        asked.append(route)
        (route.abort if len(asked) == images else route.continue_)()

    with first_page(mode, SMALL) as (page, enter):
        page.route("**/api/image/*", lose_the_last)
        enter()
        page.get_by_text("The image did not load").wait_for()
        page.keyboard.press("1")
        assert page.locator("#item input:checked, #item input:enabled, .save:enabled").count() == 0
        page.unroute("**/api/image/*")
        page.reload()
        page.locator("#answer:enabled").wait_for()
        assert page.locator(".save").is_enabled()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("[...document.images].map(image => image.naturalWidth)") == [32] * images
        assert page.evaluate("document.documentElement.scrollWidth") <= SMALL["width"]
        before = page.evaluate("[...document.images].map(image => image.clientWidth)")
        page.get_by_role("button", name="Zoom in").click()
        after = page.evaluate("[...document.images].map(image => image.clientWidth)")
        assert [large / small for large, small in zip(after, before, strict=True)] == pytest.approx(
            [1.5] * images, 0.02
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= SMALL["width"]
        page.get_by_role("button", name="Fit").click()
        assert page.evaluate("[...document.images].map(image => image.clientWidth)") == before


@pytest.mark.parametrize("mode", ["single", "pairs"])
def test_labels_contrast_and_structure_pass_axe(first_page, mode):
    with first_page(mode, DESK) as (page, enter):
        page.get_by_label("Your token").wait_for()
        faults = violations(page)
        enter()
        faults += violations(page)
    assert faults == []


def test_the_whole_page_is_small():
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 300_000
