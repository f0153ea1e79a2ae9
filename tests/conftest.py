"""Shared inputs: small, real, written here; the real tissue is read where it lies and never copied.

Nothing heavy is imported above the fixtures, so that a test which needs no torch loads none.
"""

import multiprocessing
import os
import runpy
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from PIL import Image

# What commands load when they run.
PRELOADED = (
    "histoloom.cli.main",
    "histoloom.cli.progress",
    "histoloom.discovery.classify",
    "histoloom.discovery.pseudo_patches",
    "histoloom.evaluation.encoder_run",
    "histoloom.canvas.pairs",
    "histoloom.evaluation.page",
    "faiss",
    "pandas",  # by pyarrow, as soon as it writes a table
    "pyarrow.dataset",
    "sklearn.linear_model",
    "timm",
)
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
# Mean colors of glass-and-stroma, gland and tumour under an ordinary H&E stain.
COLORS = np.array([[228, 196, 214], [178, 112, 164], [122, 74, 140]], np.float32)

os.environ["HF_HUB_OFFLINE"] = "1"  # a name that is no folder must fail here, not on the network
os.environ["ACCELERATE_USE_CPU"] = "true"
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (its name); with Ray's 15, workers starve while others test


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tissue beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the real tissue in {SHARED_DATA}")
    return SHARED_DATA


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Noise of about unit height whose hills are size / cells px wide."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def draw_tissue(rng: np.random.Generator, size: int, types: int = 2, tint: np.ndarray | float = 0.0):
    """An image with nuclei-like grain and its map: blobs of `types` tissues, each in its color, shifted by `tint`."""
    heights = np.stack([smooth_noise(rng, size, 4) for _ in range(types)])
    semantic_map = heights.argmax(0).astype(np.uint8)
    grain = 14 * smooth_noise(rng, size, size // 4) + 10 * smooth_noise(rng, size, size // 12)
    image = COLORS[semantic_map % len(COLORS)] + grain[..., None] * [1.0, 1.2, 0.7] + tint
    return np.clip(image, 1, 255).astype(np.uint8), semantic_map


@pytest.fixture(scope="session")
def make_patches():
    """`make_patches(count, cases, size, types, seed)`: patches of blobs; each case has its stain, no two overlap."""

    def make(count: int = 12, cases: int = 3, size: int = 96, types: int = 3, seed: int = 0):
        from histoloom.patches.store import Patches

        rng = np.random.default_rng(seed)
        tints = rng.uniform(-20, 20, (cases, 3))
        drawn = [draw_tissue(rng, size, types, tints[i % cases]) for i in range(count)]
        images, maps = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
        names = [f"case {i % cases}" for i in range(count)], [f"{i:02d}.png" for i in range(count)]
        return Patches(images, maps, *names, np.full(count, 0.5), np.tile([0, 0, size], (count, 1)).astype(np.int64))

    return make


@pytest.fixture(scope="session")
def small_patches(make_patches):
    """Twelve patches of 96 px by three cases, three tissue types."""
    return make_patches()


def draw_image_folder(folder: Path) -> Path:
    """A folder as a user has it: images/, maps/, tissue.toml; nine pictures of 80 px by three cases, two types."""
    rng = np.random.default_rng(7)
    for case, tint in enumerate(rng.uniform(-20, 20, (3, 3))):
        for number in range(3):
            image, semantic_map = draw_tissue(rng, 80, 2, tint)
            for kind, pixels in (("images", image), ("maps", semantic_map)):
                path = folder / kind / f"P{case}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (folder / "tissue.toml").write_text('[[tissue]]\nid = 0\nname = "stroma"\n\n[[tissue]]\nid = 1\nname = "gland"\n')
    return folder


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """See `draw_image_folder`."""
    return draw_image_folder(tmp_path)


@pytest.fixture(scope="session")
def make_pipeline():
    """`make_pipeline(**denoiser)`: a tiny pipeline of three types whose layers that start at zero were stirred."""

    def make(conditioning: str = "crops-as-reference", objective: str = "flow"):
        import torch

        from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder
        from histoloom.models.denoiser import Denoiser
        from histoloom.models.pipeline import HistoloomPipeline
        from histoloom.models.schedulers import make_sampler
        from histoloom.tissue import TissueTable

        torch.manual_seed(0)
        shape = AutoencoderConfig(
            latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)
        )
        denoiser = Denoiser(
            conditioning=conditioning,
            num_types=3,
            latent_channels=4,
            channels=(32, 64),
            blocks=(1, 1),
            token_channels=32,
            vector_channels=8,
            condition_channels=16,
            objective=objective,
            latent_mean=[0.0, 0.1, -0.1, 0.2],
            latent_std=[1.0, 0.9, 1.1, 0.8],
        )
        for parameter in denoiser.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        table = TissueTable.from_names(["stroma", "gland", "tumour"])
        scheduler, _ = make_sampler(objective)
        return HistoloomPipeline(build_autoencoder(shape).eval(), denoiser.eval(), scheduler, table.to_rows())

    return make


@pytest.fixture(scope="session")
def tiny_model(make_pipeline, tmp_path_factory) -> Path:
    """The folder of a tiny model of the default kind, with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_pipeline().save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def chromium():
    """A browser."""
    from browser import launched

    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(chromium):
    """`open_page(port, size, path)`: a page of a server on this machine; see tests/browser.py."""
    from browser import pages

    with pages(chromium) as start:
        yield start


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray cluster of two processors on this machine, which `ray="local"` then joins; started once."""
    ray = pytest.importorskip("ray")
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture
def untyped():
    """Calls as users make them, without the checks of types that tests add."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> Callable[..., multiprocessing.Process]:
    """`start(script, **names)`: run a script, with these names set, in a process of its own; `kill()` is SIGKILL.

    Processes are forked from one that has the libraries loaded, so that each costs milliseconds instead of seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["histoloom.experiments.run", *PRELOADED])

    def run(script: str, **names) -> multiprocessing.Process:
        path = tmp_path_factory.mktemp("script") / "script.py"
        path.write_text("import torch\ntorch.set_num_threads(1)\n" + script)
        process = context.Process(target=runpy.run_path, args=(str(path), names))
        process.start()
        return process

    return run
