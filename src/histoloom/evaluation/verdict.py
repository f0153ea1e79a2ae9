"""The figures in plain words, for readers of tissue rather than of statistics.

There is no verdict on fewer than MIN_IMAGES images or MIN_CASES cases in any set, nor if a test that it rests on could
not be made. What was found against the images, such as copies, is said all the same.
"""

from histoloom.evaluation.comparison import MIN_IMAGES
from histoloom.evaluation.measures import FRECHET, MMD, EncoderFigures, Figure
from histoloom.evaluation.report import Evaluation
from histoloom.metrics.copying import CopyRate
from histoloom.text import counted

CLOSE = 1.5  # times the floor within which a Fréchet distance counts as real
TELLING = 0.1  # accuracy above the floor's from which a classifier is said to tell
SHORT = 0.1  # share below the floor's from which something is said to be missing
CHANCE = 0.02  # share of reappearing parts that is not called copying, whatever the floor; 0.01 is expected by chance
NO_FLOOR = 0.1  # the same for crops without any floor: generated tissue takes its texture from them


def verdict(evaluation: Evaluation) -> tuple[str, list[str]]:
    """A headline, and one sentence for each question: true, varied, obedient, new, in the right stain, and by whom.

    With several encoders the first decides; sentences that rest on it name it, and the last says what its figures
    compare with.
    """
    first = evaluation.encoders[0]
    of_name = {figure.name: figure for figure in first.overall}
    copied, near, new = _new(evaluation, of_name)
    true, looks_real, lacking = _true(first.encoder, of_name)
    varied, is_varied = _varied(first.encoder, of_name)
    judge = f"By which encoder? {first.encoder} decides what is true, varied and new. {encoder_note(first)}"
    new, reappear = new + _crop_sentence(evaluation), _crops_reappear(evaluation)
    sentences = [true, varied, _obedient(evaluation.maps), new, _stain(evaluation.stain[0]), judge]
    lacking = evaluation.sets.too_few or lacking
    if evaluation.shared:
        are = counted(len(evaluation.shared), "synthetic image is a real one", "synthetic images are real ones")
        headline = f"{are}, pixel by pixel. Do not use this set."
    elif reappear:
        headline = "Crops reappear in what was generated from them. Look at the suspects before any use."
    elif copied:
        headline = "Parts of training images reappear in the synthetic ones. Look at the suspects before any use."
    elif near:
        headline = "Synthetic images are closer to the training images than unseen real ones are. Look at the suspects."
    elif lacking:
        headline = f"No verdict: {lacking}."
    elif looks_real and is_varied:
        headline = "By these measures the synthetic images are about as true and as varied as real ones."
    elif looks_real:
        headline = "Each synthetic image looks real by these measures, but they do not show all that real tissue shows."
    else:
        headline = "The synthetic images differ from real ones by these measures."
    if not (copied or near or reappear or evaluation.shared):
        headline += _suspicion(evaluation)
    return headline, [sentence for sentence in sentences if sentence]


def encoder_note(encoder: EncoderFigures) -> str:
    """What figures of this encoder may be compared with."""
    if encoder.small:
        return "Compare figures of this small encoder with each other only, not with published ones."
    return "Compare figures only at the same encoder, number of images and file format."


def _suspicion(evaluation: Evaluation) -> str:
    fake, crops = evaluation.copying.fake, evaluation.crops
    if fake is None:
        return " Copied parts could not be searched for."
    if fake.rate > _image_floor(evaluation):
        return " More of their parts resemble training images than those of unseen real ones do: look at the suspects."
    if crops.woven and crops.real and crops.woven.rate > crops.real.at_threshold[1]:
        return " Crops reappear in what was generated from them more often than in real patches: look at the suspects."
    if fake.n < MIN_IMAGES:
        were = counted(fake.n, "image was", "images were")
        return f" Only {were} searched for copied parts; to find none takes {MIN_IMAGES}."
    if crops.used.named and crops.woven is None:
        return " No sign of copying was found, but the crops could not be searched for."
    return " No sign of copying was found."


def _image_floor(evaluation: Evaluation) -> float:
    """The share of images above which training images count as copied: the upper end of the higher floor."""
    return _upper(evaluation.copying.real, evaluation.copying.other)


def _upper(*rates: CopyRate | None) -> float:
    """The upper end of the highest rate, at the threshold that all of them share."""
    return max((rate.at_threshold[1] for rate in rates if rate), default=0.0)


def _crops_reappear(evaluation: Evaluation) -> bool:
    woven = evaluation.crops.woven
    return woven is not None and woven.at_threshold[0] > _crop_floor(evaluation) and woven.low > CHANCE


def _crop_floor(evaluation: Evaluation) -> float:
    """The share of crops above which they count as copied: the upper end of the higher floor."""
    rates = evaluation.crops.real, evaluation.crops.other
    return max(_upper(*rates), CHANCE) if any(rates) else NO_FLOOR


def _crop_sentence(evaluation: Evaluation) -> str:
    """What is known about the crops; empty for images that name none."""
    crops = evaluation.crops
    if not crops.used.named:
        return ""
    if crops.woven is None:
        return f" Whether crops reappear is {crops.note}."
    floors = {"real patches of their case": crops.real, "synthetic ones made without them": crops.other}
    others = "".join(f"in {name}: {100 * rate.rate:.1f} %; " for name, rate in floors.items() if rate)
    lost = sum(crops.used.missing.values())
    left = f"; {lost} of {crops.used.named} could not be found" if lost else ""
    return (
        f" Of {crops.woven.n} crops {100 * crops.woven.rate:.1f} % reappear in part in what was generated from them "
        f"({others}expected by chance: 1 %{left})."
    )


def _true(encoder: str, of_name: dict[str, Figure]) -> tuple[str, bool, str]:
    """The sentence, whether the images look real, and which test could not be made."""
    test, precision = of_name["C2ST accuracy"], of_name["precision"]
    parts, looks_real, lacking = [], True, ""
    if test.value is None or test.floor is None:
        lacking = "whether a classifier can tell synthetic from real could not be tested"
        parts.append(f"Whether a classifier can tell them from real ones could not be tested ({test.note}).")
        looks_real = False
    else:
        floor = max(test.floor, 0.5)
        looks_real = test.value < floor + TELLING
        parts.append(
            f"A simple classifier is right about {100 * test.value:.0f} of 100 images (guessing: 50; two sets of real "
            f"patients: {100 * floor:.0f})."
        )
    distant, sentence, unknown = _distant(of_name)
    looks_real, lacking = looks_real and not distant, lacking or unknown
    parts.append(sentence)
    parts.append(
        f"{100 * precision.measured:.0f} % of the synthetic images are among real ones (real images: "
        f"{100 * precision.at_best:.0f} %)."
    )
    looks_real = looks_real and precision.measured > precision.at_best - SHORT
    return f"True? By {encoder}: " + " ".join(parts), looks_real, lacking


def _distant(of_name: dict[str, Figure]) -> tuple[bool, str, str]:
    """Whether synthetic and real are farther apart than real and real are, in words, and why that is unknown.

    The Fréchet distance, which is biased alike on both sides, is compared by its ratio; MMD is unbiased, so that its
    floor may be zero or below, and is compared by the difference.
    """
    frechet, mmd = of_name[FRECHET], of_name[MMD]
    if frechet.value is not None and frechet.floor:
        times = frechet.value / frechet.floor
        sentence = f"Synthetic and real images are {times:.1f} times as far apart as two sets of real patients."
        return times >= CLOSE, sentence, ""
    if mmd.difference is None or mmd.difference_low is None or mmd.difference_high is None:
        return True, "How far apart they are could not be tested.", "how far apart synthetic and real are is unknown"
    distant = mmd.difference_low > 0
    sentence = (
        f"The distance from real images (MMD x 1000) is {mmd.difference:+.1f} [{mmd.difference_low:.1f}, "
        f"{mmd.difference_high:.1f}] compared with that of two sets of real patients, "
        + ("so they are farther apart." if distant else "so no difference is shown.")
    )
    return distant, sentence, ""


def _varied(encoder: str, of_name: dict[str, Figure]) -> tuple[str, bool]:
    recall, coverage = of_name["recall"], of_name["coverage"]
    enough = recall.measured > recall.at_best - SHORT and coverage.measured > coverage.at_best - SHORT
    return (
        f"Varied? By {encoder}: They cover {100 * coverage.measured:.0f} % of the real images (other real patients: "
        f"{100 * coverage.at_best:.0f} %); {100 * recall.measured:.0f} % of real images have a similar one among them "
        f"({100 * recall.at_best:.0f} %)."
    ), enough


def _obedient(maps: list[Figure]) -> str:
    if not maps:
        return "Obedient to the map? Not measured; see the notes."
    mean = maps[0]
    share = f", {100 * mean.measured / mean.floor:.0f} % of that" if mean.floor else ""
    return (
        "Obedient to the map? A segmenter that learned from real images finds the tissue of the map with a mean IoU of "
        f"{mean.measured:.2f}{share} on real images ({mean.at_best:.2f}), over the types of both."
    )


def _new(evaluation: Evaluation, of_name: dict[str, Figure]) -> tuple[bool, bool, str]:
    """Whether parts were copied, whether whole images keep too close to the training images, and the sentence."""
    auth, fake = of_name["AuthPct"], evaluation.copying.fake
    surely_less = auth.difference_high is not None and auth.difference_high < 0
    near = surely_less and auth.measured < auth.at_best - 100 * SHORT
    text = (
        f"New? By {evaluation.encoders[0].encoder}: {auth.measured:.0f} % of the synthetic images keep their distance "
        f"from the training images (unseen real ones: {auth.at_best:.0f} %)."
    )
    if fake is None:
        return False, near, f"{text} Copied parts were not searched for: {evaluation.copying.note}."
    pasted = fake.at_threshold[0] > max(_image_floor(evaluation), CHANCE) and fake.low > CHANCE
    floors = {"in unseen real images": evaluation.copying.real, "of a random training image": evaluation.copying.other}
    others = "".join(f"{name}: {100 * rate.rate:.1f} %; " for name, rate in floors.items() if rate)
    text += (
        f" In {100 * fake.rate:.1f} % of {fake.n} a part of the nearest training image reappears ({others}expected by "
        "chance: 1 %)."
    )
    return pasted, near, text


def _stain(drift: Figure) -> str:
    seen = "hardly visible" if drift.measured < 2 else "visible" if drift.measured < 6 else "obvious"
    return (
        f"Stain? The mean color is off by delta E {drift.measured:.1f}, which is {seen} (two sets of real patients: "
        f"{drift.at_best:.1f})."
    )
