// Weave: hand a job to the server, follow it step by step, cancel it.

import { call } from "./http";
import { base64, Crop, Result, Settings } from "./server";
import { SemanticMap } from "./semantic_map";

export interface Order {
  map: SemanticMap;
  crops: Crop[];
  settings: Settings;
  variations: number;
  inpaint: { image: string; mask: Uint8Array } | null;
}

export interface Watcher {
  place(place: number): void;
  step(variation: number, step: number, of: number, preview: string | null): void;
  result(result: Result): void;
  /** The connection is lost; the browser tries again. */
  lost(): void;
}

export class Canceled extends Error {}

/** Weave an order and report to `watcher`; resolves when all variations are there. Throws Refused, Canceled or Error. */
export async function weave(order: Order, watcher: Watcher, signal: AbortSignal): Promise<void> {
  const { job, place } = await call<{ job: string; place: number }>("/api/weave", request(order));
  watcher.place(place);
  await new Promise<void>((resolve, reject) => {
    const events = new EventSource(`/api/jobs/${job}/events`);
    const seen = new Set<number>(); // a stream that reconnects says everything again
    const end = (error?: Error) => {
      events.close();
      error ? reject(error) : resolve();
    };
    const on = (name: string, act: (data: any) => void) =>
      events.addEventListener(name, (event) => act(JSON.parse((event as MessageEvent).data)));
    on("place", (data) => watcher.place(data.place));
    on("step", (data) => watcher.step(data.variation, data.step, data.of, data.preview ?? null));
    on("result", (data: Result) => {
      if (!seen.has(data.variation)) watcher.result(data);
      if (seen.add(data.variation).size === order.variations) end();
    });
    on("failed", (data) => end(new Error(data.error)));
    on("canceled", () => end(new Canceled()));
    events.onerror = () => {
      if (events.readyState === EventSource.CLOSED) end(new Error("the server no longer knows this job; weave again"));
      else watcher.lost();
    };
    const cancel = () => {
      void call(`/api/jobs/${job}/cancel`, {}).catch(() => {});
      end(new Canceled());
    };
    if (signal.aborted) cancel();
    else signal.addEventListener("abort", cancel, { once: true });
  });
}

function request({ map, crops, settings, variations, inpaint }: Order): object {
  const chosen = crops.map(({ crop, tissue }) => ({ crop, tissue }));
  const region = inpaint && { image: inpaint.image, mask: base64(inpaint.mask) };
  return { ...settings, ids: base64(map.ids), width: map.width, height: map.height, crops: chosen, variations, ...region };
}
