// Where a map comes from: an example, an empty one, a layout, a file, a picture to redraw, a saved result.

import { find, sentence } from "./dom";
import { Editor } from "./editor";
import { showExamples } from "./examples";
import { Model, State, Start, Uploaded, cut, drawLayout, mapAt, pictureAt, readExample, reopen, sendImage, sendMap } from "./server";
import { RegionDialog } from "./region_dialog";
import { SemanticMap, UNLABELED } from "./semantic_map";
import { attempt, say } from "./page";
import { randomSeed } from "./settings";

const NOTES = 3; // on a map file that are shown, in one line

export interface Host {
  model(): Model;
  /** A map with crops and settings has come; weave it where `atOnce`. */
  take(start: Start, atOnce: boolean): Promise<void>;
  /** Crops of before do not fit what comes. */
  forget(): void;
}

export class Beginnings {
  /** The image whose painted part is redrawn. */
  redrawn: Uploaded | null = null;

  constructor(private readonly editor: Editor, private readonly regions: RegionDialog, private readonly host: Host) {
    const on = (id: string, act: () => void) => find(id).addEventListener("click", act);
    on("new", () => this.askSize());
    on("layout", () => void attempt(() => this.layout()));
    on("open-map", () => find("map-file").click());
    on("open-region", () => this.askRegion());
    on("open-result", () => find("result-file").click());
    on("new-make", () => this.empty());
    this.onFile("map-file", (file) => this.openMap(file));
    this.onFile("result-file", async (file) => this.host.take(await reopen(file, file.type || "application/octet-stream"), false));
  }

  async start({ examples }: State): Promise<void> {
    const { size, types } = this.host.model();
    this.editor.begin(new SemanticMap(size.default, size.default));
    await showExamples(examples, types, async (name) => this.host.take(await readExample(name), true));
  }

  /** Put a map into the editor; nothing is redrawn. */
  load(map: SemanticMap): void {
    this.redrawn = null;
    this.editor.load(map);
  }

  /** Load a drawn map of the present size, of these types or of all. */
  async layout(types?: number[]): Promise<void> {
    const { width, height } = this.editor.map;
    this.load(await mapAt((await drawLayout(this.host.model().name, width, height, randomSeed(), types)).url));
  }

  /** Take over the map of an example or a saved result. */
  async take({ map, inpaint }: Start): Promise<void> {
    const semantic = await mapAt(map);
    if (!inpaint) {
      this.load(semantic);
      return;
    }
    const [picture, mask] = await Promise.all([pictureAt(inpaint.image.url), mapAt(inpaint.mask)]);
    semantic.ids.forEach((_, i) => mask.ids[i] || (semantic.ids[i] = UNLABELED));
    this.redraw(inpaint.image, picture, semantic);
  }

  private redraw(image: Uploaded, picture: ImageBitmap, map: SemanticMap): void {
    this.redrawn = image;
    this.editor.load(map, picture);
  }

  private onFile(id: string, open: (file: File) => Promise<void>): void {
    const input = find<HTMLInputElement>(id);
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      input.value = "";
      if (file) void attempt(() => open(file));
    });
  }

  private async openMap(file: File): Promise<void> {
    const isDrawn = /json$/i.test(file.name);
    const type = isDrawn ? "application/geo+json" : file.type || "application/octet-stream";
    const { width, height } = this.editor.map;
    const { url, unlabeled, notes } = await sendMap(file, type, this.host.model().name, width, height);
    this.load(await mapAt(url));
    const said = notes.slice(0, NOTES).map(sentence);
    if (notes.length > NOTES) said.push(`${notes.length - NOTES} more parts of the file were left out or changed.`);
    if (unlabeled) said.push(`${(100 * unlabeled).toFixed(0)} % of the map is unlabeled; the model chooses what is there.`);
    say(said.join(" "));
  }

  private askSize(): void {
    const { size } = this.host.model();
    for (const [id, value] of [["new-width", this.editor.map.width], ["new-height", this.editor.map.height]] as const) {
      Object.assign(find(id), { min: size.least, max: size.most, step: size.multiple, value });
    }
    find<HTMLDialogElement>("new-dialog").showModal();
  }

  private empty(): void {
    const [width, height] = ["new-width", "new-height"].map((id) => find<HTMLInputElement>(id));
    if (width.checkValidity() && height.checkValidity()) this.load(new SemanticMap(Number(width.value), Number(height.value)));
  }

  private askRegion(): void {
    const { size } = this.host.model();
    this.regions.open({
      title: "Redraw a part of a tissue image",
      button: "Paint on this region",
      limits: { least: size.least, most: size.most, multiple: size.multiple },
      size: size.default,
      use: async (_uploaded, picture, { x, y, width, height }) => {
        const region = await sendImage(await cut(picture, x, y, width, height));
        this.host.forget();
        this.redraw(region, await pictureAt(region.url), new SemanticMap(width, height));
        return region.warning;
      },
    });
  }
}
