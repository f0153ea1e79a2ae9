// The tools beside the map, and the keys that work while the map has the focus.

import { find, make, radios } from "./dom";
import { Editor, Tool } from "./editor";
import { TissueType } from "./map_picture";
import { SemanticMap } from "./semantic_map";

const TOOLS: { value: Tool; text: string; key: string }[] = [
  { value: "brush", text: "Brush", key: "b" },
  { value: "eraser", text: "Eraser", key: "e" },
  { value: "polygon", text: "Polygon", key: "p" },
  { value: "fill", text: "Fill", key: "f" },
  { value: "pick", text: "Pick", key: "k" },
  { value: "move", text: "Move", key: "m" },
];

const KEYS: [string, string][] = [
  ["Arrows", "move the cursor by 8 px, with Shift by 1 px"],
  ["Space", "use the tool; hold it and move to paint a line"],
  ["Enter", "close the polygon (or double-click)"],
  ["Escape", "drop the polygon"],
  ["1 to 9", "choose the tissue type"],
  ["B E P F K M", "brush, eraser, polygon, fill, pick, move"],
  ["[ and ]", "smaller and larger brush"],
  ["+ − 0", "zoom in, zoom out, fit"],
  ["Ctrl+Z, Ctrl+Y", "undo, redo"],
];

const ARROWS: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 8; // px per press of an arrow key

export class Tools {
  private types: TissueType[] = [];
  private chooseTool: (tool: string) => void;
  private chooseType: (id: string) => void = () => {};
  private readonly brush = find<HTMLInputElement>("brush");

  constructor(private readonly editor: Editor) {
    const choices = TOOLS.map(({ value, text, key }) => ({ value, text, title: `Key ${key.toUpperCase()}` }));
    this.chooseTool = radios(find("tools"), "tool", choices, (tool) => (editor.tool = tool as Tool));
    this.chooseTool("brush");
    this.brush.addEventListener("input", () => this.size(Number(this.brush.value)));
    this.size(editor.brush);
    find("shortcuts").append(...KEYS.flatMap(([key, text]) => [make("dt", { textContent: key }), make("dd", { textContent: text })]));
    const on = (id: string, act: () => void) => find(id).addEventListener("click", act);
    on("undo", () => editor.undo());
    on("redo", () => editor.redo());
    on("clear", () => editor.clear());
    on("larger", () => editor.view.larger());
    on("smaller", () => editor.view.smaller());
    on("fit", () => editor.view.fit());
    const opacity = find<HTMLInputElement>("map-opacity");
    opacity.addEventListener("input", () => this.fade(Number(opacity.value)));
    this.fade(Number(opacity.value));
    editor.onPick = (id) => this.pick(id);
    editor.onCursor = (text) => (find("cursor").textContent = text);
    editor.stage.addEventListener("keydown", (event) => this.key(event));
  }

  setTypes(types: TissueType[]): void {
    this.types = types;
    const choices = types.map(({ id, name, color }) => ({ value: String(id), text: name, color }));
    this.chooseType = radios(find("types"), "type", choices, (id) => (this.editor.type = Number(id)));
    this.chooseType(String(types.find((type) => type.id === this.editor.type)?.id ?? types[0].id));
  }

  /** The map has changed. */
  show(map: SemanticMap): void {
    find<HTMLButtonElement>("undo").disabled = !this.editor.history.canUndo;
    find<HTMLButtonElement>("redo").disabled = !this.editor.history.canRedo;
    find("opacity-row").hidden = !this.editor.hasBackground;
    find("size").textContent = `${map.width} x ${map.height} px`;
    this.brush.max = String(Math.max(64, Math.round(Math.max(map.width, map.height) / 2)));
  }

  private pick(id: number): void {
    this.chooseType(String(id));
    this.chooseTool("brush");
  }

  private size(px: number): void {
    this.editor.brush = Math.min(Math.max(px, Number(this.brush.min)), Number(this.brush.max));
    this.brush.value = String(this.editor.brush);
    find("brush-size").textContent = `${this.editor.brush} px`;
    this.editor.view.mark();
  }

  private fade(percent: number): void {
    this.editor.opacity = percent / 100;
    find("map-opacity-value").textContent = `${percent} %`;
    this.editor.view.redraw();
  }

  private key(event: KeyboardEvent): void {
    if (event.altKey) return;
    const isCommand = event.ctrlKey || event.metaKey;
    const act = isCommand ? this.command(event) : this.action(event);
    if (!act) return;
    event.preventDefault();
    act();
  }

  private command(event: KeyboardEvent): (() => void) | null {
    const key = event.key.toLowerCase();
    if (key === "y" || (key === "z" && event.shiftKey)) return () => this.editor.redo();
    return key === "z" ? () => this.editor.undo() : null;
  }

  private action({ key, shiftKey, repeat }: KeyboardEvent): (() => void) | null {
    const { editor } = this;
    const tool = TOOLS.find((one) => one.key === key.toLowerCase());
    const type = /^[1-9]$/.test(key) ? this.types[Number(key) - 1] : undefined;
    const [dx, dy] = ARROWS[key] ?? [0, 0];
    const step = shiftKey ? 1 : STEP;
    if (dx || dy) return () => editor.move(dx * step, dy * step);
    if (tool) return () => this.chooseTool(tool.value);
    if (type) return () => this.chooseType(String(type.id));
    const others: Record<string, () => void> = {
      " ": () => editor.pressKey(repeat),
      Enter: () => editor.close(),
      Escape: () => editor.drop(),
      "[": () => this.size(Math.floor(editor.brush / 1.25)),
      "]": () => this.size(Math.ceil(editor.brush * 1.25)),
      "+": () => editor.view.larger(),
      "=": () => editor.view.larger(),
      "-": () => editor.view.smaller(),
      "0": () => editor.view.fit(),
    };
    return others[key] ?? null;
  }
}
