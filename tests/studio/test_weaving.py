"""From a map to a picture, and back: what a page asks and gets."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from studio_server import Page, file_of, map_body, studio

from histoloom import Crop, Order, weave
from histoloom.conditioning.inputs import content_id
from histoloom.generation.settings import WeaveConfig
from histoloom.studio.catalog import Model


@pytest.fixture(scope="module")
def port(tiny):
    with studio(tiny) as port:
        yield port


@pytest.fixture
def page(port):
    return Page(port)


def test_an_example_works_at_once_and_gives_the_picture_of_the_library(page, tiny):
    body = page.example()
    results = page.weave(body | {"variations": 2})
    assert [r["variation"] for r in results] == [1, 2]
    ids = page.picture(page.ask(f"/api/examples/{page.state['examples'][0]['name']}")[1]["map"])
    crops = []
    for row in body["crops"]:
        pixels = page.picture(f"/api/images/{row['crop']}.png")
        crops.append(Crop(pixels, tiny.table.find(row["tissue"]).id, content_id(pixels)))
    for result in results:
        order = Order(ids, "", crops)
        patch = next(iter(weave(tiny.pipeline, [order], WeaveConfig(seed=result["seed"], steps=body["steps"]))))
        assert np.array_equal(page.picture(result["url_image"]), patch.image)
        assert result["copy"]["score"] == round(patch.provenance.copy_score, 3)
        assert result["provenance"]["seed"] == patch.provenance.seed


def test_steps_come_with_a_preview_and_results_last(page):
    _, job, _ = page.ask("/api/weave", page.example() | {"steps": 3})
    events = page.events(job["job"])
    names = [name for name, _ in events]
    assert names[-1] == "result"
    assert set(names) <= {"place", "step", "result"}
    again = page.events(job["job"])  # as after a lost connection
    assert again == [events[-1]]


def test_a_zip_holds_all_and_weaves_the_same_bytes_again(page, tissue_image):
    uploaded = page.ask("/api/images", file_of(tissue_image))[1]
    _, crop, _ = page.ask(
        "/api/crops", {"image": uploaded["image"], "x": 7, "y": 9, "width": 40, "height": 33, "tissue": "gland"}
    )
    ids = np.repeat(np.array([0, 1, 255], np.uint8), 40)[None].repeat(70, 0)
    body = map_body(ids) | {"model": "tiny", "steps": 3, "seed": 5, "variations": 2}
    body["crops"] = [{"crop": crop["crop"], "tissue": "gland"}, bank_crop(page, "stroma")]
    result = page.weave(body)[1]
    zipped = page.ask(f"/api/results/{result['result']}/zip")[1]["bytes"]
    files = zipfile.ZipFile(io.BytesIO(zipped))
    assert {
        "image.png",
        "map.png",
        "outlines.geojson",
        "provenance.json",
        "README.txt",
        "crops/00.png",
        "crops/01.png",
    } == set(files.namelist())
    assert np.array_equal(np.asarray(Image.open(files.open("map.png"))), ids)
    assert np.array_equal(np.asarray(Image.open(files.open("crops/00.png"))), tissue_image[9:42, 7:47])
    said = json.loads(files.read("provenance.json"))
    assert said["ids_sha256"] == hashlib.sha256(ids.tobytes()).hexdigest()
    assert said["settings"]["seed"] == 6
    assert len(json.loads(files.read("outlines.geojson"))["features"]) == 2

    other = Page(page.port)
    status, start, _ = other.ask("/api/reopen", zipped)
    assert status == 200
    again = other.weave(other.body(start))[0]
    assert other.ask(again["url_image"])[1]["bytes"] == files.read("image.png")
    assert other.ask(f"/api/results/{again['result']}/zip")[1]["bytes"] == zipped


def test_provenance_alone_reopens_what_used_the_bank(page):
    result = page.weave(page.example())[0]
    files = zipfile.ZipFile(io.BytesIO(page.ask(f"/api/results/{result['result']}/zip")[1]["bytes"]))
    status, start, _ = page.ask("/api/reopen", files.read("provenance.json"))
    assert status == 200
    again = page.weave(page.body(start))[0]
    assert page.ask(again["url_image"])[1]["bytes"] == files.read("image.png")


def test_a_crop_of_the_bank_keeps_its_name_when_the_server_starts_again(page, studio_folder):
    again = Model.open(str(studio_folder))
    assert again.rows == page.state["bank"]
    with studio(again) as port:
        ids = np.zeros((64, 64), np.uint8)
        body = map_body(ids) | {"model": "tiny", "steps": 1, "crops": [bank_crop(page, "stroma")]}
        assert Page(port).weave(body)


def bank_crop(page: Page, tissue: str) -> dict:
    return {"crop": next(row["crop"] for row in page.state["bank"] if row["tissue"] == tissue), "tissue": tissue}


def test_a_redrawn_image_keeps_the_rest_and_is_reopened(page, tissue_image):
    uploaded = page.ask("/api/images", file_of(tissue_image[:96, :128]))[1]
    ids, mask = np.full((96, 128), 255, np.uint8), np.zeros((96, 128), np.uint8)
    ids[30:60, 40:80], mask[30:60, 40:80] = 1, 1
    sent = {"image": uploaded["image"], "mask": map_body(mask)["ids"]}
    result = page.weave(map_body(ids) | sent | {"model": "tiny", "steps": 2, "seed": 3})[0]
    made = page.picture(result["url_image"])
    assert np.array_equal(made[mask == 0], tissue_image[:96, :128][mask == 0])
    assert not np.array_equal(made, tissue_image[:96, :128])
    zipped = page.ask(f"/api/results/{result['result']}/zip")[1]["bytes"]
    assert b"PIXELS OF A PATIENT" in zipfile.ZipFile(io.BytesIO(zipped)).read("README.txt")
    start = page.ask("/api/reopen", zipped)[1]
    assert np.array_equal(page.picture(start["inpaint"]["mask"]) > 0, mask > 0)
    again = {"image": start["inpaint"]["image"]["image"], "mask": map_body(mask)["ids"]}
    woven = page.weave(page.body(start) | again)[0]
    assert page.ask(woven["url_image"])[1]["bytes"] == page.ask(result["url_image"])[1]["bytes"]


def test_a_large_map_is_woven_window_by_window(page, tiny):
    ids = np.zeros((64, 800), np.uint8)
    ids[:, 400:] = 2
    _, job, _ = page.ask("/api/weave", map_body(ids) | {"model": "tiny", "steps": 8, "seed": 4})
    events = page.events(job["job"])
    steps = [data for name, data in events if name == "step"]
    assert steps
    assert all(1 <= data["step"] <= data["of"] and data["of"] > 4 for data in steps)
    expected = tiny.pipeline(ids, steps=8, seed=4)[0]
    assert np.array_equal(page.picture(events[-1][1]["url_image"]), expected)
