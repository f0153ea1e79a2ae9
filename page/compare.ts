// The compare page: one map, one seed, two settings or two models; and two evaluation reports.

import { fillSelect, find, make } from "./dom";
import { showExamples } from "./examples";
import { lost, saidOf } from "./held";
import { Canceled, weave } from "./job";
import { Kept, kept } from "./kept_order";
import { MapPicture } from "./map_picture";
import { attempt, say, whenLoggedIn } from "./page";
import { Reports } from "./reports";
import { showChecks } from "./result";
import { mapAt, Model, readExample, readState, Result, Settings, State } from "./server";
import { randomSeed, SettingsForm } from "./settings";
import { Swipe } from "./swipe";

const SIDES = ["a", "b"] as const;
type Side = (typeof SIDES)[number];

let state: State;
let base: Kept | null = null;
let running: AbortController | null = null;
const forms = { a: new SettingsForm("a-"), b: new SettingsForm("b-") };
const choices = { a: find<HTMLSelectElement>("a-model"), b: find<HTMLSelectElement>("b-model") };
new Swipe();
new Reports();

const model = (side: Side): Model => state.models.find(({ name }) => name === choices[side].value)!;

function use(next: Kept): void {
  base = next;
  find<HTMLButtonElement>("weave").disabled = false;
  const { width, height } = next.map;
  const [canvas, colors] = [find<HTMLCanvasElement>("map"), new MapPicture()];
  [canvas.width, canvas.height] = [width, height];
  colors.setTypes((state.models.find(({ name }) => name === next.settings.model) ?? state.models[0]).types);
  colors.show(next.map);
  colors.draw(canvas.getContext("2d")!);
  find("map-size").textContent = `${width} x ${height} px`;
  find("crops").replaceChildren(...next.crops.map(({ url, tissue }) => make("li", {}, make("img", { src: url, alt: `Crop of ${tissue}`, title: tissue }))));
}

/** Begin with the settings of the weave page on both sides. */
function take(settings: Settings): void {
  for (const side of SIDES) if (choices[side].value === settings.model) forms[side].take(settings);
  find<HTMLInputElement>("seed").value = String(settings.seed);
}

/** Why the two models cannot weave one map, or an empty line. */
function fault(): string {
  const listed = ({ types }: Model) => JSON.stringify(types.map(({ id, name }) => [id, name]));
  const isSame = listed(model("a")) === listed(model("b"));
  return isSame ? "" : "These two models have different tissue types, so they cannot follow one map. Choose two that share their types.";
}

async function run(): Promise<void> {
  say(fault());
  if (!base || fault()) return;
  running?.abort();
  const stop = (running = new AbortController());
  find("progress").hidden = false;
  const made: Partial<Record<Side, Result>> = {};
  const asked = { a: forms.a.read(choices.a.value), b: forms.b.read(choices.b.value) };
  await attempt(async () => {
    try {
      for (const side of SIDES) made[side] = await woven(side, asked[side], stop.signal);
    } catch (error) {
      if (!(error instanceof Canceled)) throw error;
    }
  });
  if (running !== stop) return;
  running = null;
  find("progress").hidden = true;
  if (made.a && made.b) show(made as Record<Side, Result>, asked);
}

async function woven(side: Side, settings: Settings, signal: AbortSignal): Promise<Result> {
  const [place, title] = [find("place"), side.toUpperCase()];
  let found: Result | null = null;
  place.textContent = `${title}: sending the map…`;
  await weave({ map: base!.map, crops: base!.crops, settings, variations: 1, inpaint: null }, {
    place: (at) => (place.textContent = at > 0 ? `${title}: waiting, ${at} before you` : `${title}: weaving…`),
    step: (_variation, step, of) => (place.textContent = `${title}: step ${step} of ${of}`),
    result: (result) => (found = result),
    lost: () => (place.textContent = "The server does not answer; trying again…"),
  }, signal);
  return found!;
}

function show(made: Record<Side, Result>, asked: Record<Side, Settings>): void {
  find("none").hidden = true;
  find("compared").hidden = false;
  for (const side of SIDES) {
    const { model, steps, map_guidance, crop_guidance, seed } = asked[side];
    const image = find<HTMLImageElement>(`swipe-${side}`);
    [image.width, image.height, image.src] = [base!.map.width, base!.map.height, made[side].url_image];
    image.alt = `Image ${side.toUpperCase()}, seed ${seed}`;
    find(`${side}-title`).textContent = `${side.toUpperCase()}: ${model}, ${steps} steps, map guidance ${map_guidance}, crop guidance ${crop_guidance}`;
    showChecks(find(`${side}-checks`), made[side]);
  }
}

whenLoggedIn(async () => {
  state = await readState();
  find("work").hidden = false;
  const names = state.models.map(({ name }): [string, string] => [name, name]);
  SIDES.forEach((side, i) => {
    fillSelect(choices[side], names);
    choices[side].value = state.models[Math.min(i, state.models.length - 1)].name;
    forms[side].start(model(side));
  });
  const example = async (name: string) => {
    const { map, crops, settings } = await readExample(name);
    use({ map: await mapAt(map), crops, settings });
  };
  await showExamples(state.examples, state.models[0].types, example);
  const before = kept();
  if (before?.map.present().length) {
    const gone = await lost(before.crops);
    use({ ...before, crops: before.crops.filter((crop) => !gone.includes(crop)) });
    take(before.settings);
    if (gone.length) say(saidOf(gone));
  } else if (state.examples.length) await example(state.examples[0].name);
});

for (const side of SIDES) choices[side].addEventListener("change", () => forms[side].start(model(side)));
find("other-seed").addEventListener("click", () => (find<HTMLInputElement>("seed").value = String(randomSeed())));
find("cancel").addEventListener("click", () => running?.abort());
find("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  void run();
});
