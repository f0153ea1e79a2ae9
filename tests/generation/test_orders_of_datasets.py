"""What was ordered is what is delivered: shares on pixels, shapes that are new, stains of the named sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from folders import files
from PIL import Image

from histoloom.errors import ConfigError, InputError, TissueError
from histoloom.generation.dataset_order import DatasetOrder, read_order, source_of
from histoloom.generation.delivered import describe_delivered
from histoloom.generation.layouts import LayoutConfig, Layouts
from histoloom.generation.orders import make_orders, open_maps
from histoloom.generation.settings import Source, WeaveConfig
from histoloom.generation.woven_folder import weave_folder
from histoloom.patches.heterogeneity import class_fractions, is_heterogeneous
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])
SHARES = (("stroma", 0.45), ("gland", 0.4), ("tumour", 0.15))


@pytest.fixture
def maps(tmp_path) -> Path:
    """Twenty maps of 96 px with glands and one with tumour."""
    layouts = Layouts(LayoutConfig(mpp=3.0, two_types=0.0), TissueTable.from_names(["stroma", "gland"]), 3, 96)
    (tmp_path / "maps").mkdir()
    for number in range(20):
        semantic_map = layouts.draw(number)
        semantic_map[semantic_map == 1] = 2 if number == 7 else 1
        Image.fromarray(semantic_map).save(tmp_path / "maps" / f"patient 1{number}.png")
    return tmp_path / "maps"


def drawn(order: DatasetOrder, seed: int = 0) -> np.ndarray:
    source = open_maps(Source(maps=order), TABLE, seed, 3.0)
    return np.stack([source.read(number)[1] for number in range(len(source))])


def shares_of(semantic_maps: np.ndarray) -> np.ndarray:
    return class_fractions(semantic_maps.reshape(-1, semantic_maps.shape[-1]), 3)


@pytest.mark.parametrize("two_types", [0.0, 0.5])
def test_drawn_layouts_have_the_ordered_shares_and_keep_the_band(two_types):
    made = drawn(DatasetOrder(count=40, size=96, shares=SHARES, two_types=two_types))
    np.testing.assert_allclose(shares_of(made), [0.45, 0.4, 0.15], atol=0.03)
    assert is_heterogeneous(np.stack([class_fractions(m, 3) for m in made])).mean() > 0.95


def test_warped_maps_have_the_ordered_shares_and_no_two_are_the_same_nor_one_of_the_files(maps):
    order = DatasetOrder(count=60, size=80, shares=SHARES, maps=maps)
    made = drawn(order)
    assert made.shape == (60, 80, 80)
    np.testing.assert_allclose(shares_of(made), [0.45, 0.4, 0.15], atol=0.03)  # of 5 % tumour in the files
    assert len({m.tobytes() for m in made}) == 60
    originals = [np.asarray(Image.open(path)) for path in sorted(maps.iterdir())]
    for m in made[:10]:
        assert all((m != original[8:88, 8:88]).mean() > 0.02 for original in originals)
    np.testing.assert_array_equal(made, drawn(order))
    assert not np.array_equal(made, drawn(order, seed=1))


def test_maps_as_they_are_come_once_each(maps):
    source = open_maps(Source(maps=DatasetOrder(count=19, maps=maps, warp=False), record_names=True), TABLE, 0, None)
    names = [source.read(number)[0] for number in range(19)]
    assert len(set(names)) == 19
    with pytest.raises(ConfigError, match="21 patches are ordered, and 20 of 20 maps have"):
        open_maps(Source(maps=DatasetOrder(count=21, maps=maps, warp=False)), TABLE, 0, None)


@pytest.mark.parametrize("with_maps", [False, True])
def test_an_order_is_delivered_counted_and_free_of_names(make_pipeline, maps, tmp_path, with_maps):
    (tmp_path / "order.toml").write_text(
        "count = 6\nsize = 80\nmpp = 3.0\nband = [0.1, 0.9]\ncrops = 'none'\n"
        + ("maps = 'maps'\n" if with_maps else "")
        + "[shares]\nstroma = 0.5\ngland = 0.3\nGland = 0.2\n"  # one type, two names: owed both
    )
    source = source_of(read_order(tmp_path / "order.toml"))
    weave_folder(make_pipeline(), source, WeaveConfig(steps=1, batch_size=3), tmp_path / "woven")
    report = json.loads((tmp_path / "woven" / "delivered.json").read_text())
    maps_made = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "woven" / "maps").iterdir())]
    obtained = {name: share["obtained"] for name, share in report["shares"].items()}
    assert obtained == pytest.approx(
        {"stroma": (np.stack(maps_made) == 0).mean(), "gland": (np.stack(maps_made) == 1).mean()}
    )
    assert obtained == pytest.approx({"stroma": 0.5, "gland": 0.5}, abs=0.1)
    assert {name: share["ordered"] for name, share in report["shares"].items()} == {"stroma": 0.5, "gland": 0.5}
    assert report["patches"] == {"ordered": 6, "obtained": 6}
    assert report["labeled_pixels"] == 6 * 80 * 80
    said = describe_delivered(tmp_path / "woven")
    assert "6 of 6 patches" in said
    assert said in (tmp_path / "woven" / "README.md").read_text()
    written = {name: data for name, data in files(tmp_path / "woven").items() if name != "sources.local.json"}
    assert not any(word in data for data in written.values() for word in (b"patient 1", str(tmp_path).encode()))


def test_crops_come_from_the_named_stains_alone(crop_sets, tmp_path):
    order = DatasetOrder(count=8, size=64, crops=str(crop_sets), stains=("pale", "dark"))
    orders = make_orders(source_of(order, record_names=True), TABLE, 0, 3.0)
    used = {crop.source.split("/")[0] for number in range(8) for crop in orders[number].crops}
    assert used == {"pale", "dark"}
    with pytest.raises(ConfigError, match=r"stain 'blue' is not a set of crops in .*; known: dark, pale, red"):
        make_orders(source_of(DatasetOrder(crops=str(crop_sets), stains=("blue",))), TABLE, 0, 3.0)


@pytest.fixture
def crop_sets(tmp_path) -> Path:
    for number, name in enumerate(["dark", "pale", "red"]):
        for tissue in TABLE.names:
            path = tmp_path / "sets" / name / tissue / "a.png"
            path.parent.mkdir(parents=True)
            pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return tmp_path / "sets"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[shares]\nstroma = 0.5\ngland = 0.4", "shares sum to 0.9; they must sum to 1"),
        ("[shares]\nstroma = 1.5\ngland = -0.5", "share of 'stroma' is 1.5; give 0 to 1"),
        ("split = 'val'\nmaps = 'patches'", "split 'val' is held out"),
        ("count = 0", "count is 0; give a whole number from 1"),
        ("size = 20", "size is 20; give a whole number from 64"),
        ("band = [0.8, 0.2]", "band is 0.8 to 0.2"),
        ("recombine = 2", "recombine is 2; give a share"),
        ("mpp = 0.0", "mpp is 0.0; give 0.01"),
        ("patches = 3", "unknown key 'patches'"),
        ("count = 'many'", "count: expected int, found 'many'"),
        ("[shares]\nstroma = 'half'", "shares: expected float, found 'half'"),
    ],
)
def test_an_order_without_sense_is_refused_by_file_and_key(tmp_path, text, said):
    (tmp_path / "order.toml").write_text(text)
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")) as refused:
        read_order(tmp_path / "order.toml")
    assert "order.toml" in str(refused.value)


def test_shares_that_the_maps_or_layouts_cannot_give_are_refused_with_what_they_would_give(maps):
    with pytest.raises(ConfigError, match="drawn layouts cannot give the shares within the band: 'stroma' would cover"):
        drawn(DatasetOrder(count=50, size=96, shares=(("stroma", 0.02), ("gland", 0.98))))
    with pytest.raises(ConfigError, match="the maps cannot give the shares within the band: 'tumour' would cover"):
        drawn(DatasetOrder(count=50, size=80, shares=(("stroma", 0.0), ("tumour", 1.0)), maps=maps))
    with pytest.raises(TissueError, match="shares of the order: unknown tissue 'bone'; known: stroma"):
        drawn(DatasetOrder(shares=(("bone", 1.0),)))
    with pytest.raises(InputError, match="96 x 96 px, too few for patches of 224 px; order at most 144 px"):
        drawn(DatasetOrder(maps=maps))
