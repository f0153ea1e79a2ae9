// The settings of a weaving, within what the model allows.

import { find } from "./dom";
import { Model, Settings } from "./server";

const MOST_SEED = 2 ** 32;

export class SettingsForm {
  constructor(private readonly prefix = "") {
    const other = document.getElementById(`${prefix}other-seed`);
    other?.addEventListener("click", () => this.newSeed());
  }

  /** Take over the ranges and the defaults of a model. */
  start({ defaults, steps, guidance }: Model, variations = 1): void {
    this.set("steps", defaults.steps, steps.least, steps.most);
    this.set("map-guidance", defaults.map_guidance, guidance.least, guidance.most);
    this.set("crop-guidance", defaults.crop_guidance, guidance.least, guidance.most);
    const count = document.getElementById(`${this.prefix}variations`) as HTMLInputElement | null;
    if (count) count.max = String(variations);
  }

  take({ steps, map_guidance, crop_guidance, seed }: Settings): void {
    const values = { steps, "map-guidance": map_guidance, "crop-guidance": crop_guidance, seed };
    for (const [name, value] of Object.entries(values)) this.input(name).value = String(value);
  }

  read(model: string): Settings {
    const value = (name: string) => Number(this.input(name).value);
    return {
      model, steps: value("steps"), map_guidance: value("map-guidance"), crop_guidance: value("crop-guidance"), seed: value("seed"),
    };
  }

  get variations(): number {
    return Number(this.input("variations").value);
  }

  newSeed(): number {
    const [seed] = crypto.getRandomValues(new Uint32Array(1));
    this.input("seed").value = String(seed % MOST_SEED);
    return seed;
  }

  private input(name: string): HTMLInputElement {
    return find<HTMLInputElement>(`${this.prefix}${name}`);
  }

  private set(name: string, value: number, least: number, most: number): void {
    Object.assign(this.input(name), { min: String(least), max: String(most), value: String(value) });
  }
}
