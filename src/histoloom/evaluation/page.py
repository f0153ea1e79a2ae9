"""The report as one HTML page: verdict first, then tables with floors, plots, patches; no script, no network."""

from html import escape

import numpy as np

from histoloom.evaluation.measures import EncoderFigures, Figure
from histoloom.evaluation.plots import bars, feature_map, inline, picture, scores
from histoloom.evaluation.report import SIDES, Evaluation
from histoloom.evaluation.verdict import encoder_note, verdict
from histoloom.metrics.copying import CopyRate
from histoloom.version import VERSION

SHOWN = 6  # pairs, suspects, best and worst patches
MEANINGS = {
    "reference": "real images that both stand against",
    "control": "real images of other cases: the floor",
    "fake": "synthetic images",
    "train": "images that copies are searched in",
}
READ_AS = {
    "Fréchet distance": "how far apart are the clouds? beside the floor",
    "Fréchet, n to infinity": "the same, were there any number of images",
    "KID x 1000": "how far apart are the clouds, unbiased at small n? around zero or below: not at all",
    "MMD (RBF) x 1000": "as KID, by a kernel as wide as real images lie apart",
    "precision": "do synthetic images lie among real ones? 1: all do",
    "density": "as precision, by how many real ones each lies among",
    "recall": "do real images have a like among synthetic ones? 1: all do",
    "coverage": "as recall, robust to stray synthetic images",
    "C2ST accuracy": "can a classifier tell them apart? 0.5 is guessing, 1 always",
    "AuthPct": "% that keep their distance from training images; far below the floor: copies",
    "nearest training image": "median distance to it; far below the floor: copies",
    "mean IoU": "does a segmenter find the map? 1: every pixel",
    "mean Dice": "as mean IoU, by another measure of overlap",
    "colour drift (delta E)": "mean colours; 2 is just seen",
}
_TEXT = ("", ' class="text"')  # of a cell of figures, and of one of words
CSS = """
:root{--ink:#23212b;--soft:#66626f;--line:#e3dfe6;--rose:#a8325e;--paper:#fff;--tint:#faf6f8}
*{box-sizing:border-box}
body{font:16px/1.55 "Source Sans 3","Segoe UI",system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:64rem;margin:2.5rem auto;padding:0 1.5rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 1.2rem;overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:3rem 0 .6rem;padding-top:.8rem;border-top:2px solid var(--ink)}
h3{font-size:1rem;margin:1.6rem 0 .3rem}
.verdict{background:var(--tint);border-left:5px solid var(--rose);padding:1.1rem 1.4rem;border-radius:0 6px 6px 0}
.verdict strong{font-size:1.25rem;line-height:1.35;display:block}
dl{display:grid;grid-template-columns:minmax(7em,auto) 1fr;gap:.5rem 1.2rem;margin:1rem 0 0}
dt{font-weight:600;color:var(--rose)}dd{margin:0}
table{border-collapse:collapse;width:100%;margin:.6rem 0 1rem;font-variant-numeric:tabular-nums;font-size:.93em}
td,th{padding:.35em .7em;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft);border-bottom:2px solid var(--line)}
td:first-child,th:first-child{text-align:left;padding-left:0}td.text,th.text{text-align:left}
td.text{overflow-wrap:anywhere}td:not(.text,.why,:first-child){white-space:nowrap}.why,td.why{color:var(--soft);text-align:left}
figure{margin:0;break-inside:avoid}figcaption{font-size:.8em;line-height:1.35;color:var(--soft);margin-top:.3em;
overflow-wrap:anywhere}img{display:block;max-width:100%;height:auto}
.plots{display:grid;grid-template-columns:repeat(3,1fr);gap:1.4rem;align-items:start;margin:1.2rem 0}
.patches{display:grid;grid-template-columns:repeat(6,1fr);gap:.9rem}.pairs{display:grid;grid-template-columns:repeat(3,1fr);
gap:1.1rem}.pair div{display:grid;grid-template-columns:1fr 1fr;gap:3px}
.patches img,.pairs img{width:100%;border-radius:3px}
.warn{border:1px solid var(--rose);border-radius:6px;padding:.5em .9em;font-size:.93em}
.small{font-size:.88em;color:var(--soft)}td .small{display:block;min-width:min(24em,36vw);line-height:1.35}
@media(max-width:44rem){.plots,.pairs{grid-template-columns:1fr}.patches{grid-template-columns:repeat(3,1fr)}
dl{grid-template-columns:1fr;gap:.1rem}dd{margin-bottom:.6rem}}
@page{size:A4;margin:14mm}
@media print{body{margin:0;padding:0;max-width:none;font-size:10.5px;print-color-adjust:exact;
-webkit-print-color-adjust:exact}h1{font-size:18px}h2{font-size:14px;margin-top:1.6rem}h2,h3{break-after:avoid}
tr,.verdict{break-inside:avoid}}
"""


def render_page(evaluation: Evaluation) -> str:
    """The whole page as text."""
    headline, sentences = verdict(evaluation)
    sets = evaluation.sets
    parts = [
        f"<h1>Synthetic tissue: {escape(sets.fake.where)}</h1>",
        f'<div class="verdict"><strong>{escape(headline)}</strong><dl>',
        *(_answer(sentence) for sentence in sentences),
        "</dl></div>",
        '<p class="warn">This page shows real patches. Keep it as carefully as their source.</p>',
        _identical(evaluation),
        "<h2>What was compared</h2>",
        _sets_table(evaluation),
        *(f'<p class="why">{escape(note)}</p>' for note in evaluation.notes),
    ]
    for encoder in evaluation.encoders:
        parts += _encoder(encoder)
    parts += ["<h2>Map fidelity</h2>", _figures(evaluation.maps)] if evaluation.maps else []
    parts += ["<h2>Stain</h2>", _figures(evaluation.stain), *_copying(evaluation)]
    parts += [*_crops(evaluation), *_best_and_worst(evaluation)]
    parts += _how_made(evaluation)
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Histoloom evaluation</title><style>{CSS}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _answer(sentence: str) -> str:
    question, answer = sentence.split("? ", 1)
    return f"<dt>{escape(question)}?</dt><dd>{escape(answer)}</dd>"


def _identical(evaluation: Evaluation) -> str:
    lines = []
    if evaluation.shared:
        names = ", ".join(evaluation.shared[:10]) + (" ..." if len(evaluation.shared) > 10 else "")
        lines.append(f"{len(evaluation.shared)} synthetic images are real ones, pixel by pixel: {names}.")
    lines += [f"{count} {side} images repeat another one." for side, count in evaluation.duplicates.items() if count]
    return "".join(f'<p class="warn">{escape(line)}</p>' for line in lines)


def _sets_table(evaluation: Evaluation) -> str:
    rows = []
    for side in SIDES:
        images = getattr(evaluation.sets, side)
        size = "{1} x {0} px".format(*images.images.shape[1:3])
        kind = images.kind + (f", split {images.split}" if images.split else "")
        cells = (
            MEANINGS[side],
            len(images),
            len(set(images.cases)),
            f"{kind}, {images.kept_as}",
            size,
            images.where,
        )
        rows.append("".join(f"<td{_TEXT[i > 2]}>{escape(str(cell))}</td>" for i, cell in enumerate(cells)))
    return _table(("set", "images", "cases", "kind", "size", "folder"), rows, text=(3, 4, 5))


def _encoder(encoder: EncoderFigures) -> list[str]:
    parts = [
        f"<h2>Features: {escape(encoder.encoder)}</h2>",
        f'<p class="small">{encoder.dimensions} dimensions. {escape(encoder_note(encoder))} '
        "A perfect model scores the floor: real against real of other cases, at the same number of images. "
        "Brackets: 95 % intervals over cases.</p>",
        _figures(encoder.overall),
        '<div class="plots">',
        _plot(bars(encoder), "Do synthetic images lie among real ones (precision, density), and real among synthetic "
              "ones (recall, coverage)?"),
    ]  # fmt: skip
    if encoder.two_sample:
        parts.append(
            _plot(scores(encoder.two_sample), "Held-out scores of the classifier. Two hills apart: it can tell.")
        )
    parts.append(
        _plot(
            feature_map(encoder.features),
            "Every point is an image. Blue without orange near it: real tissue that is missing.",
        )
    )
    parts.append("</div>")
    if encoder.of_type:
        parts += ["<h3>By tissue type (the type that stands out on a patch); floor in brackets</h3>", _by_type(encoder)]
    return parts


def _by_type(encoder: EncoderFigures) -> str:
    """One row per type, one column per figure."""
    titles = [f.name for f in max(encoder.of_type.values(), key=len)]
    rows = []
    for name, figures in encoder.of_type.items():
        head = f"<td>{escape(name)}</td><td>{figures[0].n}</td>"
        if len(figures) == 1:
            rows.append(f'{head}<td class="why" colspan="{len(titles)}">{escape(figures[0].note)}</td>')
            continue
        cells = ["too few" if f.value is None else f"{_number(f.value)}<br>({_number(f.floor)})" for f in figures]
        rows.append(head + "".join(f"<td>{cell}</td>" for cell in cells))
    return _table(("type", "n", *titles), rows)


def _copying(evaluation: Evaluation) -> list[str]:
    copying, sets, copies = evaluation.copying, evaluation.sets, evaluation.encoders[0].copies
    parts = ["<h2>Copying</h2>"]
    if copying.fake and copying.real:
        rates = {
            "of the nearest one, in synthetic images": copying.fake,
            "of the nearest one, in unseen real images (floor)": copying.real,
            "of a random one of another case, in synthetic images (floor)": copying.other,
        }
        rows = {name: rate for name, rate in rates.items() if rate}
        parts += [_rates("a part of a training image reappears", "images", rows), _threshold(copying.fake)]
        if copying.other is None:
            parts.append('<p class="why">No floor of random training images: none is known to be of another case.</p>')
    else:
        parts.append(f'<p class="why">{escape(copying.note)}</p>')
    score = dict(zip(copying.searched.tolist(), copying.scores.tolist(), strict=True))
    suspects = np.argsort(copies.ratio, kind="stable")[:SHOWN]
    pairs = np.random.default_rng(evaluation.config.seed).permutation(len(copies.ratio))[:SHOWN]
    for title, chosen in (("Copy suspects: nearest to a training image", suspects), ("Any six, with theirs", pairs)):
        shown = []
        for i in chosen:
            found = f", part score {score[i]:.2f}" if np.isfinite(score.get(int(i), np.nan)) else ""
            caption = f"{sets.fake.names[i]}, distance ratio {copies.ratio[i]:.2f}{found}"
            shown.append((sets.fake.images[i], sets.train.images[copies.neighbour[i]], caption))
        parts += _pairs(f"{title} (left synthetic, right training)", shown)
    return parts


def _crops(evaluation: Evaluation) -> list[str]:
    """What reappears of the crops that patches were woven from; nothing for images that name none."""
    crops, fake = evaluation.crops, evaluation.sets.fake
    if not crops.used.named:
        return []
    told = [f"Of {crops.used.named} crops that the synthetic images name, {len(crops.used.found)} were found"]
    told += [f"{count} not: {why}" for why, count in crops.used.missing.items()]
    parts = [
        "<h2>Crops that reappear</h2>",
        f'<p class="small">{escape("; ".join(told))}. {len(crops.searched)} were searched for.</p>',
    ]
    if crops.woven:
        rates = {
            "the patch woven from it": crops.woven,
            "another real patch of its case (floor)": crops.real,
            "a synthetic patch woven without it (floor)": crops.other,
        }
        rows = {name: rate for name, rate in rates.items() if rate}
        parts += [_rates("a part of the crop reappears in", "crops", rows), _threshold(crops.woven)]
        if crops.real is None:
            parts.append(
                '<p class="why">No floor of real patches: no other patch of the cases of the crops is known.</p>'
            )
    else:
        parts.append(f'<p class="why">{escape(crops.note)}</p>')
    judged = np.flatnonzero(np.isfinite(crops.scores))
    shown = []
    for i in judged[np.argsort(-crops.scores[judged], kind="stable")][:SHOWN]:
        crop = crops.searched[i]
        caption = f"{fake.names[crop.woven]}, crop of {crop.source}, part score {crops.scores[i]:.2f}"
        patch = fake.images[crop.woven]
        shown.append((patch, _at_its_size(crop.pixels, patch), caption))
    title = "Crop suspects: highest scores (left synthetic, right crop, as it lay in its source)"
    return parts + (_pairs(title, shown) if shown else [])


def _at_its_size(crop: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """The crop on white, as large as the patch, so that both are shown at one magnification."""
    sheet = np.full_like(patch, 255)
    height, width = patch.shape[:2]
    sheet[: crop.shape[0], : crop.shape[1]] = crop[:height, :width]
    return sheet


def _rates(what: str, unit: str, rates: dict[str, CopyRate]) -> str:
    rows = [
        f"<td>{name}</td><td>{100 * rate.rate:.1f} %</td><td>{100 * rate.low:.1f} to {100 * rate.high:.1f} %</td>"
        f"<td>{rate.n}</td>"
        for name, rate in rates.items()
    ]
    return _table((what, "share", f"95 %, Wilson over {unit}", "n"), rows)


def _threshold(rate: CopyRate) -> str:
    return (
        f'<p class="small">Normalised correlation above {rate.threshold:.2f}, which one per cent of '
        "unrelated real pairs reach; parts of 32 px, all eight orientations.</p>"
    )


def _pairs(title: str, pairs: list[tuple[np.ndarray, np.ndarray, str]]) -> list[str]:
    """Two pictures side by side with a caption, pair after pair."""
    parts = [f'<h3>{title}</h3><div class="pairs">']
    for left, right, caption in pairs:
        shown = "".join(f'<img alt="" src="{inline(picture(image))}">' for image in (left, right))
        parts.append(f'<figure class="pair"><div>{shown}</div><figcaption>{escape(caption)}</figcaption></figure>')
    return [*parts, "</div>"]


def _best_and_worst(evaluation: Evaluation) -> list[str]:
    first, fake = evaluation.encoders[0], evaluation.sets.fake
    likeness = first.realism if first.two_sample is None else -first.two_sample.fake_scores
    order = np.argsort(-likeness, kind="stable")
    parts = ["<h2>Best and worst patches</h2>"]
    for title, chosen in (("Most like real ones", order[:SHOWN]), ("Least like real ones", order[::-1][:SHOWN])):
        parts.append(f'<h3>{title}</h3><div class="patches">')
        for i in chosen:
            shown = f'<img alt="" src="{inline(picture(fake.images[i]))}">'
            parts.append(f"<figure>{shown}<figcaption>{escape(fake.names[i])}</figcaption></figure>")
        parts.append("</div>")
    return parts


def _how_made(evaluation: Evaluation) -> list[str]:
    config, made = evaluation.config, evaluation.sets.fake.made
    prints = "; ".join(f"{name} {value[:12]}" for name, value in evaluation.fingerprints.items())
    lines = [
        f"Measured by Histoloom {VERSION}. Encoders (fingerprint): {prints}."
        + (f" Segmenter (fingerprint): {evaluation.segmenter[:12]}." if evaluation.segmenter else "")
        + f" At most {config.most} images a side, {config.pairs} searched for copied parts, seed {config.seed}.",
        "report.json beside this page holds every figure. Distances move with the number, size and file format of "
        "images: compare reports that share them, and nothing else.",
    ]
    if made:
        lines.insert(
            0,
            f"Synthetic images were woven by Histoloom {made['version']}, model {made['model_hash'][:12]} "
            f"({made['conditioning']}), sampler {made['scheduler']} in {made['steps']} steps, guidance by map "
            f"{made['map_guidance']} and by crops {made['crop_guidance']}, at shares of noise "
            f"{made['guidance_interval']}.",
        )
    return ["<h2>How this was made</h2>", *(f'<p class="small">{escape(line)}</p>' for line in lines)]


def _figures(figures: list[Figure]) -> str:
    rows = []
    for figure in figures:
        if figure.value is None:
            rows.append(f'<td>{escape(figure.name)}</td><td class="why" colspan="4">{escape(figure.note)}</td>')
            continue
        span = "" if figure.low is None else f"[{_number(figure.low)}, {_number(figure.high)}]"
        cells = (_number(figure.value), span, _number(figure.floor), str(figure.n))
        read_as = f'<span class="small">{READ_AS[figure.name]}</span>' if figure.name in READ_AS else ""
        rows.append(f"<td>{escape(figure.name)}{read_as}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
    return _table(("figure", "synthetic", "95 %", "floor: real", "n"), rows)


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _plot(png: bytes, caption: str) -> str:
    image = f'<img alt="{escape(caption)}" src="{inline(png)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(titles: tuple[str, ...], rows: list[str], text: tuple[int, ...] = ()) -> str:
    """`text` are the columns that hold words, set to the left."""
    head = "".join(f"<th{_TEXT[i in text]}>{escape(title)}</th>" for i, title in enumerate(titles))
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
