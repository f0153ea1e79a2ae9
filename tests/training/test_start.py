"""A denoiser starts from one with other tissue types."""

import pytest
import torch

from histoloom.errors import ModelError
from histoloom.models.denoiser import Denoiser
from histoloom.tissue import TissueTable, TissueType
from histoloom.training.start import describe_match, match_types, start_from


def table(*names: str, first: int = 0) -> TissueTable:
    return TissueTable(tuple(TissueType(first + i, name, "#000000") for i, name in enumerate(names)))


def denoiser(num_types: int, seed: int, channels: int = 64) -> Denoiser:
    torch.manual_seed(seed)
    return Denoiser(num_types=num_types, latent_channels=4, channels=(32, channels), blocks=(1, 1), token_channels=64)


TRAINED, NEW = table("Stroma", "gland", "polyp"), table("tumor", "STROMA")
BY_TYPE = {"type_embedding.weight", "token_type.weight"}


def test_types_of_one_name_keep_their_rows_and_new_types_start_from_the_mean():
    old, new = denoiser(3, seed=0), denoiser(2, seed=1)
    start_from(new, old, match_types(NEW, TRAINED))
    for name in BY_TYPE:
        before, after = old.state_dict()[name], new.state_dict()[name]
        assert torch.equal(after[1], before[0]), name
        assert torch.allclose(after[0], (before[0] + before[1] + before[2]) / 3, atol=1e-7), name
    # unlabeled, and no map
    assert torch.equal(new.type_embedding.weight[2:], old.type_embedding.weight[3:])


def test_all_other_weights_are_those_of_the_trained_model():
    old, new = denoiser(3, seed=0), denoiser(2, seed=1)
    start_from(new, old, match_types(NEW, TRAINED))
    mine, theirs = new.state_dict(), old.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine.keys() - BY_TYPE)


def test_ids_without_a_type_are_left_out_of_the_mean():
    old, new = denoiser(4, seed=0), denoiser(1, seed=1)
    start_from(new, old, match_types(table("tumor"), table("stroma", "gland", first=2)))
    before = old.token_type.weight
    assert torch.allclose(new.token_type.weight[0], (before[2] + before[3]) / 2, atol=1e-7)


def test_the_same_types_in_another_order_follow_their_names():
    old, new = denoiser(2, seed=0), denoiser(2, seed=1)
    match = match_types(table("gland", "stroma"), table("stroma", "gland"))
    start_from(new, old, match)
    assert match.sources == (1, 0)
    assert torch.equal(new.token_type.weight, old.token_type.weight[[1, 0]])


def test_the_same_types_change_nothing():
    old, new = denoiser(2, seed=0), denoiser(2, seed=1)
    match = match_types(table("stroma", "gland"), table("stroma", "gland"))
    assert match.is_identity
    start_from(new, old, match)
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


def test_another_architecture_is_refused():
    with pytest.raises(ModelError, match="another architecture"):
        start_from(denoiser(2, seed=1, channels=96), denoiser(3, seed=0), match_types(NEW, TRAINED))


def test_the_match_is_one_line():
    said = "matched by name: STROMA; new, from the mean of its types: tumor; dropped: gland, polyp"
    assert describe_match(NEW, TRAINED) == said
