"""The report as one HTML page: verdict first, then tables with floors, plots, patches; no script, no network."""

from html import escape

import numpy as np

from histoloom.evaluation.measures import EncoderFigures, Figure
from histoloom.evaluation.plots import bars, feature_map, inline, picture, scores
from histoloom.evaluation.report import SIDES, Evaluation
from histoloom.evaluation.verdict import encoder_note, verdict

SHOWN = 6  # pairs, suspects, best and worst patches
MEANINGS = {
    "reference": "real images that both stand against",
    "control": "real images of other cases: the floor",
    "fake": "synthetic images",
    "train": "images that copies are searched in",
}
CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:62em;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ccc}h3{font-size:1em}
.verdict{background:#f4f1ec;border-left:6px solid #cc6644;padding:.6em 1em}.verdict strong{font-size:1.15em}
table{border-collapse:collapse;margin:.8em 0}td,th{padding:.25em .8em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}.why,td.why{color:#666;text-align:left}
figure{display:inline-block;margin:.4em;vertical-align:top;break-inside:avoid}figcaption{font-size:.85em;color:#555}
figure img{max-width:100%}.pair img{width:168px;image-rendering:auto;margin-right:2px}.patch img{width:150px}
.warn{border:1px solid #cc6644;padding:.4em .8em}.small{font-size:.85em;color:#555}
@media print{body{margin:0;max-width:none;font-size:11px}h2{break-after:avoid}table{break-inside:avoid}}
"""


def render_page(evaluation: Evaluation) -> str:
    """The whole page as text."""
    headline, sentences = verdict(evaluation)
    sets = evaluation.sets
    parts = [
        f"<h1>Synthetic tissue: {escape(sets.fake.where)}</h1>",
        f'<div class="verdict"><strong>{escape(headline)}</strong>',
        *(f"<p>{escape(sentence)}</p>" for sentence in sentences),
        "</div>",
        '<p class="warn">This page shows real patches. Keep it as carefully as their source.</p>',
        _identical(evaluation),
        "<h2>What was compared</h2>",
        _sets_table(evaluation),
        *(f'<p class="why">{escape(note)}</p>' for note in evaluation.notes),
    ]
    for encoder in evaluation.encoders:
        parts += _encoder(encoder)
    parts += ["<h2>Map fidelity</h2>", _figures(evaluation.maps)] if evaluation.maps else []
    parts += ["<h2>Stain</h2>", _figures(evaluation.stain), *_copying(evaluation), *_best_and_worst(evaluation)]
    parts += _how_made(evaluation)
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Histoloom evaluation</title><style>{CSS}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


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
            f"{kind}, {images.file_format}",
            size,
            images.where,
        )
        rows.append("".join(f"<td>{escape(str(cell))}</td>" for cell in cells))
    return _table(("set", "images", "cases", "kind", "size", "folder"), rows)


def _encoder(encoder: EncoderFigures) -> list[str]:
    parts = [
        f"<h2>Features: {escape(encoder.encoder)}</h2>",
        f'<p class="small">{encoder.dimensions} dimensions. {encoder_note(encoder)} A perfect model scores the floor: '
        "real against real of other cases, at the same number of images. Brackets: 95 % intervals over cases.</p>",
        _figures(encoder.overall),
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
    if encoder.of_type:
        parts.append("<h3>By tissue type (the type that stands out on a patch)</h3>")
        for name, figures in encoder.of_type.items():
            parts += [f"<h3>{escape(name)}</h3>", _figures(figures)]
    return parts


def _copying(evaluation: Evaluation) -> list[str]:
    copying, sets, copies = evaluation.copying, evaluation.sets, evaluation.encoders[0].copies
    parts = ["<h2>Copying</h2>"]
    if copying.fake and copying.real:
        rows = [
            f"<td>{name}</td><td>{100 * rate.rate:.1f} %</td><td>{100 * rate.low:.1f} to {100 * rate.high:.1f} %</td>"
            f"<td>{rate.n}</td>"
            for name, rate in (("synthetic", copying.fake), ("unseen real (floor)", copying.real))
        ]
        parts.append(_table(("a part of the nearest training image reappears in", "share", "interval", "n"), rows))
        parts.append(
            f'<p class="small">Normalised correlation above {copying.fake.threshold:.2f}, which one per cent of '
            "unrelated real pairs reach; parts of 32 px, all eight orientations.</p>"
        )
    else:
        parts.append(f'<p class="why">{escape(copying.note)}</p>')
    score = dict(zip(copying.searched.tolist(), copying.scores.tolist(), strict=True))
    suspects = np.argsort(copies.ratio, kind="stable")[:SHOWN]
    pairs = np.random.default_rng(evaluation.config.seed).permutation(len(copies.ratio))[:SHOWN]
    for title, chosen in (("Copy suspects: nearest to a training image", suspects), ("Any six, with theirs", pairs)):
        parts.append(f"<h3>{title} (left synthetic, right training)</h3>")
        for i in chosen:
            found = f", part score {score[i]:.2f}" if np.isfinite(score.get(int(i), np.nan)) else ""
            caption = f"{sets.fake.names[i]}, distance ratio {copies.ratio[i]:.2f}{found}"
            images = (sets.fake.images[i], sets.train.images[copies.neighbour[i]])
            shown = "".join(f'<img alt="" src="{inline(picture(image))}">' for image in images)
            parts.append(f'<figure class="pair">{shown}<figcaption>{escape(caption)}</figcaption></figure>')
    return parts


def _best_and_worst(evaluation: Evaluation) -> list[str]:
    first, fake = evaluation.encoders[0], evaluation.sets.fake
    likeness = first.realism if first.two_sample is None else -first.two_sample.fake_scores
    order = np.argsort(-likeness, kind="stable")
    parts = ["<h2>Best and worst patches</h2>"]
    for title, chosen in (("Most like real ones", order[:SHOWN]), ("Least like real ones", order[::-1][:SHOWN])):
        parts.append(f"<h3>{title}</h3>")
        for i in chosen:
            shown = f'<img alt="" src="{inline(picture(fake.images[i]))}">'
            parts.append(f'<figure class="patch">{shown}<figcaption>{escape(fake.names[i])}</figcaption></figure>')
    return parts


def _how_made(evaluation: Evaluation) -> list[str]:
    config = evaluation.config
    prints = "; ".join(f"{name} {value[:12]}" for name, value in evaluation.fingerprints.items())
    return [
        "<h2>How this was made</h2>",
        f'<p class="small">Encoders (fingerprint): {escape(prints)}. At most {config.most} images a side, '
        f"{config.pairs} searched for copied parts, seed {config.seed}. report.json beside this page holds every "
        "figure. Distances move with the number, size and file format of images: compare reports that share them, and "
        "nothing else.</p>",
    ]


def _figures(figures: list[Figure]) -> str:
    rows = []
    for figure in figures:
        if figure.value is None:
            rows.append(f'<td>{escape(figure.name)}</td><td class="why" colspan="4">{escape(figure.note)}</td>')
            continue
        span = "" if figure.low is None else f"[{_number(figure.low)}, {_number(figure.high)}]"
        cells = (figure.name, _number(figure.value), span, _number(figure.floor), str(figure.n))
        rows.append("".join(f"<td>{escape(cell)}</td>" for cell in cells))
    return _table(("figure", "synthetic", "95 %", "floor: real", "n"), rows)


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _plot(png: bytes, caption: str) -> str:
    image = f'<img alt="{escape(caption)}" width="420" src="{inline(png)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(titles: tuple[str, ...], rows: list[str]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
