from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F

from histoloom.augmentation import dihedral
from histoloom.conditioning.crops import (
    CropConfig,
    ReferenceCrops,
    adaptive_edge,
    complexity,
    crops_in_place,
    draw_box,
    place_crops,
    present_types,
)
from histoloom.conditioning.inputs import SMALLEST_CROP, Crop
from histoloom.errors import ConfigError
from histoloom.patches.store import Patches
from histoloom.stain import StainJitter
from histoloom.training.denoiser import DenoiserTraining, WindowSampler
from histoloom.training.latents import cache_latents

NO_STAIN = StainJitter(0.0, 0.0, 0.0)
SMALL = CropConfig(base=24, largest=40)


class Lossless(ModelMixin, ConfigMixin):
    """An autoencoder whose latents are the pixels themselves, folded 8 x 8, so that a window can be read back."""

    @register_to_config
    def __init__(self, latent_channels: int = 192, block_out_channels: tuple[int, ...] = (1, 1, 1, 1)):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def encode(self, pixels: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(latents=F.pixel_unshuffle(pixels, 8))


def numbered_patches(cases: list[str], size: int) -> Patches:
    """Patches in which no two pixels, of whatever patch, have one color; a checkerboard of two types, 28 px a field.

    No byte is zero, so that an identity stain leaves every pixel as it is.
    """
    rng = np.random.default_rng(0)
    codes = rng.choice(255**3, len(cases) * size * size, replace=False)
    images = np.stack([codes // 255**2, codes // 255 % 255, codes % 255], -1).astype(np.uint8) + 1
    y, x = np.mgrid[:size, :size] // 28
    maps = np.broadcast_to(((x + y) % 2).astype(np.uint8), (len(cases), size, size))
    names = [f"{i}.png" for i in range(len(cases))]
    places = np.tile(np.array([0, 0, size], np.int64), (len(cases), 1))
    return Patches(images.reshape(len(cases), size, size, 3), maps, cases, names, np.full(len(cases), 0.5), places)


def colors(pixels: np.ndarray) -> np.ndarray:
    """Each pixel as one number."""
    return pixels.reshape(-1, 3).astype(np.int64) @ [1, 1 << 8, 1 << 16]


def windows(patches: Patches, folder, count: int, window: int = 64, crops: CropConfig = SMALL):
    """Training samples: the pixels that are predicted, and the crops that help."""
    config = DenoiserTraining(window=window, views=4, crops=crops, stain=NO_STAIN, map_dropout=0.0, crop_dropout=0.0)
    cache = cache_latents(Lossless(), patches, config.views, 0, NO_STAIN, folder)
    sampler = WindowSampler(patches, cache, ReferenceCrops(patches, crops), config, 2)
    for n in range(count):
        sample = sampler(n)
        latents = torch.from_numpy(sample["latents"] * cache.std[:, None, None] + cache.mean[:, None, None])
        pixels = np.rint((F.pixel_shuffle(latents, 8).numpy() + 1) * 127.5).astype(np.uint8)
        yield np.moveaxis(pixels, 0, -1), sample["crops"]


@pytest.mark.parametrize("size", [120, 121])
def test_no_pixel_of_a_reference_crop_is_one_that_it_helps_to_predict(tmp_path, size):
    cases = ["a", "a", "a", "b", "c", "c"]  # b has one patch only: its crops must come from beside the window
    patches = numbered_patches(cases, size)
    home = {int(code): i for i, image in enumerate(patches.images) for code in colors(image)}
    from_others = from_same = 0
    for predicted, crops in windows(patches, tmp_path, 250):
        hidden = set(colors(predicted).tolist())
        target = home[int(colors(predicted)[0])]
        assert {home[code] for code in hidden} == {target}
        for crop in crops:
            shown = colors(crop.pixels).tolist()
            sources = {home[code] for code in shown}
            assert hidden.isdisjoint(shown)
            assert len(sources) == 1
            lender = sources.pop()
            assert patches.sources[lender] == crop.source
            assert cases[lender] == cases[target]
            assert (lender == target) == (cases[target] == "b")
            edge = len(crop.pixels)
            there = patches.images[lender, crop.y : crop.y + edge, crop.x : crop.x + edge]
            turned = [dihedral(there, which) for which in range(8)]
            assert any(np.array_equal(crop.pixels, view) for view in turned[lender == target :])
            tissue = patches.semantic_maps[lender, crop.y : crop.y + edge, crop.x : crop.x + edge] == crop.tissue
            assert tissue.mean() > 0.9
            from_others, from_same = from_others + (lender != target), from_same + (lender == target)
    assert from_others > 200
    assert from_same > 20


def test_a_patch_that_the_window_covers_lends_itself_nothing(tmp_path):
    patches = numbered_patches(["a", "b"], 72)
    assert all(crops == [] for _, crops in windows(patches, tmp_path, 20))


def test_a_lender_is_of_the_case_shows_the_type_is_stained_alike_and_lies_elsewhere():
    patches = numbered_patches(["a", "b"] * 4, 96)
    crops = ReferenceCrops(patches)
    assert crops.lenders(0, 0) == [2, 4, 6]
    assert crops.lenders(0, 2) == []
    images = patches.images.copy()
    images[2] //= 2
    assert 2 not in ReferenceCrops(replace(patches, images=images)).lenders(0, 0)
    # Two places of one slide that overlap by a pixel, and two that only touch.
    sources, places = ["slide"] * 8, patches.places.copy()
    places[:, 0] = 1000 * np.arange(8)
    places[2, 0], places[4, 0] = 95, 96
    assert ReferenceCrops(replace(patches, sources=sources, places=places)).lenders(0, 0) == [4, 6]


def test_the_same_field_photographed_twice_does_not_lend():
    patches = numbered_patches(["a"] * 4, 96)
    images = patches.images.copy()
    images[1] = np.roll(images[0], (12, -9), (0, 1))
    assert ReferenceCrops(replace(patches, images=images)).lenders(0, 0) == [2, 3]


def test_crops_of_a_type_are_as_many_as_asked_for_and_now_and_then_missing(make_patches):
    patches = make_patches(count=6, cases=1, size=128, types=2)
    nowhere = np.zeros((128, 128), bool)
    counts = []
    for drop in (0.0, 1.0, 0.4):
        references = ReferenceCrops(patches, replace(SMALL, per_type=3, drop_type=drop))
        rng = np.random.default_rng(0)
        drawn = [references.draw(0, nowhere, patches.semantic_maps[0], None, rng) for _ in range(60)]
        per_type = [sum(crop.tissue == 1 for crop in crops) for crops in drawn]
        counts.append(np.bincount(per_type, minlength=4) / 60)
    assert counts[0][0] == 0
    assert min(counts[0][1:]) > 0.15
    assert counts[1][0] == 1
    assert 0.2 < counts[2][0] < 0.6


def test_of_several_places_the_one_that_looks_most_like_what_is_predicted_is_taken(make_patches):
    patches = make_patches(count=6, cases=1, size=128, types=2)
    nowhere = np.zeros((128, 128), bool)
    wanted = {t: patches.images[0][patches.semantic_maps[0] == t].mean(axis=0) for t in (0, 1)}
    missed = []
    for candidates in (1, 8):
        references = ReferenceCrops(patches, replace(SMALL, drop_type=0.0, candidates=candidates))
        rng = np.random.default_rng(0)
        crops = [c for _ in range(60) for c in references.draw(0, nowhere, patches.semantic_maps[0], None, rng)]
        missed.append(np.mean([np.linalg.norm(crop.pixels.mean(axis=(0, 1)) - wanted[crop.tissue]) for crop in crops]))
    assert missed[1] < 0.5 * missed[0]


def test_a_crop_looks_like_its_tissue_where_most_of_it_does(make_patches):
    patches = make_patches(1, 1, 96, 2)
    image, semantic_map = np.full((96, 96, 3), (190, 120, 170), np.uint8), np.zeros((96, 96), np.uint8)
    image[:, 60:] = 245  # glass beside tissue, both of one type
    patches = replace(patches, images=image[None], semantic_maps=semantic_map[None])
    everywhere = np.ones((96, 96), bool)

    def brightest(max_color_distance: float) -> float:
        config = CropConfig(
            base=24,
            alpha=0.0,
            spread=0.0,
            per_type=1,
            drop_type=0.0,
            candidates=1,
            max_color_distance=max_color_distance,
        )
        references, rng = ReferenceCrops(patches, config), np.random.default_rng(0)
        drawn = [references.draw(0, everywhere, semantic_map, None, rng)[0] for _ in range(60)]
        return max(crop.pixels.mean() for crop in drawn)

    assert brightest(1e9) > 240
    assert brightest(50.0) < 225


def test_a_stain_shift_restains_crops_and_nothing_else(make_patches):
    from histoloom.stain import apply_stain, draw_stain

    patches = make_patches(count=4, cases=1, size=128, types=2)
    references, nowhere = ReferenceCrops(patches, SMALL), np.zeros((128, 128), bool)
    stain = draw_stain(StainJitter(), np.random.default_rng(1))
    plain, stained = (
        references.draw(0, nowhere, patches.semantic_maps[0], shift, np.random.default_rng(2))
        for shift in (None, stain)
    )
    assert plain
    for one, other in zip(plain, stained, strict=True):
        np.testing.assert_array_equal(apply_stain(one.pixels, stain), other.pixels)


@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (31, 90)])
def test_a_box_lies_inside_the_patch_in_its_tissue_and_only_where_it_may(shape):
    rng = np.random.default_rng(0)
    mask, allowed = np.ones(shape, bool), np.ones(shape, bool)
    mask[:, :7] = False
    allowed[:3], allowed[:, 41:43] = False, False
    for _ in range(300):
        box = draw_box(mask, int(rng.integers(24, 60)), rng, allowed)
        assert box.of(mask).shape == (box.edge, box.edge)
        assert box.edge >= SMALLEST_CROP
        assert box.of(mask).mean() >= 0.94
        assert box.of(allowed).all()


def test_a_box_shrinks_to_fit_and_is_none_where_24_px_do_not():
    rng = np.random.default_rng(0)
    mask = np.zeros((96, 96), bool)
    mask[:40] = True
    assert 24 <= draw_box(mask, 90, rng).edge <= 42
    mask[22:] = False
    assert draw_box(mask, 90, rng) is None
    assert draw_box(np.ones((20, 96), bool), 90, rng) is None


def test_the_edge_of_a_crop_grows_with_how_varied_its_tissue_looks():
    config = CropConfig(base=50, alpha=0.6)
    assert adaptive_edge(0.0, config) == 50
    assert adaptive_edge(0.5, config) == pytest.approx(65)
    flat, everywhere = np.full((32, 32, 3), 99, np.uint8), np.ones((32, 32), bool)
    halves = np.where(np.arange(32)[:, None, None] < 16, np.uint8(0), np.uint8(255)) + np.zeros((32, 32, 3), np.uint8)
    assert complexity(flat, everywhere) == 0
    assert complexity(halves, everywhere) == 1  # the standard deviation of half black, half white is 127.5
    assert complexity(halves, ~everywhere) == 0


def test_crops_in_place_are_the_image_itself(make_patches):
    patches = make_patches(count=1, cases=1, size=128, types=2)
    image, semantic_map = patches.images[0], patches.semantic_maps[0]
    placed = crops_in_place(image, semantic_map, SMALL, np.random.default_rng(0))
    assert {crop.tissue for crop, _, _ in placed} == {0, 1}
    for crop, y, x in placed:
        edge = len(crop.pixels)
        np.testing.assert_array_equal(crop.pixels, image[y : y + edge, x : x + edge])
        assert (semantic_map[y : y + edge, x : x + edge] == crop.tissue).mean() > 0.9


def test_a_placed_crop_lies_in_its_tissue_and_is_cut_down_where_that_is_narrow():
    semantic_map = np.zeros((96, 96), np.uint8)
    semantic_map[:30] = 1
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    crops = [Crop(pixels, 1), Crop(pixels[::-1], 1), Crop(pixels, 2)]
    [(crop, y, _)] = place_crops(semantic_map, crops, np.random.default_rng(0))
    edge = len(crop.pixels)
    assert 24 <= edge <= 32
    assert y + edge <= 32
    np.testing.assert_array_equal(crop.pixels, pixels[:edge, :edge])


def test_types_present_are_those_above_a_share_and_never_the_unlabelled():
    semantic_map = np.full((10, 10), 255, np.uint8)
    semantic_map[0, :5], semantic_map[1, 0] = 3, 1
    assert present_types(semantic_map) == [1, 3]
    assert present_types(semantic_map, 0.02) == [3]


@pytest.mark.parametrize(
    "values",
    [
        {"base": 20},
        {"largest": 50},
        {"per_type": 0},
        {"candidates": 0},
        {"drop_type": 1.5},
        {"spread": 1.0},
        {"alpha": -1.0},
    ],
)
def test_crop_settings_without_sense_are_refused(values):
    with pytest.raises(ConfigError, match="crops need"):
        CropConfig(**values)
