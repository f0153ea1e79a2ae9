"""Real or decoded? One logit for each place of an image, from its surroundings (PatchGAN; Isola et al. 2017, arXiv
1611.07004)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Pixels `b 3 h w` in [-1, 1] -> logits `b 1 h/8 w/8`, each of 48 x 48 px; high where they look real.

    Weights have spectral norm 1 (Miyato et al. 2018, arXiv 1802.05957), so that it does not outrun a decoder that
    learns more slowly. Features are not normalized: the amount of fine texture is what distinguishes the two.
    """

    def __init__(self, channels: int):
        super().__init__()
        widths = (channels, 2 * channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        for inputs, outputs, stride in zip((12, *widths), widths, (1, 2, 1, 2), strict=False):
            convolution = nn.Conv2d(inputs, outputs, 4 if stride == 2 else 3, stride=stride, padding=1)
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1)))

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 y x"]:
        return self.layers(pixels)
