"""What a page may send by mistake, or in malice: refused by name in one line, before it costs anything."""

import base64
import io
import json
import struct
import tempfile
import zipfile
import zlib

import numpy as np
import pytest
from studio_server import Page, file_of, map_body, studio

from histoloom.stain import he_share
from histoloom.studio.catalog import Model
from histoloom.studio.settings import StudioConfig
from histoloom.studio.uploads import read_map, read_upload
from histoloom.tissue import TissueTable


@pytest.fixture(scope="module")
def port(tiny):
    with studio(tiny, upload_bytes=2**21, upload_pixels=250_000, most_edge=256, users=500) as port:
        yield port


@pytest.fixture
def page(port):
    return Page(port)


@pytest.fixture(scope="module")
def shown(port):
    """A zip of a result."""
    page = Page(port)
    return page.ask(f"/api/results/{page.weave(page.example())[0]['result']}/zip")[1]["bytes"]


def refused(page: Page, path: str, body: object, status: int = 400) -> str:
    """The one line by which a request is refused."""
    found, said, _ = page.ask(path, body)
    assert found == status, said
    assert "\n" not in said["error"]
    assert "/tmp" not in said["error"]
    return said["error"]


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says that it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_a_photo_of_a_cat_is_warned_of_by_its_stain(page, tissue_image):
    data = pytest.importorskip("skimage.data")
    cat = np.ascontiguousarray(data.chelsea())
    assert he_share(cat) < 0.1 < 0.9 < he_share(tissue_image)
    warning = page.ask("/api/images", file_of(cat))[1]["warning"]
    assert warning == "this does not look like H&E: 1% of its stained pixels have the color of H&E"
    uploaded = page.ask("/api/images", file_of(tissue_image))[1]
    assert (uploaded["warning"], uploaded["width"], uploaded["height"]) == (None, 300, 200)
    glass = page.ask("/api/images", file_of(np.full((50, 50, 3), 255, np.uint8)))[1]
    assert glass["warning"] == "this shows no stain; choose a place with tissue"


def test_real_tissue_is_not_warned_of(shared_data):
    from histoloom.pictures import read_image

    paths = [
        *sorted((shared_data / "ebhi-seg" / "images").iterdir())[::60],
        *(shared_data / "camelyon-mini" / "images").iterdir(),
    ]
    assert min(he_share(read_image(path)) for path in paths) > 0.5


def test_a_map_that_does_not_fit_is_refused_by_name(page):
    ids = np.zeros((64, 80), np.uint8)
    body = {"model": "tiny"} | map_body(ids)
    assert refused(page, "/api/weave", body | {"width": 64}) == "the map has 5120 pixels, and 64 x 64 px are 4096"
    ids[3, 4] = 77
    assert (
        refused(page, "/api/weave", body | map_body(ids))
        == "the map: map values [77] are unknown to this model (known: [0, 1, 2], 255 = unlabeled)"
    )
    assert (
        refused(page, "/api/weave", body | map_body(np.full((64, 80), 255, np.uint8)))
        == "the map is empty; paint some tissue first"
    )
    assert "width must be a whole number from 32 to 256" in refused(
        page, "/api/weave", body | map_body(np.zeros((64, 300), np.uint8))
    )
    assert refused(page, "/api/weave", body | {"ids": "###"}) == "the map is not base64"
    assert refused(page, "/api/weave", body | {"ids": None}) == "the map is missing"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "other"}, "no such model here; known: tiny"),
        ({"steps": 0}, "steps must be a whole number from 1 to 1000"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"map_guidance": float("inf")}, "map_guidance"),
        ({"map_guidance": "much"}, "map_guidance must be a number"),
        ({"map_guidance": 10**400}, "map_guidance is too large"),
        ({"crop_guidance": -1}, "crop_guidance is -1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": True}, "seed must be a whole number"),
        ({"variations": 9}, "variations must be a whole number from 1 to 8"),
        ({"seed": 2**53 - 1, "variations": 3}, "is too large for 3 variations; give 9007199254740989 or less"),
        ({"crops": "all"}, "crops must be a list of at most 24"),
        ({"crops": [{"crop": "x", "tissue": "stroma"}]}, "crop 1 of stroma is no longer held here; add it again"),
        ({"image": "x"}, "the picture is no longer held here"),
    ],
)
def test_settings_that_make_no_sense_are_refused(page, changed, said):
    body = {"model": "tiny", "steps": 1} | map_body(np.zeros((64, 64), np.uint8)) | changed
    status, found, _ = page.ask("/api/weave", body)
    assert status in (400, 404)
    assert said in found["error"]


def test_a_crop_of_tissue_that_is_not_on_the_map_is_refused(page):
    row = next(row for row in page.state["bank"] if row["tissue"] == "tumour")
    body = {"model": "tiny"} | map_body(np.zeros((64, 64), np.uint8))
    crops = [{"crop": row["crop"], "tissue": "tumour"}]
    assert "shows 'tumour', which is not on the map" in refused(page, "/api/weave", body | {"crops": crops})
    crops = [{"crop": row["crop"], "tissue": "bone"}]
    assert "knows no tissue of this name; known: stroma, gland, tumour" in refused(
        page, "/api/weave", body | {"crops": crops}
    )


def test_uploads_are_bounded_by_their_headers(page):
    said = "the picture is 40000 x 40000 px; at most 0.25 million are read: export the region that you need"
    assert refused(page, "/api/images", huge_png(40_000, 40_000), 413) == said
    query = "/api/maps?model=tiny&width=64&height=64"
    assert refused(page, query, huge_png(40_000, 40_000)) == "the map is 40000 x 40000 px; at most 256 fit each way"
    small = file_of(np.zeros((20, 90), np.uint8))
    assert refused(page, query, small) == "the map is 90 x 20 px; it needs 32 or more each way"
    assert "must say its size, of at most 2097152 bytes" in refused(page, "/api/images", b"\0" * (2**21 + 1), 413)
    assert "must say its size, of at most 65536 bytes" in refused(page, "/api/crops", b"\0" * (2**16 + 1), 413)
    wide = file_of(np.zeros((64, 300), np.uint8))
    assert refused(page, query, wide) == "the map is 300 x 64 px; at most 256 fit each way"


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"II*\0\x08\0\0\0\0\0", b"%!PS-Adobe", b"\x89PNG\r\n\x1a\n", b"BM" + b"\0" * 60]
)
def test_files_that_are_no_pictures_are_refused(page, data):
    assert refused(page, "/api/images", data).startswith("the picture cannot be used: ")
    assert refused(page, "/api/maps?model=tiny&width=64&height=64", data).startswith("the map cannot be used: ")


def test_a_full_disk_of_the_server_is_not_the_fault_of_the_upload(page, tissue_image, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    for path in ("/api/images", "/api/maps?model=tiny&width=64&height=64"):
        said = refused(page, path, file_of(tissue_image), 503)
        assert "the server cannot hold" in said
        assert "tell whoever runs the studio" in said


def test_a_tiff_and_a_slide_are_read_and_a_large_one_is_refused(page, tissue_image):
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, tissue_image, photometric="rgb", tile=(128, 128), compression="zlib")
    found = page.ask("/api/images", buffer.getvalue())[1]
    assert np.array_equal(page.picture(found["url"]), tissue_image)
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, np.zeros((1000, 1000, 3), np.uint8), photometric="rgb", tile=(128, 128), compression="zlib"
    )
    assert "the slide is 1000 x 1000 px" in refused(page, "/api/images", buffer.getvalue(), 413)


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.1])
def test_a_slide_is_read_at_the_scale_of_the_model(tissue_image, scale):
    tifffile = pytest.importorskip("tifffile")
    buffer, per_cm = io.BytesIO(), (1e4 / scale, 1e4 / scale)
    options = {"resolution": per_cm, "resolutionunit": "CENTIMETER", "tile": (128, 128), "compression": "zlib"}
    tifffile.imwrite(buffer, tissue_image, photometric="rgb", **options)
    height, width = (round(edge * scale / 0.5) for edge in tissue_image.shape[:2])
    assert read_upload(buffer.getvalue(), StudioConfig(), 0.5).shape == (height, width, 3)


def test_maps_are_read_from_files_of_other_tools(page):
    ids = np.zeros((40, 60), np.uint8)
    ids[:, 20:] = 2
    query = "/api/maps?model=tiny&width=60&height=40"
    found = page.ask(query, file_of(ids))[1]
    assert np.array_equal(page.picture(found["url"]), ids)
    assert (found["width"], found["height"], found["unlabeled"]) == (60, 40, 0)
    square = [[10, 5], [30, 5], [30, 25], [10, 25], [10, 5]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [square]},
        "properties": {"objectType": "annotation", "classification": {"name": "Gland"}},
    }
    collection = {"type": "FeatureCollection", "features": [feature, {**feature, "properties": {}}]}
    collection["features"].append({**feature, "properties": {"objectType": "detection"}})
    found = page.ask(query, json.dumps(collection).encode())[1]
    expected = np.full((40, 60), 255, np.uint8)
    expected[5:25, 10:30] = 1
    assert np.array_equal(page.picture(found["url"]), expected)
    assert found["notes"] == ["1 detections left out", "1 polygon(s) without a class left out"]
    drawn = feature["geometry"]["coordinates"][0]
    drawn[1] = drawn[2] = [90, 5]
    assert refused(page, query, json.dumps(collection).encode()).endswith(
        "reaches over the border of the map, which is 60 x 40 px; begin with an empty map that is larger, or give the "
        "coordinates in px of the map"
    )
    feature["properties"]["classification"]["name"] = "Bone"
    assert refused(page, query, json.dumps(collection).encode()) == (
        "the map cannot be used: feature 1 (Bone): class 'Bone' is unknown to this model (known: stroma, gland, tumour)"
    )
    del collection["features"][:2]
    assert refused(page, query, json.dumps(collection).encode()) == (
        "the map is empty: the file labels no pixel with a tissue type (1 detections left out)"
    )
    assert "the map is empty" in refused(page, query, file_of(np.full((40, 60), 255, np.uint8)))
    ids[0, 0] = 9
    assert refused(page, query, file_of(ids)) == (
        "the map cannot be used: map value 9 belongs to no tissue type; known: 0 stroma, 1 gland, 2 tumour, and 255 "
        "for unlabeled"
    )
    assert "lossy" in refused(page, query, file_of(ids, "JPEG"))


def test_a_crop_is_cut_within_the_picture_and_within_bounds(page, tissue_image):
    image = page.ask("/api/images", file_of(tissue_image))[1]["image"]
    box = {"image": image, "x": 0, "y": 0, "width": 40, "height": 40, "tissue": "gland"}
    assert page.ask("/api/crops", box)[0] == 200
    assert "x must be a whole number from 0 to 260" in refused(page, "/api/crops", box | {"x": 261})
    assert "width must be a whole number from 24 to 256" in refused(page, "/api/crops", box | {"width": 299})
    assert "height must be a whole number from 24 to 200" in refused(page, "/api/crops", box | {"height": 9})
    assert "knows no tissue" in refused(page, "/api/crops", box | {"tissue": "bone"})
    assert (
        refused(page, "/api/crops", box | {"image": "../../etc/passwd"}, 404)
        == "the picture is no longer held here; add it again"
    )


def test_a_result_of_another_model_is_refused(page, shown, make_pipeline, tmp_path):
    other = make_pipeline("map")
    other.save_pretrained(tmp_path / "other")
    with studio(Model.open(str(tmp_path / "other"))) as port:
        said = refused(Page(port), "/api/reopen", shown)
    assert said == "this was woven by another model, 'tiny'; this studio serves other"


def changed_zip(shown: bytes, name: str, data: bytes) -> bytes:
    """The zip with other bytes in one of its files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(shown)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, data if entry == name else old.read(entry))
    return buffer.getvalue()


def corrupt_zip(data: bytes) -> bytes:
    """The zip with the stream of its provenance spoiled."""
    start = zipfile.ZipFile(io.BytesIO(data)).getinfo("provenance.json").header_offset + 30 + len("provenance.json")
    return data[:start] + bytes(255 - byte for byte in data[start : start + 40]) + data[start + 40 :]


def test_text_that_is_no_utf_8_is_named_in_a_refusal(page):
    said = refused(page, "/api/reopen", b'{"format": "\\ud800"}')
    assert said == "this was written in format \\ud800, and this studio reads 1"


def test_a_changed_or_damaged_result_is_refused(page, shown):
    said = json.loads(zipfile.ZipFile(io.BytesIO(shown)).read("provenance.json"))
    other_map = said | {"map_png": base64.b64encode(file_of(np.zeros((224, 224), np.uint8))).decode()}
    for data, reason in (
        (b"PK\x05\x06", "this is not a result of the studio, or it is damaged"),
        (b"{}", "or it is damaged; choose the zip of a result, or its provenance.json"),
        (b"[]", "or it is damaged; choose the zip of a result, or its provenance.json"),
        (b"\0\1\2", "this is not a result of the studio"),
        (b"[" * 100_000, "this is not a result of the studio"),
        (changed_zip(shown, "provenance.json", b"0" * 9_000_000), "provenance.json is larger than 8388608 bytes"),
        (json.dumps(other_map).encode(), "the map of this result was changed"),
        (corrupt_zip(shown), "it is damaged"),
        (json.dumps(said | {"settings": said["settings"] | {"seed": -1}}).encode(), "seed is -1"),
        (json.dumps(said | {"format": 9}).encode(), "this was written in format 9"),
        (json.dumps(said | {"settings": said["settings"] | {"steps": 5000}}).encode(), "steps is 5000"),
        (
            json.dumps(said | {"crops": [{"id": "x", "tissue": "stroma"}]}).encode(),
            "this uses crops or pictures that are in no bank",
        ),
        (
            json.dumps(said | {"crops": [{"id": c["id"], "tissue": "bone"} for c in said["crops"]]}).encode(),
            "knows no tissue",
        ),
    ):
        status, found, _ = page.ask("/api/reopen", data)
        assert status in (400, 413)
        assert reason in found["error"], found


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_polygons_are_a_map_in_every_coding_that_editors_save(coding):
    ring = [[0, 0], [40, 0], [40, 64], [0, 64], [0, 0]]
    shown = {
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": "gland"}},
    }
    data = json.dumps({"type": "Feature"} | shown).encode(coding)
    semantic_map, notes = read_map(data, TissueTable.from_names(["stroma", "gland"]), (64, 64), 256)
    expected = np.full((64, 64), 255, np.uint8)
    expected[:, :40] = 1
    np.testing.assert_array_equal(semantic_map, expected)
    assert notes == []


@pytest.mark.parametrize("types", ["250", "0,250"])
def test_a_layout_of_a_type_that_the_model_lacks_is_refused_by_its_types(page, types):
    said = refused(page, f"/api/layout?model=tiny&width=64&height=64&types={types}", None)
    assert said == "tiny has no type 250; known are 0 stroma, 1 gland, 2 tumour"
