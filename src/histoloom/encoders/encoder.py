"""Open an encoder by name: the bundled one, any timm model, or any pathology model of lazyslide-models."""

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from histoloom.encoders.remote_code import check_remote_code, no_remote_code
from histoloom.encoders.small import ENCODER, SMALL, SmallEncoder, load_small_encoder, weights_path
from histoloom.errors import ConfigError, MissingExtraError, ModelError
from histoloom.precision import best_device

TIMM = "timm:"

# The encoders of HTD's tables (arXiv 2509.17847), then ours. Any other name of lazyslide-models works, too.
KNOWN = (
    # name                                    dimensions  what it is
    ("lunit-bt",                                    2048, "RN50-BT: ResNet-50, Barlow Twins on TCGA and TULIP (Lunit)"),
    ("timm:vit_large_patch14_dinov2.lvd142m",       1024, "DINOv2 ViT-L/14, natural images (Meta)"),
    ("uni",                                         1024, "UNI ViT-L/16 (Mahmood Lab, gated)"),
    ("uni2",                                        1536, "UNI2-h ViT-H/14 (Mahmood Lab, gated)"),
    ("virchow2",                                    2560, "Virchow2 ViT-H/14 (Paige, gated)"),
    ("gigapath",                                    1536, "Prov-GigaPath ViT-g/14 (Microsoft, gated)"),
    ("h-optimus-1",                                 1536, "H-optimus-1 ViT-g/14 (Bioptimus, gated)"),
    ("phikonv2",                                    1024, "Phikon-v2 ViT-L/16 (Owkin)"),
    (SMALL,                                          120, "bundled; its figures compare with no published ones"),
)  # fmt: skip


@dataclass(frozen=True)
class Encoder:
    """A frozen network with its own preprocessing. `fingerprint` identifies weights and preprocessing."""

    name: str
    fingerprint: str
    forward: Callable[[Tensor], Tensor]  # uint8 `b 3 h w` -> features `b d`
    device: str = "cpu"
    small: bool = False  # ours: its figures compare only with each other

    @torch.inference_mode()
    def __call__(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        """Features in single precision, of one batch."""
        pixels = torch.from_numpy(np.array(images)).to(self.device).movedim(-1, 1)
        return self.forward(pixels).float().cpu().numpy()


def open_encoder(name: str, device: str | None = None, allow_remote_code: bool = False) -> Encoder:
    """Open the encoder `name`: `histoloom-small`, a folder of `histoloom train-encoder`, `timm:NAME`, or a name of
    lazyslide-models; on a GPU if there is one, unless `device` says otherwise.

    The library that knows the name downloads the weights. Raises ModelError where they are not available, with the way
    to get access; ConfigError for an unknown name, or for one that runs code from the internet without
    `allow_remote_code`.
    """
    device = device or best_device()
    if weights_path(name) is not None:
        return as_encoder(short_name(name), load_small_encoder(name), device)
    with no_remote_code(name, allow_remote_code):
        if name.startswith(TIMM):
            return _open_timm(name, device)
        return _open_lazyslide(name, device, allow_remote_code)


def short_name(name: str) -> str:
    """The name of an encoder for records and reports; of a folder its last part, so that no path of a machine leaks."""
    if name == SMALL or weights_path(name) is None:
        return name
    return Path(name).absolute().name


def distinct_names(names: Sequence[str]) -> list[str]:
    """Names of encoders for records and reports: the last part of a folder, or as many parts as tell two folders apart.

    Raises ConfigError for an encoder that is named twice.
    """
    folders = [Path(name).resolve() if name != SMALL and weights_path(name) else Path(name) for name in names]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise ConfigError(f"encoder {names[number]}: is named twice; name each once")
    found = [short_name(name) for name in names]
    parts = 1
    while len(set(found)) < len(found):
        parts += 1
        shared = {name for name in found if found.count(name) > 1}
        found = ["/".join(f.parts[-parts:]) if n in shared else n for n, f in zip(found, folders, strict=True)]
    return found


def open_encoders(names: Sequence[str], allow_remote_code: bool = False) -> list[Encoder]:
    """The encoders `names`, each under a name of its own (`distinct_names`); raises what `open_encoder` raises."""
    return [
        replace(open_encoder(name, allow_remote_code=allow_remote_code), name=distinct)
        for name, distinct in zip(names, distinct_names(names), strict=True)
    ]


def as_encoder(name: str, network: SmallEncoder, device: str = "cpu") -> Encoder:
    """Wrap a small encoder in memory, in eval mode, like one that is opened by name."""
    network = network.to(device)

    def forward(images: Tensor) -> Tensor:
        return network(images.float() / 127.5 - 1)

    return Encoder(name, fingerprint(network, "small"), forward, device, small=True)


def _open_timm(name: str, device: str) -> Encoder:
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError:
        raise MissingExtraError("timm", "evaluate") from None
    try:
        network = timm.create_model(name.removeprefix(TIMM), pretrained=True, num_classes=0).eval().to(device)
    except ConfigError:
        raise
    except Exception as error:
        raise _unavailable(name, error) from None
    cfg = resolve_model_data_config(network)
    size, mode = cfg["input_size"][1:], cfg["interpolation"]
    mode = mode if mode in ("bilinear", "bicubic") else "bicubic"
    mean, std = (torch.tensor(cfg[key], device=device)[:, None, None] for key in ("mean", "std"))

    def forward(images: Tensor) -> Tensor:
        # The whole patch at the size of the network: a center crop would hide its border.
        pixels = images.float() / 255
        if pixels.shape[2:] != size:
            pixels = F.interpolate(pixels, size, mode=mode, antialias=True)
        return network((pixels - mean) / std)

    return Encoder(name, fingerprint(network, f"{size} {mode} {cfg['mean']} {cfg['std']}"), forward, device)


def _open_lazyslide(name: str, device: str, allow_remote_code: bool) -> Encoder:
    try:
        from lazyslide_models import MODEL_REGISTRY  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError:
        raise ConfigError(
            f"encoder {name}: is not {SMALL}, a folder with {ENCODER}, or {TIMM}NAME; for the pathology models of "
            "lazyslide-models run: pip install 'histoloom[foundation]'"
        ) from None
    if name not in MODEL_REGISTRY:
        near = difflib.get_close_matches(name, [*MODEL_REGISTRY, *(known for known, _, _ in KNOWN)], 3, 0.4)
        known = ", ".join(near or [k for k, _, _ in KNOWN])
        raise ConfigError(f"encoder {name}: unknown; did you mean: {known}")
    check_remote_code(name, MODEL_REGISTRY[name], allow_remote_code)
    try:
        model: Any = MODEL_REGISTRY[name]()
    except ConfigError:
        raise
    except Exception as error:
        raise _unavailable(name, error, getattr(MODEL_REGISTRY[name], "hf_url", None)) from None
    if not hasattr(model, "encode_image"):
        raise ConfigError(f"encoder {name}: does not encode single images; choose another one")
    if isinstance(model.model, nn.Module):
        model.model.eval().to(device)
    prepare = model.get_transform()

    def forward(images: Tensor) -> Tensor:
        # Without a transform (phikonv2, plip) `encode_image` prepares images itself, and lazyslide passes it `b h w 3`.
        pixels = images.movedim(1, -1) if prepare is None else prepare(images)
        return torch.as_tensor(model.encode_image(pixels))

    # With its name: where a network is not a torch module, nothing else tells two models apart.
    return Encoder(name, fingerprint(model.model, f"{name} {prepare!r}"), forward, device)


def _unavailable(name: str, error: Exception, page: str | None = None) -> ModelError:
    """One line for whatever a library raised while it looked for weights: there are many reasons and few cures."""
    reason = " ".join(str(error).split())[:200]
    if "Unknown model" in reason or "pretrained tag" in reason:
        return ModelError(f"encoder {name}: {reason}; `timm.list_models(pretrained=True)` lists the names")
    where = page or "its page on huggingface.co"
    return ModelError(
        f"encoder {name}: its weights are not available ({type(error).__name__}: {reason}); if they are gated, ask for "
        f"access on {where} and run `hf auth login`; without a network, use {SMALL}"
    )


def fingerprint(network: object, preparation: str) -> str:
    """SHA-256 of the names and weights of a network, and of its preprocessing."""
    digest = hashlib.sha256(preparation.encode())
    for key, value in network.state_dict().items() if isinstance(network, nn.Module) else ():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
