// Two images of one size, one above the other, with a border between them that moves.

import { find } from "./dom";

export class Swipe {
  private readonly slider = find<HTMLInputElement>("swipe-at");
  private readonly above = find<HTMLImageElement>("swipe-b");

  constructor() {
    const frame = find("swipe-frame");
    const follow = (event: PointerEvent) => {
      const { left, width } = frame.getBoundingClientRect();
      this.slider.value = String(Math.min(Math.max((100 * (event.clientX - left)) / width, 0), 100));
      this.move();
    };
    frame.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      frame.setPointerCapture(event.pointerId);
      follow(event);
    });
    frame.addEventListener("pointermove", (event) => frame.hasPointerCapture(event.pointerId) && follow(event));
    this.slider.addEventListener("input", () => this.move());
    this.move();
  }

  private move(): void {
    const at = Number(this.slider.value);
    this.above.style.clipPath = `inset(0 0 0 ${at}%)`;
    find("swipe-line").style.left = `${at}%`;
    this.slider.setAttribute("aria-valuetext", `${Math.round(at)} % of image A, ${Math.round(100 - at)} % of image B`);
  }
}
