// The last order of the weave page, which the compare page takes up. It stays in this tab of the browser.

import { Order } from "./job";
import { base64, bytesOf, Crop, Settings } from "./server";
import { SemanticMap } from "./semantic_map";

const KEY = "histoloom.order";

export interface Kept {
  map: SemanticMap;
  crops: Crop[];
  settings: Settings;
}

export function keep({ map, crops, settings, inpaint }: Order): void {
  if (inpaint) return; // the compare page weaves whole maps
  const { ids, width, height } = map;
  try {
    sessionStorage.setItem(KEY, JSON.stringify({ ids: base64(ids), width, height, crops, settings }));
  } catch {
    sessionStorage.removeItem(KEY); // the browser keeps too little: the compare page begins from an example
  }
}

export function kept(): Kept | null {
  const text = sessionStorage.getItem(KEY);
  if (!text) return null;
  const { ids, width, height, crops, settings } = JSON.parse(text);
  return { map: new SemanticMap(width, height, bytesOf(ids)), crops, settings };
}
