"""A small vision transformer that names the type of a window, instead of a large encoder and a search for centroids.

FOLDER/
  classifier.safetensors    weights; shape and the windows it reads as JSON in the header
  types.parquet types.json  the types it was taught
  README.md report.json     how well it names them
  answers.parquet           what it said of each window that it was tested on
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.config import build
from histoloom.discovery.tree import TypeTree
from histoloom.encoders.encoder import Encoder
from histoloom.errors import ConfigError, MissingExtraError, ModelError, OutputError

WEIGHTS = "classifier.safetensors"


@dataclass(frozen=True)
class Window:
    """What is named at once: a square of `edge` px at `mpp` (none: unknown, in patches without one)."""

    edge: int
    mpp: float | None = None

    def __post_init__(self):
        if self.edge < 8 or (self.mpp is not None and not self.mpp > 0):
            raise ConfigError(f"a window of {self.edge} px at {self.mpp} um/px makes no sense; take 8 px or more")


@runtime_checkable
class NamesWindows(Protocol):
    """What says how likely each of a tree's finest types is: windows uint8 `n h w 3` -> `n k`, rows sum to 1."""

    tree: TypeTree
    window: Window

    def __call__(self, windows: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n k"]:
        """Probabilities of the finest types."""


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of the classifier: a vision transformer of timm, by name, made smaller and with random weights."""

    model: str = "vit_tiny_patch16_224"
    input: int = 96  # px, edge to which a window is brought
    patch: int = 12  # px, edge of a token
    depth: int = 6  # blocks

    def __post_init__(self):
        if self.input % self.patch or min(self.input, self.patch, self.depth) < 1:
            raise ConfigError(f"input {self.input} must be a multiple of patch {self.patch}, depth 1 or more")


class ViT(nn.Module):
    """Pixels uint8 `b 3 h w` of any size -> logits `b k`."""

    def __init__(self, config: ClassifierConfig, num_types: int):
        super().__init__()
        try:
            import timm
        except ImportError:
            raise MissingExtraError("timm", "evaluate") from None
        self.config = config
        shape = {"img_size": config.input, "patch_size": config.patch, "depth": config.depth}
        try:
            self.network = timm.create_model(config.model, pretrained=False, num_classes=num_types, **shape)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"model {config.model!r} is no vision transformer that timm can build ({error}); try {ViT.known()}"
            ) from None

    @staticmethod
    def known() -> str:
        """Names that work."""
        return "vit_tiny_patch16_224 or vit_small_patch16_224"

    def forward(self, pixels: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        scaled = pixels.float() / 127.5 - 1
        if scaled.shape[-1] != self.config.input or scaled.shape[-2] != self.config.input:
            scaled = F.interpolate(scaled, (self.config.input,) * 2, mode="bilinear", antialias=True)
        return self.network(scaled)


@dataclass(frozen=True, eq=False)
class Classifier:
    """The network with the types it knows and the windows it reads."""

    network: ViT
    tree: TypeTree
    window: Window

    @torch.inference_mode()
    def __call__(self, windows: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n k"]:
        """Probabilities of the finest types, in single precision, of one batch."""
        device = next(self.network.parameters()).device
        pixels = torch.from_numpy(np.ascontiguousarray(windows)).movedim(-1, 1).to(device)
        return self.network(pixels).float().softmax(1).cpu().numpy()


@dataclass(frozen=True, eq=False)
class NearestType:
    """The encoder that found the types: each window is, for certain, of the type with the nearest centroid."""

    encoder: Encoder
    tree: TypeTree
    window: Window

    def __post_init__(self):
        check_encoder(self.tree, self.encoder)

    def __call__(self, windows: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n k"]:
        """One for the nearest type, zero for the others."""
        return np.eye(len(self.tree.centroids), dtype=np.float32)[self.tree.assign(self.encoder(windows))]


def check_encoder(tree: TypeTree, encoder: Encoder) -> None:
    """Raise ModelError unless the tree's centroids lie in this encoder's space."""
    if tree.fingerprint != encoder.fingerprint:
        raise ModelError(
            f"the types were found by encoder {tree.encoder} ({tree.fingerprint[:12]}), not by {encoder.name} "
            f"({encoder.fingerprint[:12]}); give that encoder, or discover types with this one"
        )


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write weights and types into `folder`, the weights last and renamed into place."""
    about = {"config": asdict(classifier.network.config), "window": asdict(classifier.window)}
    # In one entry: safetensors writes several in random order.
    header = {"classifier": json.dumps(about | {"fingerprint": classifier.tree.fingerprint}, sort_keys=True)}
    path = folder / WEIGHTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        classifier.tree.save(folder)
        aside = path.with_suffix(".partial")
        tensors = {k: v.cpu().contiguous() for k, v in classifier.network.state_dict().items()}
        save_file(tensors, aside, header)
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: cannot write the classifier ({error}); free some space and run again") from None


def load_classifier(folder: Path | str, device: str = "cpu") -> Classifier:
    """Read what `save_classifier` wrote, in eval mode, onto `device`; raises ModelError with file and cure."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{path}: no classifier there; train one with `histoloom discover classify`")
    tree = TypeTree.load(folder)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["classifier"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        network = ViT(build(ClassifierConfig, about["config"], str(path)), len(tree.centroids))
        network.load_state_dict(tensors)
        window = build(Window, about["window"], str(path))
        found_by = about["fingerprint"]
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: not a classifier of these types ({reason}); train it again") from None
    if found_by != tree.fingerprint:
        raise ModelError(
            f"{folder}: the types in it were found by another encoder than those of its classifier; train it again "
            "with `histoloom discover classify`"
        )
    return Classifier(network.eval().to(device), tree, window)
