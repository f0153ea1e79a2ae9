"""The grid of candidates against maps read one by one, and the rules against the places they leave."""

import dataclasses

import numpy as np
import pytest
from slide_files import write_image

from histoloom.patches.extract import find_patches, judge_grid, rank
from histoloom.patches.heterogeneity import class_fractions, entropy
from histoloom.patches.rules import PatchRules
from histoloom.slides.polygon import Polygon
from histoloom.slides.rasterize import PolygonMap
from histoloom.slides.reader import open_slide
from histoloom.slides.tissue import tissue_map
from histoloom.tissue import UNLABELLED, TissueTable

TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])
SIZE = 700, 500
RULES = PatchRules(mpp=0.5, size=64, stride=16, min_focus=0.0, min_tissue=0.0, per_slide=10_000, per_type=10_000)


@pytest.fixture
def slide(tmp_path):
    """700 x 500 px of grain at 0.25 um/px."""
    grain = np.random.default_rng(0).integers(60, 200, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    with open_slide(write_image(tmp_path / "a.png", grain), 0.25) as opened:
        yield opened


@pytest.fixture
def annotation():
    """Two slanted borders and a corner without label."""
    rings = [
        [(0, 0), (250, 0), (150, 500), (0, 500)],
        [(250, 0), (520, 0), (450, 500), (150, 500)],
        [(520, 0), (700, 0), (700, 300), (600, 500), (450, 500)],
    ]
    return PolygonMap([Polygon(np.array(ring, float)) for ring in rings], [0, 1, 2], SIZE, 0.25)


@pytest.fixture
def tissue():
    """Tissue on all but the right fifth."""
    mask = np.ones((50, 70), bool)
    mask[:, 56:] = False
    return tissue_map(mask, 10.0)


def grid(slide, annotation, tissue, rules=RULES):
    return judge_grid(slide, annotation, tissue, TABLE, rules, np.random.default_rng(1))


def test_candidates_are_judged_as_their_own_maps_would_be(slide, annotation, tissue):
    found = grid(slide, annotation, tissue)
    assert len(found) > 150
    for i in range(0, len(found), 7):
        semantic_map = annotation.read(int(found.x[i]), int(found.y[i]), 64, 0.5)
        assert np.abs(class_fractions(semantic_map, 3) - found.fractions[i]).max() < 0.03
        assert abs((semantic_map != UNLABELLED).mean() - found.labeled[i]) < 0.03
        right = np.clip(560 - found.x[i], 0, 128) / 128
        assert abs(found.tissue[i] - right) < 0.01


def test_all_candidates_lie_on_the_slide_and_none_twice(slide, annotation, tissue):
    for rules in (RULES, dataclasses.replace(RULES, mpp=0.125, stride=1)):  # half a level-0 pixel from one to the next
        found = grid(slide, annotation, tissue, rules)
        edge = rules.size * rules.mpp / slide.mpp
        assert found.x.min() >= 0
        assert found.y.min() >= 0
        assert (found.x + edge).max() <= SIZE[0]
        assert (found.y + edge).max() <= SIZE[1]
        assert len(set(zip(found.x.tolist(), found.y.tolist(), strict=True))) == len(found)


def test_a_slide_smaller_than_a_patch_has_no_candidates(slide, annotation, tissue):
    assert len(grid(slide, annotation, tissue, dataclasses.replace(RULES, size=300))) == 0


def test_the_richest_come_first_and_what_breaks_the_rules_is_left(slide, annotation, tissue):
    rules = dataclasses.replace(RULES, min_tissue=0.9, min_labelled=0.9)
    found = grid(slide, annotation, tissue, rules)
    order = rank(found, rules, np.random.default_rng(0))
    assert 10 < len(order) < len(found)
    assert np.diff(entropy(found.fractions[order])).max() < 1e-3
    assert found.tissue[order].min() >= 0.9
    largest = found.fractions[order].max(1)
    assert 0.17 <= largest.min() <= largest.max() <= 0.83


@pytest.mark.parametrize("pixels", [True, False])
def test_chosen_patches_keep_every_rule_exactly(slide, annotation, tissue, pixels):
    rules = dataclasses.replace(RULES, min_labelled=0.9, min_focus=0.01, per_slide=60, per_type=25)
    chosen = list(find_patches(slide, annotation, tissue, TABLE, rules, pixels))
    again = list(find_patches(slide, annotation, tissue, TABLE, rules, not pixels))
    assert [(p.x, p.y) for p in chosen] == [(p.x, p.y) for p in again]
    assert 20 < len(chosen) <= 60
    assert np.bincount([p.fractions.argmax() for p in chosen]).max() <= 25
    for patch in chosen:
        assert np.array_equal(patch.semantic_map, annotation.read(patch.x, patch.y, 64, 0.5))
        assert 0.2 <= patch.fractions.max() <= 0.8
        assert (patch.semantic_map != UNLABELLED).mean() >= 0.9
        assert patch.entropy == pytest.approx(float(entropy(patch.fractions[None])[0]))


def test_blurred_places_are_left_out(tmp_path, annotation, tissue):
    sharp = np.random.default_rng(0).integers(60, 200, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    sharp[:, :350] = (np.arange(SIZE[1]) / 4 + 60).astype(np.uint8)[:, None, None]  # a smooth ramp
    rules = dataclasses.replace(RULES, min_focus=0.02)
    with open_slide(write_image(tmp_path / "b.png", sharp), 0.25) as slide:
        chosen = list(find_patches(slide, annotation, tissue, TABLE, rules))
    assert len(chosen) > 10
    assert min(patch.x for patch in chosen) > 350 - 128
