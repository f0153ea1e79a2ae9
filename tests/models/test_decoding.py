"""Decoding of tissue that an autoencoder knows, and of tissue that it does not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from histoloom.models.autoencoder import load_autoencoder
from histoloom.models.decoding import measure_decoding
from histoloom.models.model_files import find_model


@pytest.fixture(scope="module")
def autoencoder():
    return load_autoencoder(find_model("ebhi-seg"))


def read(pictures: list[Path], edge: int) -> np.ndarray:
    return np.stack([np.asarray(Image.open(picture).convert("RGB"))[:edge, :edge] for picture in pictures])


def test_a_stain_that_the_decoder_has_not_learned_is_told_from_one_that_it_has(autoencoder, shared_data):
    known = measure_decoding(autoencoder, read(sorted((shared_data / "ebhi-seg").rglob("images/*"))[::200], 200))
    assert known.is_faithful
    assert known.psnr > 23
    unknown = measure_decoding(
        autoencoder, read(sorted((shared_data / "camelyon-mini" / "images").iterdir())[::8], 203)
    )
    assert not unknown.is_faithful
    assert unknown.psnr < 22
    assert unknown.contrast[2] < 0.75  # brown nuclei come out blue, and white yellow


def test_figures_are_those_of_the_bytes(autoencoder):
    crops = read(sorted((Path(find_model("ebhi-seg")) / "crops").rglob("*.png"))[:6], 22)  # reflected to 24 px
    found = measure_decoding(autoencoder, crops)
    with torch.inference_mode():
        whole = np.pad(crops, ((0, 0), (0, 2), (0, 2), (0, 0)), "reflect")
        pixels = torch.from_numpy(whole).movedim(-1, 1).float() / 127.5 - 1
        decoded = (
            autoencoder.decode(autoencoder.encode(pixels).latent).sample.numpy().transpose(0, 2, 3, 1)[:, :22, :22]
        )
    decoded, real = np.clip((decoded + 1) * 127.5, 0, 255).round(), crops.astype(float)
    assert found.psnr == pytest.approx(10 * np.log10(255**2 / np.mean((decoded - real) ** 2)), abs=0.01)
    assert found.contrast == pytest.approx(decoded.std((0, 1, 2)) / real.std((0, 1, 2)), abs=1e-3)


def test_plain_pictures_have_no_contrast_to_divide_by(autoencoder):
    assert np.isfinite(measure_decoding(autoencoder, np.full((1, 96, 96, 3), 128, np.uint8)).contrast).all()
