// The editor of the semantic map: pointer and keyboard paint ids, the view shows them.

import { History } from "./history";
import { MapPicture, TissueType } from "./map_picture";
import { Box, grow, Point, SemanticMap, UNLABELED } from "./semantic_map";
import { View } from "./view";

export type Tool = "brush" | "polygon" | "fill" | "eraser" | "pick" | "move";

const NOTHING = (): Box => ({ left: Infinity, top: Infinity, right: -Infinity, bottom: -Infinity });

export class Editor {
  map = new SemanticMap(1, 1);
  tool: Tool = "brush";
  type = 0;
  brush = 24; // px across
  opacity = 1; // of the map over a picture
  history = new History();
  readonly view: View;
  onChange = () => {}; // the ids have changed, after a stroke and not within it
  onPick = (_id: number) => {};
  onCursor = (_text: string) => {};
  private readonly picture = new MapPicture();
  private background: ImageBitmap | null = null;
  private types: TissueType[] = [];
  private cursor: Point | null = null; // of the pointer or of the keyboard
  private stroke: { before: SemanticMap; box: Box; last: Point } | null = null;
  private corners: Point[] = [];
  private panned: Point | null = null;

  constructor(readonly stage: HTMLElement) {
    this.view = new View(stage, {
      size: () => [this.map.width, this.map.height],
      picture: (context) => this.draw(context),
      marks: (context, scale) => this.marks(context, scale),
    });
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.drag(event));
    stage.addEventListener("pointerup", () => this.release());
    stage.addEventListener("pointercancel", () => this.release());
    stage.addEventListener("pointerleave", () => this.hover(null));
    stage.addEventListener("dblclick", () => this.close());
    stage.addEventListener("keyup", (event) => event.key === " " && this.release());
    stage.addEventListener("blur", () => this.release());
    stage.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  setTypes(types: TissueType[]): void {
    this.types = types;
    this.picture.setTypes(types);
    this.refresh();
  }

  /** Replace the map, which undo takes back. A `background` has the size of the map; undo stops at its arrival. */
  load(map: SemanticMap, background: ImageBitmap | null = null): void {
    this.endStroke();
    if (background || this.background) this.history = new History();
    else this.history.add(this.map, this.map.whole);
    this.replace(map, background);
  }

  /** Begin with a map, without anything to undo. */
  begin(map: SemanticMap): void {
    this.endStroke();
    this.history = new History();
    this.replace(map, null);
  }

  undo(): void {
    this.endStroke();
    this.replace(this.history.undo(this.map), this.background);
  }

  redo(): void {
    this.endStroke();
    this.replace(this.history.redo(this.map), this.background);
  }

  private replace(map: SemanticMap, background: ImageBitmap | null): void {
    const isResized = map.width !== this.map.width || map.height !== this.map.height;
    this.map = map;
    this.corners = [];
    this.background = background;
    this.refresh();
    if (isResized) this.view.fit();
    this.onChange();
  }

  get hasBackground(): boolean {
    return this.background !== null;
  }

  private refresh(): void {
    this.picture.show(this.map);
    this.view.redraw();
  }

  // Painting

  private get id(): number {
    return this.tool === "eraser" ? UNLABELED : this.type;
  }

  /** Use the present tool at a point: begin a stroke, add a corner, fill, or pick. */
  private use(at: Point): void {
    this.endStroke();
    if (this.tool === "polygon") {
      this.corners.push(at);
      this.view.mark();
    } else if (this.tool === "fill") {
      this.change((map) => map.flood(at, this.id));
    } else if (this.tool === "pick") {
      const id = this.map.at(at);
      if (id !== null && id !== UNLABELED) this.onPick(id);
    } else if (this.tool !== "move") {
      this.stroke = { before: copied(this.map), box: NOTHING(), last: at };
      this.extend(at);
    }
  }

  /** Draw the stroke on to a point. */
  private extend(to: Point): void {
    const box = this.map.stroke(this.stroke!.last, to, this.brush / 2, this.id);
    grow(this.stroke!.box, box);
    this.stroke!.last = to;
    this.changed(box);
  }

  private release(): void {
    this.panned = null;
    this.endStroke();
  }

  /** Remember the stroke that is being drawn, before anything else changes the map or its history. */
  private endStroke(): void {
    if (!this.stroke) return;
    this.history.add(this.stroke.before, this.stroke.box);
    this.stroke = null;
    this.onChange();
  }

  /** Close the polygon and paint it. */
  close(): void {
    const corners = this.corners;
    this.corners = [];
    if (corners.length > 2) this.change((map) => map.polygon(corners, this.id));
    else this.view.mark();
  }

  /** Drop the polygon that is begun. */
  drop(): void {
    this.corners = [];
    this.view.mark();
  }

  /** Remove every label. */
  clear(): void {
    this.change((map) => {
      map.ids.fill(UNLABELED);
      return map.whole;
    });
  }

  private change(paint: (map: SemanticMap) => Box): void {
    this.endStroke();
    const before = copied(this.map);
    const box = paint(this.map);
    this.history.add(before, box);
    this.changed(box);
    this.onChange();
  }

  private changed(box: Box): void {
    if (box.left >= box.right) return;
    this.picture.update(this.map, box);
    this.view.redraw(box);
  }

  // Pointer

  private press(event: PointerEvent): void {
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    if (!event.isPrimary) return;
    this.stage.setPointerCapture(event.pointerId);
    if (event.button !== 0 || this.tool === "move") this.panned = { x: event.clientX, y: event.clientY };
    else this.use(this.view.at(event));
    this.hover(this.view.at(event));
  }

  private drag(event: PointerEvent): void {
    if (this.panned) {
      this.view.pan(event.clientX - this.panned.x, event.clientY - this.panned.y);
      this.panned = { x: event.clientX, y: event.clientY };
    } else if (this.stroke) {
      const parts = event.getCoalescedEvents?.() ?? [];
      for (const part of parts.length ? parts : [event]) this.extend(this.view.at(part));
    }
    this.hover(this.view.at(event));
  }

  private hover(at: Point | null): void {
    this.cursor = at;
    this.view.mark();
  }

  // Keyboard: the page passes keys that have been pressed on the stage

  /** Move the cursor by px; a stroke goes along while the space bar is held. */
  move(dx: number, dy: number): void {
    const from = this.cursor ?? { x: this.map.width / 2, y: this.map.height / 2 };
    const kept = (at: number, size: number) => Math.min(Math.max(at, 0.5), size - 0.5);
    const to = { x: kept(from.x + dx, this.map.width), y: kept(from.y + dy, this.map.height) };
    if (this.stroke) this.extend(to);
    this.view.reveal(to);
    this.hover(to);
    this.onCursor(`x ${Math.floor(to.x)}, y ${Math.floor(to.y)}: ${this.nameAt(to)}`);
  }

  /** Use the tool at the cursor; `isRepeated` while the key is held. */
  pressKey(isRepeated: boolean): void {
    if (isRepeated) return;
    if (!this.cursor) this.move(0, 0);
    this.use(this.cursor!);
    this.onCursor(`${this.tool} at x ${Math.floor(this.cursor!.x)}, y ${Math.floor(this.cursor!.y)}`);
  }

  private nameAt(at: Point): string {
    const id = this.map.at(at);
    return this.types.find((type) => type.id === id)?.name ?? "unlabeled";
  }

  // Drawing

  private draw(context: CanvasRenderingContext2D): void {
    if (this.background) context.drawImage(this.background, 0, 0);
    context.globalAlpha = this.background ? this.opacity : 1;
    context.imageSmoothingEnabled = false;
    this.picture.draw(context);
    context.globalAlpha = 1;
  }

  private marks(context: CanvasRenderingContext2D, scale: number): void {
    const line = devicePixelRatio / scale;
    if (this.corners.length) {
      context.beginPath();
      [...this.corners, ...(this.cursor ? [this.cursor] : [])].forEach(({ x, y }) => context.lineTo(x, y));
      context.closePath();
      outlined(context, line);
    }
    if (!this.cursor) return;
    context.beginPath();
    const isRound = this.tool === "brush" || this.tool === "eraser";
    const radius = isRound ? this.brush / 2 : 5 * line;
    if (isRound) context.arc(this.cursor.x, this.cursor.y, radius, 0, 2 * Math.PI);
    for (const [dx, dy] of isRound ? [] : [[radius, 0], [0, radius]]) {
      context.moveTo(this.cursor.x - dx, this.cursor.y - dy);
      context.lineTo(this.cursor.x + dx, this.cursor.y + dy);
    }
    outlined(context, line);
  }
}

/** A line that shows on every color. */
function outlined(context: CanvasRenderingContext2D, line: number): void {
  for (const [color, width] of [["#ffffff", 3], ["#000000", 1.2]] as const) {
    [context.strokeStyle, context.lineWidth] = [color, width * line];
    context.stroke();
  }
}

function copied(map: SemanticMap): SemanticMap {
  return new SemanticMap(map.width, map.height, map.ids.slice());
}
