// The settings of a weaving, within what the model allows.

import { Model, Settings } from "./server";

/** The fields whose ids begin with `prefix`; fields that a page has once are shared. */
export class SettingsForm {
  constructor(private readonly prefix = "") {}

  /** Take over the ranges and the defaults of a model. */
  start({ defaults, steps, guidance }: Model): void {
    this.set("steps", defaults.steps, steps.least, steps.most);
    this.set("map-guidance", defaults.map_guidance, guidance.least, guidance.most);
    this.set("crop-guidance", defaults.crop_guidance, guidance.least, guidance.most);
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

  private input(name: string): HTMLInputElement {
    return (document.getElementById(this.prefix + name) ?? document.getElementById(name)) as HTMLInputElement;
  }

  private set(name: string, value: number, least: number, most: number): void {
    Object.assign(this.input(name), { min: String(least), max: String(most), value: String(value) });
  }
}

/** A seed that nobody has chosen. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
