// The weave page: paint a tissue map, choose crops, weave, look.

import { Crops } from "./crops";
import { fillSelect, find } from "./dom";
import { Editor } from "./editor";
import { saidOf } from "./held";
import { Canceled, Order, weave } from "./job";
import { keep, kept } from "./kept_order";
import { attempt, hashed, say, whenLoggedIn } from "./page";
import { RegionDialog } from "./region_dialog";
import { Results } from "./result";
import { UNLABELED } from "./semantic_map";
import { Model, readState, Settings, Start, State } from "./server";
import { randomSeed, SettingsForm } from "./settings";
import { Beginnings } from "./start";
import { Tools } from "./tools";

let state: State;
let running: AbortController | null = null;
let isRestored = false; // until then an empty map says nothing
const form = find<HTMLFormElement>("settings");
const modelChoice = find<HTMLSelectElement>("model");
const [seed, variations] = [find<HTMLInputElement>("seed"), find<HTMLInputElement>("variations")];
const editor = new Editor(find("stage"));
const tools = new Tools(editor);
const regions = new RegionDialog(() => state.limits.upload_bytes, say);
const crops = new Crops(regions);
const settings = new SettingsForm();
const results = new Results({ otherStain, otherMap });
const beginnings = new Beginnings(editor, regions, { model, take, forget: () => crops.forget() });

function model(): Model {
  return state.models.find(({ name }) => name === modelChoice.value) ?? state.models[0];
}

function useModel(): void {
  const { types } = model();
  settings.start(model());
  variations.max = String(state.limits.variations);
  tools.setTypes(types);
  editor.setTypes(types);
  crops.start(model(), state);
  changed();
}

function changed(): void {
  tools.show(editor.map);
  crops.show(editor.map.present(), editor.hasBackground);
  find("weave").textContent = editor.hasBackground ? "Redraw the painted part" : "Weave";
}

function useSettings(next: Settings): void {
  if (next.model !== modelChoice.value) {
    modelChoice.value = next.model;
    useModel();
  }
  settings.take(next);
}

async function take(start: Start, atOnce: boolean): Promise<void> {
  useSettings(start.settings);
  await beginnings.take(start);
  crops.take(start.crops);
  if (atOnce) await run();
}

function order(): Order {
  const inpaint = beginnings.redrawn && { image: beginnings.redrawn.image, mask: editor.map.ids.map((id) => Number(id !== UNLABELED)) };
  const { map } = editor;
  return { map, crops: model().reads_crops ? crops.used : [], settings: settings.read(model().name), variations: Number(variations.value), inpaint };
}

/** Weave what the page shows after a `change` of it, one job at a time; nothing changes while a setting is wrong. */
async function run(change: () => Promise<void> | void = () => {}): Promise<void> {
  if (!form.reportValidity()) return;
  await change();
  running?.abort();
  const [stop, place, bar] = [new AbortController(), find("place"), find<HTMLProgressElement>("bar")];
  running = stop;
  const asked = order();
  find("progress").hidden = false;
  place.textContent = "Sending the map…";
  bar.removeAttribute("value");
  results.expect(asked, model().types);
  keep(asked);
  say("");
  const went = await attempt(async () => {
    try {
      await weave(asked, {
        place: (at) => (place.textContent = at > 0 ? `Waiting: ${at} before you` : "Weaving…"),
        step: (variation, step, of, preview) => {
          place.textContent = `${asked.variations > 1 ? `Variation ${variation} of ${asked.variations}, step` : "Step"} ${step} of ${of}`;
          [bar.max, bar.value] = [asked.variations * of, (variation - 1) * of + step];
          if (preview) results.preview(preview);
        },
        result: (result) => results.add(result),
        lost: () => (place.textContent = "The server does not answer; trying again…"),
      }, stop.signal);
    } catch (error) {
      if (!(error instanceof Canceled)) throw error;
      if (running === stop) say("Canceled.");
    }
  });
  if (running !== stop) return; // a later job has the page
  running = null;
  results.end();
  find("progress").hidden = true;
  if (!went) await sayLost();
  if (went && matchMedia("(max-width: 64rem)").matches) find("woven").scrollIntoView({ block: "nearest" });
}

/** Remove crops that the server no longer holds, and say which. */
async function sayLost(): Promise<void> {
  const gone = await crops.removeLost();
  if (gone.length) say(saidOf(gone));
}

function otherStain(): void {
  void attempt(() => run(() => {
    if (!crops.nextSet()) throw new Error("the bank has no other stain for these types");
  }));
}

/** Keep the crops and weave another map of the types that have crops. */
function otherMap(): void {
  const names = crops.used.map((crop) => crop.tissue);
  const types = model().types.filter((type) => names.includes(type.name)).map((type) => type.id);
  void attempt(() => run(() => beginnings.layout(types)));
}

/** Take up the map that this tab had before it was reloaded, or showed another page. */
async function restore(): Promise<void> {
  const before = kept();
  if (before && !state.models.some(({ name }) => name === before.settings.model)) {
    say(`Your last map was made for the model ${before.settings.model}, which is not served here.`);
    return;
  }
  isRestored = true;
  if (!before) return;
  useSettings(before.settings);
  editor.begin(before.map);
  if (!before.map.present().length) return; // what is painted next gets crops by itself
  crops.take(before.crops);
  await sayLost();
}

addEventListener("pagehide", () => state && (isRestored || editor.map.present().length) && keep(order()));

whenLoggedIn(async () => {
  state = await readState();
  fillSelect(modelChoice, state.models.map(({ name }) => [name, name]));
  find("work").hidden = find("begin").hidden = false;
  useModel();
  await beginnings.start(state);
  await restore();
});

editor.onChange = changed;
modelChoice.addEventListener("change", useModel);
find("cancel").addEventListener("click", () => running?.abort());
find("other-seed").addEventListener("click", () => (seed.value = String(randomSeed())));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  void run();
});
for (const button of document.querySelectorAll<HTMLButtonElement>("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog")!.close());
}

/** For tests: the ids as they are, not their colors. */
Object.assign(window, { loom: { ids: () => hashed(editor.map.ids) } });
