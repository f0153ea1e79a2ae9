"""The items of a study and the order in which each reader sees them: a function of images, settings and seed."""

from dataclasses import dataclass, replace

import numpy as np

from histoloom.study.matching import Matcher
from histoloom.study.settings import StudyConfig

REAL, SYNTHETIC, DECODED = "real", "synthetic", "decoded"
CONTROL = "control"  # a real image, or pair of real images, that is compared with the other real ones
MAIN, PRACTICE, REPEAT = "main", "practice", "repeat"
EARLY = 0.4  # share of the order in which items are shown that return in its last such share


@dataclass(frozen=True)
class Shown:
    """One image of an item."""

    kind: str  # real, synthetic, or decoded: a real one that the autoencoder encoded and decoded
    index: int  # in the real or the synthetic set


@dataclass(frozen=True)
class Item:
    """What a reader sees at a time: an image, or a pair."""

    kind: str  # real, synthetic, decoded, control
    images: tuple[Shown, ...]
    tissue: str
    role: str = MAIN
    returns: int = -1  # the item that a repeat repeats


def draw_items(matcher: Matcher, config: StudyConfig, with_decoded: bool) -> list[Item]:
    """All items, shuffled: main ones, controls, practice and repeats; raises InputError where images are too few."""
    rng = np.random.default_rng(config.seed)
    wanted = config.n if config.is_pairs else config.n // 2
    practice = config.practice if config.is_pairs else config.practice // 2
    fakes = matcher.draw_fakes(wanted + practice, rng)
    draw = _pair if config.is_pairs else _singles
    items = [item for fake in fakes[:wanted] for item in draw(matcher, fake, SYNTHETIC, rng)]
    for fake in fakes[wanted:]:
        items += [replace(item, role=PRACTICE) for item in draw(matcher, fake, SYNTHETIC, rng)]
    for kind in [CONTROL, DECODED] if with_decoded else [CONTROL]:
        for _ in range(config.num_controls):
            template = matcher.draw_template(fakes[:wanted], 2 if config.is_pairs else 1)
            items += draw(matcher, template, kind, rng)
    items = [items[i] for i in rng.permutation(len(items))]
    return items + _repeats(items, config, rng)


def orders(items: list[Item], config: StudyConfig) -> list[list[int]]:
    """For each reader, the items in order: practice first, then all others; a repeat is well behind its first."""
    return [_order(items, np.random.default_rng((config.seed, reader))) for reader in range(1, config.readers + 1)]


def _singles(matcher: Matcher, fake: int, kind: str, rng: np.random.Generator) -> list[Item]:
    """A matched real image and the other one; a control is a real image that plays the synthetic one."""
    tissue = matcher.fake_tissues[fake]
    if kind != SYNTHETIC:
        shown = Shown(DECODED if kind == DECODED else REAL, matcher.draw_real(fake))
        return [Item(kind, (shown,), tissue)]
    real = Item(REAL, (Shown(REAL, matcher.draw_real(fake)),), tissue)
    return [real, Item(SYNTHETIC, (Shown(SYNTHETIC, fake),), tissue)]


def _pair(matcher: Matcher, fake: int, kind: str, rng: np.random.Generator) -> list[Item]:
    """A real image and another one, at random sides."""
    first = Shown(REAL, matcher.draw_real(fake))
    if kind == SYNTHETIC:
        second = Shown(SYNTHETIC, fake)
    else:
        second = Shown(DECODED if kind == DECODED else REAL, matcher.draw_real(fake))
    images = (first, second) if rng.random() < 0.5 else (second, first)
    return [Item(kind, images, matcher.fake_tissues[fake])]


def _repeats(items: list[Item], config: StudyConfig, rng: np.random.Generator) -> list[Item]:
    """Repeats of main items, drawn at random; a pair returns with its sides exchanged."""
    main = [i for i, item in enumerate(items) if item.role == MAIN and item.kind in (REAL, SYNTHETIC)]
    chosen = rng.permutation(main)[: config.num_repeats]
    return [replace(items[i], role=REPEAT, returns=int(i), images=items[i].images[::-1]) for i in chosen]


def _order(items: list[Item], rng: np.random.Generator) -> list[int]:
    practice = [i for i, item in enumerate(items) if item.role == PRACTICE]
    repeats = [i for i, item in enumerate(items) if item.role == REPEAT]
    firsts = [items[i].returns for i in repeats]
    others = [i for i, item in enumerate(items) if item.role == MAIN and i not in firsts]
    total = len(firsts) + len(others) + len(repeats)
    early, late = int(EARLY * total), total - int(EARLY * total)
    places = np.full(total, -1)
    places[rng.permutation(early)[: len(firsts)]] = rng.permutation(firsts)
    places[late + rng.permutation(total - late)[: len(repeats)]] = rng.permutation(repeats)
    places[places < 0] = rng.permutation(others)
    return [int(i) for i in rng.permutation(practice)] + places.tolist()
