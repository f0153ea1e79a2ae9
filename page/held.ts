// Crops that the server no longer holds: what was uploaded leaves it after a while, and when it stops.

import { Crop } from "./server";

/** Those of `crops` that the server no longer holds; where it does not answer, nothing is known to be lost. */
export async function lost(crops: Crop[]): Promise<Crop[]> {
  const isLost = await Promise.all(crops.map(({ url }) => fetch(url, { method: "HEAD" }).then(({ status }) => status === 404, () => false)));
  return crops.filter((_, i) => isLost[i]);
}

/** How many crops of which tissue are gone. */
export function saidOf(gone: Crop[]): string {
  const counts = new Map<string, number>();
  for (const { tissue } of gone) counts.set(tissue, (counts.get(tissue) ?? 0) + 1);
  const listed = [...counts].map(([tissue, count]) => `${count} ${count > 1 ? "crops" : "crop"} of ${tissue}`).join(", ");
  return `The server no longer holds ${listed}; removed here. Add them again, or weave without them.`;
}
