// A picture on the screen that can be enlarged and moved: one canvas for its pixels, one above it for cursors and lines.

import { Box, grow, isEmpty, Point } from "./semantic_map";

const STEP = 1.5;
const LARGEST = 32; // screen pixels per pixel

export interface Painter {
  /** Size of the picture in px. */
  size(): [number, number];
  /** Draw the picture where `context` maps px of the picture to the screen; only `box` is needed. */
  picture(context: CanvasRenderingContext2D, box: Box): void;
  /** Draw cursors and lines; `scale` is screen pixels per px of the picture. */
  marks(context: CanvasRenderingContext2D, scale: number): void;
}

export class View {
  private readonly below = layer();
  private readonly above = layer();
  private scale = 1; // device pixels per px of the picture
  private left = 0; // of the picture in device pixels
  private top = 0;
  private fitted = true;
  private dirty: Box | null = null;
  private isWhole = true; // draw everything, not only `dirty`
  private waits = false;

  constructor(readonly stage: HTMLElement, private readonly painter: Painter) {
    stage.append(this.below, this.above);
    new ResizeObserver(() => this.resize()).observe(stage);
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** Show the whole picture, as large as fits. */
  fit(): void {
    const [width, height] = this.painter.size();
    this.scale = Math.min(this.below.width / width, this.below.height / height) || 1;
    this.left = (this.below.width - width * this.scale) / 2;
    this.top = (this.below.height - height * this.scale) / 2;
    this.fitted = true;
    this.redraw();
  }

  larger(): void {
    this.zoom(STEP, this.below.width / 2, this.below.height / 2);
  }

  smaller(): void {
    this.zoom(1 / STEP, this.below.width / 2, this.below.height / 2);
  }

  /** Move the picture by screen pixels. */
  pan(dx: number, dy: number): void {
    this.place(this.left + dx * devicePixelRatio, this.top + dy * devicePixelRatio);
    this.redraw();
  }

  /** Move the picture so that a point of it is on the screen. */
  reveal({ x, y }: Point): void {
    const [column, row] = [this.left + x * this.scale, this.top + y * this.scale];
    const outside = (at: number, size: number) => (at < 0 ? -at + size / 4 : at > size ? size - at - size / 4 : 0);
    const [dx, dy] = [outside(column, this.below.width), outside(row, this.below.height)];
    if (dx || dy) this.pan(dx / devicePixelRatio, dy / devicePixelRatio);
  }

  /** The point of the picture under a pointer. */
  at(event: { clientX: number; clientY: number }): Point {
    const frame = this.below.getBoundingClientRect();
    const [column, row] = [(event.clientX - frame.left) * devicePixelRatio, (event.clientY - frame.top) * devicePixelRatio];
    return { x: (column - this.left) / this.scale, y: (row - this.top) / this.scale };
  }

  /** Screen pixels per px of the picture. */
  get magnification(): number {
    return this.scale / devicePixelRatio;
  }

  /** Draw a box of the picture again with the next frame; everything by default. */
  redraw(box?: Box): void {
    const [width, height] = this.painter.size();
    const whole = { left: 0, top: 0, right: width, bottom: height };
    if (this.dirty) grow(this.dirty, box ?? whole);
    else this.dirty = box ? { ...box } : whole;
    this.isWhole ||= !box;
    this.mark();
  }

  /** Draw the marks again with the next frame. */
  mark(): void {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    this.waits = false;
    if (this.dirty && !isEmpty(this.dirty)) this.drawPicture(this.dirty);
    [this.dirty, this.isWhole] = [null, false];
    const context = this.above.getContext("2d")!;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.above.width, this.above.height);
    context.setTransform(this.scale, 0, 0, this.scale, this.left, this.top);
    this.painter.marks(context, this.scale);
  }

  private drawPicture(box: Box): void {
    const context = this.below.getContext("2d")!;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.save();
    if (this.isWhole) {
      context.clearRect(0, 0, this.below.width, this.below.height);
    } else {
      const [left, top] = [Math.floor(this.left + box.left * this.scale), Math.floor(this.top + box.top * this.scale)];
      const [right, bottom] = [Math.ceil(this.left + box.right * this.scale), Math.ceil(this.top + box.bottom * this.scale)];
      context.beginPath();
      context.rect(left, top, right - left, bottom - top);
      context.clip();
      context.clearRect(left, top, right - left, bottom - top);
    }
    context.setTransform(this.scale, 0, 0, this.scale, this.left, this.top);
    context.imageSmoothingEnabled = this.scale < 1;
    this.painter.picture(context, box);
    context.restore();
  }

  private zoom(by: number, column: number, row: number): void {
    const [width, height] = this.painter.size();
    const least = Math.min(this.below.width / width, this.below.height / height);
    const scale = Math.min(Math.max(this.scale * by, least), Math.max(LARGEST * devicePixelRatio, least));
    if (scale <= least) {
      this.fit();
      return;
    }
    const grown = scale / this.scale;
    [this.scale, this.fitted] = [scale, false];
    this.place(column - (column - this.left) * grown, row - (row - this.top) * grown);
    this.redraw();
  }

  /** Place the picture so that a part of it stays on the screen. */
  private place(left: number, top: number): void {
    const [width, height] = this.painter.size();
    const inside = (at: number, size: number, screen: number) =>
      size < screen ? (screen - size) / 2 : Math.min(0, Math.max(screen - size, at));
    this.left = inside(left, width * this.scale, this.below.width);
    this.top = inside(top, height * this.scale, this.below.height);
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    const frame = this.below.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    this.zoom(STEP ** (-Math.sign(event.deltaY) / 2), x * devicePixelRatio, y * devicePixelRatio);
  }

  private resize(): void {
    const { clientWidth, clientHeight } = this.stage;
    for (const canvas of [this.below, this.above]) {
      [canvas.width, canvas.height] = [Math.round(clientWidth * devicePixelRatio), Math.round(clientHeight * devicePixelRatio)];
    }
    if (this.fitted) this.fit();
    else this.zoom(1, 0, 0);
  }
}

function layer(): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}
