"""Weights of tissue types in a loss, so that a rare type is not lost in a common one, and the loss."""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from histoloom.tissue import UNLABELLED


def type_weights(maps: UInt8[np.ndarray, "..."], num_types: int, balance: float) -> Float[np.ndarray, " k"]:
    """Weight of each type: its share of the pixels to the power of -`balance`, 1 in the mean over the pixels.

    A `balance` of 0 weighs all pixels equally, 1 all types.
    """
    counts = np.bincount(maps.ravel(), minlength=256)[:num_types]
    weights = np.where(counts > 0, np.maximum(counts, 1) / counts.sum(), 1.0) ** -balance
    return (weights / (weights * counts).sum() * counts.sum()).astype(np.float32)


def labeled_loss(
    logits: Float[Tensor, "b k h w"], truth: Int[Tensor, "b h w"], weights: Float[Tensor, " k"]
) -> Float[Tensor, ""]:
    """Weighted mean cross-entropy of the labeled pixels; 0 where there is none."""
    loss = F.cross_entropy(logits, truth, weights, ignore_index=UNLABELLED)
    # The mean of none is 0 / 0, without a gradient. `where` decides that on the device, without waiting for it.
    return torch.where((truth != UNLABELLED).any(), loss, 0 * logits.sum())
