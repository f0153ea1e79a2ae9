import importlib.util
import json
import sys
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from histoloom.encoders.encoder import KNOWN, SMALL, distinct_names, open_encoder, open_encoders, short_name
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, load_small_encoder, save_small_encoder
from histoloom.errors import ConfigError, ModelError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


@pytest.fixture
def small_folder(tmp_path):
    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1))), tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def timm_folder(tmp_path):
    """A timm model with weights of its own, as `timm:local-dir:FOLDER` reads it."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=0).eval()
    folder = tmp_path / "timm"
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [3, 96, 96], "mean": [0.7, 0.5, 0.6], "std": [0.2, 0.3, 0.2], "interpolation": "bicubic"}
    config = {"architecture": "test_resnet", "num_classes": 0, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, network


def test_two_folders_of_one_name_are_told_apart_and_one_encoder_twice_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a/mine", "b/mine", "other")):
        torch.manual_seed(number)
        save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1), told=1)), tmp_path / name)
    given = ["a/mine", str(tmp_path / "b" / "mine"), "other", "histoloom-small", "timm:resnet18"]
    assert distinct_names(given) == ["a/mine", "b/mine", "other", "histoloom-small", "timm:resnet18"]
    assert distinct_names([given[1]]) == ["mine"]
    opened = open_encoders(given[:2])
    assert [encoder.name for encoder in opened] == ["a/mine", "b/mine"]
    assert opened[0].fingerprint != opened[1].fingerprint
    for twice in (["a/mine", str(tmp_path / "a" / "mine")], ["timm:resnet18"] * 2):
        with pytest.raises(ConfigError, match="is named twice"):
            distinct_names(twice)


def test_a_folder_with_a_small_encoder_is_an_encoder(small_folder):
    encoder = open_encoder(str(small_folder))
    found = encoder(IMAGES)
    pixels = torch.from_numpy(IMAGES).movedim(-1, 1) / 127.5 - 1
    with torch.no_grad():
        np.testing.assert_allclose(found, load_small_encoder(small_folder)(pixels).numpy(), rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32


def test_the_fingerprint_follows_the_weights(small_folder):
    before = open_encoder(str(small_folder)).fingerprint
    assert open_encoder(str(small_folder)).fingerprint == before
    network = load_small_encoder(small_folder)
    next(network.parameters()).data[0] += 1
    save_small_encoder(network, small_folder)
    assert open_encoder(str(small_folder)).fingerprint != before


def test_a_timm_model_sees_the_whole_patch_in_its_own_size_and_colours(timm_folder):
    folder, network = timm_folder
    found = open_encoder(f"timm:local-dir:{folder}")(IMAGES)
    pixels = torch.from_numpy(IMAGES).movedim(-1, 1).float() / 255
    pixels = torch.nn.functional.interpolate(pixels, (96, 96), mode="bicubic", antialias=True)
    pixels = (pixels - torch.tensor([0.7, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.2])[:, None, None]
    with torch.no_grad():
        expected = network(pixels)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_weights_that_cannot_be_had_end_in_one_line_that_says_how_to_get_them():
    with pytest.raises(
        ModelError, match=r"weights are not available .* ask for access on .*`hf auth login`.*use histoloom-small"
    ):
        open_encoder("timm:hf-hub:MahmoodLab/UNI2-h")
    with pytest.raises(ModelError, match=r"Unknown model \(nosuch\); `timm.list_models"):
        open_encoder("timm:nosuch")


class OfSlides:
    """A model of lazyslide-models that encodes no single images."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 2)

    def get_transform(self):
        return None


class OfImages(OfSlides):
    """One with a transform that its caller applies."""

    def get_transform(self):
        return Halved()

    @torch.inference_mode()
    def encode_image(self, image):
        return self.model(image.mean((2, 3)))


class Halved(torch.nn.Module):
    def forward(self, images):
        return images.float() / 510


class PreparesItself(OfImages):
    """As Phikon-v2 there: no transform, and `encode_image` takes uint8 images `b h w 3`."""

    def get_transform(self):
        return None

    def encode_image(self, image):
        assert image.dtype == torch.uint8
        return super().encode_image(Halved()(image.movedim(-1, 1)))


@pytest.fixture
def lazyslide(monkeypatch):
    """A library of that name with three models of tiny weights, in the place of lazyslide-models."""
    library = ModuleType("lazyslide_models")
    library.MODEL_REGISTRY = {"outside": OfImages, "inside": PreparesItself, "slides": OfSlides}
    monkeypatch.setitem(sys.modules, "lazyslide_models", library)


def test_a_pathology_model_gets_images_through_its_transform_or_prepares_them_itself(lazyslide):
    with torch.no_grad():
        expected = OfImages().model(torch.from_numpy(IMAGES).float().mean((1, 2)) / 510).numpy()
    outside, inside = open_encoder("outside"), open_encoder("inside")
    np.testing.assert_allclose(outside(IMAGES), expected, rtol=1e-5)
    np.testing.assert_allclose(inside(IMAGES), expected, rtol=1e-5)
    assert outside.fingerprint != inside.fingerprint


def test_models_without_a_module_of_weights_are_told_apart_by_name(lazyslide, monkeypatch):
    def without_weights(self):
        self.model = lambda means: means

    monkeypatch.setattr(OfSlides, "__init__", without_weights)
    sys.modules["lazyslide_models"].MODEL_REGISTRY |= {"another": OfImages}
    assert open_encoder("outside").fingerprint != open_encoder("another").fingerprint


def test_a_pathology_model_that_encodes_no_single_images_is_refused(lazyslide):
    with pytest.raises(ConfigError, match="encoder slides: does not encode single images"):
        open_encoder("slides")


class FromTheHub(OfImages):
    """One that fetches its code, as its source says."""

    def __init__(self):
        super().__init__()
        if False:
            AutoModel.from_pretrained("a/b", trust_remote_code=True)


class Disguised(OfImages):
    """One that fetches its code through a function of its own."""

    def __init__(self):
        super().__init__()
        getattr(torch.hub, "lo" + "ad")("a/b", "model", source="local")


def test_a_model_that_runs_code_from_the_internet_needs_to_be_allowed(lazyslide):
    sys.modules["lazyslide_models"].MODEL_REGISTRY |= {"hibou-b": OfImages, "hub": FromTheHub, "disguised": Disguised}
    load = torch.hub.load
    for name in ("hibou-b", "hub", "disguised"):
        with pytest.raises(ConfigError, match=rf"encoder {name}: loading it runs code from the internet.*--allow"):
            open_encoder(name)
    assert torch.hub.load is load
    for name in ("hibou-b", "hub"):
        assert open_encoder(name, allow_remote_code=True)(IMAGES).shape == (len(IMAGES), 2)
    with pytest.raises(ModelError, match="encoder disguised: its weights are not available"):
        open_encoder("disguised", allow_remote_code=True)  # there is no such folder


def test_no_path_of_this_machine_is_in_the_name_of_an_encoder(small_folder):
    assert open_encoder(str(small_folder)).name == short_name(f"{small_folder}/") == small_folder.name
    assert short_name("histoloom-small") == "histoloom-small"
    assert short_name("timm:resnet18") == "timm:resnet18"


@pytest.mark.skipif(importlib.util.find_spec("lazyslide_models") is not None, reason="lazyslide-models is installed")
def test_a_pathology_model_without_its_library_names_the_extra():
    with pytest.raises(
        ConfigError, match=r"encoder uni: is not histoloom-small, .* pip install 'histoloom\[foundation\]'"
    ):
        open_encoder("uni")


@pytest.mark.skipif(importlib.util.find_spec("lazyslide_models") is None, reason="needs lazyslide-models (foundation)")
def test_names_of_lazyslide_are_known_there_and_others_are_refused():
    from lazyslide_models import MODEL_REGISTRY

    assert {name for name, _, _ in KNOWN if name != SMALL and ":" not in name} <= set(MODEL_REGISTRY)
    with pytest.raises(ConfigError, match="encoder un1: unknown; near: uni"):
        open_encoder("un1")
    with pytest.raises(ModelError, match=r"weights cannot be had .*huggingface.co/MahmoodLab/UNI"):
        open_encoder("uni")
