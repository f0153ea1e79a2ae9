// What was woven: the image with its map over it, the variations, the checks, and what to do next.

import { find, make, sentence } from "./dom";
import { Order } from "./job";
import { MapPicture, TissueType } from "./map_picture";
import { Result } from "./server";

export interface Actions {
  otherStain(): void;
  otherMap(): void;
}

export class Results {
  private results: Result[] = [];
  private shown: Result | null = null;
  private expected: [Order, TissueType[]] | null = null; // until something comes of it
  private readonly image = make("img", { alt: "" });
  private readonly overlay = make("canvas");
  private readonly colors = new MapPicture();
  private readonly opacity = make("input", { type: "range", min: "0", max: "100", value: "0", id: "overlay" });
  private readonly percent = make("output");
  private readonly gallery = make("ul", { className: "gallery" });
  private readonly checks = make("dl", { className: "checks" });
  private readonly download = make("a", { className: "button", textContent: "Download zip" });
  private readonly actions: HTMLElement;
  private readonly wholeMap: HTMLElement[]; // what makes no sense for a part of a real image

  constructor(actions: Actions) {
    this.overlay.setAttribute("aria-hidden", "true");
    this.gallery.setAttribute("aria-label", "Variations");
    this.opacity.addEventListener("input", () => this.fade());
    const button = (text: string, act: () => void) => make("button", { type: "button", textContent: text, onclick: act });
    const others = [button("Same map, other stain", actions.otherStain), button("Same crops, other map", actions.otherMap)];
    const compare = make("a", { className: "button", href: "/compare", textContent: "Other settings" });
    this.wholeMap = [others[1], compare];
    this.actions = make("div", { className: "actions" }, this.download, ...others, compare);
    const slider = make("label", { className: "slider", htmlFor: "overlay" }, "Map over image ", this.percent);
    const picture = make("figure", { className: "picture" }, this.image, this.overlay);
    find("result").append(picture, slider, this.opacity, this.gallery, this.actions, this.checks);
    this.fade();
  }

  /** The next image is one of this order; until then, what is shown stays. */
  expect(order: Order, types: TissueType[]): void {
    this.expected = [order, types];
  }

  /** Begin anew where an order is expected; its map stays the one that is shown over the images. */
  private begin(): void {
    if (!this.expected) return;
    const [order, types] = this.expected;
    [this.expected, this.results, this.shown] = [null, [], null];
    const { width, height } = order.map;
    [this.overlay.width, this.overlay.height, this.image.width, this.image.height] = [width, height, width, height];
    this.colors.setTypes(types);
    this.colors.show(order.map);
    this.colors.draw(this.overlay.getContext("2d")!);
    this.gallery.replaceChildren();
    this.checks.replaceChildren();
    this.actions.hidden = true;
    for (const action of this.wholeMap) action.hidden = order.inpaint !== null;
    find("none").hidden = true;
  }

  /** Show the image of a step, unless a finished one is there. */
  preview(url: string): void {
    this.begin();
    if (this.shown) return;
    find("result").hidden = false;
    [this.image.src, this.image.alt] = [url, "Preview of the image that is being woven"];
  }

  add(result: Result): void {
    this.begin();
    find("result").hidden = false;
    this.results.push(result);
    const picture = make("img", { src: result.url_image, alt: `Variation ${result.variation}, seed ${result.seed}` });
    const button = make("button", { type: "button", onclick: () => this.show(result) }, picture);
    button.dataset.result = result.result;
    this.gallery.append(make("li", {}, button));
    this.gallery.hidden = this.results.length < 2;
    if (!this.shown) this.show(result);
  }

  /** Hide previews of a job that gave nothing. */
  end(): void {
    this.expected = null;
    if (this.results.length) return;
    find("result").hidden = true;
    find("none").hidden = false;
  }

  private show(result: Result): void {
    this.shown = result;
    [this.image.src, this.image.alt] = [result.url_image, `Woven image, seed ${result.seed}`];
    for (const button of this.gallery.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.result === result.result));
    }
    this.download.href = `/api/results/${result.result}/zip`;
    this.download.download = `histoloom-${result.seed}.zip`;
    this.actions.hidden = false;
    showChecks(this.checks, result);
  }

  private fade(): void {
    this.overlay.style.opacity = String(Number(this.opacity.value) / 100);
    this.percent.textContent = `${this.opacity.value} %`;
  }
}

/** Fill a description list with the checks of a result. */
export function showChecks(list: HTMLElement, result: Result): void {
  list.replaceChildren(...checks(result).flatMap(([what, said]) => [make("dt", { textContent: what }), make("dd", { textContent: said })]));
}

/** Each question on a result with its answer, or why there is none. */
function checks({ map_agreement, copy, nearest, reasons, seed }: Result): [string, string][] {
  const follows = map_agreement && `${(100 * map_agreement.share).toFixed(0)} % of the pixels match the map, by ${map_agreement.by}.`;
  const isCopy = copy && copy.score > copy.limit;
  const scores = copy && `the most similar place scores ${copy.score.toFixed(2)}, and the limit is ${copy.limit.toFixed(2)}.`;
  const near = nearest && `Distance ${nearest.distance.toFixed(2)} to ${nearest.of}. ${sentence(nearest.explanation)}`;
  return [
    ["Does it follow the map?", follows ?? unknown(reasons.map_agreement)],
    ["Does it copy a crop?", copy ? `${isCopy ? "Yes" : "No"}: ${scores}` : unknown(reasons.copy)],
    ["How near is the nearest training patch?", near ?? unknown(reasons.nearest)],
    ["Seed", String(seed)],
  ];
}

const unknown = (reason: string | undefined) => (reason ? sentence(reason) : "Not measured.");
