"""Train, save and test a small encoder, as one run that resumes.

    OUT/
      record.json           settings, and fingerprints of patches and of the encoder to start from
      encoder.safetensors   the encoder
      probes.json           linear probes, where there is a split val
      README.md             its card: how it was trained, with the probes
      checkpoint files      for the same command to resume

The same command continues a killed run from its last checkpoint.
"""

import math
from dataclasses import asdict
from pathlib import Path

import torch

from histoloom.encoders.barlow_twins import EncoderTraining, starting_encoder, train_encoder
from histoloom.encoders.cache import features
from histoloom.encoders.encoder import as_encoder, open_encoder, short_name
from histoloom.encoders.small import SmallEncoder, save_small_encoder, weights_path
from histoloom.errors import ConfigError
from histoloom.evaluation.probe import Probe, has_types, probe_encoder, write_card
from histoloom.files import run_folder
from histoloom.fitting.loop import identity_of, show_on
from histoloom.fitting.processes import process_state
from histoloom.fitting.results import cached_result
from histoloom.patches.store import Patches, load_patches, splits
from histoloom.progress import Progress, silent
from histoloom.records import Record, fingerprint

COMMAND, FORMAT = "train-encoder", 1


def run_encoder(dataset: Path, config: EncoderTraining, out: Path, progress: Progress = silent) -> dict[str, Probe]:
    """Train an encoder on the split train of `dataset` in `out`, and return its linear probes; none without a split
    val and two tissue types.

    Continues an interrupted run. Raises ConfigError under a launcher of several processes, OutputError where `out`
    holds another run or cannot be written.
    """
    if process_state().num_processes > 1:  # its loss compares the samples of a batch, and norms hold their statistics
        raise ConfigError("an encoder is trained in one process; start `histoloom train-encoder` without a launcher")
    patches, weights = load_patches(dataset, "train"), weights_path(config.start)
    held = load_patches(dataset, "val") if "val" in splits(dataset) and has_types(patches) else None
    inputs = {"patches": patches.fingerprint()} | ({} if weights is None else {"start": fingerprint(weights)})
    inputs |= {} if held is None else {"test patches": held.fingerprint()}
    settings = identity_of(config) | {"start": short_name(config.start)}
    with run_folder(out, Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)):
        with progress("encoder", config.loop.steps, "steps") as bar:
            network = train_encoder(patches.images, patches.fingerprint(), config, out, show_on(bar))
        save_small_encoder(network, out)
        probes = {} if held is None else _probes(config, network, patches, held, out)
        loop = config.loop
        write_card(probes, len(patches), short_name(config.start), loop.steps, loop.seed, out)
    return probes


def _probes(
    config: EncoderTraining, network: SmallEncoder, patches: Patches, held: Patches, out: Path
) -> dict[str, Probe]:
    """Probes on the encoder in `out`, on the one it started from and on a random one, kept in `out`."""
    trained = open_encoder(str(out))

    def make() -> dict:
        torch.manual_seed(config.loop.seed)  # a resumed run arrives here with another state
        read = {
            "features": trained,
            "the initial encoder": as_encoder("start", starting_encoder(config).eval()),
            "random weights": as_encoder("random", SmallEncoder(network.config).eval()),
        }
        found = {
            name: (features(encoder, patches.images), features(encoder, held.images)) for name, encoder in read.items()
        }
        return {name: asdict(probe) for name, probe in probe_encoder(patches, held, found).items()}

    kept = cached_result(out / "probes.json", trained.fingerprint, make)
    return {name: Probe(**row | _interval(row)) for name, row in kept.items()}


def _interval(row: dict) -> dict:
    """Its ends, which are nan for few cases; JSON holds null there."""
    return {end: math.nan if row[end] is None else row[end] for end in ("low", "high")}
