import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from histoloom.conditioning.inputs import content_id
from histoloom.encoders.small import SMALL, load_small_encoder, save_small_encoder
from histoloom.errors import ConfigError, ImageError, InputError, ModelError, OutputError
from histoloom.evaluation import downstream as downstream_module
from histoloom.evaluation import downstream_file
from histoloom.evaluation.deeplab import SourceSampler, make_network, predict, train_deeplab
from histoloom.evaluation.downstream import DownstreamConfig, check_sets, describe, downstream, gain, pooled
from histoloom.evaluation.map_origin import with_cases
from histoloom.evaluation.near_duplicates import near_duplicates
from histoloom.evaluation.sources import ImageSet
from histoloom.evaluation.type_weights import type_weights
from histoloom.generation.woven_patch import CropUse
from histoloom.stain import StainJitter, apply_stain, draw_stain
from histoloom.tissue import UNLABELLED, TissueTable

TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])
SHORT = DownstreamConfig(size=32, steps=2, batch_size=2, seeds=(0, 1))


@pytest.fixture(scope="module")
def image_sets(make_patches):
    def make(where: str, seed: int) -> ImageSet:
        drawn = make_patches(6, 3, 48, 3, seed)
        cases, names = [f"{where} {c}" for c in drawn.cases], [f"{where} {s}" for s in drawn.sources]
        return ImageSet(where, "patch dataset", "", "PNG", drawn.images, drawn.semantic_maps, cases, names, TABLE)

    return make


class Count:
    """A bar that counts."""

    done = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count


def test_weights_to_start_from_count_by_their_content_and_not_by_their_path(tmp_path):
    network = load_small_encoder(SMALL)
    found = []
    for folder in ("here/encoder", "there/encoder"):
        (tmp_path / folder).mkdir(parents=True)
        save_small_encoder(network, tmp_path / folder)
        found.append(DownstreamConfig(start=str(tmp_path / folder)).identity())
    assert found[0] == found[1]
    assert str(tmp_path) not in json.dumps(found[0])
    with torch.no_grad():
        next(network.parameters()).mul_(0.5)
    save_small_encoder(network, tmp_path / "here" / "encoder")
    assert DownstreamConfig(start=str(tmp_path / "here" / "encoder")).identity() != found[1]
    assert DownstreamConfig(start="random").identity()["start_weights"] is None


def test_every_training_set_gets_the_same_steps_and_is_tested_on_all_held_patches(image_sets):
    sets = {"real": image_sets("real", 0), "synthetic": image_sets("fake", 1), "test": image_sets("held", 2)}
    steps = Count()
    counts = downstream(*sets.values(), 3, SHORT, steps)
    assert steps.done == 3 * 2 * 2
    found = describe(counts, sets, SHORT)
    assert list(found.results) == ["real", "synthetic", "synthetic, adapted", "both", "both, adapted"]
    for result in found.results.values():
        assert (result.n, result.cases) == (6, 3)
        assert len(result.of_seed) == 2
        assert result.mean_iou == pytest.approx(np.nanmean(result.of_type))
        assert np.isnan([result.low, result.high]).all()
        assert np.nansum(result.read_as, axis=1) == pytest.approx([1, 1, 1])
    against_real = [f"{name} - real" for name in found.results if name != "real"]
    assert list(found.gains) == [*against_real, "synthetic, adapted - synthetic", "both, adapted - both"]
    assert found.notes[0] == "No intervals: they need test patches of 5 cases, and these are of 3."
    written = found.to_json()
    assert json.loads(json.dumps(written)) == written
    assert written["types"] == {"0": "stroma", "1": "gland", "2": "tumour"}
    assert written["results"]["real"]["low"] is None
    assert written["sets"]["test"]["images"] == 6
    assert written["sets"]["synthetic"]["fingerprint"] == sets["synthetic"].fingerprint()
    assert written["precision"] in ("fp32", "bf16")


def test_one_pool_shows_as_many_of_each_set_as_their_numbers_say(image_sets):
    real, fake = image_sets("real", 0), image_sets("fake", 1).select([0, 1])
    pool = real.joined(fake)
    assert (len(pool), pool.names[-2:], pool.cases[-2:]) == (8, fake.names, fake.cases)
    assert np.array_equal(pool.images[6:], fake.images)
    assert np.array_equal(pool.maps[:6], real.maps)
    assert pool.select([7]).fingerprint() == replace(fake.select([1]), crops=[]).fingerprint()
    once = replace(SHORT, steps=1, seeds=(0,))
    apart, together = (
        downstream(real, fake, image_sets("held", 2), 3, once, one_pool=one_pool) for one_pool in (False, True)
    )
    assert np.array_equal(apart["real"], together["real"])
    assert not np.array_equal(apart["both"], together["both"])


def drawn_counts(rng: np.random.Generator, cases: int, shift: float, seeds: int = 3) -> list[np.ndarray]:
    """Confusion matrices of two patches per case: some cases are harder, and so are some networks worse."""
    hard = np.repeat(rng.normal(0, 0.06, cases), 2)
    found = []
    for _ in range(seeds):
        right = np.clip(0.7 + shift + hard + rng.normal(0, 0.02) + rng.normal(0, 0.02, 2 * cases), 0.01, 0.99)
        hits = (1000 * right).round().astype(np.int64)
        found.append(np.stack([np.stack([hits, 1000 - hits], -1), np.stack([1000 - hits, hits], -1)], 1))
    return found


def test_two_training_sets_are_compared_on_the_same_cases():
    rng, cases = np.random.default_rng(0), np.repeat([f"case {i}" for i in range(12)], 2).tolist()
    real = drawn_counts(np.random.default_rng(1), 12, 0.0)
    both = drawn_counts(np.random.default_rng(1), 12, 0.1)  # the same cases are hard
    found = gain(both, real, cases)
    assert found.difference == pytest.approx(pooled(both, cases).mean_iou - pooled(real, cases).mean_iou, abs=0.01)
    assert 0 < found.low < found.difference < found.high
    apart = pooled(both, cases)
    assert found.high - found.low < apart.high - apart.low  # what the cases share is gone
    unsure = gain(drawn_counts(rng, 12, 0.0), drawn_counts(rng, 12, 0.0), cases)
    assert unsure.low < 0 < unsure.high


def test_intervals_hold_the_spread_of_training():
    cases = [f"case {i}" for i in range(24)]
    right = np.full((1, 24), 700)

    def counts(hits: np.ndarray) -> np.ndarray:
        return np.stack([np.stack([hits, 1000 - hits], -1), np.stack([1000 - hits, hits], -1)], 1)

    alike = [counts(right[0]), counts(right[0]), counts(right[0])]
    apart = [counts(right[0] - 50), counts(right[0]), counts(right[0] + 50)]
    same, scattered = pooled(alike, cases), pooled(apart, cases)
    assert same.high - same.low < 1e-6
    assert scattered.high - scattered.low > 0.1


def test_a_change_of_the_same_networks_shows_more_than_one_of_others():
    """Seeds that differ far, all of which gain alike: what training varies cancels out where networks are the same."""
    rng, cases = np.random.default_rng(0), np.repeat([f"case {i}" for i in range(12)], 2).tolist()
    before = [drawn_counts(rng, 12, shift, seeds=1)[0] for shift in (0.0, 0.05, 0.1, 0.15)]
    after = [of + 200 * np.eye(2, dtype=np.int64) for of in before]
    apart, same = gain(after, before, cases), gain(after, before, cases, same_networks=True)
    assert same.difference == apart.difference > 0
    assert apart.low < same.low < same.difference < same.high < apart.high


def test_sets_of_other_sizes_or_tables_are_refused_as_evaluate_does(image_sets):
    real, fake, held = image_sets("real", 0), image_sets("fake", 1), image_sets("held", 2)
    other = TissueTable.from_names(["gland", "stroma", "tumour"])
    with pytest.raises(InputError, match=r"fake/tissue\.toml: id 0 is 'gland' and in real/tissue\.toml 'stroma'"):
        downstream(real, replace(fake, table=other), held, 3, SHORT)
    small = replace(fake, images=fake.images[:, :32, :32], semantic_maps=fake.semantic_maps[:, :32, :32])
    with pytest.raises(ImageError, match="fake: images are 32 x 32 px where those of real are 48 x 48"):
        downstream(real, small, held, 3, SHORT)


def test_test_images_among_the_training_images_are_found_by_what_they_show(image_sets):
    real, fake, held = image_sets("real", 0), image_sets("fake", 1), image_sets("held", 2)
    for again in (held.images[4], restained(held.images[4])):
        images = fake.images.copy()
        images[2] = again
        with pytest.raises(InputError, match=r"^fake: 'fake 02\.png' shows the same tissue as 'held 04\.png'"):
            check_sets(real, replace(fake, images=images), held)


def restained(image: np.ndarray) -> np.ndarray:
    stained = apply_stain(image, draw_stain(StainJitter(), np.random.default_rng(0)))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stained[:, ::-1])).save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer))


def test_real_tissue_of_other_cases_is_no_near_duplicate(shared_data):
    folder = shared_data / "ebhi-seg"
    with open(folder / "manifest.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    train, val = (
        np.stack([np.asarray(Image.open(folder / row["image"]).convert("RGB"))[2:-2, 2:-2] for row in some])
        for some in ([r for r in rows if r["split"] == "train"][::20], [r for r in rows if r["split"] == "val"][::3])
    )
    assert near_duplicates(train, val) == []
    rng = np.random.default_rng(0)
    turned = np.stack([np.rot90(np.roll(restained(image), rng.integers(-8, 9, 2), (0, 1))) for image in val[:12]])
    assert near_duplicates(turned, val) == [(i, i) for i in range(12)]


def test_the_same_seed_gives_the_same_network_and_leaves_the_callers_randomness_alone(image_sets):
    real, state = image_sets("real", 0), torch.random.get_rng_state()
    one, two = (train_deeplab([real], 3, SHORT, 5) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(predict(one, real.images), predict(two, real.images))
    assert predict(one, real.images).shape == (6, 48, 48)


def test_precision_is_that_of_the_config(image_sets):
    real = image_sets("real", 0)
    full, half, again = (
        train_deeplab([real], 3, replace(SHORT, precision=precision), 5).state_dict()
        for precision in ("fp32", "bf16", "bf16")
    )
    assert all(torch.equal(value, again[name]) for name, value in half.items())
    assert not all(torch.equal(value, full[name]) for name, value in half.items())


def test_test_patches_must_be_new_to_every_training_set(image_sets):
    real, fake, held = image_sets("real", 0), image_sets("fake", 1), image_sets("held", 2)
    with pytest.raises(InputError, match="held: case 'real case 0' is also in the training images"):
        downstream(real, fake, replace(held, cases=real.cases), 3, SHORT)
    with pytest.raises(InputError, match=r"fake: was generated from the map of 'held 00\.png' of the test images"):
        downstream(real, replace(fake, cases=held.names), held, 3, SHORT)
    with pytest.raises(InputError, match="fake: has no maps"):
        downstream(real, replace(fake, semantic_maps=None), held, 3, SHORT)


def test_crops_of_test_patches_are_refused_as_their_maps_are(image_sets):
    real, fake, held = image_sets("real", 0), image_sets("fake", 1), image_sets("held", 2)

    def woven_with(source: str) -> ImageSet:
        return replace(fake, crops=[[]] * 5 + [[CropUse("crops/stroma/a.png", 0, 0, 0, 24, 24),
                                               CropUse(source, 1, 8, 0, 24, 24)]])  # fmt: skip

    check_sets(real, woven_with("real 03.png"), held)
    line = r"^fake: was generated from a crop of 'held 03\.png' of the test images; use maps and crops of split train"
    with pytest.raises(InputError, match=line):
        check_sets(real, woven_with("held 03.png"), held)
    with pytest.raises(InputError, match="was generated from a crop of"):
        check_sets(real, woven_with(content_id(held.images[3])), held)


@pytest.mark.parametrize(("in_turns", "expected"), [(True, [0, 9] * 4), (False, [0] * 4 + [9] * 4)])
def test_sources_teach_in_turns_or_one_after_the_other(image_sets, in_turns, expected):
    real = image_sets("real", 0)
    sources = [replace(real, semantic_maps=np.full_like(real.maps, value)) for value in (0, 9)]
    sampler = SourceSampler(sources, replace(SHORT, in_turns=in_turns, steps=4), seed=0)
    assert [sampler(n)["maps"].max() for n in range(8)] == expected


def test_a_budget_without_sense_is_refused(image_sets):
    with pytest.raises(ConfigError, match="size 40 must be a multiple of 32"):
        replace(SHORT, size=40)
    with pytest.raises(ConfigError, match="batch_size must be 2 or more"):
        replace(SHORT, batch_size=1)
    with pytest.raises(ConfigError, match="backbone nosuch: segmentation-models-pytorch does not have it"):
        train_deeplab([image_sets("real", 0)], 3, replace(SHORT, backbone="nosuch", start="random"), 0)


def test_maps_of_test_patches_are_known_by_what_they_show(image_sets):
    real, fake, held = image_sets("real", 0), image_sets("fake", 1), image_sets("held", 2)
    cases = [content_id(semantic_map) for semantic_map in held.semantic_maps]
    with pytest.raises(InputError, match="fake: was generated from the map of"):
        check_sets(real, replace(fake, cases=cases), held)
    check_sets(replace(real, semantic_maps=held.semantic_maps), replace(fake, cases=cases), held)  # real has them, too
    for cases in (
        [f"{name} (0, 0)" for name in held.names],  # `--record-names`
        [f"{one} + {other}" for one, other in zip(real.map_ids, held.map_ids, strict=True)],  # an order
        [f"{one} (0, 0) + {other} (0, 0)" for one, other in zip(real.names, held.names, strict=True)],
    ):
        with pytest.raises(InputError, match="fake: was generated from the map of"):
            check_sets(real, replace(fake, cases=cases), held)
    with pytest.raises(InputError, match="fake: was generated from the map of"):  # an export names no map
        check_sets(real, replace(fake, semantic_maps=held.semantic_maps), held)
    named = replace(fake, cases=[f"{name} (0, 0) + layout" for name in real.names])
    check_sets(real, named, held)
    assert with_cases(named, [held, real]).cases == real.cases


def test_the_backbone_starts_with_the_weights_of_a_small_encoder():
    known = load_small_encoder("histoloom-small").backbone.state_dict()
    encoder = make_network(SHORT, 3).encoder.eval()
    found = encoder.state_dict()
    assert encoder(torch.zeros(1, 3, 64, 64))[-1].shape == (1, 112, 4, 4)  # ends with the last level that has weights
    assert make_network(replace(SHORT, start="random"), 3).encoder.out_channels[-1] == 320
    assert all(torch.equal(found[name], value) for name, value in known.items())


@pytest.mark.parametrize(
    ("config", "error", "reason"),
    [
        ({"backbone": "resnet18"}, ConfigError, "use the backbone tu-tf_efficientnet_lite0"),
        ({"start": "nowhere"}, ModelError, "nowhere/encoder.safetensors: not found"),
        ({"backbone": "resnet", "start": "random"}, ConfigError, "segmentation-models-pytorch does not have it"),
    ],
)
def test_a_backbone_that_is_not_there_is_refused(config, error, reason):
    with pytest.raises(error, match=reason):
        make_network(replace(SHORT, **config), 3)


@pytest.mark.parametrize("number", range(3))
def test_a_set_without_a_labeled_pixel_is_refused(image_sets, number):
    sets = [image_sets("real", 0), image_sets("fake", 1), image_sets("held", 2)]
    sets[number] = replace(sets[number], semantic_maps=np.full_like(sets[number].maps, UNLABELLED))
    with pytest.raises(InputError, match=rf"{sets[number].where}: its maps have no labeled pixel"):
        check_sets(*sets)


def test_a_last_batch_without_a_labeled_pixel_costs_no_network(image_sets):
    images = image_sets("real", 0)
    maps = images.maps.copy()
    maps[1:] = UNLABELLED
    part = replace(images, semantic_maps=maps)
    last = [SourceSampler([part], SHORT, 0)(n)["maps"] for n in (2, 3)]  # of two steps of two samples
    assert (np.stack(last) == UNLABELLED).all()
    assert predict(train_deeplab([part], 3, SHORT, 0), images.images).max() < 3


def test_balance_gives_a_rare_type_the_weight_that_a_common_one_has():
    maps = np.zeros((1, 10, 10), np.uint8)
    maps[0, :1] = 1
    maps[0, 9, 9] = 255
    even, equal = type_weights(maps, 3, 0.0), type_weights(maps, 3, 1.0)
    np.testing.assert_array_equal(even, 1)
    assert equal[1] / equal[0] == pytest.approx(89 / 10)
    assert (equal[0] * 89 + equal[1] * 10) / 99 == pytest.approx(1)


def test_a_comparison_goes_on_where_it_was_stopped(image_sets, tmp_path, monkeypatch):
    sets = {"train": image_sets("real", 0), "fake": image_sets("fake", 1), "val": image_sets("held", 2)}
    monkeypatch.setattr(downstream_file, "load_images", lambda _, split="fake": sets[split])
    trained, said = [], []

    def train(sources, *given):
        if trained == ["real fake", "real"]:
            trained.append("stopped")
            raise KeyboardInterrupt
        trained.append(" ".join(source.label for source in sources))
        return train_deeplab(sources, *given)

    def compare():
        config = replace(SHORT, seeds=(0,))
        return downstream_file.compare_into(tmp_path / "found.json", tmp_path, tmp_path, config, say=said.append)[0]

    monkeypatch.setattr(downstream_module, "train_deeplab", train)
    with pytest.raises(KeyboardInterrupt):
        compare()
    assert said == ["3 networks of 2 steps: about 0 min here, if none was trained before"]
    assert [path.name for path in (tmp_path / "found.json.parts").iterdir()] == ["real-0.json"]
    assert list(compare().results) == ["real", "synthetic", "synthetic, adapted", "both", "both, adapted"]
    assert trained[3:] == ["real fake", "fake", "real fake"]  # the first of each call is timed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "found.json.parts"]


def test_more_seeds_and_controls_train_only_the_networks_that_are_new(image_sets, tmp_path, monkeypatch):
    sets = {"train": image_sets("real", 0), "fake": image_sets("fake", 1), "val": image_sets("held", 2)}
    monkeypatch.setattr(downstream_file, "load_images", lambda _, split="fake": sets[split])
    trained = []

    def train(sources, types, config, seed, bar):
        if config.steps == SHORT.steps:  # else it is timed
            trained.append((" ".join(source.label for source in sources), seed))
        return train_deeplab(sources, types, config, seed, bar)

    def compare(name: str, seeds: int, *controls: str, **other) -> bytes:
        out, config = tmp_path / name, replace(SHORT, seeds=tuple(range(seeds)), **other)
        downstream_file.compare_into(out, tmp_path, tmp_path, config, controls=controls)
        return out.read_bytes()

    monkeypatch.setattr(downstream_module, "train_deeplab", train)
    compare("grown.json", 1)
    assert trained == [("real", 0), ("fake", 0), ("real fake", 0)]
    grown = compare("grown.json", 2, "oversampled")
    assert trained[3:] == [("real", 0), ("real", 1), ("fake", 1), ("real fake", 1), ("real", 1)]
    assert grown == compare("grown.json", 2, "oversampled") == compare("at once.json", 2, "oversampled")
    for change in ({"seeds": 1}, {"seeds": 3, "balance": 0.4}, {"seeds": 3}):  # fewer, others, without the control
        with pytest.raises(OutputError, match="was made by another run"):
            compare("grown.json", **change)
    assert (tmp_path / "grown.json").read_bytes() == grown


def test_hidden_types_are_not_told_apart(image_sets, tmp_path, monkeypatch):
    """Woven patches of a model that knows one type more, as the bundled one knows lumens."""
    wider = TissueTable.from_names([*TABLE.names, "lumen"])
    fake = image_sets("fake", 1)
    maps = fake.maps.copy()
    maps[:, 20:26, 20:26] = 3
    sets = {"train": image_sets("real", 0), "fake": replace(fake, semantic_maps=maps, table=wider)}
    sets["val"] = image_sets("held", 2)
    monkeypatch.setattr(downstream_file, "load_images", lambda _, split="fake": sets[split])

    def compare(*hidden: str) -> list[str]:
        config = replace(SHORT, seeds=(0,))
        out = tmp_path / f"{len(hidden)}.json"
        found = downstream_file.compare_into(out, tmp_path, tmp_path, config, hidden=hidden)[0]
        return list(found.about["types"].values())

    with pytest.raises(InputError, match=r"fake/tissue\.toml: id 3 is 'lumen' and in real/tissue\.toml no tissue"):
        compare()
    with pytest.raises(
        ConfigError, match="hide: no set has a tissue type 'glass'; known: gland, lumen, stroma, tumour"
    ):
        compare("glass")
    assert compare("Lumen") == TABLE.names
    sets["fake"] = replace(fake, table=wider)  # a type that no map shows may differ
    assert compare() == TABLE.names
    assert compare("tumour", "lumen") == ["stroma", "gland"]
