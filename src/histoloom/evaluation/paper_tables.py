"""The tables of arXiv 2509.17847 at one's own size, as Markdown: distances per encoder, downstream IoU, and what the
paper does not ask: how much of it is copied."""

IN_PLACE = "crops-in-place"
REFERENCE = "crops-as-reference"
UNCONDITIONAL = "unconditional"


def paper_tables(result: dict) -> str:
    """The block for docs/benchmarks.md, from what `histoloom reproduce` has measured (`reproduce.json`)."""
    parts = [
        _budget(result),
        "**Distance from real tissue** (Fréchet; KID x 1000 where images are fewer than dimensions). Floor: real "
        "against real.",
        _distances(result),
        "**DeepLabv3+ that learned from each set, tested on real patches**: mean IoU (pixels pooled over patches and "
        "seeds, mean over types), 95 % over cases and seeds.",
        _downstream(result),
        "**True, varied, new, obedient**. Crops that reappear: of the crops that came with the maps, in the woven "
        "patch; the floor is the real patch of the map, of the same case. A model that reads no crops is another.",
        _qualities(result),
        "**The squares of the crops left out**, of synthetic and real images alike: what is not pasted. Brackets, here "
        "and above: 95 % over cases.",
        _left_out(result),
        _answer(result),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _budget(result: dict) -> str:
    run = result["budget"]
    return (
        f"{run['patches']} patches woven for each conditioning, from maps and crops of split `{run['split']}`, against "
        f"{run['held']} real patches of split `val`. {run['steps']} training steps of {run['batch_size']} windows, "
        f"{run['views']} views, objective {run['objective']}; {run['sampler_steps']} sampling steps, map guidance "
        f"{run['map_guidance']:g}, crop guidance {run['crop_guidance']:g}, at shares of noise from "
        f"{run['guidance_interval'][0]:g} to {run['guidance_interval'][1]:g}; seed {run['seed']}; one autoencoder for "
        f"all ({run['autoencoder']}). DeepLabv3+: {run['downstream_steps']} steps of {run['downstream_batch']}, "
        f"{run['downstream_seeds']} seeds; `real` holds the very patches whose maps were woven."
    )


def _distances(result: dict) -> str:
    sets = result["sets"]
    rows = []
    for encoder in result["budget"]["encoders"]:
        found = {name: _distance(_encoder(of, encoder)["overall"]) for name, of in sets.items()}
        first = next(iter(found.values()))
        dimensions = _encoder(next(iter(sets.values())), encoder)["dimensions"]
        cells = [_span(figure) for figure in found.values()]
        rows.append([f"{encoder} (d = {dimensions}), {first['name']}", _number(first["floor"]), *cells])
    return _table(["encoder", "floor: real", *sets], rows)


def _downstream(result: dict) -> str:
    rows = []
    for name, found in result["downstream"].items():
        seeds = ", ".join(_number(value) for value in found["of_seed"])
        span = "" if found["low"] is None else f" [{found['low']:.3f}, {found['high']:.3f}]"
        rows.append([name, f"{found['mean_iou']:.3f}{span}", seeds, str(found["n"])])
    return _table(["trained on", "mean IoU", "each seed", "test patches"], rows)


def _qualities(result: dict) -> str:
    sets = result["sets"]
    encoder = result["budget"]["encoders"][0]
    rows = []
    for name in ("precision", "recall", "density", "coverage", "C2ST accuracy", "AuthPct"):
        found = [_named(_encoder(of, encoder)["overall"], name) for of in sets.values()]
        rows.append([f"{name} ({encoder})", _number(found[0]["floor"]), *map(_span, found)])
    rates = [of["crops"] for of in sets.values()]
    rows.append(["crops that reappear, %", _rate(rates[0]["same_case"]), *(_rate(rate["woven"]) for rate in rates)])
    maps = [_named(of["report"]["maps"], "mean IoU") for of in sets.values()]
    rows.append(["map fidelity, mean IoU", _number(maps[0]["floor"]), *map(_span, maps)])
    stain = [of["report"]["stain"][0] for of in sets.values()]
    rows.append([stain[0]["name"], _number(stain[0]["floor"]), *map(_span, stain)])
    return _table(["figure", "floor: real", *sets], rows)


def _left_out(result: dict) -> str:
    sets = result["sets"]
    rows = []
    for encoder in result["budget"]["encoders"]:
        found = {name: _distance(of["left_out"][encoder]) for name, of in sets.items()}
        first = next(iter(found.values()))
        rows.append([f"{encoder}, {first['name']}", _number(first["floor"]), *map(_span, found.values())])
    share = next(iter(sets.values()))["left_out_share"]
    return _table([f"{100 * share:.0f} % of the pixels left out", "floor: real", *sets], rows)


def _answer(result: dict) -> str:
    """How much of the gain of `crops-in-place` over `unconditional` vanishes without its squares, and how much of it
    crops from elsewhere give."""
    sets = result["sets"]
    if not {IN_PLACE, UNCONDITIONAL} <= sets.keys():
        return ""
    shown = {UNCONDITIONAL: "unconditional", IN_PLACE: "crops in place", REFERENCE: "crops as reference"}
    lines = []
    for encoder in result["budget"]["encoders"]:
        for where, of in (
            ("whole", {name: _encoder(sets[name], encoder)["overall"] for name in shown if name in sets}),
            ("the squares left out", {name: sets[name]["left_out"][encoder] for name in shown if name in sets}),
        ):
            found = {name: _distance(figures) for name, figures in of.items()}
            distances = ", ".join(f"{shown[name]} {_span(figure)}" for name, figure in found.items())
            lines.append(f"{encoder}, {found[IN_PLACE]['name']}, {where}: {distances}.")
    return "\n".join(["**How much of the gain is copying?**", "", *(f"- {line}" for line in lines)])


def _encoder(of: dict, name: str) -> dict:
    return of["report"]["encoders"][name]


def _distance(figures: list[dict]) -> dict:
    frechet = _named(figures, "Fréchet distance")
    return frechet if frechet["value"] is not None else _named(figures, "KID x 1000")


def _named(figures: list[dict], name: str) -> dict:
    none = {"name": name, "value": None, "low": None, "high": None, "floor": None}
    return next((figure for figure in figures if figure["name"] == name), none)


def _span(figure: dict) -> str:
    if figure["value"] is None:
        return "not given"
    span = "" if figure["low"] is None else f" [{_number(figure['low'])}, {_number(figure['high'])}]"
    return _number(figure["value"]) + span


def _rate(rate: dict | None) -> str:
    if rate is None:
        return "not given"
    return f"{100 * rate['rate']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}], n {rate['n']}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
