// The crops of each tissue type: from the bank, or boxed on a picture.

import { fillSelect, find, make, swatch } from "./dom";
import { lost } from "./held";
import { TissueType } from "./map_picture";
import { RegionDialog } from "./region_dialog";
import { BankCrop, Crop, cutCrop, Model, State } from "./server";

const USUAL = 96; // px of a crop
const OF_A_SET = 2; // crops of a type that the choice of a stain takes over

export class Crops {
  private chosen: Crop[] = [];
  private types: TissueType[] = [];
  private painted: TissueType[] = [];
  private bank: BankCrop[] = [];
  private edge = { least: 1, most: 1 }; // px of a crop
  private met = new Set<string>(); // types that have been painted before
  private isAutomatic = true; // until somebody chooses a stain or a crop
  private set = "";
  private asked: TissueType | null = null; // the type whose dialog is open
  private readonly dialog = find<HTMLDialogElement>("crop-dialog");

  constructor(private readonly regions: RegionDialog) {
    find("set").addEventListener("change", () => this.chooseSet(find<HTMLSelectElement>("set").value));
    find("bank-set").addEventListener("change", () => this.showBank());
    find("crop-upload").addEventListener("click", () => this.upload());
  }

  start({ name, types }: Model, { bank, limits }: State): void {
    const names = new Set(types.map((type) => type.name));
    [this.types, this.edge] = [types, limits.crop_edge];
    this.bank = bank.filter((crop) => crop.model === name);
    this.chosen = this.chosen.filter((crop) => names.has(crop.tissue));
    this.met = new Set();
    this.isAutomatic = !this.chosen.length;
  }

  /**
   * The map shows these ids now: types that are new get crops, of one stain that has them all if nobody has chosen.
   * Where a real image is redrawn they get none: the model sees the stain around them.
   */
  show(ids: number[], isRedrawn: boolean): void {
    this.painted = this.types.filter((type) => ids.includes(type.id));
    const added = this.painted.filter((type) => !this.met.has(type.name));
    added.forEach((type) => this.met.add(type.name));
    if (!isRedrawn) this.addFor(added);
    this.render();
  }

  private addFor(types: TissueType[]): void {
    if (types.length && this.isAutomatic && this.bank.length) this.useSet(this.sets()[0]);
    for (const { name } of types) if (!this.of(name).length) this.chosen.push(...this.inSet(this.set, name));
  }

  /** Begin without crops, and without a choice. */
  forget(): void {
    [this.chosen, this.met, this.isAutomatic, this.set] = [[], new Set(), true, ""];
  }

  /** Take over the crops of an example or of a saved result, whose map is shown already. */
  take(crops: Crop[]): void {
    [this.chosen, this.isAutomatic] = [[...crops], false];
    this.met = new Set([...this.painted.map((type) => type.name), ...crops.map((crop) => crop.tissue)]);
    this.set = this.bank.find(({ crop }) => crops.some((one) => one.crop === crop))?.set ?? "";
    this.render();
  }

  /** Remove crops that the server no longer holds, and return them. */
  async removeLost(): Promise<Crop[]> {
    const gone = await lost(this.chosen);
    if (!gone.length) return gone;
    this.chosen = this.chosen.filter((crop) => !gone.includes(crop));
    this.render();
    return gone;
  }

  /** The crops of the types that are on the map. */
  get used(): Crop[] {
    const names = this.painted.map((type) => type.name);
    return this.chosen.filter((crop) => names.includes(crop.tissue));
  }

  /** The next stain that shows as many of the painted types as any; false where there is none. */
  nextSet(): boolean {
    const sets = this.sets();
    const best = sets.filter((set) => this.covered(set).length === this.covered(sets[0]).length);
    const next = best[(best.indexOf(this.set) + 1) % best.length];
    if (!next || next === this.set) return false;
    this.chooseSet(next);
    return true;
  }

  private chooseSet(set: string): void {
    this.isAutomatic = false;
    this.useSet(set);
    this.render();
  }

  private useSet(set: string): void {
    this.set = set;
    for (const { name } of this.covered(set)) {
      this.chosen = [...this.chosen.filter((crop) => crop.tissue !== name), ...this.inSet(set, name)];
    }
  }

  /** Take over crops that somebody has chosen one by one. */
  private choose(crops: Crop[]): void {
    [this.chosen, this.isAutomatic] = [crops, false];
    this.render();
  }

  private of(tissue: string): Crop[] {
    return this.chosen.filter((crop) => crop.tissue === tissue);
  }

  private inSet(set: string, tissue: string): BankCrop[] {
    return this.bank.filter((crop) => crop.set === set && crop.tissue === tissue).slice(0, OF_A_SET);
  }

  /** The painted types of which a set has crops. */
  private covered(set: string): TissueType[] {
    return this.painted.filter((type) => this.inSet(set, type.name).length);
  }

  /** All sets, those first that show most of the painted types. */
  private sets(): string[] {
    const sets = [...new Set(this.bank.map((crop) => crop.set))];
    return sets.sort((one, other) => this.covered(other).length - this.covered(one).length);
  }

  private render(): void {
    const sets = this.sets().filter((set) => this.covered(set).length);
    const title = (set: string) => `${set}: ${this.covered(set).map((type) => type.name).join(", ")}`;
    const select = find<HTMLSelectElement>("set");
    const isOne = sets.includes(this.set);
    fillSelect(select, [...(isOne ? [] : [["", "Choose a stain"] as [string, string]]), ...sets.map((set): [string, string] => [set, title(set)])]);
    select.value = isOne ? this.set : "";
    select.disabled = !sets.length;
    const hint = make("p", { textContent: "Paint a tissue type first. Its crops appear here." });
    find("crops").replaceChildren(...(this.painted.length ? this.painted.map((type) => this.row(type)) : [hint]));
  }

  private row(type: TissueType): HTMLElement {
    const add = make("button", { type: "button", textContent: "Add…", onclick: () => this.open(type) });
    add.setAttribute("aria-label", `Add a crop of ${type.name}`);
    const crops = this.of(type.name);
    const shown = crops.length
      ? make("ul", {}, ...crops.map((crop, i) => this.item(crop, i)))
      : make("p", { textContent: "No crop: the model chooses." });
    return make("div", { className: "type" }, make("h3", {}, swatch(type.color), type.name, add), shown);
  }

  private item(crop: Crop, i: number): HTMLElement {
    const remove = make("button", { type: "button", textContent: "×" });
    remove.setAttribute("aria-label", `Remove crop ${i + 1} of ${crop.tissue}`);
    remove.addEventListener("click", () => {
      this.choose(this.chosen.filter((one) => one !== crop));
      find("look").querySelector<HTMLButtonElement>(`[aria-label="Add a crop of ${CSS.escape(crop.tissue)}"]`)?.focus();
    });
    return make("li", {}, make("img", { src: crop.url, alt: `Crop ${i + 1} of ${crop.tissue}` }), remove);
  }

  private open(type: TissueType): void {
    this.asked = type;
    find("crop-title").textContent = `Crops of ${type.name}`;
    const sets = [...new Set(this.bank.filter((crop) => crop.tissue === type.name).map((crop) => crop.set))];
    const select = find<HTMLSelectElement>("bank-set");
    fillSelect(select, [["", "all stains"], ...sets.map((set): [string, string] => [set, set])]);
    select.value = "";
    this.showBank();
    this.dialog.showModal();
  }

  private showBank(): void {
    const set = find<HTMLSelectElement>("bank-set").value;
    const crops = this.bank.filter((crop) => crop.tissue === this.asked!.name && (!set || crop.set === set));
    find("bank").replaceChildren(...crops.map((crop) => make("li", {}, this.toggle(crop))));
  }

  private toggle(crop: BankCrop): HTMLElement {
    const isThis = (one: Crop) => one.crop === crop.crop && one.tissue === crop.tissue; // a bank may have pixels twice
    const isChosen = () => this.chosen.some(isThis);
    const button = make("button", { type: "button" }, make("img", { src: crop.url, alt: `${crop.tissue}, ${crop.set}` }));
    button.setAttribute("aria-pressed", String(isChosen()));
    button.addEventListener("click", () => {
      this.choose(isChosen() ? this.chosen.filter((one) => !isThis(one)) : [...this.chosen, crop]);
      button.setAttribute("aria-pressed", String(isChosen()));
    });
    return button;
  }

  private upload(): void {
    const type = this.asked!;
    this.dialog.close();
    this.regions.open({
      title: `Box a crop of ${type.name}`,
      button: "Use this crop",
      limits: { ...this.edge, multiple: 1 },
      size: USUAL,
      use: async ({ image }, _picture, { x, y, width, height }) => {
        const { crop, url, warning } = await cutCrop(image, x, y, width, height, type.name);
        this.choose([...this.chosen, { crop, url, tissue: type.name }]);
        return warning;
      },
    });
  }
}
