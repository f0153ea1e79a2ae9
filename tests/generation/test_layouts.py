"""Layouts: a pure function of the seed, two or three types within the 20-80 % rule, shapes like those of real maps."""

import numpy as np
import pytest
from PIL import Image

from histoloom.errors import ConfigError, TissueError
from histoloom.generation.layouts import LayoutConfig, Layouts, background_of, draw_layouts
from histoloom.generation.styles import STYLES, smooth_noise
from histoloom.patches.heterogeneity import class_fractions, is_heterogeneous
from histoloom.tissue import TissueTable, TissueType

TABLE = TissueTable.from_names(["stroma", "normal gland", "polyp", "low-grade neoplasia", "adenocarcinoma"])
SIZE = 96
AT_SIZE = LayoutConfig(mpp=3.0)  # so that a small map shows as much tissue as a patch does


def length_of_borders(semantic_map: np.ndarray) -> int:
    return (semantic_map[1:] != semantic_map[:-1]).sum() + (semantic_map[:, 1:] != semantic_map[:, :-1]).sum()


def test_the_same_seed_draws_the_same_layouts_and_another_seed_others():
    layouts = draw_layouts(AT_SIZE, TABLE, 5, seed=3, size=SIZE)
    assert np.array_equal(layouts, draw_layouts(AT_SIZE, TABLE, 5, seed=3, size=SIZE))
    assert not np.array_equal(layouts, draw_layouts(AT_SIZE, TABLE, 5, seed=4, size=SIZE))
    assert len({layout.tobytes() for layout in layouts}) == 5


def test_a_layout_does_not_depend_on_how_many_are_drawn():
    assert np.array_equal(
        draw_layouts(AT_SIZE, TABLE, 3, seed=0, size=SIZE), draw_layouts(AT_SIZE, TABLE, 6, seed=0, size=SIZE)[:3]
    )


def test_every_layout_keeps_the_20_to_80_percent_rule_and_holds_the_background_and_one_or_two_types():
    layouts = draw_layouts(LayoutConfig(mpp=3.0, two_types=0.5), TABLE, 24, seed=1, size=SIZE)
    fractions = np.stack([class_fractions(layout, TABLE.num_ids) for layout in layouts])
    assert layouts.dtype == np.uint8
    assert layouts.shape == (24, SIZE, SIZE)
    assert is_heterogeneous(fractions).all()
    assert (fractions[:, 0] > 0).all()
    assert set((fractions > 0).sum(1)) == {2, 3}


@pytest.mark.parametrize(("two_types", "expected"), [(0.0, 2), (1.0, 3)])
def test_the_share_of_layouts_with_two_types_is_obeyed(two_types, expected):
    layouts = draw_layouts(LayoutConfig(mpp=3.0, two_types=two_types), TABLE, 8, seed=2, size=SIZE)
    assert {len(np.unique(layout)) for layout in layouts} == {expected}


def test_as_many_layouts_as_types_show_every_type():
    layouts = draw_layouts(LayoutConfig(mpp=3.0, two_types=0.0), TABLE, 4, seed=9, size=SIZE)
    assert set(np.unique(layouts)) == set(TABLE.ids)


def test_any_table_works_with_gaps_in_its_ids_and_a_background_of_choice():
    table = TissueTable(
        (TissueType(3, "tumour", "#ff0000"), TissueType(17, "fat", "#00ff00"), TissueType(200, "x", "#0000ff"))
    )
    layouts = draw_layouts(LayoutConfig(mpp=3.0, background="Fat"), table, 4, seed=0, size=SIZE)
    assert set(np.unique(layouts)) == {3, 17, 200}
    assert all((layout == 17).any() for layout in layouts)


@pytest.mark.parametrize("style", STYLES)
def test_each_style_keeps_the_rule_and_draws_smooth_bodies_not_dust(style):
    table = TissueTable.from_names(["stroma", "gland"])
    layouts = draw_layouts(LayoutConfig(mpp=3.0, styles=(("gland", style),)), table, 4, seed=5, size=SIZE)
    for layout in layouts:
        # Real maps have 0.02-0.12 border pixels per gland pixel at 1.5 um/px, twice that at 3; dust has about 1.
        assert 0.01 < length_of_borders(layout) / layout.sum() < 0.35


def test_crypts_are_many_and_a_field_is_few_bodies():
    table = TissueTable.from_names(["stroma", "gland"])
    crypts, fields = (
        np.mean([length_of_borders(m) / m.sum() for m in draw_layouts(c, table, 8, seed=5, size=SIZE)])
        for c in (LayoutConfig(mpp=3.0, styles=(("gland", s),)) for s in ("crypts", "field"))
    )
    assert crypts > 1.3 * fields


def test_twice_the_resolution_shows_bodies_twice_as_large():
    table = TissueTable.from_names(["stroma", "gland"])
    coarse, fine = (
        np.mean([length_of_borders(m) / m.sum() for m in draw_layouts(c, table, 12, seed=5, size=128)])
        for c in (LayoutConfig(mpp=mpp, styles=(("gland", "crypts"),)) for mpp in (3.0, 1.5))
    )
    assert 1.6 < coarse / fine < 2.4


@pytest.mark.parametrize(
    ("names", "background"),
    [
        (["gland", "stroma"], "stroma"),  # was all gland
        (["tumor", "normal"], "normal"),
        (["Adenocarcinoma", "Normal gland", "muscle"], "muscle"),
        (["mucosa", "muscle"], "mucosa"),
        (["polyp", "tumour"], "polyp"),  # nothing else is known
    ],
)
def test_the_background_is_the_type_whose_name_says_so_wherever_it_stands_in_the_table(names, background):
    table = TissueTable.from_names(names)
    assert background_of(table).name == background
    layout = draw_layouts(AT_SIZE, table, 1, seed=0, size=SIZE)[0]
    assert (layout == table.find(background).id).any()
    assert background_of(
        TissueTable((TissueType(0, "gland", "#000000"), TissueType(1, "x", "#0000ff", ("Stroma",))))
    ).id


def test_a_layout_covers_the_shares_that_are_asked_for():
    layouts = Layouts(AT_SIZE, TABLE, 0, SIZE)
    for index, shares in enumerate([{1: 0.3}, {2: 0.6}, {4: 0.75}, {1: 0.2, 4: 0.4}, {3: 0.35, 2: 0.1}]):
        fractions = class_fractions(layouts.compose(index, shares), TABLE.num_ids)
        for tissue, share in shares.items():
            assert fractions[tissue] == pytest.approx(share, abs=0.03)
        assert fractions[0] == pytest.approx(1 - sum(shares.values()), abs=0.04)


def test_the_band_of_the_most_common_type_may_be_another():
    layouts = draw_layouts(LayoutConfig(mpp=3.0, band=(0.5, 0.65)), TABLE, 8, seed=1, size=SIZE)
    largest = [class_fractions(layout, TABLE.num_ids).max() for layout in layouts]
    assert min(largest) >= 0.5
    assert max(largest) <= 0.65
    with pytest.raises(ConfigError, match=r"band is 0.8 to 0.2; give two shares"):
        LayoutConfig(band=(0.8, 0.2))


def test_lumens_lie_within_glands_and_never_stand_alone():
    wider = TissueTable.from_names([*TABLE.names, "lumen or glass"])
    lumen = wider.find("lumen or glass").id
    plain = draw_layouts(AT_SIZE, TABLE, 12, seed=3, size=SIZE)
    hollow = draw_layouts(AT_SIZE, wider, 12, seed=3, size=SIZE)
    assert np.array_equal(np.where(hollow == lumen, plain, hollow), plain)  # the same glands
    assert (plain[hollow == lumen] != 0).all()
    shares = (hollow == lumen).sum((1, 2)) / (plain != 0).sum((1, 2))
    low, high = LayoutConfig.lumens
    assert low / 2 < shares.mean() < high
    assert (shares > 0).mean() > 0.9
    none = draw_layouts(LayoutConfig(mpp=AT_SIZE.mpp, lumens=(0.0, 0.0)), wider, 3, seed=3, size=SIZE)
    assert np.array_equal(none, plain[:3])


def test_a_table_of_a_ground_and_lumens_draws_lumens_as_its_other_type():
    layouts = draw_layouts(AT_SIZE, TissueTable.from_names(["stroma", "lumen"]), 2, seed=0, size=SIZE)
    assert set(np.unique(layouts)) == {0, 1}


def test_smooth_noise_has_unit_variance_and_the_smoothness_asked_for():
    noise = np.stack([smooth_noise(np.random.default_rng(seed), 128, 4.0) for seed in range(8)])
    neighbors = (noise[:, 4:] * noise[:, :-4]).mean()
    assert noise.var() == pytest.approx(1, abs=0.1)
    # White noise under a Gaussian s has the autocorrelation exp(-d^2 / 4 s^2); here d = s.
    assert neighbors / noise.var() == pytest.approx(np.exp(-1 / 4), abs=0.03)


def test_no_layouts_are_an_empty_array():
    assert draw_layouts(AT_SIZE, TABLE, 0, seed=0, size=SIZE).shape == (0, SIZE, SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mpp": 0.0}, "mpp"), ({"two_types": 2.0}, "two_types"), ({"styles": (("polyp", "zigzag"),)}, "known: crypts")],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        LayoutConfig(**options)


def test_a_table_of_one_type_a_tiny_size_and_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="at least two types"):
        draw_layouts(LayoutConfig(), TissueTable.from_names(["stroma"]), 1, seed=0, size=SIZE)
    with pytest.raises(ConfigError, match="at least 64"):
        draw_layouts(LayoutConfig(), TABLE, 1, seed=0, size=16)
    with pytest.raises(ConfigError, match="seed is -1"):
        draw_layouts(LayoutConfig(), TABLE, 1, seed=-1, size=SIZE)
    with pytest.raises(ConfigError, match="count is -1"):
        draw_layouts(LayoutConfig(), TABLE, -1, seed=0, size=SIZE)
    with pytest.raises(TissueError, match="known: stroma"):
        draw_layouts(LayoutConfig(background="bone"), TABLE, 1, seed=0, size=SIZE)
    with pytest.raises(TissueError, match="unknown tissue 'bone'"):
        draw_layouts(LayoutConfig(styles=(("bone", "field"),)), TABLE, 1, seed=0, size=SIZE)


def test_crypts_have_the_share_and_the_borders_of_the_real_maps_they_were_fitted_to(shared_data):
    maps = shared_data / "ebhi-seg" / "maps"
    # About as many of each; with a spread of 0.1 in share, 12 draws miss the median by 0.07 now and then, 40 do not.
    paths = [*sorted(maps.glob("normal*.png"))[::2], *sorted(maps.glob("polyp*.png"))[::10]]
    real = [(np.asarray(Image.open(path))[2:-2, 2:-2] > 0).astype(np.uint8) for path in paths]
    drawn = list(draw_layouts(LayoutConfig(), TissueTable.from_names(["stroma", "normal gland"]), 40, seed=0, size=220))
    for statistic, tolerance in ((np.mean, 0.15), (lambda m: length_of_borders(m) / m.sum(), 0.3)):
        expected = np.median([statistic(m) for m in real])
        assert np.median([statistic(m) for m in drawn]) == pytest.approx(expected, rel=tolerance)
