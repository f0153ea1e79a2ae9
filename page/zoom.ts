// Images that are enlarged together, and moved by dragging, by the keyboard, or by scrolling.

const STEP = 1.5;
const MOST = 12; // times the size that fits
const LARGEST_FIT = 3; // screen pixels per image pixel

export class Zoom {
  private factor = 1;
  private windows: HTMLElement[] = [];
  private size: [number, number] = [1, 1];

  constructor(private readonly scale: HTMLOutputElement) {
    addEventListener("resize", () => this.show());
  }

  /** Take over the windows of new images, which all have `size` px, and fit the images in. */
  fit(windows: HTMLElement[], size: [number, number]): void {
    [this.windows, this.size, this.factor] = [windows, size, 1];
    windows.forEach(draggable);
    this.show();
  }

  reset(): void {
    this.zoom(1 / this.factor);
  }

  larger(): void {
    this.zoom(STEP);
  }

  smaller(): void {
    this.zoom(1 / STEP);
  }

  private zoom(by: number): void {
    const before = this.factor;
    this.factor = Math.min(Math.max(this.factor * by, 1), MOST);
    const centers = this.windows.map((w) => [w.scrollLeft + w.clientWidth / 2, w.scrollTop + w.clientHeight / 2]);
    this.show();
    this.windows.forEach((w, i) => {
      const grown = this.factor / before;
      w.scrollTo(centers[i][0] * grown - w.clientWidth / 2, centers[i][1] * grown - w.clientHeight / 2);
    });
  }

  private show(): void {
    const [width, height] = this.size;
    for (const window of this.windows) {
      const fits = Math.min(window.clientWidth / width, window.clientHeight / height, LARGEST_FIT);
      const image = window.querySelector("img")!;
      image.style.width = `${Math.floor(width * fits * this.factor)}px`;
      this.scale.value = `${Math.round(100 * fits * this.factor)} %`;
    }
  }
}

function draggable(window: HTMLElement): void {
  let from: [number, number] | null = null;
  window.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse") return; // touch scrolls by itself
    from = [event.clientX + window.scrollLeft, event.clientY + window.scrollTop];
    window.setPointerCapture(event.pointerId);
  });
  window.addEventListener("pointermove", (event) => {
    if (from) window.scrollTo(from[0] - event.clientX, from[1] - event.clientY);
  });
  window.addEventListener("pointerup", () => (from = null));
  window.addEventListener("dragstart", (event) => event.preventDefault());
}
