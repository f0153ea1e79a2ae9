"""A study is balanced, matched, the same for the same seed, and gives nothing away."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_dataset import write_drawn_dataset
from PIL import Image
from scipy.ndimage import uniform_filter
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

from histoloom.errors import ConfigError, InputError, OutputError
from histoloom.study.create import create_study, load_sides
from histoloom.study.folder import open_study, read_key
from histoloom.study.matching import Matcher, allocate, spread_over_cases
from histoloom.study.plan import draw_items, orders
from histoloom.study.settings import StudyConfig
from histoloom.tissue import TissueTable, TissueType

CONFIG = StudyConfig(n=40, readers=3, repeats=0.2)


@pytest.fixture(scope="module")
def study(sides, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies") / "study"
    create_study(sides, CONFIG, folder, decode=lambda image: 255 - image, model="inverted")
    return folder


def test_items_are_balanced_and_each_reader_sees_all_in_another_order(study):
    items, opened = read_key(study)["items"], open_study(study)
    assert Counter((item["role"], item["kind"]) for item in items.values()) == {
        ("main", "real"): 20,
        ("main", "synthetic"): 20,
        ("main", "control"): 4,
        ("main", "decoded"): 4,
        ("practice", "real"): 2,
        ("practice", "synthetic"): 2,
        **Counter(("repeat", item["kind"]) for item in items.values() if item["role"] == "repeat"),
    }
    assert sum(item["role"] == "repeat" for item in items.values()) == 8
    assert [sorted(order) for order in opened.orders.values()] == [sorted(items)] * 3
    assert len({tuple(order) for order in opened.orders.values()}) == 3
    assert all(set(order[:4]) == opened.practice for order in opened.orders.values())


@pytest.mark.parametrize(("made_from", "warned"), [("PNG", False), ("JPEG (lossy)", True)])
def test_only_a_lossy_format_on_one_side_is_warned_of(sides, tmp_path, made_from, warned):
    real, fake = sides
    side = replace(real, kind="patch dataset", made_from=made_from)
    said = create_study((side, fake), StudyConfig(n=8, readers=1), tmp_path / "study")
    assert any("traces of a format may show" in line for line in said) is warned


def test_a_frame_and_sharpness_are_named_where_they_give_one_side_away(sides, tmp_path):
    def lines(real, fake, name: str) -> list[str]:
        return [
            line for line in create_study((real, fake), StudyConfig(n=16, readers=1), tmp_path / name) if "AUC" in line
        ]

    real, fake = sides
    assert lines(real, fake, "plain") == []
    framed = real.images.copy()
    framed[:, [0, -1]] //= 2
    framed[:, :, [0, -1]] //= 2
    assert lines(replace(real, images=framed), fake, "framed") == [
        "the real images have a frame, which gives them away (AUC 1.00 by their outermost pixels alone): cut it off, "
        "as `histoloom import --trim 2` does"
    ]
    blurred = uniform_filter(fake.images, (0, 5, 5, 0))
    (line,) = lines(real, replace(fake, images=blurred), "blurred")
    assert line.startswith("sharpness alone tells the sides apart (AUC 0.99")


def test_no_image_is_in_two_items_and_a_repeat_is_well_behind_its_first(study):
    items, opened = read_key(study)["items"], open_study(study)
    used = [
        (side["kind"] == "synthetic", side["name"])
        for item in items.values()
        if item["role"] != "repeat"
        for side in item["images"]
    ]
    assert len(set(used)) == len(used)
    for order in opened.orders.values():
        for name, item in items.items():
            if item["role"] == "repeat":
                assert order.index(name) - order.index(item["repeats"]) >= 0.2 * len(order) - 2
                assert item["images"] == items[item["repeats"]]["images"]


def test_matched_images_show_the_same_tissue_and_nearly_the_same_stain(sides):
    matcher = Matcher(*sides)
    fakes = matcher.draw_fakes(20, np.random.default_rng(0))
    pairs = [(matcher.draw_real(fake), fake) for fake in fakes]
    assert all(matcher.real_tissues[real] == matcher.fake_tissues[fake] for real, fake in pairs)
    matched = np.mean([matcher.difference(real, fake) for real, fake in pairs])
    crossed = np.mean([matcher.difference(real, fake) for real, _ in pairs for fake in fakes])
    assert matched < 0.9 * crossed
    uses = Counter(sides[0].cases[real] for real, _ in pairs)
    assert max(uses.values()) - min(uses[case] for case in set(sides[0].cases)) <= 1


def test_controls_show_the_tissue_that_the_key_says(study, sides):
    real = dict(zip(sides[0].names, Matcher(*sides).real_tissues, strict=True))
    items = read_key(study)["items"].values()
    assert all(item["tissue"] == real[item["images"][0]["name"]] for item in items if item["kind"] != "synthetic")


def properties(path: str) -> list[float]:
    """What a file gives away without a look at its pixels."""
    status, data = os.stat(path), Path(path).read_bytes()
    picture = Image.open(path)
    head = data[: data.index(b"IDAT")]
    return [status.st_size, status.st_mtime, status.st_mode, len(picture.info), len(head), *picture.size, head[25]]


def test_a_classifier_of_file_properties_guesses(study):
    """Names, the order in the folder, sizes, times, headers: real and synthetic files must not differ in any."""
    items = read_key(study)["items"]
    files = list(os.scandir(study / "images"))
    found = np.array([[*properties(entry.path), int(entry.name[:-4]), i] for i, entry in enumerate(files)], float)
    assert (found[:, :-2] == found[0, :-2]).all()
    is_fake = np.array([items[entry.name[:-4]]["kind"] == "synthetic" for entry in files])
    called = cross_val_predict(RandomForestClassifier(50, random_state=0), found, is_fake, cv=5)
    accuracy, chance = np.mean(called == is_fake), max(is_fake.mean(), 1 - is_fake.mean())
    assert accuracy < chance + 2 / len(files) ** 0.5 / 2


def test_the_server_reads_nothing_that_tells_and_the_key_is_apart(study):
    written = json.loads((study / "study.json").read_text())
    assert set(written) == {"format", "pairs", "size", "practice", "orders"}
    assert {path.name for path in study.iterdir()} == {"study.json", "images", "key", "record.json"}
    assert [path.name for path in (study / "key").iterdir()] == ["key.json"]
    assert os.name == "nt" or (study / "key").stat().st_mode & 0o077 == 0


def test_the_same_seed_makes_the_same_bytes_and_another_seed_another_study(study, sides, tmp_path):
    create_study(sides, CONFIG, tmp_path / "again", decode=lambda image: 255 - image, model="inverted")
    for path in study.rglob("*"):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(study)).read_bytes() == path.read_bytes(), path
    assert create_study(sides, CONFIG, study, decode=lambda image: image, model="inverted") is None
    with pytest.raises(OutputError, match="was made by another run"):
        create_study(sides, replace(CONFIG, seed=1), study, decode=lambda image: image, model="inverted")


def test_pairs_hold_one_real_image_on_a_random_side(sides):
    config = StudyConfig(n=20, readers=1, mode="pairs", repeats=0.2)
    items = draw_items(Matcher(*sides), config, with_decoded=True)
    main = [item for item in items if item.role == "main"]
    assert Counter(item.kind for item in main) == {"synthetic": 20, "control": 2, "decoded": 2}
    kinds = [tuple(shown.kind for shown in item.images) for item in main if item.kind == "synthetic"]
    assert {("real", "synthetic"), ("synthetic", "real")} == set(kinds)
    repeats = [item for item in items if item.role == "repeat"]
    assert all(item.images == items[item.returns].images[::-1] for item in repeats)
    assert sorted(orders(items, config)[0]) == list(range(len(items)))


def test_a_type_that_the_other_table_knows_by_an_alias_is_the_same_tissue(sides):
    """Compared by name, it would be in no study, and the command would not say so."""
    real, fake = sides
    renamed = TissueTable((TissueType(0, "Stroma", "#ee99aa"), TissueType(1, "crypt", "#4477aa", ("gland",))))
    renamed = Matcher(real, replace(fake, table=renamed))
    assert renamed.fake_tissues == Matcher(real, fake).fake_tissues
    assert renamed.unmatched() == {}


def test_tissue_of_synthetic_images_alone_is_named(sides, tmp_path):
    real, fake = sides
    stroma = np.where(np.arange(len(fake))[:, None, None] < 7, 0, fake.maps).astype(np.uint8)
    mixed = [i for i, tissue in enumerate(Matcher(real, fake).real_tissues) if tissue == "stroma + gland"]
    sides = real.select(mixed), replace(fake, semantic_maps=stroma)
    alone = Matcher(*sides).unmatched()
    assert alone["stroma"] >= 7
    said = create_study(sides, StudyConfig(n=8, readers=1), tmp_path / "study")
    listed = ", ".join(f"{name}: {number}" for name, number in sorted(alone.items()))
    assert f"synthetic images of tissue that no real image shows are left out ({listed})" in said


def test_the_splits_of_a_synthetic_dataset_that_are_not_used_are_named(tmp_path):
    table = TissueTable.from_names(["stroma", "gland"])
    real = write_drawn_dataset(tmp_path / "real", table, 4, 2, 32)
    fake = write_drawn_dataset(tmp_path / "fake", table, 10, 2, 32)  # the first four are those of real
    (fake / "data" / "val-00000.parquet").write_bytes((fake / "data" / "train-00000.parquet").read_bytes())
    assert load_sides(real, fake)[1].notes == (
        f"{fake}: only split val is used, and not train",
        f"{fake}: left out: 4 images that repeat a real one, pixel by pixel",
    )


def test_images_without_maps_are_matched_by_stain_alone(sides, tmp_path):
    real, fake = (replace(side, semantic_maps=None, table=None) for side in sides)
    lines = create_study((real, fake), StudyConfig(n=12, readers=1), tmp_path / "study")
    assert "matched by stain alone" in " ".join(lines)


def test_places_follow_what_strata_hold():
    assert allocate({"a": 30, "b": 10, "c": 1}, 20) == {"a": 15, "b": 5, "c": 0}
    order = spread_over_cases(range(9), ["x"] * 6 + ["y", "y", "z"], np.random.default_rng(0))
    assert sorted(order) == list(range(9))
    assert {"xxxxxxyyz"[i] for i in order[:3]} == {"x", "y", "z"}


def test_more_items_than_images_are_refused(sides, tmp_path):
    with pytest.raises(InputError, match=r"needs 202 synthetic images .* lower --n"):
        create_study(sides, StudyConfig(n=400), tmp_path / "study")
    with pytest.raises(InputError, match="too few of one tissue for the controls"):
        create_study(sides, StudyConfig(n=72, controls=1.0), tmp_path / "study")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n": 7}, "n must be even"),
        ({"mode": "three"}, "mode must be one of single, pairs"),
        ({"margin": 0.5}, "margin must be between"),
        ({"readers": 0}, "readers must be"),
        ({"repeats": 0.5}, "repeats 0 to 0.4"),
        ({"practice": 3}, "practice must be even"),
    ],
)
def test_impossible_settings_are_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        StudyConfig(**options)


def save(side, folder):
    folder.mkdir()
    for name, image in zip(side.names, side.images, strict=True):
        Image.fromarray(image).save(folder / name)
    return folder


def test_folders_of_other_sizes_are_refused_and_copies_of_real_images_left_out(make_side, tmp_path):
    real = save(make_side("real", 6, 0), tmp_path / "real")
    with pytest.raises(InputError, match="images are 40 x 40 px where those of"):
        load_sides(real, save(make_side("large", 6, 1, 40), tmp_path / "large"))
    fake = save(make_side("fake", 6, 2), tmp_path / "fake")
    (fake / "copy.png").write_bytes((real / "00.png").read_bytes())
    found = load_sides(real, fake)[1]
    assert (len(found), found.notes) == (6, (f"{fake}: left out: 1 image that repeats a real one, pixel by pixel",))
    with pytest.raises(InputError, match="this is the real folder"):
        load_sides(real, real)


def test_a_study_that_is_half_there_is_refused(study, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(study, copied)
    next(iter(sorted((copied / "images").iterdir()))).unlink()
    with pytest.raises(InputError, match=r"001.png: is missing; copy the whole folder"):
        open_study(copied)
    (copied / "study.json").write_text('{"format": 1, "orders": {"reader-1": ["../x"]}, "pairs": 0}')
    with pytest.raises(InputError, match="is damaged"):
        open_study(copied)
    (copied / "study.json").unlink()
    with pytest.raises(InputError, match=r"not a reader study \(no study.json\)"):
        open_study(copied)
    shutil.rmtree(copied / "key")
    with pytest.raises(InputError, match=r"key.json: is missing; name the key"):
        read_key(copied)
