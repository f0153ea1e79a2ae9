"""The figures in plain words, for someone who reads tissue and not statistics."""

from histoloom.evaluation.measures import EncoderFigures, Figure
from histoloom.evaluation.report import Evaluation

CLOSE = 1.5  # times the floor within which a distance counts as real
TELLING = 0.1  # accuracy above the floor's from which a classifier is said to tell
SHORT = 0.1  # share below the floor's from which something is said to be missing
CHANCE = 0.02  # share of reappearing parts that is no copying, whatever the floor; 0.01 do by construction
NO_FLOOR = 0.1  # the same for crops without any floor: woven tissue takes its texture from them


def verdict(evaluation: Evaluation) -> tuple[str, list[str]]:
    """A headline, one sentence for each question (true, varied, obedient, new, in the right stain), and by whom.

    Of several encoders the first speaks; sentences that rest on it name it, and the last says what it compares with.
    """
    first = evaluation.encoders[0]
    of_name = {figure.name: figure for figure in first.overall}
    copied, new = _new(evaluation, of_name)
    true, looks_real = _true(first.encoder, of_name)
    varied, is_varied = _varied(first.encoder, of_name)
    judge = f"By which encoder? True, varied and new are told by {first.encoder}. {encoder_note(first)}"
    new, reappear = new + _crop_sentence(evaluation), _crops_reappear(evaluation)
    sentences = [true, varied, _obedient(evaluation.maps), new, _stain(evaluation.stain[0]), judge]
    if evaluation.shared:
        headline = f"{len(evaluation.shared)} synthetic images are real ones, pixel by pixel. Do not use this set."
    elif reappear:
        headline = "Crops reappear in what was woven from them. Look at the suspects before any use."
    elif copied:
        headline = "Parts of training images reappear in the synthetic ones. Look at the suspects before any use."
    elif looks_real and is_varied:
        headline = "By these measures the synthetic images are about as true and as varied as real ones."
    elif looks_real:
        headline = "Each synthetic image looks real by these measures, but they do not show all that real tissue shows."
    else:
        headline = "The synthetic images can be told from real ones."
    if not (copied or reappear or evaluation.shared):
        headline += _suspicion(evaluation)
    return headline, [sentence for sentence in sentences if sentence]


def _suspicion(evaluation: Evaluation) -> str:
    fake, crops = evaluation.copying.fake, evaluation.crops
    if fake is None:
        return " Copied parts could not be searched for."
    if fake.rate > _image_floor(evaluation):
        return " More of their parts are like training images than those of unseen real ones: look at the suspects."
    if crops.woven and crops.real and crops.woven.rate > crops.real.high:
        return (
            " Crops are found again in what was woven from them more often than in real patches: look at the suspects."
        )
    if crops.used.named and crops.woven is None:
        return " No sign of copying was found, but the crops could not be searched for."
    return " No sign of copying was found."


def _image_floor(evaluation: Evaluation) -> float:
    """The share of images from which copying of training images is told: the upper end of the higher floor."""
    return max(rate.high for rate in (evaluation.copying.real, evaluation.copying.other) if rate)


def _crops_reappear(evaluation: Evaluation) -> bool:
    woven = evaluation.crops.woven
    return woven is not None and woven.low > _crop_floor(evaluation)


def _crop_floor(evaluation: Evaluation) -> float:
    """The share of crops from which copying is told: the upper end of the higher floor."""
    floors = [rate.high for rate in (evaluation.crops.real, evaluation.crops.other) if rate]
    return max(*floors, CHANCE) if floors else NO_FLOOR


def _crop_sentence(evaluation: Evaluation) -> str:
    """What is known of the crops; nothing for images that name none."""
    crops = evaluation.crops
    if not crops.used.named:
        return ""
    if crops.woven is None:
        return f" Whether crops reappear is {crops.note}."
    floors = {"real patches of their case": crops.real, "synthetic ones woven without them": crops.other}
    told = "".join(f"in {name}: {100 * rate.rate:.1f} %; " for name, rate in floors.items() if rate)
    lost = sum(crops.used.missing.values())
    left = f"; {lost} of {crops.used.named} could not be found" if lost else ""
    return (
        f" Of {crops.woven.n} crops {100 * crops.woven.rate:.1f} % reappear in part in what was woven from them "
        f"({told}chance: 1 %{left})."
    )


def _true(encoder: str, of_name: dict[str, Figure]) -> tuple[str, bool]:
    test, precision = of_name["C2ST accuracy"], of_name["precision"]
    parts, looks_real = [], True
    if test.value is not None:
        floor = 0.5 if test.floor is None else max(test.floor, 0.5)
        looks_real = test.value < floor + TELLING
        parts.append(
            f"A simple classifier tells synthetic from real in {100 * test.value:.0f} of 100 cases (50 is guessing; "
            f"two sets of real patients it tells apart in {100 * floor:.0f})."
        )
    far = next((f for f in (of_name["Fréchet distance"], of_name["MMD (RBF) x 1000"]) if f.value is not None), None)
    if far is not None and far.floor and far.floor > 0:
        times = far.value / far.floor
        looks_real = looks_real and times < CLOSE
        parts.append(f"Synthetic and real lie {times:.1f} times as far apart as two sets of real patients do.")
    parts.append(
        f"{100 * precision.value:.0f} % of the synthetic images lie among real ones (real images: "
        f"{100 * precision.floor:.0f} %)."
    )
    return f"True? By {encoder}: " + " ".join(parts), looks_real and precision.value > precision.floor - SHORT


def _varied(encoder: str, of_name: dict[str, Figure]) -> tuple[str, bool]:
    recall, coverage = of_name["recall"], of_name["coverage"]
    enough = recall.value > recall.floor - SHORT and coverage.value > coverage.floor - SHORT
    return (
        f"Varied? By {encoder}: They cover {100 * coverage.value:.0f} % of the real images (real patients among each "
        f"other: {100 * coverage.floor:.0f} %); {100 * recall.value:.0f} % of real images have a like among them "
        f"({100 * recall.floor:.0f} %)."
    ), enough


def _obedient(maps: list[Figure]) -> str:
    if not maps:
        return "Obedient to the map? Not measured; see the notes."
    mean = maps[0]
    share = f", {100 * mean.value / mean.floor:.0f} % of that" if mean.floor else ""
    return (
        f"Obedient to the map? A segmenter that learned from real images finds the tissue where the map put it with a "
        f"mean IoU of {mean.value:.2f}{share} on real images ({mean.floor:.2f})."
    )


def _new(evaluation: Evaluation, of_name: dict[str, Figure]) -> tuple[bool, str]:
    auth, fake = of_name["AuthPct"], evaluation.copying.fake
    near = auth.value < auth.floor - 100 * SHORT and auth.high < auth.floor
    text = (
        f"New? By {evaluation.encoders[0].encoder}: {auth.value:.0f} % of the synthetic images keep their distance "
        f"from the training images (unseen real ones: {auth.floor:.0f} %)."
    )
    if fake is None:
        return near or bool(evaluation.shared), f"{text} Copied parts were not searched for: {evaluation.copying.note}."
    pasted = fake.low > max(_image_floor(evaluation), CHANCE)
    floors = {"in unseen real images": evaluation.copying.real, "of a random training image": evaluation.copying.other}
    told = "".join(f"{name}: {100 * rate.rate:.1f} %; " for name, rate in floors.items() if rate)
    text += (
        f" In {100 * fake.rate:.1f} % of {fake.n} a part of the nearest training image reappears ({told}chance: 1 %)."
    )
    return pasted or near or bool(evaluation.shared), text


def _stain(drift: Figure) -> str:
    shown = "hardly visible" if drift.value < 2 else "visible" if drift.value < 6 else "plain to see"
    return (
        f"Stain? The mean colour is off by delta E {drift.value:.1f}, which is {shown} (two sets of real patients: "
        f"{drift.floor:.1f})."
    )


def encoder_note(encoder: EncoderFigures) -> str:
    """What figures of this encoder may be compared with."""
    if encoder.small:
        return "Figures of this small encoder compare with each other, and with no published figure."
    return "Figures compare with others of the same encoder, images, number and format only."
