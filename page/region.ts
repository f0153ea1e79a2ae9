// A box on a picture, set by pointer or keyboard.

import { Point } from "./semantic_map";
import { View } from "./view";

export interface Region {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** What a box may be, in px. */
export interface Limits {
  least: number;
  most: number;
  multiple: number;
}

export class RegionPicker {
  private picture: ImageBitmap | null = null;
  private limits: Limits = { least: 1, most: 1, multiple: 1 };
  private begun: { at: Point; moved: Region | null } | null = null;
  private readonly view: View;
  box: Region = { x: 0, y: 0, width: 1, height: 1 };

  constructor(private readonly stage: HTMLElement, private readonly say: (text: string) => void) {
    this.view = new View(stage, {
      size: () => [this.picture?.width ?? 1, this.picture?.height ?? 1],
      picture: (context) => this.picture && context.drawImage(this.picture, 0, 0),
      marks: (context, scale) => this.mark(context, scale),
    });
    stage.addEventListener("pointerdown", (event) => this.press(event));
    stage.addEventListener("pointermove", (event) => this.begun && this.drag(this.view.at(event)));
    stage.addEventListener("pointerup", () => (this.begun = null));
    stage.addEventListener("keydown", (event) => this.key(event));
  }

  /** Show a picture with a box of `size` px in its middle. */
  show(picture: ImageBitmap, limits: Limits, size: number): void {
    [this.picture, this.limits] = [picture, limits];
    const [width, height] = [this.length(size, picture.width), this.length(size, picture.height)];
    this.set({ x: (picture.width - width) / 2, y: (picture.height - height) / 2, width, height });
    this.view.fit();
  }

  private press(event: PointerEvent): void {
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    const [at, { x, y, width, height }] = [this.view.at(event), this.box];
    const isInside = at.x >= x && at.y >= y && at.x < x + width && at.y < y + height;
    this.begun = { at, moved: isInside ? { ...this.box } : null };
  }

  private drag(to: Point): void {
    const { at, moved } = this.begun!;
    if (moved) {
      this.set({ ...moved, x: moved.x + to.x - at.x, y: moved.y + to.y - at.y });
      return;
    }
    const width = this.length(Math.abs(to.x - at.x), this.picture!.width);
    const height = this.length(Math.abs(to.y - at.y), this.picture!.height);
    this.set({ x: to.x < at.x ? at.x - width : at.x, y: to.y < at.y ? at.y - height : at.y, width, height });
  }

  private key(event: KeyboardEvent): void {
    if (event.key === "+" || event.key === "=") this.view.larger();
    if (event.key === "-") this.view.smaller();
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const step = Math.max(this.limits.multiple, Math.ceil(this.picture!.width / 64));
    const [dx, dy] = way.map((one) => one * step);
    const { x, y, width, height } = this.box;
    this.set(event.shiftKey ? { x, y, width: width + dx, height: height + dy } : { x: x + dx, y: y + dy, width, height });
    this.view.reveal(this.box);
  }

  /** Take over a box, within the picture and the limits. */
  private set(box: Region): void {
    const { width, height } = this.picture!;
    const [w, h] = [this.length(box.width, width), this.length(box.height, height)];
    const inside = (at: number, size: number, whole: number) => Math.round(Math.min(Math.max(at, 0), whole - size));
    this.box = { x: inside(box.x, w, width), y: inside(box.y, h, height), width: w, height: h };
    this.say(`Box: ${w} x ${h} px at x ${this.box.x}, y ${this.box.y}, of ${width} x ${height} px`);
    this.view.mark();
  }

  /** The nearest length that the limits allow in a picture of `whole` px. */
  private length(wanted: number, whole: number): number {
    const { least, most, multiple } = this.limits;
    const kept = Math.min(Math.max(wanted, least), most, whole);
    return Math.max(multiple, Math.floor(kept / multiple) * multiple);
  }

  private mark(context: CanvasRenderingContext2D, scale: number): void {
    if (!this.picture) return;
    const { x, y, width, height } = this.box;
    for (const [color, line] of [["#ffffff", 4], ["#000000", 1.5]] as const) {
      [context.strokeStyle, context.lineWidth] = [color, (line * devicePixelRatio) / scale];
      context.strokeRect(x, y, width, height);
    }
  }
}
