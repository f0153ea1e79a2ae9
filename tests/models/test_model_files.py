import json
import shutil
from pathlib import Path

import pytest
import torch

from histoloom.errors import ModelError
from histoloom.models.autoencoder import load_autoencoder
from histoloom.models.pipeline import HistoloomPipeline


def test_a_folder_that_is_no_model_is_named_with_the_cure(tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty: not a Histoloom model \(no model_index.json\); .*histoloom train"):
        HistoloomPipeline.load(tmp_path / "empty")
    with pytest.raises(ModelError, match=r"absent: is not a folder; .* a name on the hub, or ebhi-seg or ebhi-seg-few"):
        HistoloomPipeline.load(tmp_path / "absent")
    with pytest.raises(
        ModelError, match=r"someone/absent: is not a folder here, and the hub is not reachable: offline"
    ):
        HistoloomPipeline.load("someone/absent")


@pytest.mark.parametrize("part", ["denoiser", "autoencoder"])
@pytest.mark.parametrize("kept", [0, 100, -1])
def test_truncated_weights_are_one_clear_error_that_names_the_file(tiny_model, tmp_path, part, kept):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    [weights] = (model / part).glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError, match=f"{part}/{weights.name}: is truncated, damaged, or not a saf") as caught:
        HistoloomPipeline.load(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["denoiser", "autoencoder"])
def test_weights_of_which_a_bit_has_flipped_are_refused_instead_of_weaving_other_tissue(tiny_model, tmp_path, part):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    [weights] = (model / part).glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1000] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match=f"{part}/{weights.name}: is truncated, damaged.*its checksum differs"):
        HistoloomPipeline.load(model)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


DEEP = "[" * 10**6 + "]" * 10**6
BAD_FILES = {
    "a list as index": (lambda m: (m / "model_index.json").write_text("[]"), "model_index.json: holds a JSON list"),
    "nesting without end": (lambda m: (m / "denoiser/config.json").write_text(DEEP), "denoiser/config.json: is not a"),
    "bytes that are no text": (lambda m: (m / "denoiser/config.json").write_bytes(b"\xff\xfe"), "config.json: is not"),
    "a scheduler of a billion steps": (
        lambda m: change(m / "scheduler/scheduler_config.json", num_train_timesteps=10**9),
        "scheduler_config.json: num_train_timesteps is 1000000000; at most"),
    "a scheduler without times": (
        lambda m: change(m / "scheduler/scheduler_config.json", num_train_timesteps=0),
        "scheduler_config.json: describes no sampler .division by zero.; copy the model again"),
    "a scheduler of other times": (
        lambda m: change(m / "scheduler/scheduler_config.json", num_train_timesteps=7),
        "scheduler_config.json: num_train_timesteps is 7; give 1000"),
    "a network without some of the weights": (
        lambda m: change(m / "denoiser/config.json", conditioning="map"),
        "denoiser/config.json: describes a network without .*, which the weights hold; copy the model again"),
    "channels without end": (
        lambda m: change(m / "denoiser/config.json", channels=[10**9, 10**9]), "denoiser/config.json: channels is 100"),
    "channels of another size": (
        lambda m: change(m / "denoiser/config.json", channels=[64, 64]), "denoiser/config.json: does not fit the weig"),
    "blocks without end": (
        lambda m: change(m / "denoiser/config.json", blocks=[1, 10**5]), "denoiser/config.json: blocks is 100000; at"),
    "crops without end": (lambda m: change(m / "denoiser/config.json", crop_edge=10**5), "crop_edge is 100000; give w"),
    "an unknown conditioning": (
        lambda m: change(m / "denoiser/config.json", conditioning="magic"), "describes no network"),
    "one latent mean": (
        lambda m: change(m / "denoiser/config.json", latent_mean=[0.0]), r"latent_mean is \[0.0\]; give 4 finite numb"),
    "a latent mean that is none": (
        lambda m: change(m / "denoiser/config.json", latent_mean=[0.0, 0.0, float("nan"), 0.0]), "latent_mean is .*na"),
    "latents without spread": (
        lambda m: change(m / "denoiser/config.json", latent_std=[1.0, 1.0, 0.0, 1.0]), "give 4 finite numbers above 0"),
    "no latent mean": (
        lambda m: change(m / "denoiser/config.json", latent_mean=None), "has no latent_mean and latent_std"),
    "another autoencoder's channels": (
        lambda m: change(m / "autoencoder/config.json", latent_channels=10**9), "latent_channels is 1000000000; at mo"),
    "code of a stranger": (
        lambda m: change(m / "model_index.json", denoiser=["os", "system"]), r"denoiser is \['os', 'system'\]; known:"),
    "no tissue": (lambda m: change(m / "model_index.json", tissue=None), "model_index.json: the tissue table is empty"),
    "tissue that is text": (lambda m: change(m / "model_index.json", tissue=["a"]), "tissue table is empty"),
    "more tissue than the network knows": (
        lambda m: change(m / "model_index.json", tissue=[{"id": 9, "name": "a"}]), "table has id 9; the denoiser know"),
    "a scale that is none": (lambda m: change(m / "model_index.json", mpp=-1), "mpp is -1; give 0.01 to 100"),
    "a copy limit above 1": (lambda m: change(m / "model_index.json", copy_limit=1.5), "copy_limit is 1.5; give a num"),
    "a copy limit that is none": (
        lambda m: change(m / "model_index.json", copy_limit=float("nan")), "copy_limit is nan"),
    "another pipeline": (
        lambda m: change(m / "model_index.json", _class_name="DDPMPipeline"), "names a 'DDPMPipeline', not a Histoloo"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_files_of_a_model_that_make_no_sense_are_refused_by_name_before_anything_is_allocated(
    tiny_model, tmp_path, kind
):
    spoil, message = BAD_FILES[kind]
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    spoil(model)
    for opened in (HistoloomPipeline.load, HistoloomPipeline.from_pretrained):
        with pytest.raises(ModelError, match=message) as caught:
            opened(model)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


def test_weights_that_are_not_finite_are_refused_by_name(make_pipeline, tmp_path):
    pipeline = make_pipeline()
    with torch.no_grad():
        pipeline.denoiser.enter.weight[0, 0, 0, 0] = float("nan")
    pipeline.save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match=r"denoiser/diffusion_pytorch_model.safetensors: enter.weight holds nan or"):
        HistoloomPipeline.load(tmp_path)


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("part", ["denoiser", "autoencoder"])
@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"])
def test_pickled_weights_are_refused_and_never_opened(tiny_model, tmp_path, part, name):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    [weights] = (model / part).glob("*.safetensors")
    weights.unlink()
    torch.save({"weight": Trap(tmp_path / "sprung")}, model / part / name)
    pickled = "no such weights; .* a pickle is never opened" if name.endswith("bin") else "not a safetensors file"
    with pytest.raises(ModelError, match=f"{part}/diffusion_pytorch_model.safetensors: .*{pickled}") as caught:
        HistoloomPipeline.load(model)
    assert "\n" not in str(caught.value)
    if part == "autoencoder":
        with pytest.raises(ModelError, match=pickled):
            load_autoencoder(model / part)
    assert not (tmp_path / "sprung").exists()
