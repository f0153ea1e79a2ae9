"""Operations per patch of every encoder of the tables, counted by torch on networks without weights.

    python benchmarks/encoder_cost.py

The architectures are those that the model cards name, at the size of image that each encoder is given; the figures are
those of `histoloom.discovery.plan.COSTS`.
"""

from functools import partial

import timm
import torch
from timm.layers import SwiGLUPacked
from torch.utils.flop_counter import FlopCounterMode

from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig

SWIGLU = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU}
GIANT = {"embed_dim": 1536, "num_heads": 24, "mlp_ratio": 2.66667 * 2, **SWIGLU}
ENCODERS = (
    # name, edge of the image, network
    ("lunit-bt", 224, partial(timm.create_model, "resnet50")),
    ("timm:vit_large_patch14_dinov2.lvd142m", 518, partial(timm.create_model, "vit_large_patch14_dinov2")),
    ("uni", 224, partial(timm.create_model, "vit_large_patch16_224")),
    ("uni2", 224, partial(timm.create_model, "vit_huge_patch14_224", depth=24, reg_tokens=8, **GIANT)),
    ("virchow2", 224, partial(timm.create_model, "vit_huge_patch14_224", mlp_ratio=5.3375, reg_tokens=4, **SWIGLU)),
    ("gigapath", 224, partial(timm.create_model, "vit_giant_patch14_dinov2", img_size=224, patch_size=16)),
    ("h-optimus-1", 224, partial(timm.create_model, "vit_giant_patch14_reg4_dinov2", img_size=224)),
    ("phikonv2", 224, partial(timm.create_model, "vit_large_patch16_224")),
    ("histoloom-small", 256, None),
)


def operations(network: torch.nn.Module, edge: int) -> int:
    """Floating-point operations of one forward pass, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, edge, edge, device="meta"))
    return counter.get_total_flops()


def main() -> None:
    """Print one row per encoder."""
    print("| encoder | image | parameters, M | operations per patch, 10^9 |\n|---|---|---|---|")
    for name, edge, make in ENCODERS:
        with torch.device("meta"):
            network = SmallEncoder(SmallEncoderConfig()) if make is None else make(num_classes=0)
        count = sum(p.numel() for p in network.parameters())
        print(f"| {name} | {edge} | {count / 1e6:.1f} | {operations(network, edge) / 1e9:.1f} |")


if __name__ == "__main__":
    main()
