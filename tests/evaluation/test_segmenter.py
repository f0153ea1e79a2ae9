"""The segmenter: learns a trivial tissue in seconds, repeats itself, survives the disk, refuses what it cannot use."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from histoloom.errors import ConfigError, InputError, ModelError
from histoloom.evaluation.segmenter import SEGMENTER, SegmenterConfig, load_segmenter, save_segmenter, train_segmenter
from histoloom.metrics.map_fidelity import confusion, iou, mean_over_present
from histoloom.stain import StainJitter
from histoloom.tissue import UNLABELLED, TissueTable

TINY = SegmenterConfig(
    channels=(8, 16), size=32, steps=40, batch_size=4, learning_rate=1e-2, stain=StainJitter(0.05, 0.01, 0.02)
)


def tissue(n: int, seed: int, edge: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Pale stroma (0), a smooth violet gland (1) and a speckled one of the same mean color (2), in random discs."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[:edge, :edge], axis=-1)
    maps = np.zeros((n, edge, edge), np.uint8)
    images = np.empty((n, edge, edge, 3), np.uint8)
    for image, semantic_map in zip(images, maps, strict=True):
        for kind in (1, 2):
            semantic_map[np.linalg.norm(grid - rng.uniform(8, edge - 8, 2), axis=-1) < rng.uniform(8, 14)] = kind
        checks = rng.choice([-1, 1], (edge // 4 + 1, edge // 4 + 1)).repeat(4, axis=0).repeat(4, axis=1)[:edge, :edge]
        speckle = 60 * (checks * (semantic_map == 2))[..., None]
        base = np.where((semantic_map == 0)[..., None], (225, 190, 215), (140, 90, 160))
        image[:] = np.clip(base + speckle + rng.normal(0, 4, image.shape), 0, 255)
    return images, maps


class Losses:
    """A bar that keeps the loss of each step."""

    def __init__(self, losses: list[float]):
        self.losses = losses

    def advance(self, count: int = 1, note: str = "") -> None:
        assert count == 1
        self.losses.append(float(note.removeprefix("loss ")))


@pytest.fixture(scope="module")
def trained():
    losses = []
    segmenter = train_segmenter(*tissue(24, seed=0), 3, TINY, Losses(losses))
    return segmenter, losses


def test_batches_without_a_labeled_pixel_teach_nothing_and_stop_nothing():
    images, maps = tissue(24, seed=0)
    maps[1:] = UNLABELLED
    losses = []
    segmenter = train_segmenter(images, maps, 3, replace(TINY, steps=6), Losses(losses))
    assert 0 in losses
    assert any(losses)
    assert np.isfinite(segmenter.chances(images[0])).all()


def test_borders_are_read_where_they_lie():
    """Discs of two plain colors: the map is late and early equally often on either side."""
    rng, edge = np.random.default_rng(0), 64
    grid = np.stack(np.mgrid[:edge, :edge], axis=-1)

    def discs(n: int) -> tuple[np.ndarray, np.ndarray]:
        maps = np.stack([np.linalg.norm(grid - rng.uniform(20, 44, 2), axis=-1) < rng.uniform(8, 14) for _ in range(n)])
        return np.where(maps[..., None], (140, 90, 160), (225, 190, 215)).astype(np.uint8), maps.astype(np.uint8)

    plain = replace(TINY, size=64, steps=120, stain=StainJitter(0.0, 0.0, 0.0))
    images, maps = discs(16)
    read = train_segmenter(*discs(24), 2, plain).predict(images)
    for axis in (1, 2):
        places = np.arange(edge).reshape((1, -1, 1) if axis == 1 else (1, 1, -1))
        centers = [(of * places).sum((1, 2)) / of.sum((1, 2)) for of in (read, maps)]
        assert abs((centers[0] - centers[1]).mean()) < 0.15  # with every second pixel of the map as truth: 0.5
    assert mean_over_present(iou(confusion(read, maps, 2).sum(axis=0))) > 0.95


def test_it_learns_colour_and_texture_in_seconds(trained):
    segmenter, losses = trained
    images, maps = tissue(8, seed=1)
    assert mean_over_present(iou(confusion(segmenter.predict(images), maps, 3).sum(axis=0))) > 0.75
    assert len(losses) == 40
    assert losses[-1] < 0.5 * losses[0]


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_randomness_alone():
    images, maps = tissue(4, seed=0)
    config = SegmenterConfig(channels=(4, 8), size=32, steps=3, batch_size=2)
    before = torch.get_rng_state()
    first, second = (train_segmenter(images, maps, 3, config).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(before, torch.get_rng_state())


def test_it_reads_images_of_any_size_and_in_any_batch(trained):
    segmenter, _ = trained
    images, _ = tissue(3, seed=2, edge=45)
    together, alone = segmenter.predict(images), segmenter.predict(images, batch_size=1)
    assert together.shape == (3, 45, 45)
    assert (together == alone).mean() > 0.999  # convolutions of another batch size round otherwise


def test_turning_the_image_turns_the_reading(trained):
    segmenter, _ = trained
    images, _ = tissue(4, seed=3)
    turned = segmenter.predict(np.ascontiguousarray(np.rot90(images, axes=(1, 2))))
    assert (np.rot90(turned, -1, axes=(1, 2)) == segmenter.predict(images)).mean() > 0.9


def test_unlabelled_pixels_teach_nothing():
    images, maps = tissue(12, seed=0)
    maps[maps == 2] = UNLABELLED
    assert train_segmenter(images, maps, 3, TINY).predict(images).max() == 1


def test_a_saved_segmenter_reads_as_before(trained, tmp_path):
    segmenter, _ = trained
    segmenter.table = TissueTable.from_names(["stroma", "gland", "tumour"])
    images, _ = tissue(2, seed=4)
    path = save_segmenter(segmenter, tmp_path / "run")
    again = load_segmenter(tmp_path / "run")
    assert path.name == SEGMENTER
    assert sorted(p.name for p in path.parent.iterdir()) == [SEGMENTER]
    assert (again.config, again.table) == (segmenter.config, segmenter.table)
    assert np.array_equal(again.predict(images), segmenter.predict(images))


def test_a_missing_broken_pickled_or_foreign_file_is_refused_with_its_name(tmp_path):
    path = tmp_path / SEGMENTER
    with pytest.raises(ModelError, match="no such file; name the folder of the segmenter"):
        load_segmenter(tmp_path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=SEGMENTER):
        load_segmenter(tmp_path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="train it again"):
        load_segmenter(tmp_path)


def test_maps_that_cannot_teach_are_refused():
    images, maps = tissue(2, seed=0)
    with pytest.raises(InputError, match="tissue id 2"):
        train_segmenter(images, maps, 2, TINY)
    with pytest.raises(InputError, match="no labeled pixel"):
        train_segmenter(images, np.full_like(maps, UNLABELLED), 3, TINY)
    with pytest.raises(ConfigError, match="smaller than segmenter size"):
        train_segmenter(images[:, :20], maps[:, :20], 3, TINY)


@pytest.mark.parametrize(
    "wrong",
    [{"size": 100}, {"channels": (8,)}, {"steps": 0}, {"learning_rate": 0.0}, {"balance": 2.0}, {"weight_decay": -1.0}],
)
def test_a_config_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match="segmenter"):
        SegmenterConfig(**wrong)


def test_equal_segmenters_are_equal_files_and_say_what_they_learned_from(trained, tmp_path):
    segmenter, _ = trained
    learned, new = tissue(24, seed=0)[0], tissue(4, seed=9)[0]
    one, two = (save_segmenter(segmenter, tmp_path / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    again = load_segmenter(tmp_path / "one")
    assert again.num_learned(learned[:5]) == 5
    assert again.num_learned(np.concatenate([new, learned[3:5]])) == 2


@pytest.mark.parametrize(
    "header", ["[]", "{}", '{"format": 1}', "[" * 100_000, '{"format": 2, "num_types": "x", "config": 3}', "\x00"]
)
def test_a_header_of_another_kind_is_one_line(tmp_path, header):
    save_file({"weight": torch.zeros(1)}, tmp_path / SEGMENTER, metadata={"segmenter": header})
    with pytest.raises(ModelError, match="is not a segmenter of this version"):
        load_segmenter(tmp_path)
