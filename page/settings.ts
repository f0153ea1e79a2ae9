// The settings of a weaving, within what the model allows.

import { Model, Range, Settings } from "./server";

/** The fields whose ids begin with `prefix`; fields that a page has once are shared. */
export class SettingsForm {
  private choices: number[] | null = null; // of steps

  constructor(private readonly prefix = "") {
    this.input("steps").addEventListener("input", () => this.check());
  }

  /** Take over the ranges and the defaults of a model. */
  start({ defaults, steps, map_guidance, crop_guidance }: Model): void {
    this.choices = steps.choices;
    this.set("steps", defaults.steps, steps);
    this.set("map-guidance", defaults.map_guidance, map_guidance);
    this.set("crop-guidance", defaults.crop_guidance, crop_guidance);
    this.check();
  }

  take({ steps, map_guidance, crop_guidance, seed }: Settings): void {
    const values = { steps, "map-guidance": map_guidance, "crop-guidance": crop_guidance, seed };
    for (const [name, value] of Object.entries(values)) this.input(name).value = String(value);
    this.check();
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

  /** A model of few steps takes certain numbers of them only. */
  private check(): void {
    const steps = this.input("steps");
    const isKnown = !this.choices || this.choices.includes(Number(steps.value));
    steps.setCustomValidity(isKnown ? "" : `This model takes ${this.choices!.join(", ")} steps.`);
  }

  private set(name: string, value: number, { least, most }: Range): void {
    Object.assign(this.input(name), { min: String(least), max: String(most), value: String(value) });
  }
}

/** A seed that nobody has chosen. */
export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
