"""The studio in a real browser, with the bundled model of few steps: paint, box a crop, weave, download, reopen."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from browser import DESK, SMALL, playwright, violations
from PIL import Image
from scipy.ndimage import label
from studio_process import served_studio
from studio_server import studio as studio_thread

pytest.importorskip("starlette", reason="needs the extra studio")
EMPTY = np.full((224, 224), 255, np.uint8)
STROMA, GLAND = 0, 1


@pytest.fixture(scope="module")
def port():
    """The port of a studio."""
    with served_studio() as found:
        yield found


@pytest.fixture
def studio(port, open_page):
    """`studio(size)`: its page, once it is ready to paint."""

    def start(size: dict = DESK):
        page = open_page(port, size)
        page.locator("#examples button").first.wait_for()
        return page

    return start


def ids(page) -> str:
    """What the editor's ids hash to."""
    return page.evaluate("loom.ids()")


def hashed(semantic_map: np.ndarray) -> str:
    return hashlib.sha256(semantic_map.tobytes()).hexdigest()


def choose(page, *names: str) -> None:
    """Choose tools and tissue types."""
    for name in names:
        page.get_by_role("radio", name=name, exact=True).check()


def screen(page, x: float, y: float, edge: int = 224) -> tuple[float, float]:
    """Where a pixel of the map is on the screen."""
    box = page.locator("#stage").bounding_box()
    return box["x"] + 1 + x * (box["width"] - 2) / edge, box["y"] + 1 + y * (box["height"] - 2) / edge


def drag(page, *corners: tuple[float, float]) -> None:
    """Press at the first corner and move to the others, as fast as the browser takes it."""
    page.mouse.move(*screen(page, *corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*screen(page, *corner))
    page.mouse.up()


def near_line(start: tuple[float, float], end: tuple[float, float], radius: float) -> np.ndarray:
    """Pixels whose centers are within `radius` of a line: the distance to each, written out."""
    y, x = np.mgrid[:224, :224] + 0.5
    (x0, y0), (x1, y1) = start, end
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-9)
    along = along.clip(0, 1)
    return np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)) <= radius


def box_crop(page, tissue: str, file) -> None:
    """Cut a crop from the middle of a picture."""
    page.get_by_role("button", name=f"Add a crop of {tissue}").click()
    page.get_by_role("button", name="From a picture").click()
    page.locator("#image-file").set_input_files(file)
    page.get_by_text("Box: 96 x 96 px at x 102, y 102").wait_for()
    page.get_by_role("button", name="Use this crop").click()


def weave(page) -> None:
    page.locator("#weave").click()
    page.get_by_role("link", name="Download zip").wait_for(timeout=90_000)


def download(page) -> bytes:
    """The zip of the result that is shown."""
    with page.expect_download() as started:
        page.get_by_role("link", name="Download zip").click()
    return started.value.path().read_bytes()


def picture(data: bytes, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(zipfile.ZipFile(io.BytesIO(data)).read(name))))


@pytest.fixture(scope="module")
def tissue_file(tmp_path_factory):
    """A picture of tissue-like colors."""
    from conftest import draw_tissue

    path = tmp_path_factory.mktemp("tissue") / "tissue.png"
    Image.fromarray(draw_tissue(np.random.default_rng(0), 300, 3)[0]).save(path)
    return path


def test_a_gland_is_painted_woven_downloaded_and_reopened_with_equal_bytes(studio, tissue_file, tmp_path):
    page = studio()
    choose(page, "stroma", "Fill")
    page.mouse.click(*screen(page, 5, 5))
    assert ids(page) == hashed(EMPTY * 0)
    choose(page, "normal gland", "Brush")
    page.mouse.move(*screen(page, 50, 50))
    page.mouse.down()
    page.mouse.move(*screen(page, 150, 50))
    page.keyboard.press("Control+z")  # drops the stroke that is being drawn
    page.mouse.move(*screen(page, 150, 150))
    page.mouse.up()
    assert ids(page) == hashed(EMPTY * 0)
    page.keyboard.press("Control+z")
    assert ids(page) == hashed(EMPTY)
    page.keyboard.press("Control+y")
    drag(page, (30, 30), (190, 110), (60, 180))
    box_crop(page, "normal gland", tissue_file)
    playwright.expect(page.get_by_alt_text("of normal gland")).to_have_count(3)
    weave(page)
    data = download(page)
    drawn = picture(data, "map.png")
    assert ids(page) == hashed(drawn)
    assert set(np.unique(drawn)) == {STROMA, GLAND}
    assert label(drawn == GLAND)[1] == 1  # however fast the pointer is, a stroke has no gaps
    crops = json.loads(zipfile.ZipFile(io.BytesIO(data)).read("provenance.json"))["crops"]
    assert [crop["tissue"] for crop in crops].count("normal gland") == 3

    (tmp_path / "result.zip").write_bytes(data)
    other = studio()
    other.locator("#result-file").set_input_files(tmp_path / "result.zip")
    playwright.expect(other.get_by_alt_text("of normal gland")).to_have_count(3)
    assert ids(other) == hashed(drawn)
    weave(other)
    assert zipfile.ZipFile(io.BytesIO(download(other))).read("image.png") == zipfile.ZipFile(io.BytesIO(data)).read(
        "image.png"
    )


def test_the_keyboard_alone_paints_undoes_picks_and_weaves(studio):
    page = studio()
    page.locator("#stage").focus()
    press = page.keyboard.press
    press("1")
    press("f")
    press(" ")
    assert ids(page) == hashed(EMPTY * 0)
    press("2")
    press("b")
    page.keyboard.down(" ")
    for _ in range(5):
        press("ArrowRight")
    page.keyboard.up(" ")
    drawn = np.where(near_line((112, 112), (152, 112), 12), GLAND, STROMA).astype(np.uint8)
    assert ids(page) == hashed(drawn)
    press("Control+z")
    assert ids(page) == hashed(EMPTY * 0)
    press("Control+y")
    press("k")
    press(" ")
    for name in ("normal gland", "Brush"):
        assert page.get_by_role("radio", name=name, exact=True).is_checked()
    press("p")
    for key in ("ArrowLeft", "ArrowDown", "ArrowRight"):
        press(" ")
        for _ in range(8):
            press(key)
    press(" ")
    press("Enter")
    drawn[112:176, 88:152] = GLAND
    assert ids(page) == hashed(drawn)
    press("e")
    press(" ")
    drawn[near_line((152, 176), (152, 176), 12)] = 255
    assert ids(page) == hashed(drawn)
    for _ in range(40):
        press("Tab")
        if page.evaluate("document.activeElement.id") == "weave":
            break
    press("Enter")
    page.get_by_role("link", name="Download zip").wait_for(timeout=90_000)
    assert hashed(picture(download(page), "map.png")) == hashed(drawn)


def test_the_keyboard_alone_boxes_a_crop(studio, tissue_file):
    page = studio()
    page.locator("#stage").focus()
    page.keyboard.press("1")
    page.keyboard.press(" ")
    page.get_by_role("button", name="Add a crop of stroma").press("Enter")
    page.get_by_role("button", name="From a picture").press("Enter")
    page.locator("#image-file").set_input_files(tissue_file)
    playwright.expect(page.locator("#region")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    page.get_by_text("Box: 96 x 101 px at x 97, y 102").wait_for()
    page.get_by_role("button", name="Use this crop").press("Enter")
    playwright.expect(page.get_by_alt_text("of stroma")).to_have_count(3)


def test_examples_other_stains_and_other_maps_are_one_click_away(studio):
    page = studio()
    page.locator("#examples button").first.click()
    link = page.get_by_role("link", name="Download zip")
    link.wait_for(timeout=90_000)
    shown = [(ids(page), page.locator("#set").input_value(), link.get_attribute("href"))]
    for name in ("Same map, other stain", "Same crops, other map"):
        page.locator("#seed").fill("")
        page.get_by_role("button", name=name).click()
        playwright.expect(page.locator("#seed")).to_be_focused()  # nothing is woven by a seed that nobody gave
        assert (ids(page), page.locator("#set").input_value()) == shown[-1][:2]
        page.locator("#seed").fill("0")
        page.get_by_role("button", name=name).click()
        playwright.expect(link).not_to_have_attribute("href", shown[-1][2])
        shown.append((ids(page), page.locator("#set").input_value(), link.get_attribute("href")))
    assert shown[0][0] == shown[1][0]
    assert shown[0][1] != shown[1][1]
    assert shown[1][0] != shown[2][0]
    assert shown[1][1] == shown[2][1]


def test_variations_become_a_gallery_and_cancel_works_at_once(studio):
    page = studio()
    page.locator("#stage").focus()
    page.keyboard.press(" ")
    page.locator("#variations").fill("8")
    page.locator("#weave").click()
    page.get_by_role("button", name="Variation 2, seed 1").wait_for()  # by then there may be more
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Canceled.").wait_for()
    page.get_by_role("button", name="Variation 2, seed 1").click()
    page.get_by_alt_text("Woven image, seed 1").wait_for()
    assert picture(download(page), "image.png").shape == (224, 224, 3)


def test_only_the_painted_part_of_an_image_is_redrawn(studio, tissue_file):
    page = studio()
    page.get_by_role("button", name="Redraw an image").click()
    page.locator("#image-file").set_input_files(tissue_file)
    page.get_by_role("button", name="Paint on this region").click()
    page.get_by_role("button", name="Redraw the painted part").wait_for()
    choose(page, "normal gland")
    page.locator("#stage").focus()
    page.keyboard.press(" ")
    weave(page)
    made, before = picture(data := download(page), "image.png"), np.asarray(Image.open(tissue_file))[38:262, 38:262]
    painted = near_line((112, 112), (112, 112), 12)
    assert (made == before).all(-1)[~painted].all()
    assert (made != before).any(-1)[painted].mean() > 0.9
    assert hashed(picture(data, "map.png")) == ids(page)


def test_maps_come_from_files_and_bad_files_are_refused_in_one_line(studio, tmp_path):
    page = studio()
    opened = page.locator("#map-file").set_input_files
    drawn = np.kron([[0, 1], [2, 255]], np.ones((100, 150))).astype(np.uint8)
    Image.fromarray(drawn).save(tmp_path / "map.png")
    opened(tmp_path / "map.png")
    page.get_by_text("25 % of the map is unlabeled").wait_for()
    assert ids(page) == hashed(drawn)
    assert "300 x 200 px" in page.locator("#size").inner_text()
    Image.fromarray(drawn + 40).save(tmp_path / "other.png")
    opened(tmp_path / "other.png")
    playwright.expect(page.locator("#message")).to_contain_text("40")
    assert ids(page) == hashed(drawn)
    page.get_by_role("button", name="Undo").click()
    assert ids(page) == hashed(EMPTY)
    square = {"type": "Polygon", "coordinates": [[[0, 0], [224, 0], [224, 224], [0, 224], [0, 0]]]}
    kinds = ({"classification": {"name": "stroma"}}, {"objectType": "detection"})
    features = [{"type": "Feature", "geometry": square, "properties": kind} for kind in kinds]
    (tmp_path / "drawn.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    opened(tmp_path / "drawn.geojson")
    page.get_by_text("1 detections left out.").wait_for()
    assert ids(page) == hashed(EMPTY * 0)


def test_two_settings_are_swiped_and_two_reports_stand_side_by_side(port, open_page, tmp_path):
    page = open_page(port, path="/compare")
    page.locator("#crops img").first.wait_for()
    page.locator("#b-crop-guidance").fill("1")
    page.get_by_role("button", name="Weave both").click()
    page.locator("#swipe-b[src]").wait_for(timeout=90_000)
    assert page.locator("#swipe-a").get_attribute("src") != page.locator("#swipe-b").get_attribute("src")
    page.locator("#swipe-at").press("ArrowRight")
    assert "inset(0" in page.locator("#swipe-b").evaluate("image => image.style.clipPath")
    for side, value in (("a", 0.25), ("b", 0.5)):
        figure = {"name": "recall", "value": value, "low": 0.1, "high": 0.9, "floor": 0.8}
        report = {"encoders": {"small": {"overall": [figure]}}, "maps": [], "stain": [], "verdict": {"headline": side}}
        report["sets"] = {"fake": {"images": 12, "pixels": [64, 64]}}
        (tmp_path / f"{side}.json").write_text(json.dumps(report))
        page.locator(f"#report-{side}").set_input_files(tmp_path / f"{side}.json")
    row = page.get_by_role("row", name="small: recall")
    playwright.expect(row).to_contain_text("0.5 (0.1 to 0.9)")
    assert row.locator("td").all_inner_texts() == ["0.25 (0.1 to 0.9)", "0.8", "0.5 (0.1 to 0.9)", "0.8"]
    assert violations(page) == []


def test_the_page_fits_a_narrow_screen_and_shows_the_weave_button_on_a_desk(studio, port, open_page):
    page = studio()
    page.locator("#stage").focus()
    for key in ("1", " ", "2", "ArrowDown", " "):
        page.keyboard.press(key)
    playwright.expect(page.locator("#crops img")).to_have_count(4)
    weave_button = page.locator("#weave").bounding_box()
    assert weave_button["y"] + weave_button["height"] <= DESK["height"]
    for narrow in (page, open_page(port, SMALL, "/compare")):
        narrow.set_viewport_size(SMALL)
        narrow.locator("#examples button").first.wait_for()
        assert narrow.evaluate("document.documentElement.scrollWidth") <= SMALL["width"]


def test_labels_contrast_and_structure_pass_axe(studio):
    page = studio()
    page.locator("#stage").focus()
    page.keyboard.press(" ")
    page.locator("#crops img").first.wait_for()
    faults = violations(page)
    page.get_by_role("button", name="Add a crop of stroma").click()
    faults += violations(page)
    page.get_by_role("button", name="From a picture").click()
    faults += violations(page)
    assert faults == []


def test_a_map_outlives_another_page_a_lost_session_and_a_server_that_is_gone(tiny, open_page, tissue_file):
    with studio_thread(tiny) as port:
        page = open_page(port)
        page.locator("#examples button").first.wait_for()
        page.locator("#stage").focus()
        page.keyboard.press(" ")
        page.locator("#crops img").first.wait_for()
        drawn = ids(page)
        page.get_by_role("link", name="Compare").click()
        page.get_by_role("link", name="Weave").click()
        page.locator("#crops img").first.wait_for()
        assert ids(page) == drawn
        page.context.clear_cookies()
        page.locator("#weave").click()
        page.get_by_text("Your session had ended").wait_for()
        weave(page)
        gone = page.get_by_text("The server no longer holds 1 crop of stroma; removed here.")
        for find_out in (page.reload, page.locator("#weave").click):
            box_crop(page, "stroma", tissue_file)
            playwright.expect(page.get_by_alt_text("of stroma")).to_have_count(2)
            page.context.clear_cookies()
            find_out()
            gone.wait_for()
            playwright.expect(page.get_by_alt_text("of stroma")).to_have_count(1)
        assert ids(page) == drawn
        weave(page)
        page.get_by_role("button", name="Clear").click()
        page.locator("#weave").click()
        page.get_by_text("The map is empty; paint some tissue first.").wait_for()
        assert page.get_by_role("link", name="Download zip").is_visible()  # a refusal takes no result away
        page.reload()
        page.locator("#examples button").first.wait_for()
        page.locator("#stage").focus()
        assert ids(page) != drawn  # a cleared map stays cleared
        page.keyboard.press(" ")
        playwright.expect(page.get_by_alt_text("of stroma")).to_have_count(1)
        assert ids(page) == drawn
    page.locator("#weave").click()
    page.get_by_text("The server does not answer").wait_for()
    assert ids(page) == drawn


def test_a_token_opens_the_page_once_and_a_wrong_one_does_not(tiny, open_page):
    with studio_thread(tiny, token="the-right-token") as port:
        page = open_page(port)
        field = page.get_by_label("The token that the server printed")
        playwright.expect(field).to_be_focused()
        assert violations(page) == []
        for token in ("a-wrong-token", "the-right-token"):
            field.fill(token)
            page.get_by_role("button", name="Log in").click()
            page.locator("#message:not(:empty)" if token.startswith("a-wrong") else "#work").wait_for()
        assert page.locator("#message").inner_text() == ""
