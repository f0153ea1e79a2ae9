"""The block of a model card that `model_quality.py` writes."""

COPYING_ROWS = {
    "woven": "crops that score above 99 % of unrelated real pairs",
    "unlike": "the same, crops of other cases in woven patches",
    "same_case": "the same, in the real patch of the map (same case)",
    "unrelated": "real pairs of different cases (1 % by construction)",
    "pasted": "planted pastes found",
    "like_paste": "crops that score as planted pastes do (all but the lowest 5 % of them)",
}


def markdown(result: dict) -> str:
    """The block for the model card."""
    run, stain, copying, auto = result["run"], result["stain"], result["copying"], result["autoencoder"]
    lines = [
        f"{run['patches']} of {run['patches_in_split']} patches of split `{run['split']}`, {run['cases']} cases, "
        f"{run['crops']} crops from other patches of the case (for {run['patches_with_crops']} patches), "
        f"conditioning {run['conditioning']}, {run['steps']} steps of {run['sampler']}, "
        f"map guidance {run['map_guidance']:g}, crop guidance {run['crop_guidance']:g}, at shares of noise between "
        f"{run['guidance_interval'][0]:g} and {run['guidance_interval'][1]:g}, seed {run['seed']}, "
        f"model {run['model_hash']}. {run['woven_again']} patches were more alike to a crop than "
        f"{run['copy_limit'] or 1:.3f} and woven again, {run['still_alike']} still are. "
        "Brackets: 95 % intervals; bootstrap over cases, Wilson for rates.",
        "",
        "| figure | woven | real, or control | n |",
        "|---|---|---|---|",
    ]
    for channel, name in enumerate("Lab"):
        ours, real = (_with_bounds(stain[k], channel) for k in ("woven", "real"))
        lines.append(
            f"| stain: correlation of crop and region, {name} | {ours} | {real} | {stain['woven']['n']} crops |"
        )
    for label, values in result["map"].items():
        ours, real = (f"{values[f'{k}_miou']:.3f} {_bounds(values[f'{k}_interval'])}" for k in ("woven", "real"))
        lines.append(f"| map: mean IoU, {label} | {ours} | {real} | {values['n']} patches |")
        ratio = f"{values['ratio']:.3f} {_bounds(values['ratio_interval'])}"
        lines.append(f"| map: woven / real, {label} | {ratio} | 1 | {values['n']} patches |")
    for name, label in COPYING_ROWS.items():
        lines.append(f"| copying: {label} | {_shares(name, copying[name])} | {copying[name]['n']} crops |")
    psnr = f"{auto['psnr_of_mean_error']:.2f} dB; mean {auto['mean_psnr']:.2f}, worst {auto['worst_psnr']:.2f}"
    lines.append(f"| autoencoder: PSNR over all patches | {psnr} | - | {auto['n']} patches |")
    lines.append(f"| autoencoder: contrast of neighboring pixels | {auto['contrast']:.2f} | 1 | {auto['n']} patches |")
    distance = f"{auto['frechet_distance']:.1f}"
    lines.append(f"| autoencoder: Fréchet distance of decoded patches to real | {distance} | 0 | {auto['n']} patches |")
    return "\n".join(lines) + "\n"


def _with_bounds(following: dict, channel: int) -> str:
    bounds = following["low"][channel], following["high"][channel]
    return f"{following['correlation'][channel]:.3f} {_bounds(bounds)}"


def _bounds(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _shares(name: str, rate: dict) -> str:
    share = f"{100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
    return f"{share} | -" if name in ("woven", "like_paste") else f"- | {share}"
