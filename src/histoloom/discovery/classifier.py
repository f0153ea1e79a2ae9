"""A small vision transformer that predicts the type of a window, in place of a large encoder and its centroids.

FOLDER/
  record.json               settings, and fingerprints of types and windows
  classifier.safetensors    weights; the header holds shape and window as JSON
  types.parquet types.json  the types that it predicts
  README.md report.json     its accuracy
  answers.parquet           its prediction for each test window
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.config import build
from histoloom.discovery.tree import TypeTree
from histoloom.encoders.encoder import Encoder
from histoloom.errors import ConfigError, MissingExtraError, ModelError
from histoloom.files import whole_file
from histoloom.tensor_files import read_tensors, save_tensors

WEIGHTS = "classifier.safetensors"


@dataclass(frozen=True)
class Window:
    """What is classified at once: a square of `edge` px at `mpp` (None: unknown, from patches without mpp)."""

    edge: int
    mpp: float | None = None

    def __post_init__(self):
        if not 8 <= self.edge <= 16384 or (self.mpp is not None and not 0 < self.mpp < math.inf):
            raise ConfigError(f"window of {self.edge} px at {self.mpp} um/px: need 8 to 16384 px and mpp > 0")


@runtime_checkable
class TypePredictor(Protocol):
    """Predicts probabilities of a tree's finest types: windows uint8 `n h w 3` -> `n k`, rows sum to 1."""

    @property
    def tree(self) -> TypeTree:
        """The types."""
        ...

    @property
    def window(self) -> Window:
        """The windows that it takes."""
        ...

    def __call__(self, windows: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n k"]:
        """Probabilities of the finest types."""
        ...


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of the classifier: a vision transformer of timm, with fewer blocks and random weights."""

    model: str = "vit_tiny_patch16_224"
    input: int = 96  # px, edge to which a window is resized
    patch: int = 12  # px, edge of a token
    depth: int = 6  # blocks

    def __post_init__(self):
        if min(self.input, self.patch, self.depth) < 1 or self.input % self.patch or max(self.input, self.depth) > 2048:
            raise ConfigError(
                f"input {self.input} must be a multiple of patch {self.patch}, depth {self.depth} at least 1, both at "
                "most 2048"
            )


class ViT(nn.Module):
    """Pixels uint8 `b 3 h w` of any size -> logits `b k`."""

    def __init__(self, config: ClassifierConfig, num_types: int):
        super().__init__()
        try:
            import timm
        except ImportError:
            raise MissingExtraError("timm", "evaluate") from None
        self.config = config
        shape: dict[str, Any] = {"img_size": config.input, "patch_size": config.patch, "depth": config.depth}
        try:
            self.network = timm.create_model(config.model, pretrained=False, num_classes=num_types, **shape)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"model {config.model!r} is not a vision transformer that timm can build ({error}); try {ViT.known()}"
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
    """The network with its types and windows."""

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
    """The encoder of the types: each window gets the type with the nearest centroid, with probability 1."""

    encoder: Encoder
    tree: TypeTree
    window: Window

    def __post_init__(self):
        check_encoder(self.tree, self.encoder)

    def __call__(self, windows: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n k"]:
        """One for the nearest type, zero for the others."""
        return np.eye(len(self.tree.centroids), dtype=np.float32)[self.tree.assign(self.encoder(windows))]


def check_encoder(tree: TypeTree, encoder: Encoder) -> None:
    """Raise ModelError unless the centroids of the tree are in the space of this encoder."""
    if tree.fingerprint != encoder.fingerprint:
        raise ModelError(
            f"the types come from encoder {tree.encoder} ({tree.fingerprint[:12]}), not from {encoder.name} "
            f"({encoder.fingerprint[:12]}); use that encoder, or discover types with this one"
        )


def save_classifier(classifier: Classifier, folder: Path) -> None:
    """Write types and weights into `folder`, the weights last."""
    about = {"config": asdict(classifier.network.config), "window": asdict(classifier.window)}
    header = {"classifier": json.dumps(about | {"fingerprint": classifier.tree.fingerprint}, sort_keys=True)}
    classifier.tree.save(folder)
    tensors = {k: v.cpu().contiguous() for k, v in classifier.network.state_dict().items()}
    with whole_file(folder / WEIGHTS) as aside:
        save_tensors(tensors, aside, header)


def load_classifier(folder: Path | str, device: str = "cpu") -> Classifier:
    """Load the classifier of a folder in eval mode onto `device`; raises ModelError with the file and the cure."""
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{path}: not found; train a classifier with `histoloom discover classify`")
    tree = TypeTree.load(folder)
    try:
        tensors, header = read_tensors(path)
        about = json.loads(header["classifier"])
        network = ViT(build(ClassifierConfig, about["config"], str(path)), len(tree.centroids))
        network.load_state_dict(tensors)
        window = build(Window, about["window"], str(path))
        fingerprint = about["fingerprint"]
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: is not a classifier of these types ({reason}); train it again") from None
    if fingerprint != tree.fingerprint:
        raise ModelError(
            f"{folder}: its types come from another encoder than those of its classifier; train it again with "
            "`histoloom discover classify`"
        )
    return Classifier(network.eval().to(device), tree, window)
