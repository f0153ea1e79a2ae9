import json
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from histoloom.conditioning.crops import CropConfig
from histoloom.errors import ConfigError, ModelError
from histoloom.fitting.loop import LoopConfig
from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder
from histoloom.stain import StainJitter
from histoloom.training.denoiser import DenoiserObjective, DenoiserTraining, collate, prepare, train_denoiser

KINDS = ("unconditional", "map", "embedding", "crops-in-place", "crops-as-reference")
SMALL = DenoiserTraining(
    window=64,
    views=2,
    channels=(32, 64),
    blocks=(1, 1),
    crops=CropConfig(base=24, largest=48),
    loop=LoopConfig(steps=6, batch_size=4, warmup_steps=2, workers=0, precision="fp32", checkpoint_minutes=1e-9),
)
# Trains on drawn tissue; `moment` is (what is counted, at which count it is killed).
RUN = """
import json, os, signal
from pathlib import Path
from safetensors.torch import save_file
from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder
from histoloom.training.denoiser import train_denoiser

class Bar:
    count = 0

    def advance(self, count=1, note=""):
        self.count += count
        at("patch", self.count)

def at(what, count):
    if (what, count) == moment:
        os.kill(os.getpid(), signal.SIGKILL)

def on_step(progress):
    losses.append(progress.losses["loss"])
    at("step", progress.step)

losses = []
torch.manual_seed(0)
autoencoder = build_autoencoder(AutoencoderConfig(
 latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))).eval()
trained = train_denoiser(patches, 3, autoencoder, config, Path(folder), caching=Bar(), on_step=on_step)
if os.environ.get("RANK", "0") == "0":
    save_file(trained.state_dict(), f"{folder}/weights.safetensors")
    Path(folder, "losses.json").write_text(json.dumps(losses))
"""


@pytest.fixture(scope="module")
def small_autoencoder():
    torch.manual_seed(0)
    return build_autoencoder(
        AutoencoderConfig(latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    ).eval()


@pytest.fixture(scope="module")
def launch(start, small_patches, tmp_path_factory):
    """`launch(moment, config, ranks)`: a run in a folder, its processes ended; killed ones leave a folder to go on."""

    def run(folder: Path | None = None, moment=None, config=SMALL, ranks: int = 1) -> tuple[Path, list[int]]:
        folder = folder or tmp_path_factory.mktemp("run")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            world = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        names = {"folder": str(folder), "moment": moment, "config": config, "patches": small_patches}
        places = [{"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(ranks)]
        heads = [f"import os\nos.environ.update({world | place})\n" if ranks > 1 else "" for place in places]
        processes = [start(head + RUN, **names) for head in heads]
        for process in processes:
            process.join()
        return folder, [process.exitcode for process in processes]

    return run


@pytest.fixture(scope="module")
def whole_run(launch) -> Path:
    folder, codes = launch()
    assert codes == [0]
    return folder


@pytest.mark.parametrize("moment", [("patch", 5), ("patch", 12), ("step", 1), ("step", 4), ("step", 6)])
def test_a_run_killed_in_its_latents_or_steps_ends_with_the_bytes_of_a_whole_one(launch, whole_run, moment):
    folder, codes = launch(moment=moment)
    assert codes == [-9]
    assert launch(folder) == (folder, [0])
    assert (folder / "weights.safetensors").read_bytes() == (whole_run / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(("ranks", "accumulate"), [(1, 2), (2, 1)])
def test_how_a_batch_is_shared_out_does_not_show_in_loss_and_weights(launch, whole_run, ranks, accumulate):
    folder, codes = launch(config=replace(SMALL, loop=replace(SMALL.loop, accumulate=accumulate)), ranks=ranks)
    assert codes == [0] * ranks
    curves = [json.loads((f / "losses.json").read_text()) for f in (folder, whole_run)]
    np.testing.assert_allclose(*curves, rtol=1e-4)
    found, expected = (load_file(f / "weights.safetensors") for f in (folder, whole_run))
    apart = [float((found[name] - tensor).norm() / (tensor.norm() + 1e-3)) for name, tensor in expected.items()]
    assert max(apart) < 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", ["flow", "epsilon-l1"])
def test_every_conditioning_learns_by_every_objective(small_patches, small_autoencoder, tmp_path, kind, objective):
    losses = []
    loop = replace(SMALL.loop, steps=3, checkpoint_minutes=1e9)
    config = replace(SMALL, conditioning=kind, objective=objective, loop=loop)
    seen = []
    trained = train_denoiser(
        small_patches, 3, small_autoencoder, config, tmp_path, on_step=lambda p: losses.append(p.losses["loss"]),
        on_checkpoint=lambda step, averaged: seen.append((step, averaged.config.conditioning)),
    )  # fmt: skip
    assert np.isfinite(losses).all()
    assert not trained.training
    assert (trained.config.conditioning, trained.config.objective) == (kind, objective)
    assert seen == [(3, kind)]


def test_the_denoiser_fits_one_patch(make_patches, small_autoencoder, tmp_path):
    losses = []
    loop = replace(SMALL.loop, steps=40, batch_size=8, learning_rate=3e-3, checkpoint_minutes=1e9)
    config = replace(SMALL, views=1, window=64, loop=loop)
    train_denoiser(
        make_patches(count=1, cases=1), 3, small_autoencoder, config, tmp_path,
        on_step=lambda p: losses.append(p.losses["loss"]),
    )  # fmt: skip
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def samples_of(patches, autoencoder, folder, count: int = 400, **values) -> list[dict]:
    _, sampler = prepare(patches, 3, autoencoder, replace(SMALL, **values), folder)
    return [sampler(n) for n in range(count)]


def test_map_and_crops_are_left_out_independently(small_patches, small_autoencoder, tmp_path):
    samples = samples_of(small_patches, small_autoencoder, tmp_path, map_dropout=0.3, crop_dropout=0.4)
    mapless = np.array([(s["type_map"] == 4).all() for s in samples])
    cropless = np.array([s["crops"] == [] for s in samples])
    assert mapless.mean() == pytest.approx(0.3, abs=0.07)
    assert cropless.mean() == pytest.approx(0.4, abs=0.1)  # a little more: some windows find no crop
    assert (mapless & cropless).mean() == pytest.approx(mapless.mean() * cropless.mean(), abs=0.05)


def test_some_crops_are_shown_by_their_colours_alone(small_patches, small_autoencoder, tmp_path):
    samples = samples_of(small_patches, small_autoencoder, tmp_path, texture_dropout=0.3)
    shown = [crop.texture for s in samples for crop in s["crops"]]
    assert np.mean(shown) == pytest.approx(0.7, abs=0.07)
    assert any({crop.texture for crop in s["crops"]} == {True, False} for s in samples)  # one by one
    assert collate(samples)["crop_textured"].tolist() == shown


def test_times_are_drawn_with_the_mean_and_the_spread_asked_for(small_patches, small_autoencoder, tmp_path):
    usual = samples_of(small_patches, small_autoencoder, tmp_path, 20)
    noisier = samples_of(small_patches, small_autoencoder, tmp_path, 20, time_mean=0.7, time_spread=1.5)
    for one, other in zip(usual, noisier, strict=True):
        assert other["time_draw"] == pytest.approx(0.7 + 1.5 * one["time_draw"], abs=1e-5)
        assert np.array_equal(one["type_map"], other["type_map"])  # and nothing else differs


def test_hidden_types_are_left_out_of_some_maps(small_patches, small_autoencoder, tmp_path):
    usual = samples_of(small_patches, small_autoencoder, tmp_path, map_dropout=0.0)
    _, sampler = prepare(
        small_patches, 3, small_autoencoder, replace(SMALL, map_dropout=0.0, hidden_share=0.4), tmp_path, hidden=(2,)
    )
    samples = [sampler(n) for n in range(400)]
    showed = np.array([(s["type_map"] == 2).any() for s in usual])
    shows = np.array([(s["type_map"] == 2).any() for s in samples])
    assert not (shows & ~showed).any()
    assert shows.sum() / showed.sum() == pytest.approx(0.6, abs=0.08)
    for one, other, same in zip(usual, samples, shows, strict=True):
        assert np.array_equal(one["latents"], other["latents"])  # the same windows
        assert not same or np.array_equal(one["type_map"], other["type_map"])
        assert same or all(crop.tissue != 2 for crop in other["crops"])


def test_stain_follows_the_crop(make_patches, small_autoencoder, tmp_path):
    patches = make_patches(count=4, cases=1, types=1)
    even = replace(patches, images=np.full_like(patches.images, 160))
    jitter = StainJitter(scale=0.0, shift=0.0, brightness=0.3)
    config = replace(SMALL, conditioning="crops-as-reference", stain=jitter, crop_dropout=0.0)
    _, sampler = prepare(even, 3, small_autoencoder, config, tmp_path)
    # The same gray under the same light: equal latents and equal crops, or both differ.
    samples = [s for s in map(sampler, range(60)) if s["crops"]]
    light = np.array([s["crops"][0].pixels.mean() for s in samples])
    latents = np.stack([s["latents"].mean((1, 2)) for s in samples])
    assert light.std() > 5
    fitted = np.polynomial.Polynomial.fit(light, latents[:, np.abs(latents).std(0).argmax()], 5)(light)
    assert np.corrcoef(fitted, latents[:, np.abs(latents).std(0).argmax()])[0, 1] > 0.98


def test_a_sample_depends_on_its_number_alone(small_patches, small_autoencoder, tmp_path):
    one, other = (samples_of(small_patches, small_autoencoder, tmp_path / name, 5) for name in ("a", "b"))
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine["latents"], theirs["latents"])
        np.testing.assert_array_equal(mine["noise"], theirs["noise"])
        assert [c.source for c in mine["crops"]] == [c.source for c in theirs["crops"]]


def test_a_crop_in_place_is_the_target_where_it_lies(small_patches, tmp_path, small_autoencoder):
    still = StainJitter(0.0, 0.0, 0.0)
    samples = samples_of(small_patches, small_autoencoder, tmp_path, 30, conditioning="crops-in-place", stain=still)
    for sample in samples:
        assert sample["canvas"].shape == (64, 64, 3)
        assert (sample["canvas"][~sample["canvas_valid"]] == 0).all()
    assert np.mean([s["canvas_valid"].any() for s in samples]) > 0.5


def test_the_autoencoder_is_neither_trained_nor_saved_with_the_denoiser(small_patches, small_autoencoder, tmp_path):
    denoiser, sampler = prepare(small_patches, 3, small_autoencoder, SMALL, tmp_path)
    objective = DenoiserObjective(denoiser, small_autoencoder)
    assert {p.data_ptr() for p in objective.parameters()} == {p.data_ptr() for p in denoiser.parameters()}
    assert collate([sampler(0), sampler(1)])["latents"].shape == (2, 4, 8, 8)


def test_a_trained_denoiser_can_be_the_start_of_another(small_patches, small_autoencoder, tmp_path):
    config = replace(SMALL, loop=replace(SMALL.loop, steps=1, learning_rate=1e-12))
    first = train_denoiser(small_patches, 3, small_autoencoder, config, tmp_path / "a")
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    again = train_denoiser(small_patches, 3, small_autoencoder, config, tmp_path / "b", initial=first)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    with pytest.raises(ModelError, match="initial denoiser has another architecture"):
        train_denoiser(
            small_patches, 3, small_autoencoder, replace(config, channels=(32, 96)), tmp_path / "c", initial=first
        )


@pytest.mark.parametrize(("window", "said"), [(72, "must be a multiple of 16 px"), (96, "at most 88 px")])
def test_a_window_that_does_not_fit_is_refused(small_patches, small_autoencoder, tmp_path, window, said):
    with pytest.raises(ConfigError, match=said):
        prepare(small_patches, 3, small_autoencoder, replace(SMALL, window=window), tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"map_dropout": 1.2},
        {"crop_dropout": -0.1},
        {"texture_dropout": 1.5},
        {"objective": "flo"},
        {"time_mean": 9.0},
        {"time_spread": 0.0},
        {"time_mean": 0.7, "objective": "epsilon-l2"},
        {"views": 0},
        {"channels": (32, 50)},
        {"channels": (32,), "blocks": (1,)},
        {"blocks": (1, 1)},
    ],
)
def test_settings_without_sense_are_refused(values):
    with pytest.raises(ConfigError):
        DenoiserTraining(**values)
