// What the studio's server is asked, and what it answers.

import { call, Refused, send } from "./http";
import { TissueType } from "./map_picture";
import { SemanticMap } from "./semantic_map";

export interface Range {
  least: number;
  most: number;
}

export interface Model {
  name: string;
  hash: string;
  mpp: number | null;
  types: TissueType[];
  size: Range & { default: number; multiple: number };
  defaults: { steps: number; sampler: string; map_guidance: number; crop_guidance: number };
  steps: Range & { choices: number[] | null };
  map_guidance: Range;
  crop_guidance: Range;
  copy_limit: number | null;
  reads_crops: boolean;
}

export interface BankCrop {
  model: string;
  set: string;
  tissue: string;
  crop: string;
  url: string;
}

export interface State {
  models: Model[];
  bank: BankCrop[];
  examples: { name: string; url_map: string }[];
  limits: { upload_bytes: number; upload_pixels: number; variations: number; queue: number; crops: number; crop_edge: Range };
}

/** A crop that is chosen: `url` shows it. */
export interface Crop {
  crop: string;
  tissue: string;
  url: string;
}

export interface Settings {
  model: string;
  steps: number;
  map_guidance: number;
  crop_guidance: number;
  seed: number;
}

/** A map with all that its weaving needs. */
export interface Start {
  map: string; // url
  crops: Crop[];
  settings: Settings;
  inpaint?: { image: Uploaded; mask: string } | null;
}

export interface Uploaded {
  image: string;
  url: string;
  width: number;
  height: number;
  warning: string | null;
}

export interface Result {
  result: string;
  variation: number;
  seed: number;
  url_image: string;
  map_agreement: { share: number; by: string } | null;
  copy: { score: number; limit: number; crop: string | null } | null;
  nearest: { distance: number; of: string; explanation: string } | null;
  reasons: { map_agreement?: string; copy?: string; nearest?: string }; // of those that are null
}

/** The ids of a gray PNG of the server. */
export async function mapAt(url: string): Promise<SemanticMap> {
  const picture = await pictureAt(url);
  const { data, width, height } = pixelsOf(picture);
  picture.close();
  const map = new SemanticMap(width, height);
  for (let i = 0; i < map.ids.length; i++) map.ids[i] = data[4 * i]; // red, green and blue are the same
  return map;
}

/** A picture of the server, its values untouched. */
export async function pictureAt(url: string): Promise<ImageBitmap> {
  const response = await fetch(url);
  if (!response.ok) throw new Refused(`the server answered with status ${response.status}`, response.status);
  return createImageBitmap(await response.blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}

function pixelsOf(picture: ImageBitmap): ImageData {
  const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d", { willReadFrequently: true })!;
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height);
}

/** Part of a picture as a PNG of the same pixels. */
export async function cut(picture: ImageBitmap, left: number, top: number, width: number, height: number): Promise<Blob> {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d")!.drawImage(picture, left, top, width, height, 0, 0, width, height);
  return canvas.convertToBlob({ type: "image/png" });
}

export const readState = () => call<State>("/api/state");

export const readExample = (name: string) => call<Start>(`/api/examples/${encodeURIComponent(name)}`);

export const sendMap = (file: Blob, type: string, model: string, width: number, height: number) =>
  send<{ url: string; unlabeled: number; notes: string[] }>(`/api/maps?${new URLSearchParams({ model, width: `${width}`, height: `${height}` })}`, file, type);

/** A map drawn by a procedure; `types` are the ids that it may show, all of the model by default. */
export function drawLayout(model: string, width: number, height: number, seed: number, types?: number[]) {
  const asked = { model, width: `${width}`, height: `${height}`, seed: `${seed}`, ...(types?.length && { types: types.join() }) };
  return call<{ url: string }>(`/api/layout?${new URLSearchParams(asked)}`);
}

export const sendImage = (file: Blob) => send<Uploaded>("/api/images", file, file.type || "application/octet-stream");

export const cutCrop = (image: string, x: number, y: number, width: number, height: number, tissue: string) =>
  call<{ crop: string; url: string; warning: string | null }>("/api/crops", { image, x, y, width, height, tissue });

export const reopen = (file: Blob, type: string) => send<Start>("/api/reopen", file, type);

/** Bytes as base64. */
export function base64(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

/** What `base64` gave. */
export function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
