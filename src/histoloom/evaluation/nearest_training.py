"""How near is what was woven to the nearest patch that the model was trained on?

The answer needs the features of the training patches and no pixel of them, so a model may carry them in its folder.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from histoloom.encoders.encoder import Encoder, open_encoder
from histoloom.encoders.small import SMALL
from histoloom.errors import InputError, ModelError
from histoloom.files import whole_file
from histoloom.metrics.neighbors import nearest
from histoloom.patches.store import load_patches
from histoloom.progress import SILENT, Bar, Progress, silent
from histoloom.tensor_files import read_tensors, save_tensors

TRAINING = "training.safetensors"
FORMAT = 1
BATCH = 32


@dataclass(frozen=True, eq=False)
class TrainingPatches:
    """What is kept of the training patches: `features` of the bundled encoder, their edge in px (the shorter one), and
    `usual`, the median distance of a patch to the nearest of another case."""

    encoder: Encoder
    features: Float[np.ndarray, "n d"]
    edge: int
    usual: float

    @classmethod
    def of_dataset(cls, dataset: Path | str, split: str = "train", progress: Progress = silent) -> "TrainingPatches":
        """Those of one split of a patch dataset; raises InputError for patches of a single case."""
        patches = load_patches(dataset, split)
        with progress("reading the training patches", len(patches), "patches") as bar:
            return cls.of_images(patches.images, patches.cases, bar)

    @classmethod
    def of_images(
        cls, images: UInt8[np.ndarray, "n h w 3"], cases: Sequence[str], bar: Bar = SILENT
    ) -> "TrainingPatches":
        """Those of images and their cases; `bar` counts images. Raises InputError for a single case."""
        if len(set(cases)) < 2:
            raise InputError("the training patches are of one case; the usual distance needs patches of two or more")
        encoder, features = open_encoder(SMALL), []
        for start in range(0, len(images), BATCH):
            features.append(encoder(images[start : start + BATCH]))
            bar.advance(len(features[-1]))
        # As they are kept in a file, so that both ways to come by them give the same distances.
        found, names = np.concatenate(features).astype(np.float16).astype(np.float32), np.asarray(cases)
        away = [nearest(found[names == case], found[names != case])[0] for case in sorted(set(cases))]
        return cls(encoder, found, min(images.shape[1:3]), float(np.median(np.concatenate(away))))

    def distance(self, image: UInt8[np.ndarray, "h w 3"]) -> float:
        """The distance between the image and the nearest training patch; a larger image is read part by part, since a
        part may be a copy where the whole is none."""
        parts = np.stack(
            [
                image[top : top + min(self.edge, image.shape[0]), left : left + min(self.edge, image.shape[1])]
                for top in _starts(image.shape[0], self.edge)
                for left in _starts(image.shape[1], self.edge)
            ]
        )
        features = [self.encoder(parts[start : start + BATCH]) for start in range(0, len(parts), BATCH)]
        return float(nearest(np.concatenate(features), self.features)[0].min())

    def save(self, folder: Path | str) -> Path:
        """Write `training.safetensors` into `folder` and return its path; raises OutputError."""
        path = Path(folder) / TRAINING
        about = {"format": FORMAT, "encoder": self.encoder.fingerprint, "edge": self.edge, "usual": self.usual}
        with whole_file(path) as aside:
            features = torch.from_numpy(self.features).half()
            save_tensors({"features": features}, aside, {"training": json.dumps(about, sort_keys=True)})
        return path

    @classmethod
    def load(cls, folder: Path | str) -> "TrainingPatches":
        """Read what `save` wrote; raises ModelError with file and cure."""
        path, encoder = Path(folder) / TRAINING, open_encoder(SMALL)
        try:
            tensors, header = read_tensors(path)
            about, features = json.loads(header["training"]), tensors["features"].float().numpy()
            if about["format"] != FORMAT or about["encoder"] != encoder.fingerprint or features.ndim != 2:
                raise ValueError("another version made it")
            return cls(encoder, features, int(about["edge"]), float(about["usual"]))
        except (OSError, LookupError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{path}: cannot be read ({reason}); name the training patches by --training") from None


def _starts(length: int, edge: int) -> list[int]:
    """Where parts of `edge` px begin that cover `length` px and lie evenly."""
    return np.linspace(0, max(0, length - edge), -(-max(length, edge) // edge)).astype(int).tolist()
