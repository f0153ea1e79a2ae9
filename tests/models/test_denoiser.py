from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from histoloom.models.blocks import Attention
from histoloom.models.conditions import HIDDEN, Conditions, Context, with_validity
from histoloom.models.denoiser import Denoiser
from histoloom.models.token_lists import TOKENS

SMALL = {
    "latent_channels": 4,
    "channels": (32, 64),
    "blocks": (1, 1),
    "token_channels": 32,
    "vector_channels": 8,
    "condition_channels": 16,
    "crop_edge": 32,
}
KINDS = ("unconditional", "map", "embedding", "crops-in-place", "crops-as-reference")


def make(kind: str = "crops-as-reference", num_types: int = 3, **values) -> Denoiser:
    """A denoiser whose layers that start at zero were stirred."""
    torch.manual_seed(0)
    denoiser = Denoiser(conditioning=kind, num_types=num_types, **SMALL | values)
    for parameter in denoiser.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return denoiser.eval()


def conditions(kind: str = "crops-as-reference", batch: int = 2, seed: int = 0) -> Conditions:
    """Maps of 64 px in two halves, types 0 and 1, and one crop per type and sample."""
    generator = torch.Generator().manual_seed(seed)
    types = torch.zeros(batch, 32, 32, dtype=torch.long)
    types[:, :, 16:] = 1
    found = Conditions(type_map=types)
    shown = torch.rand(2 * batch, 3, 32, 32, generator=generator) * 2 - 1
    crops = torch.cat([shown, torch.ones(2 * batch, 1, 32, 32)], 1)
    if kind == "crops-in-place":
        found.canvas = crops[:batch].repeat(1, 1, 2, 2)
    if kind in ("embedding", "crops-as-reference"):
        found.crops = crops
        found.crop_types, found.crop_samples = torch.arange(2).repeat(batch), torch.arange(batch).repeat_interleave(2)
    if kind == "embedding":
        found.crop_vectors = torch.rand(2 * batch, 8, generator=generator)
    return found


def noise(batch: int = 2, size: int = 8) -> torch.Tensor:
    return torch.randn(batch, 4, size, size, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_all_conditionings_are_one_network_with_one_switch(kind):
    predicted = make(kind)(noise(), torch.tensor([0.2, 0.7]), conditions(kind))
    assert predicted.shape == (2, 4, 8, 8)
    assert predicted.isfinite().all()


def activations(num_types: int) -> list[tuple]:
    """Shapes of everything that a forward pass makes, in order."""
    denoiser, shapes = make(num_types=num_types), []
    for module in denoiser.modules():
        module.register_forward_hook(lambda _, __, out: shapes.append(getattr(out, "shape", None)))
    with torch.no_grad():
        denoiser(noise(), torch.tensor([0.2, 0.7]), conditions())
    return shapes


def test_a_hundred_types_cost_no_more_memory_than_seven():
    assert activations(7) == activations(100)
    few, many = (dict(make(num_types=n).named_parameters()) for n in (7, 100))
    grown = {name for name in few if few[name].shape != many[name].shape}
    assert grown == {"type_embedding.weight", "token_type.weight"}
    assert many["type_embedding.weight"].shape == (102, 8)  # and two more: unlabelled, no map


@torch.no_grad()
def test_conditions_may_be_read_once_for_all_steps():
    denoiser = make()
    context = denoiser.read(conditions())
    for time in (torch.tensor([0.1, 0.9]), torch.tensor([0.5, 0.5])):
        torch.testing.assert_close(denoiser(noise(), time, context), denoiser(noise(), time, conditions()))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_contexts_of_single_samples_join_to_that_of_the_batch(kind):
    denoiser, time = make(kind), torch.tensor([0.3, 0.6, 0.9])
    many = conditions(kind, batch=3)
    if many.crops is not None:  # the second sample has one crop, the third none
        kept = torch.tensor([0, 1, 2])
        many.crops, many.crop_types, many.crop_samples = (
            many.crops[kept],
            many.crop_types[kept],
            many.crop_samples[kept],
        )
        many.crop_vectors = None if many.crop_vectors is None else many.crop_vectors[kept]
    single = []
    for i in range(3):
        mine = None if many.crop_samples is None else many.crop_samples == i
        part = Conditions(many.type_map[i : i + 1], None if many.canvas is None else many.canvas[i : i + 1])
        if mine is not None and mine.any():
            part.crops, part.crop_types, part.crop_samples = (
                many.crops[mine],
                many.crop_types[mine],
                torch.zeros_like(many.crop_samples[mine]),
            )
            part.crop_vectors = None if many.crop_vectors is None else many.crop_vectors[mine]
        single.append(denoiser.read(part))
    expected = denoiser(noise(3), time, many)
    torch.testing.assert_close(denoiser(noise(3), time, Context.batch(single)), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_crop_changes_its_own_half_alone_in_what_is_read():
    denoiser, one, other = make(), conditions(batch=1), conditions(batch=1)
    other.crops = other.crops.clone()
    other.crops[1, :3] *= -1  # the crop of type 1, on the right
    before, after = denoiser.read(one), denoiser.read(other)
    changed = (before.blocks[0].modulation != after.blocks[0].modulation).any(1)[0]
    assert not changed[:, :4].any()
    assert changed[:, 4:].all()


@torch.no_grad()
def test_the_order_of_crops_means_nothing():
    denoiser, given = make(), conditions()
    order = torch.tensor([3, 0, 2, 1])
    turned = Conditions(
        given.type_map,
        crops=given.crops[order],
        crop_types=given.crop_types[order],
        crop_samples=given.crop_samples[order],
    )
    time = torch.tensor([0.4, 0.4])
    torch.testing.assert_close(denoiser(noise(), time, turned), denoiser(noise(), time, given), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_no_crop_is_not_a_grey_crop():
    denoiser, gray = make(), conditions(batch=1)
    gray.crops = gray.crops.clone()
    gray.crops[:, :3] = 0
    time = torch.tensor([0.4])
    without = denoiser(noise(1), time, Conditions(type_map=gray.type_map))
    assert (denoiser(noise(1), time, gray) - without).abs().max() > 1e-2


@torch.no_grad()
def test_of_a_crop_without_texture_only_the_colours_are_read():
    denoiser, given = make(), conditions()
    bare = replace(given, crop_textured=torch.tensor([True, False, True, True]))
    shuffled = replace(bare, crops=given.crops.clone())
    shuffled.crops[1] = given.crops[1].flatten(1)[:, torch.randperm(given.crops[1, 0].numel())].view_as(given.crops[1])
    before, after, again = map(denoiser.read, (given, bare, shuffled))
    assert (before.bias[0] > HIDDEN).any(2).sum(-1).tolist() == [[9], [9]]
    assert (after.bias[0] > HIDDEN).any(2).sum(-1).tolist() == [[5], [9]]
    for read in (after, again):
        torch.testing.assert_close(read.blocks[0].modulation, before.blocks[0].modulation)
    time = torch.tensor([0.4, 0.4])
    torch.testing.assert_close(denoiser(noise(), time, again), denoiser(noise(), time, after))


@torch.no_grad()
def test_crops_without_a_map_speak_for_every_place():
    denoiser, given = make(), conditions(batch=1)
    given.type_map = torch.full_like(given.type_map, 4)
    context = denoiser.read(given)
    assert (context.bias[0][0, 0, :, 1:9] > -1).all()  # two crops of four tokens


@torch.no_grad()
def test_tokens_that_show_nothing_are_left_out_and_the_rest_fill_whole_vectors():
    denoiser, whole = make(), conditions()
    part = conditions()
    part.crops = part.crops.clone()
    part.crops[[0, 3], :, :, 16:] = 0  # half of a crop of each sample
    for given, shown in ((whole, 8), (part, 6)):
        context = denoiser.read(given)
        read = context.bias[0][:, 0].amax(1) > HIDDEN  # by any place
        assert read.sum(1).tolist() == [1 + shown] * 2
        assert context.blocks[1].keys_values.shape[1] == read.shape[1] == TOKENS
        assert (context.blocks[1].keys_values[~read] == 0).all()


@torch.no_grad()
def test_tokens_that_fill_up_are_not_seen():
    denoiser, time = make(), torch.tensor([0.3, 0.6])
    context = denoiser.read(conditions())
    blocks = [
        replace(b, keys_values=F.pad(b.keys_values, (0, 0, 0, TOKENS), value=9.0)) if b.keys_values is not None else b
        for b in context.blocks
    ]
    longer = replace(context, blocks=blocks, bias=[F.pad(b, (0, TOKENS), value=HIDDEN) for b in context.bias])
    torch.testing.assert_close(denoiser(noise(), time, longer), denoiser(noise(), time, context))


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_same_spelled_out_for_training_and_fused(masked):
    torch.manual_seed(0)
    attention, x, tokens = Attention(64, 32 if masked else 64), torch.randn(2, 64, 4, 4), torch.randn(2, 5, 32)
    torch.nn.init.normal_(attention.out.weight)
    bias = torch.where(torch.rand(2, 1, 16, 5) < 0.5, HIDDEN, 0.0) if masked else None
    given = (x, attention.key_value(tokens), bias) if masked else (x,)
    with torch.no_grad():
        fused = attention(*given)
    spelled_out = attention(*given)
    assert spelled_out.requires_grad
    torch.testing.assert_close(spelled_out, fused, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_flow_predictions_are_the_best_linear_guess_while_the_network_is_silent():
    torch.manual_seed(0)
    denoiser = Denoiser(conditioning="unconditional", **SMALL).eval()  # its last layer is zero
    clean, error = noise(1000, 4), torch.randn(1000, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    for time in (0.1, 0.5, 0.8):
        noisy, velocity = (1 - time) * clean + time * error, error - clean
        predicted = denoiser(noisy, torch.full((1000,), time), Conditions())
        slope = (noisy * velocity).mean() / noisy.square().mean()
        torch.testing.assert_close(predicted, slope * noisy, atol=0.08, rtol=0.05)


@torch.no_grad()
def test_patches_of_any_multiple_are_read():
    denoiser = make("map")
    types = torch.zeros(1, 32, 48, dtype=torch.long)
    assert denoiser.multiple == 16
    assert denoiser(torch.zeros(1, 4, 8, 12), torch.tensor([0.5]), Conditions(type_map=types)).shape == (1, 4, 8, 12)


def test_pixels_that_are_not_valid_are_zero_in_every_channel():
    pixels = torch.full((1, 4, 4, 3), 200, dtype=torch.uint8)
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[0, :2] = True
    shown = with_validity(pixels, valid)
    assert shown.shape == (1, 4, 4, 4)
    assert (shown[0, :, 2:] == 0).all()
    torch.testing.assert_close(shown[0, :, 0, 0], torch.tensor([200 / 127.5 - 1] * 3 + [1.0]))


def test_it_learns_from_every_condition_it_reads():
    denoiser = make().train()
    given = conditions()
    denoiser(noise(), torch.tensor([0.2, 0.7]), given).square().mean().backward()
    silent = {name for name, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == set()
