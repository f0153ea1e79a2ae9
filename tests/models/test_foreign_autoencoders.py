import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, VQModel
from weaving import grain, halves, weave

from histoloom.models.autoencoder import load_autoencoder
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.schedulers import make_sampler


def small_blocks(levels: int) -> dict:
    return {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": (8,) * levels,
        "norm_num_groups": 4,
    }


FOREIGN = {
    "kl": lambda: AutoencoderKL(**small_blocks(4), latent_channels=4),
    "kl, f4": lambda: AutoencoderKL(**small_blocks(3), latent_channels=8, mid_block_add_attention=False),
    "vq, f4": lambda: VQModel(**small_blocks(3), latent_channels=3, num_vq_embeddings=32),
    "tiny": lambda: AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4,
    ),
    "dc, f16": lambda: AutoencoderDC(
        latent_channels=8, encoder_block_types="ResBlock", decoder_block_types="ResBlock",
        encoder_block_out_channels=(8,) * 5, decoder_block_out_channels=(8,) * 5,
        encoder_layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
        encoder_qkv_multiscales=((),) * 5, decoder_qkv_multiscales=((),) * 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_any_autoencoder_of_diffusers_can_stand_in(small_patches, tmp_path, kind):
    from histoloom.conditioning.crops import CropConfig
    from histoloom.fitting.loop import LoopConfig
    from histoloom.training.decoder import DecoderTraining, train_decoder
    from histoloom.training.denoiser import DenoiserTraining, train_denoiser

    torch.manual_seed(0)
    FOREIGN[kind]().save_pretrained(tmp_path / "foreign")
    autoencoder = load_autoencoder(tmp_path / "foreign")
    loop = LoopConfig(steps=2, batch_size=2, workers=0, precision="fp32")
    sharpening = DecoderTraining(size=64, channels=8, loop=loop)
    sharper = train_decoder(small_patches.select(range(4)), autoencoder, sharpening, tmp_path / "decoder")
    for part, stays in (("encoder", True), ("decoder", False)):
        one, other = (list(getattr(model, part).parameters()) for model in (autoencoder, sharper))
        assert all(map(torch.equal, one, other)) == stays
    autoencoder, crops = sharper, CropConfig(base=24, largest=32)
    config = DenoiserTraining(window=64, views=1, channels=(32, 64), blocks=(1, 1), crops=crops, loop=loop)
    denoiser = train_denoiser(small_patches.select(range(4)), 3, autoencoder, config, tmp_path / "run")
    scheduler, _ = make_sampler("flow")
    pipeline = HistoloomPipeline(autoencoder, denoiser, scheduler, [{"id": i, "name": n} for i, n in enumerate("abc")])
    pipeline.save_pretrained(str(tmp_path / "model"))
    pipeline = HistoloomPipeline.load(tmp_path / "model")
    assert type(pipeline.autoencoder) is type(autoencoder)
    images = weave(pipeline, [halves(0, 1), halves(1, 2)], [{0: grain(0)}, {"c": grain(1)}])
    assert images.shape == (2, 64, 64, 3)
    assert images.std() > 0
