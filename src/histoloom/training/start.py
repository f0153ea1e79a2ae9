"""Start a denoiser from a trained one, whose tissue types may differ.

Only two tables of weights depend on the types: the embedding of the map and the embedding of the type of a crop. Their
rows follow the names of the types. A type that the trained model lacks starts from the mean of its types.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from histoloom.errors import ModelError
from histoloom.models.denoiser import Denoiser
from histoloom.text import canonical
from histoloom.tissue import TissueTable

_BY_TYPE = ("type_embedding.weight", "token_type.weight")


@dataclass(frozen=True)
class TypeMatch:
    """Which types of a trained model are those of a dataset."""

    sources: tuple[int | None, ...]  # per id of the dataset: the id of that type in the model; None: it has none
    known: tuple[int, ...]  # ids of the types in the model

    @property
    def is_identity(self) -> bool:
        """Whether each id means the same in both, so that all weights stay where they are."""
        return self.sources == tuple(range(len(self.sources))) and self.known == self.sources


def match_types(table: TissueTable, trained: TissueTable) -> TypeMatch:
    """Match the types of a dataset to those of a trained model by name, in any case and spelling; aliases do not
    count."""
    ids = {canonical(tissue.name): tissue.id for tissue in trained.types}
    sources: list[int | None] = [None] * table.num_ids
    for tissue in table.types:
        sources[tissue.id] = ids.get(canonical(tissue.name))
    return TypeMatch(tuple(sources), tuple(trained.ids))


def describe_match(table: TissueTable, trained: TissueTable) -> str:
    """The match in one line: the types of both, new types, and dropped types."""
    match = match_types(table, trained)
    kept = [t.name for t in table.types if match.sources[t.id] is not None]
    new = [t.name for t in table.types if match.sources[t.id] is None]
    dropped = [t.name for t in trained.types if t.id not in match.sources]
    parts = {"matched by name": kept, "new, from the mean of its types": new, "dropped": dropped}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def start_from(denoiser: Denoiser, initial: Denoiser, match: TypeMatch | None = None) -> None:
    """Copy the weights of `initial` into `denoiser`, but not the statistics of its latents: autoencoder or patches may
    differ.

    Without a `match`, types keep their ids. Raises ModelError for an `initial` of another architecture.
    """
    weights = initial.state_dict()
    if match is not None and not match.is_identity:
        weights |= {name: _rows(weights[name], match, initial.num_types) for name in _BY_TYPE if name in weights}
    try:
        denoiser.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"the initial denoiser has another architecture ({reason}); train from the start") from None


def _rows(weight: Tensor, match: TypeMatch, num_types: int) -> Tensor:
    """The rows of the types of the dataset, then those that stand for no type: unlabeled, and no map."""
    mean = weight[list(match.known)].mean(0)
    rows = [mean if source is None else weight[source] for source in match.sources]
    return torch.stack([*rows, *weight[num_types:]])
