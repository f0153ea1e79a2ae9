// Two reports of `histoloom evaluate`, side by side. They are read here, and nothing of them is sent.

import { find, make } from "./dom";

interface Figure {
  name: string;
  value: number | null;
  low?: number | null;
  high?: number | null;
  floor?: number | null;
  note?: string;
}

interface Report {
  file: string;
  headline: string;
  images: string;
  figures: Map<string, Figure>;
}

/** What a report.json says; throws an Error for any other file. */
async function read(file: File): Promise<Report> {
  const found = await file.text().then(JSON.parse).catch(() => null);
  if (!found?.encoders || !found.verdict || !found.sets?.fake) {
    throw new Error(`${file.name}: is not a report.json of histoloom evaluate.`);
  }
  const figures = new Map<string, Figure>();
  const add = (group: string, list: Figure[]) => list?.forEach((figure) => figures.set(`${group}: ${figure.name}`, figure));
  for (const [name, { overall }] of Object.entries<{ overall: Figure[] }>(found.encoders)) add(name, overall);
  add("map", found.maps);
  add("stain", found.stain);
  const shares = { "parts of training images reappear": found.copying?.synthetic, "parts of crops reappear": found.crops?.woven };
  for (const [name, share] of Object.entries(shares)) if (share) add("copies", [{ name, value: share.rate, ...share }]);
  const { images, pixels } = found.sets.fake;
  return { file: file.name, headline: found.verdict.headline, images: `${images} images of ${pixels.join(" x ")} px`, figures };
}

export class Reports {
  private readonly sides: (Report | null)[] = [null, null];

  constructor() {
    ["report-a", "report-b"].forEach((id, side) => {
      const input = find<HTMLInputElement>(id);
      input.addEventListener("change", () => input.files?.[0] && void this.open(input.files[0], side));
    });
  }

  private async open(file: File, side: number): Promise<void> {
    find("report-message").textContent = "";
    try {
      this.sides[side] = await read(file);
    } catch (error) {
      this.sides[side] = null;
      find("report-message").textContent = (error as Error).message;
    }
    this.show();
  }

  private show(): void {
    const table = find("reports");
    table.hidden = !this.sides.some(Boolean);
    const names = new Set(this.sides.flatMap((report) => [...(report?.figures.keys() ?? [])]));
    const line = (title: string, cells: string[]) =>
      make("tr", {}, make("th", { scope: "row", textContent: title }), ...cells.map((text) => make("td", { textContent: text })));
    const each = (text: (report: Report) => string[]) => this.sides.flatMap((report) => (report ? text(report) : ["", ""]));
    const heads = ["Figure", "A (95 % interval)", "A, real against real", "B (95 % interval)", "B, real against real"];
    const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col", textContent: text })));
    const rows = [...names].map((name) => line(name, each(({ figures }) => values(figures.get(name)))));
    const verdict = line("Verdict", each(({ headline }) => [headline, ""]));
    const images = line("Images", each((report) => [report.images, ""]));
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, images, verdict, ...rows));
  }
}

/** A value with its interval, and its floor. */
function values(figure: Figure | undefined): [string, string] {
  if (!figure) return ["not in the report", ""];
  if (figure.value === null) return [figure.note || "not given", ""];
  const interval = figure.low == null || figure.high == null ? "" : ` (${short(figure.low)} to ${short(figure.high)})`;
  return [short(figure.value) + interval, figure.floor == null ? "" : short(figure.floor)];
}

const short = (value: number) => String(Number(value.toPrecision(3)));
