"""Multiply-adds and parameters of the distilled classifier beside the encoders it can stand in for.

    python benchmarks/classifier_cost.py

Architectures by timm with random weights on the meta device: nothing is downloaded, and no time is measured. The
paper's classifier is a ViT-small at 224 px.
"""

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from histoloom.discovery.classifier import ClassifierConfig

OURS = ClassifierConfig()
# What it is, the timm architecture, and how it is built.
ROWS = (
    ("our default", OURS.model, {"img_size": OURS.input, "patch_size": OURS.patch, "depth": OURS.depth}),
    ("the paper's, ViT-S/16", "vit_small_patch16_224", {}),
    ("RN50 (lunit-bt)", "resnet50", {}),
    ("ViT-L/16 (UNI, Phikon-v2)", "vit_large_patch16_224", {}),
    ("ViT-H/14 (UNI2-h, Virchow2: of this size)", "vit_huge_patch14_224", {}),
    ("ViT-g/14 (H-optimus-1, GigaPath: of this size)", "vit_giant_patch14_224", {}),
)


def main() -> None:
    costs = []
    for _, name, shape in ROWS:
        with torch.device("meta"):
            network = timm.create_model(name, pretrained=False, **shape).eval()
            image = torch.zeros(1, 3, shape.get("img_size", 224), shape.get("img_size", 224))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(image)
        costs.append((counter.get_total_flops() / 2e9, sum(p.numel() for p in network.parameters()) / 1e6))
    print("| network | G multiply-adds | M parameters | times our default |")
    print("|---|---|---|---|")
    for (what, _, _), (operations, parameters) in zip(ROWS, costs, strict=True):
        print(f"| {what} | {operations:.2f} | {parameters:.1f} | {operations / costs[0][0]:.0f} |")


if __name__ == "__main__":
    main()
