"""A model whose denoiser has the mean of the weights of several, in all else the last of them.

    python benchmarks/mean_of_models.py RUN18/model RUN19/model --out mean

They must have the same network; such as the models before and after a training.
"""

import argparse
import shutil
from pathlib import Path

import torch

from histoloom.tensor_files import read_tensors, save_tensors

WEIGHTS = Path("denoiser") / "diffusion_pytorch_model.safetensors"


def main() -> None:
    """Write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    weights = [read_tensors(model / WEIGHTS)[0] for model in args.models]
    shapes = [{name: value.shape for name, value in one.items()} for one in weights]
    if any(one != shapes[0] for one in shapes):
        parser.error("the denoisers are not of one network")
    mean = {
        name: torch.stack([one[name].float() for one in weights]).mean(0).to(last.dtype)
        for name, last in weights[-1].items()
    }
    shutil.copytree(args.models[-1], args.out)
    save_tensors(mean, args.out / WEIGHTS, {"format": "pt"})


if __name__ == "__main__":
    main()
