// A semantic map as a picture: ids become colors here, and nowhere else.

import { Box, SemanticMap } from "./semantic_map";

export interface TissueType {
  id: number;
  name: string;
  color: string; // #rrggbb
}

export class MapPicture {
  private readonly canvas = document.createElement("canvas");
  private readonly context = this.canvas.getContext("2d")!;
  private pixels = new ImageData(1, 1);
  private colors = new Uint32Array(256); // an id without a type is transparent, as is UNLABELED

  setTypes(types: TissueType[]): void {
    const bytes = new Uint8ClampedArray(this.colors.buffer);
    bytes.fill(0);
    for (const { id, color } of types) bytes.set([...channels(color), 255], 4 * id);
  }

  /** Take over a map of any size. */
  show(map: SemanticMap): void {
    [this.canvas.width, this.canvas.height] = [map.width, map.height];
    this.pixels = new ImageData(map.width, map.height);
    this.update(map, map.whole);
  }

  /** Color a box of the map again, which has the size that `show` has seen. */
  update(map: SemanticMap, { left, top, right, bottom }: Box): void {
    const shown = new Uint32Array(this.pixels.data.buffer);
    for (let row = top; row < bottom; row++) {
      for (let i = row * map.width + left; i < row * map.width + right; i++) shown[i] = this.colors[map.ids[i]];
    }
    this.context.putImageData(this.pixels, 0, 0, left, top, right - left, bottom - top);
  }

  draw(context: CanvasRenderingContext2D): void {
    context.drawImage(this.canvas, 0, 0);
  }
}

/** Red, green and blue of #rrggbb. */
export function channels(color: string): number[] {
  return [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
}
