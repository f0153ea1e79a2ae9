"""The contact sheet shows map, crops and result where one looks for them; the overlay shows where the map runs."""

import numpy as np
import pytest
from PIL import Image

from histoloom.errors import InputError, TissueError
from histoloom.generation.contact_sheet import SheetRow, comparison_sheet, contact_sheet, overlay
from histoloom.tissue import TissueTable, TissueType

TABLE = TissueTable(
    (TissueType(0, "stroma", "#ee99aa"), TissueType(1, "gland", "#4477aa"), TissueType(2, "never shown", "#00ff00"))
)
BLUE, GRAY, RED = (0x44, 0x77, 0xAA), (90, 90, 90), (200, 0, 0)


def row(crops=((1, (48, 32)),), size: int = 64):
    semantic_map = np.zeros((size, size), np.uint8)
    semantic_map[:, size // 2 :] = 1
    return (
        semantic_map,
        [(i, np.full((*shape, 3), GRAY, np.uint8)) for i, shape in crops],
        np.full((size, size, 3), RED, np.uint8),
    )


def count(pixels: np.ndarray, color: tuple) -> int:
    return int((pixels == color).all(-1).sum())


def test_map_crop_and_image_stand_side_by_side_in_this_order():
    pixels = np.asarray(contact_sheet([row()], TABLE, tile=64))
    columns = {
        name: np.flatnonzero((pixels == color).all(-1).sum(0) > 20) for name, color in (("crop", GRAY), ("image", RED))
    }
    blue = np.flatnonzero((pixels == BLUE).all(-1).sum(0) > 60)
    assert blue.max() < columns["crop"].min() < columns["crop"].max() < columns["image"].min()
    assert count(pixels, RED) == 64 * 64
    assert count(pixels, GRAY) == 48 * 32


def test_a_crop_is_framed_in_the_colour_of_its_tissue():
    pixels = np.asarray(contact_sheet([row()], TABLE, tile=64))
    y, x = np.argwhere((pixels == GRAY).all(-1)).min(0)
    assert tuple(pixels[y - 1, x]) == BLUE
    assert tuple(pixels[y, x - 3]) == BLUE


def test_the_legend_names_only_what_is_shown():
    with_two = contact_sheet([row()], TABLE, tile=64)
    assert count(np.asarray(with_two), (0, 255, 0)) == 0
    assert count(np.asarray(contact_sheet([row(crops=[(2, (24, 24))])], TABLE, tile=64)), (0, 255, 0)) > 100


def test_sixty_four_patches_fill_a_grid_and_none_is_lost():
    sheet = contact_sheet([row()] * 64, TABLE, columns=4, title="Sixty-four", tile=64)
    assert count(np.asarray(sheet), RED) == 64 * 64 * 64
    assert sheet.width < 4 * 3.5 * 64 + 60
    assert sheet.height < 16 * 1.2 * 64 + 120


@pytest.mark.parametrize("number", [0, 1, 2, 5, 9, 20])
def test_any_number_of_crops_of_any_size_stays_inside_its_canvas(number):
    crops = [(1, (200, 100)) if i % 2 else (0, (24, 24)) for i in range(number)]
    few = np.asarray(contact_sheet([row(crops)], TABLE, tile=64))
    assert count(few, RED) == 64 * 64
    assert (count(few, GRAY) > 0) == (number > 0)


def test_the_last_line_may_be_short_and_one_patch_makes_a_narrow_sheet():
    assert contact_sheet([row()], TABLE, columns=4).width < contact_sheet([row()] * 2, TABLE, columns=4).width
    assert count(np.asarray(contact_sheet([row()] * 3, TABLE, columns=2, tile=64)), RED) == 3 * 64 * 64


def test_the_same_rows_draw_the_same_sheet():
    assert contact_sheet([row()], TABLE, title="x").tobytes() == contact_sheet([row()], TABLE, title="x").tobytes()


def test_a_comparison_shows_every_image_of_a_map_in_the_order_of_the_names():
    semantic_map, crops, image = row()
    green = np.full_like(image, 40)
    pixels = np.asarray(comparison_sheet([(semantic_map, crops, [image, green])], ["one", "two"], TABLE, tile=64))
    first, second = (np.flatnonzero((pixels == color).all(-1).sum(0) == 64) for color in (RED, (40, 40, 40)))
    assert len(first) == len(second) == 64
    assert first.max() < second.min()
    with pytest.raises(InputError, match="rows of 2 images each, one for each of one, two"):
        comparison_sheet([(semantic_map, crops, [image])], ["one", "two"], TABLE)


def test_no_rows_and_unknown_tissue_are_refused():
    with pytest.raises(InputError, match="at least one patch"):
        contact_sheet([], TABLE)
    with pytest.raises(TissueError, match="crops of patch 1"):
        contact_sheet([row(), row(crops=[(7, (24, 24))])], TABLE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": np.zeros((64, 64, 3))}, r"image of patch 0: holds float64 of shape \(64, 64, 3\)"),
        ({"image": Image.new("RGB", (64, 64))}, "image of patch 0: is a Image; give an array"),
        ({"semantic_map": np.zeros((64, 64), bool)}, "patch 0: the map holds bool; give whole numbers"),
        ({"semantic_map": np.zeros((64, 64))}, "patch 0: the map holds float64; give whole numbers"),
        ({"crops": [np.zeros((32, 32, 3), np.uint8)]}, "crops of patch 0: hold a ndarray; give pairs"),
        ({"crops": [(0, np.zeros((32, 32, 3)))]}, "crop of patch 0: holds float64"),
        ({"columns": 0}, "a sheet of 0 columns"),
        ({"tile": 0}, "0 px a tile; give 1 and 16 or more"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_what_no_sheet_can_show_is_refused_by_its_place(changes, reason):
    row = {"semantic_map": np.zeros((64, 64), np.uint8), "crops": [], "image": np.zeros((64, 64, 3), np.uint8)}
    layout = {name: changes[name] for name in ("columns", "tile") if name in changes}
    row |= {name: value for name, value in changes.items() if name in row}
    with pytest.raises(InputError, match=reason):
        contact_sheet([SheetRow(**row)], TissueTable.from_names(["stroma", "gland"]), **layout)


def test_an_overlay_tints_the_tissue_draws_its_border_and_leaves_the_unlabelled_clear():
    image = np.full((6, 6, 3), 100, np.uint8)
    semantic_map = np.full((6, 6), 255, np.uint8)
    semantic_map[:, :4] = 1
    semantic_map[:, :2] = 0
    drawn = overlay(image, semantic_map, TABLE, alpha=0.5)
    assert tuple(drawn[3, 0]) == tuple(np.rint((np.array([0xEE, 0x99, 0xAA]) + 100) / 2).astype(int))
    assert tuple(drawn[3, 2]) == BLUE
    assert (drawn[:, 4:] == 100).all()
    assert np.array_equal(image, np.full((6, 6, 3), 100, np.uint8))
