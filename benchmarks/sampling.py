"""Seconds per woven patch: HTD's way, a plain loop, and our default, in one run.

    python benchmarks/sampling.py MODEL [MODEL:STEPS ...] [--patches 8] [--htd-steps 200] [--seed 0]
    python benchmarks/sampling.py MODEL --guidance 1 8

(a) HTD's prototype (method.md; arXiv 2509.17847's public code) rebuilt from diffusers parts with random weights, since
a network's speed does not depend on what it has learned: VQ-f4 autoencoder, 64 x 64 x 3 latents, the 215 M U-Net of
latent diffusion's semantic synthesis, condition concatenated, 200 DDIM steps at eta 1, fp32, one patch of 256 px.
(b) the network of the first model in a plain loop: fp32, 50 Euler steps, one patch of 224 px at a time, conditions
encoded and the three predictions of the guidance made one after the other at every step.
(c) `HistoloomPipeline` as it comes, in batches, of each model in as many steps as are named, or in its usual number.
Layouts are drawn, crops come from the model's own bank.

With `--guidance`, instead: (c) in batches of these sizes, the three predictions of a step made in one call or one after
the other, in turns; seconds of the processor, ratios are medians over the rounds.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel, VQModel

from histoloom import HistoloomPipeline, LayoutConfig, draw_layouts, find_model, load_bank
from histoloom.models import guided
from histoloom.models.autoencoder import decode
from histoloom.models.guided import denormalized
from histoloom.models.schedulers import PAPER_SCHEDULE

MAP_GUIDANCE, CROP_GUIDANCE = 1.5, 3.0  # the defaults


@torch.no_grad()
def htd_patch(steps: int, seed: int) -> Callable[[], None]:
    """One patch of 256 px by the prototype's network and sampler."""
    torch.manual_seed(seed)
    autoencoder = VQModel(
        latent_channels=3,
        num_vq_embeddings=8192,
        block_out_channels=(128, 256, 512),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=2,
    ).eval()
    unet = UNet2DModel(
        sample_size=64,
        in_channels=6,
        out_channels=3,
        block_out_channels=(128, 512, 1024),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        layers_per_block=2,
        attention_head_dim=128,
    ).eval()
    print(f"  its U-Net: {sum(p.numel() for p in unet.parameters()) / 1e6:.0f} M parameters")
    scheduler = DDIMScheduler(**PAPER_SCHEDULE, clip_sample=False)

    @torch.no_grad()
    def run() -> None:
        generator = torch.Generator().manual_seed(seed)
        latents, condition = (torch.randn(1, 3, 64, 64, generator=generator) for _ in range(2))
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            noise = unet(torch.cat([latents, condition], 1), t).sample
            latents = scheduler.step(noise, t, latents, eta=1.0, generator=generator, return_dict=False)[0]
        autoencoder.decode(latents)

    return run


def plain_loop(pipeline: HistoloomPipeline, maps: np.ndarray, crops: list, seed: int) -> Callable[[], None]:
    """Our network, without what the pipeline does to be fast."""
    denoiser, autoencoder = pipeline.denoiser.float(), pipeline.autoencoder.float()

    @torch.no_grad()
    def run() -> None:
        for index, semantic_map in enumerate(maps):
            scheduler = FlowMatchEulerDiscreteScheduler()
            scheduler.set_timesteps(50)
            margins = denoiser.margins(semantic_map.shape)
            whole = tuple(edge + sum(margin) for edge, margin in zip(semantic_map.shape, margins, strict=True))
            latents = pipeline._noise([np.random.default_rng(seed + index)], whole)
            for t in scheduler.timesteps:
                time_ = torch.as_tensor(t / 1000).expand(1)
                both, only_map, nothing = (
                    denoiser(latents, time_, pipeline._conditions(semantic_map, mine, with_map, seed))
                    for with_map, mine in ((True, crops[index]), (True, []), (False, []))
                )
                velocity = nothing + MAP_GUIDANCE * (only_map - nothing) + CROP_GUIDANCE * (both - only_map)
                latents = scheduler.step(velocity, t, latents, return_dict=False)[0]
            decode(autoencoder, denormalized(denoiser, latents))

    return run


def compare_guidance(pipeline: HistoloomPipeline, maps: np.ndarray, crops: list, seed: int, rounds: int) -> None:
    """Print what a patch costs with all contexts in one call, against one after the other."""
    ways, times, woven = {"one call": np.inf, "one after the other": 0}, {}, {}
    for turn in range(rounds + 1):  # the first warms up
        for way in list(ways)[:: 1 if turn % 2 else -1]:
            guided.TOGETHER = ways[way]
            start = time.process_time()
            woven[way] = pipeline(
                list(maps), crops, steps=12, guidance_interval=(0.0, 1.0), seed=seed, batch_size=len(maps)
            ).astype(int)
            times.setdefault(way, []).append((time.process_time() - start) / len(maps))
    one, other = (times[way][1:] for way in ways)
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    print(
        f"batch {len(maps)}: {statistics.median(one):.3f} s a patch in one call, {statistics.median(other):.3f} apart"
    )
    print(f"  ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"  pixels differ by {np.abs(np.subtract(*woven.values())).max()} at most", flush=True)


def seconds(run: Callable[[], None], repeats: int) -> float:
    """Best of `repeats`, after a warm-up where there is more than one."""
    if repeats > 1:
        run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def weave(
    pipeline: HistoloomPipeline, steps: int | None, maps: np.ndarray, crops: list, seed: int
) -> tuple[float, float]:
    """Predictions and seconds per patch of the pipeline as it comes."""
    predictions: list[int] = []
    hook = pipeline.denoiser.register_forward_pre_hook(lambda _, given: predictions.append(len(given[0])))
    pipeline(list(maps), crops, steps=steps, seed=seed)
    hook.remove()

    def run() -> None:
        pipeline(list(maps), crops, steps=steps, map_guidance=MAP_GUIDANCE, crop_guidance=CROP_GUIDANCE, seed=seed)

    return sum(predictions) / len(maps), seconds(run, 3) / len(maps)


def main() -> None:
    """Print the rows and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["ebhi-seg", "ebhi-seg-few-steps"], metavar="MODEL[:STEPS]")
    parser.add_argument("--patches", type=int, default=8)
    parser.add_argument("--htd-steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=int, nargs="+", metavar="BATCH", help="compare the ways to guide instead")
    arguments = parser.parse_args()
    first = find_model(arguments.models[0].partition(":")[0])
    pipeline = HistoloomPipeline.load(first)
    maps = draw_layouts(LayoutConfig(), pipeline.table, count=arguments.patches, seed=arguments.seed, size=224)
    bank = load_bank(f"{first}/crops", pipeline.table)
    crops = [bank.draw(m, np.random.default_rng(i)) for i, m in enumerate(maps)]
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for size in arguments.guidance or ():
        compare_guidance(pipeline, maps[:size], crops[:size], arguments.seed, arguments.repeats)
    if arguments.guidance:
        return
    htd = seconds(htd_patch(arguments.htd_steps, arguments.seed), 1)
    print(f"(a) HTD, {arguments.htd_steps} DDIM steps, fp32: {htd:.1f} s per patch of 256 px", flush=True)
    plain = None
    if pipeline.denoiser.student is None:  # a student has no three predictions to make one after the other
        few = maps[: max(1, len(maps) // 4)]
        plain = seconds(plain_loop(HistoloomPipeline.load(first), few, crops, arguments.seed), arguments.repeats)
        plain /= len(few)
        print(f"(b) plain loop, 50 Euler steps, fp32: {plain:.3f} s per patch of 224 px; (a)/(b) = {htd / plain:.0f}")
    for asked in arguments.models:
        name, _, steps = asked.partition(":")
        pipeline = HistoloomPipeline.load(find_model(name))
        predictions, cost = weave(pipeline, int(steps) if steps else None, maps, crops, arguments.seed)
        line = f"(c) {asked}, {str(pipeline.denoiser.dtype).removeprefix('torch.')}: {predictions:g} predictions, "
        line += f"{cost:.3f} s per patch of 224 px; (a)/(c) = {htd / cost:.0f}"
        print(line + (f", (b)/(c) = {plain / cost:.1f}" if plain else ""), flush=True)


if __name__ == "__main__":
    main()
