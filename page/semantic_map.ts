// A semantic map: one tissue id per pixel, and the ways to paint ids. Colors exist only where a map is shown.

export const UNLABELED = 255;

export interface Point {
  x: number;
  y: number;
}

/** Pixels from `left` and `top` up to, but without, `right` and `bottom`. */
export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export class SemanticMap {
  constructor(readonly width: number, readonly height: number, readonly ids = new Uint8Array(width * height).fill(UNLABELED)) {
    if (ids.length !== width * height) throw new RangeError(`${ids.length} ids for ${width} x ${height} px`);
  }

  get whole(): Box {
    return { left: 0, top: 0, right: this.width, bottom: this.height };
  }

  /** The id at a point, or null outside. */
  at({ x, y }: Point): number | null {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    return column < 0 || row < 0 || column >= this.width || row >= this.height ? null : this.ids[row * this.width + column];
  }

  /** The ids that at least one pixel has, in order, without UNLABELED. */
  present(): number[] {
    const seen = new Uint8Array(256);
    for (const id of this.ids) seen[id] = 1;
    return [...seen.keys()].filter((id) => seen[id] && id !== UNLABELED);
  }

  /** Paint every pixel whose center is within `radius` of the line between two points. */
  stroke(from: Point, to: Point, radius: number, id: number): Box {
    const [top, bottom] = this.rows(Math.min(from.y, to.y) - radius, Math.max(from.y, to.y) + radius);
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    const [dx, dy] = length ? [((from.y - to.y) / length) * radius, ((to.x - from.x) / length) * radius] : [0, 0];
    const sides = [shifted(from, dx, dy), shifted(to, dx, dy), shifted(to, -dx, -dy), shifted(from, -dx, -dy)];
    let [left, right] = [this.width, 0];
    for (let row = top; row < bottom; row++) {
      const y = row + 0.5;
      const ends = length ? crossings(sides, y) : [];
      for (const center of [from, to]) {
        const half = radius * radius - (y - center.y) ** 2;
        if (half >= 0) ends.push(center.x - Math.sqrt(half), center.x + Math.sqrt(half));
      }
      const [begin, end] = this.columns(Math.min(...ends), Math.max(...ends)); // the shape is convex: one run per row
      if (begin >= end) continue;
      this.ids.fill(id, row * this.width + begin, row * this.width + end);
      [left, right] = [Math.min(left, begin), Math.max(right, end)];
    }
    return { left, top, right, bottom };
  }

  /** Paint every pixel whose center is inside a polygon, by the even-odd rule. */
  polygon(corners: Point[], id: number): Box {
    const heights = corners.map(({ y }) => y);
    const [top, bottom] = this.rows(Math.min(...heights), Math.max(...heights));
    let [left, right] = [this.width, 0];
    for (let row = top; row < bottom; row++) {
      const ends = crossings(corners, row + 0.5).sort((one, other) => one - other);
      for (let i = 0; i + 1 < ends.length; i += 2) {
        const [begin, end] = this.columns(ends[i], ends[i + 1]);
        if (begin >= end) continue;
        this.ids.fill(id, row * this.width + begin, row * this.width + end);
        [left, right] = [Math.min(left, begin), Math.max(right, end)];
      }
    }
    return { left, top, right, bottom };
  }

  /** Paint the pixels of one id that hang together with the one at `start` by their edges. */
  flood(start: Point, id: number): Box {
    const { ids, width, height } = this;
    const old = this.at(start);
    const box = { left: width, top: height, right: 0, bottom: 0 };
    if (old === null || old === id) return box;
    const waiting = [Math.floor(start.y) * width + Math.floor(start.x)];
    while (waiting.length) {
      const place = waiting.pop()!;
      if (ids[place] !== old) continue;
      const row = Math.floor(place / width);
      const first = row * width;
      let [begin, end] = [place, place + 1];
      while (begin > first && ids[begin - 1] === old) begin--;
      while (end < first + width && ids[end] === old) end++;
      ids.fill(id, begin, end);
      grow(box, { left: begin - first, top: row, right: end - first, bottom: row + 1 });
      for (const step of [-width, width]) {
        if (row + Math.sign(step) < 0 || row + Math.sign(step) >= height) continue;
        for (let i = begin; i < end; i++) {
          if (ids[i + step] === old && (i === begin || ids[i + step - 1] !== old)) waiting.push(i + step);
        }
      }
    }
    return box;
  }

  /** A copy of the ids in a box, row by row. */
  read({ left, top, right, bottom }: Box): Uint8Array<ArrayBuffer> {
    const [width, found] = [right - left, new Uint8Array((right - left) * (bottom - top))];
    for (let row = top; row < bottom; row++) {
      found.set(this.ids.subarray(row * this.width + left, row * this.width + right), (row - top) * width);
    }
    return found;
  }

  /** Put back what `read` gave. */
  write({ left, top, right, bottom }: Box, ids: Uint8Array): void {
    const width = right - left;
    for (let row = top; row < bottom; row++) {
      this.ids.set(ids.subarray((row - top) * width, (row - top + 1) * width), row * this.width + left);
    }
  }

  private rows(from: number, to: number): [number, number] {
    return [Math.max(0, Math.ceil(from - 0.5)), Math.min(this.height, Math.floor(to - 0.5) + 1)];
  }

  private columns(from: number, to: number): [number, number] {
    return [Math.max(0, Math.ceil(from - 0.5)), Math.min(this.width, Math.floor(to - 0.5) + 1)];
  }
}

export function isEmpty(box: Box): boolean {
  return box.left >= box.right || box.top >= box.bottom;
}

/** Make `box` hold `other`, too. */
export function grow(box: Box, other: Box): void {
  if (isEmpty(other)) return;
  [box.left, box.top] = [Math.min(box.left, other.left), Math.min(box.top, other.top)];
  [box.right, box.bottom] = [Math.max(box.right, other.right), Math.max(box.bottom, other.bottom)];
}

function shifted({ x, y }: Point, dx: number, dy: number): Point {
  return { x: x + dx, y: y + dy };
}

/** Where the edges of a polygon cross a line of equal y. */
function crossings(corners: Point[], y: number): number[] {
  const found: number[] = [];
  corners.forEach((from, i) => {
    const to = corners[(i + 1) % corners.length];
    if (from.y <= y !== to.y <= y) found.push(from.x + ((y - from.y) / (to.y - from.y)) * (to.x - from.x));
  });
  return found;
}
