import json
import os
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from histoloom.errors import OutputError
from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder, encode, to_pixels
from histoloom.stain import StainJitter, apply_stain
from histoloom.training.latents import cache_latents, draw_view, num_encoded

JITTER = StainJitter(0.2, 0.02, 0.05)


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return build_autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    ).eval()


def test_cached_latents_are_those_of_the_views_they_name(small_patches, autoencoder, tmp_path):
    cache = cache_latents(autoencoder, small_patches, 3, 0, JITTER, tmp_path)
    assert cache.latents.shape == (12, 3, 4, 11, 11)  # 96 px leave 88 once a view is shifted by up to 7
    for index, number in ((0, 0), (7, 2)):
        view = cache.view(index, number)
        pixels = apply_stain(view.part(small_patches.images[index], 0, 0, cache.edge), view.stain)
        with torch.no_grad():
            latents = encode(autoencoder, to_pixels(torch.from_numpy(pixels[None])))[0].numpy()
        np.testing.assert_allclose(cache.latents[index, number], latents, atol=3e-3)
    latents = np.asarray(cache.latents, np.float64).transpose(2, 0, 1, 3, 4).reshape(4, -1)
    np.testing.assert_allclose(cache.mean, latents.mean(1), atol=1e-3)
    np.testing.assert_allclose(cache.std, latents.std(1), rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_a_channel_that_never_changes_can_be_divided_by(small_patches, autoencoder, tmp_path, monkeypatch, value):
    def constant(*inputs):
        latents = encode(*inputs)
        latents[:, 1] = value
        return latents

    monkeypatch.setattr("histoloom.training.latents.encode", constant)
    cache = cache_latents(autoencoder, small_patches, 2, 0, JITTER, tmp_path)
    assert cache.std[1] == 1
    assert cache.mean[1] == pytest.approx(value)
    assert 1 not in cache.std[[0, 2, 3]]


def test_views_differ_and_follow_from_their_numbers_alone():
    views = [draw_view(0, index, number, 8, JITTER) for index in range(20) for number in range(5)]
    assert {view.symmetry for view in views} == set(range(8))
    assert {view.y for view in views} == {view.x for view in views} == set(range(8))
    again = draw_view(0, 3, 2, 8, JITTER)
    assert (again.symmetry, again.y, again.x) == (views[17].symmetry, views[17].y, views[17].x)
    np.testing.assert_array_equal(again.stain.matrix, views[17].stain.matrix)


@pytest.mark.parametrize("shape", [(96, 96), (96, 120)])
def test_outside_is_all_but_the_part_whatever_the_symmetry(shape):
    numbers = np.arange(shape[0] * shape[1]).reshape(shape)
    for number in range(40):
        view = draw_view(1, 0, number, 8, JITTER)
        part = view.part(numbers, 8, 16, 48)
        outside = view.outside(shape, 8, 16, 48)
        assert part.shape == (48, 48)
        assert set(numbers[~outside].tolist()) == set(part.ravel().tolist())


class Counter:
    """A bar that counts, and fails at `stop`."""

    def __init__(self, stop: int = 0):
        self.count, self.stop = 0, stop

    def advance(self, count: int = 1, note: str = "") -> None:
        self.count += count
        if self.stop and self.count == self.stop:
            raise KeyboardInterrupt


def test_latents_are_made_once_and_refused_when_anything_that_shapes_them_changes(small_patches, autoencoder, tmp_path):
    def cache(model=autoencoder, patches=small_patches, views=2, seed=0, stain=JITTER) -> int:
        counter = Counter()
        cache_latents(model, patches, views, seed, stain, tmp_path, counter)
        return counter.count

    assert [cache(), cache()] == [12, 0]
    torch.manual_seed(1)
    other = build_autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    ).eval()
    kept = (tmp_path / "latents.npy").read_bytes()
    for name, change in (
        ("encoder", {"model": other}),
        ("patches", {"patches": small_patches.select(range(5))}),
        ("views", {"views": 1}),
        ("seed", {"seed": 1}),
        ("stain", {"stain": replace(JITTER, shift=0.01)}),
    ):
        with pytest.raises(OutputError, match=rf"holds latents of another run \(differs in {name}\)"):
            cache(**change)
    assert (tmp_path / "latents.npy").read_bytes() == kept


def test_latents_that_were_stopped_before_a_record_leave_nothing(small_patches, autoencoder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        cache_latents(autoencoder, small_patches, 2, 1, JITTER, tmp_path, Counter(stop=11))
    assert list(tmp_path.iterdir()) == []
    assert len(cache_latents(autoencoder, small_patches, 2, 0, JITTER, tmp_path).latents) == 12


@pytest.mark.parametrize("stop", [1, 5, 12])
def test_latents_that_were_stopped_go_on_to_the_same_bytes(small_patches, autoencoder, tmp_path, monkeypatch, stop):
    undisturbed = cache_latents(autoencoder, small_patches, 2, 1, JITTER, tmp_path / "undisturbed")
    monkeypatch.setattr("histoloom.training.latents.SAVE_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        cache_latents(autoencoder, small_patches, 2, 1, JITTER, tmp_path / "stopped", Counter(stop))
    with (tmp_path / "stopped" / "latents.begun.npy").open("ab") as file:
        file.write(b"of a patch that was not finished")
    assert num_encoded(tmp_path / "stopped", 12) == stop
    calls = []
    monkeypatch.setattr("histoloom.training.latents.encode", lambda *of: [calls.append(0), encode(*of)][1])
    resumed = cache_latents(autoencoder, small_patches, 2, 1, JITTER, tmp_path / "stopped")
    assert len(calls) == 12 - stop
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == ["latents.json", "latents.npy"]
    for name in ("latents.json", "latents.npy"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    np.testing.assert_array_equal(resumed.std, undisturbed.std)


@pytest.mark.parametrize("damage", ["another seed", "one byte less", "no file"])
def test_latents_that_were_begun_otherwise_are_made_from_the_start(
    small_patches, autoencoder, tmp_path, monkeypatch, damage
):
    expected = cache_latents(autoencoder, small_patches, 2, 1, JITTER, tmp_path / "undisturbed").latents
    monkeypatch.setattr("histoloom.training.latents.SAVE_SECONDS", 0)
    seed = 2 if damage == "another seed" else 1
    with pytest.raises(KeyboardInterrupt):
        cache_latents(autoencoder, small_patches, 2, seed, JITTER, tmp_path / "stopped", Counter(5))
    begun = tmp_path / "stopped" / "latents.begun.npy"
    if damage == "one byte less":
        os.truncate(begun, 128 + 5 * 2 * 4 * 11 * 11 * 2 - 1)  # the header, and five patches of two views
    elif damage == "no file":
        begun.unlink()
    counter = Counter()
    found = cache_latents(autoencoder, small_patches, 2, 1, JITTER, tmp_path / "stopped", counter).latents
    np.testing.assert_array_equal(found, expected)
    assert counter.count == 12


def test_the_record_of_latents_of_an_older_version_is_read(small_patches, autoencoder, tmp_path):
    cache = cache_latents(autoencoder, small_patches, 2, 1, JITTER, tmp_path)
    record = json.loads((tmp_path / "latents.json").read_text())
    old = {"key": record["key"], "mean": cache.mean.tolist(), "std": cache.std.tolist()}
    (tmp_path / "latents.json").write_text(json.dumps(old))
    counter = Counter()
    again = cache_latents(autoencoder, small_patches, 2, 1, JITTER, tmp_path, counter)
    assert (counter.count, num_encoded(tmp_path, 12)) == (0, 12)
    np.testing.assert_array_equal((again.mean, again.std), (cache.mean, cache.std))


def test_latents_that_somebody_removed_are_made_again(small_patches, autoencoder, tmp_path):
    before = cache_latents(autoencoder, small_patches, 2, 0, JITTER, tmp_path).latents.tobytes()
    (tmp_path / "latents.npy").unlink()  # they are large, and their record stays
    assert cache_latents(autoencoder, small_patches, 2, 0, JITTER, tmp_path).latents.tobytes() == before


def test_the_latents_of_another_factor_have_their_own_grid(small_patches, tmp_path):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    model = AutoencoderKL(block_out_channels=(8, 8, 8), norm_num_groups=4, latent_channels=6, **blocks).eval()
    cache = cache_latents(model, small_patches.select(range(2)), 1, 0, JITTER, tmp_path)
    assert (cache.factor, cache.edge, cache.latents.shape) == (4, 92, (2, 1, 6, 23, 23))


def test_latents_for_which_there_is_no_room_are_one_error_and_no_file(small_patches, autoencoder, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(
            OutputError,
            match=r"latents\.npy: cannot be written .*needs 0\.0 GB for latents",
        ):
            cache_latents(autoencoder, small_patches, 3, 0, JITTER, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
