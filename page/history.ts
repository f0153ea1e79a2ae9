// What was painted, to undo and redo. Memory is bounded: the oldest changes are forgotten first.

import { Box, isEmpty, SemanticMap } from "./semantic_map";

const MOST_BYTES = 64 << 20;

/** The ids that a box of a map of this size had. */
interface Change {
  width: number;
  height: number;
  box: Box;
  ids: Uint8Array<ArrayBuffer>;
}

export class History {
  private undone: Change[] = [];
  private done: Change[] = [];
  private bytes = 0;

  get canUndo(): boolean {
    return this.done.length > 0;
  }

  get canRedo(): boolean {
    return this.undone.length > 0;
  }

  /** Remember that `box` of a map changed; `before` is the map as it was. */
  add(before: SemanticMap, box: Box): void {
    if (isEmpty(box)) return;
    this.undone.forEach((change) => (this.bytes -= change.ids.length));
    this.undone = [];
    this.push(this.done, taken(before, box));
    while (this.bytes > MOST_BYTES && this.done.length > 1) this.bytes -= this.done.shift()!.ids.length;
  }

  undo(map: SemanticMap): SemanticMap {
    return this.move(map, this.done, this.undone);
  }

  redo(map: SemanticMap): SemanticMap {
    return this.move(map, this.undone, this.done);
  }

  /** Exchange the ids of the last change with those of the map; a map of another size is replaced. */
  private move(map: SemanticMap, from: Change[], to: Change[]): SemanticMap {
    const change = from.pop();
    if (!change) return map;
    this.bytes -= change.ids.length;
    const isSame = change.width === map.width && change.height === map.height;
    this.push(to, taken(map, isSame ? change.box : map.whole));
    if (!isSame) return new SemanticMap(change.width, change.height, change.ids);
    map.write(change.box, change.ids);
    return map;
  }

  private push(to: Change[], change: Change): void {
    to.push(change);
    this.bytes += change.ids.length;
  }
}

function taken(map: SemanticMap, box: Box): Change {
  return { width: map.width, height: map.height, box: { ...box }, ids: map.read(box) };
}
