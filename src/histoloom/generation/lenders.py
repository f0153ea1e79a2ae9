"""Who lends crops to the patches of an order: a bank, or the other patches of each map's own case.

File names of crops may name patients. Unless they are asked for, a crop is called by an id that follows from pixels.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from histoloom.conditioning.crops import CropConfig, ReferenceCrops
from histoloom.conditioning.inputs import Crop, content_id
from histoloom.errors import ConfigError
from histoloom.generation.bank import CropBank, load_bank
from histoloom.generation.map_sources import DatasetMaps, MapSource, is_dataset
from histoloom.generation.settings import Source
from histoloom.patches.store import load_patches
from histoloom.tissue import UNLABELLED, TissueTable

Names = dict[str, list[str]]  # by id


@runtime_checkable
class Lender(Protocol):
    """Crops by the number of a patch; which they are follows from the random generator."""

    def draw(self, number: int, semantic_map: UInt8[np.ndarray, "h w"], rng: np.random.Generator) -> list[Crop]:
        """Crops for the types on the map of patch `number`."""
        ...

    def tissues(self) -> set[int]:
        """The types of all crops."""
        ...

    def fingerprint(self) -> str:
        """A hash of all that the crops follow from."""
        ...

    def names(self) -> Names | None:
        """File names by the ids that stand for them; None where names identify nobody."""
        ...


class BankLender:
    """A crop bank. `own_bank` says that the model itself wove the crops, so that their names identify nobody."""

    def __init__(self, bank: CropBank, record_names: bool, own_bank: bool):
        self._named, self._own_bank = bank, own_bank
        self._bank = bank if record_names or own_bank else _with_ids(bank)

    def draw(self, number: int, semantic_map: UInt8[np.ndarray, "h w"], rng: np.random.Generator) -> list[Crop]:
        """Crops of one of the sets that cover most of the map."""
        return self._bank.draw(semantic_map, rng) if self._bank.sets else []

    def tissues(self) -> set[int]:
        """The types of all crops."""
        return {crop.tissue for crops in self._bank.sets.values() for crop in crops}

    def fingerprint(self) -> str:
        """A hash of sets, types and pixels."""
        crops = [(name, crop) for name, mine in self._named.sets.items() for crop in mine]
        return hash_of([(name, crop.tissue, content_id(crop.pixels)) for name, crop in crops])

    def names(self) -> Names | None:
        """The files of the crops; None for a bank that the model wove."""
        crops = [crop for mine in self._named.sets.values() for crop in mine]
        return None if self._own_bank else names_of((content_id(crop.pixels), crop.source) for crop in crops)


class CaseLender:
    """The patches of a dataset that lends its maps, too: a map gets crops of other patches of its case, as in training.

    A type that no other patch of the case shows gets no crop. All patches are held in memory.
    """

    def __init__(self, dataset: Path, split: str, maps: MapSource, record_names: bool):
        """Raises ConfigError where the maps are not those of the split."""
        if not isinstance(maps, DatasetMaps) or not maps.is_of(dataset, split):
            raise ConfigError(
                f"{dataset}: is a patch dataset, whose patches lend crops to its own maps only; give it as --maps, "
                "too, or cut a bank with `histoloom bank --from`"
            )
        patches = load_patches(dataset, split)
        ids = [content_id(image) for image in patches.images]
        self._names = names_of(zip(ids, patches.names, strict=True))
        shown = np.stack([maps.named(number)[1] for number in range(len(maps))])  # in the ids of the model
        # Sources stay: by them and by places, patches of one slide are known to overlap.
        patches, names = replace(patches, semantic_maps=shown), patches.names if record_names else ids
        self._crops = ReferenceCrops(patches, CropConfig(drop_type=0.0, candidates=1), names=names)

    def draw(self, number: int, semantic_map: UInt8[np.ndarray, "h w"], rng: np.random.Generator) -> list[Crop]:
        """Crops of other patches of the case of map `number`."""
        return self._crops.draw(number, np.zeros(semantic_map.shape, bool), semantic_map, None, rng)

    def tissues(self) -> set[int]:
        """The types of all crops."""
        return set(np.unique(self._crops.patches.semantic_maps).tolist()) - {UNLABELLED}

    def fingerprint(self) -> str:
        """A hash of pixels and cases."""
        patches = self._crops.patches
        return hash_of([(content_id(one), case) for one, case in zip(patches.images, patches.cases, strict=True)])

    def names(self) -> Names | None:
        """The patches."""
        return self._names


def open_lender(source: Source, maps: MapSource, table: TissueTable, own_bank: bool) -> Lender:
    """Who lends the crops of a source; raises ConfigError for stains that the bank lacks, and what reading raises."""
    if source.crops is None:
        return BankLender(CropBank({}), source.record_names, own_bank)
    if is_dataset(source.crops):
        return CaseLender(source.crops, source.split, maps, source.record_names)
    bank = load_bank(source.crops, table)
    for name in source.stains:
        if name not in bank.sets:
            known = ", ".join(list(bank.sets)[:12]) or "none"
            raise ConfigError(f"stain {name!r} is not a set of crops in {source.crops}; known: {known}")
    chosen = CropBank({name: bank.sets[name] for name in source.stains}) if source.stains else bank
    return BankLender(chosen, source.record_names, own_bank)


def hash_of(values: list) -> str:
    """A hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def names_of(files: Iterable[tuple[str, str]]) -> Names:
    """File names by id; files of the same pixels share one."""
    names: Names = {}
    for identity, name in files:
        names.setdefault(identity, []).append(name)
    return names


def _with_ids(bank: CropBank) -> CropBank:
    """The bank with ids in place of file names."""
    return CropBank({name: [replace(c, source=content_id(c.pixels)) for c in mine] for name, mine in bank.sets.items()})
