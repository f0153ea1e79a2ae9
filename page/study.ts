// The page of a reader study: log in, look, answer, go on. It never learns what an item is.

import { find, sentence } from "./dom";
import { call, Refused } from "./http";
import { Zoom } from "./zoom";

interface State {
  reader: string;
  pairs: boolean;
  answered: number;
  total: number;
  practice: boolean;
  item: string | null;
  images: string[];
  size: [number, number];
}

const SINGLE = ["surely real", "probably real", "perhaps real", "perhaps synthetic", "probably synthetic", "surely synthetic"];
const PAIRS = ["surely left", "probably left", "perhaps left", "perhaps right", "probably right", "surely right"];
const RATINGS = { detail: "Nuclear detail", stain: "Stain", architecture: "Architecture", quality: "Overall quality" };
const SIDES = ["Left", "Right"];

const [login, item, done] = [find<HTMLFormElement>("login"), find<HTMLFormElement>("item"), find("done")];
const zoom = new Zoom(find<HTMLOutputElement>("scale"));
let state: State | null = null;
let isAsking = false;
let images: HTMLImageElement[] = []; // of the item

function say(message: string): void {
  find("message").textContent = message;
}

/** Let nobody press twice, or answer before every image of the item is there. */
function enable(): void {
  const isSeen = images.every((image) => image.complete && image.naturalWidth > 0);
  for (const button of document.querySelectorAll("button")) button.disabled = isAsking || (!isSeen && button.matches(".save"));
  for (const set of item.querySelectorAll("fieldset")) set.disabled = !isSeen;
}

function show(next: State | null): void {
  state = next;
  find("reader").textContent = next?.reader ?? "";
  find("pause").hidden = login.hidden = item.hidden = done.hidden = true;
  if (!next) {
    login.hidden = false;
    find("token").focus();
  } else if (next.item === null) {
    find("place").textContent = "";
    done.hidden = false;
    done.querySelector("h2")!.focus();
  } else {
    find("pause").hidden = item.hidden = false;
    showItem(next);
  }
}

function showItem(next: State): void {
  const place = find("place");
  place.textContent = `${next.practice ? "Practice: item" : "Item"} ${next.answered + 1} of ${next.total}`;
  const bar = find<HTMLProgressElement>("bar");
  [bar.max, bar.value] = [next.total, next.answered];
  find("images").replaceChildren(...next.images.map((name, i) => figure(name, next.pairs ? SIDES[i] : "")));
  const question = next.pairs ? "Which image is real?" : "Is this image real or synthetic?";
  choices(find<HTMLFieldSetElement>("answer"), question, "answer", next.pairs ? PAIRS : SINGLE, true);
  find("ratings").replaceChildren(...(next.pairs ? [] : Object.entries(RATINGS).map(([name, title]) => rating(name, title))));
  images = [...find("images").querySelectorAll("img")];
  enable();
  zoom.fit([...document.querySelectorAll<HTMLElement>(".window")], next.size);
  place.focus();
  scrollTo(0, 0);
}

function figure(name: string, side: string): HTMLElement {
  const [frame, window, image] = [document.createElement("figure"), document.createElement("div"), new Image()];
  window.className = "window";
  window.tabIndex = 0;
  window.setAttribute("role", "region");
  window.setAttribute("aria-label", `${side || "Tissue"} image; arrow keys move it when enlarged`);
  image.alt = side ? `${side} tissue image` : "Tissue image";
  image.onload = enable;
  image.onerror = () => say("The image did not load. Reload this page; no answer is lost.");
  image.src = `/api/image/${encodeURIComponent(name)}`;
  window.append(image);
  frame.append(window);
  if (side) {
    const caption = document.createElement("figcaption");
    caption.textContent = side;
    frame.append(caption);
  }
  return frame;
}

function rating(name: string, title: string): HTMLElement {
  const set = document.createElement("fieldset");
  choices(set, title, name, ["1", "2", "3", "4", "5"], false);
  set.title = "1 poor, 5 excellent";
  return set;
}

function choices(set: HTMLFieldSetElement, title: string, name: string, labels: string[], numbered: boolean): void {
  const [legend, steps] = [document.createElement("legend"), document.createElement("div")];
  legend.textContent = title;
  steps.className = "steps";
  labels.forEach((text, i) => {
    const [label, input] = [document.createElement("label"), document.createElement("input")];
    Object.assign(input, { type: "radio", name, value: String(i + 1), required: true });
    label.append(input, numbered ? `${i + 1}  ${text}` : text);
    steps.append(label);
  });
  set.replaceChildren(legend, steps);
}

function answers(): object {
  const given = new FormData(item);
  const step = (name: string) => Number(given.get(name));
  const ratings = Object.fromEntries(Object.keys(RATINGS).map((name) => [name, step(name)]));
  return { item: state!.item, answer: step("answer"), ...(state!.pairs ? {} : { ratings }) };
}

/** Ask the server; a reader who was logged out logs in again, and one whose item has changed sees the present one. */
async function ask(path: string, body: object | undefined, lost: string): Promise<void> {
  isAsking = true;
  enable();
  try {
    const next = await call<State>(path, body);
    say("");
    show("item" in next ? next : null);
  } catch (error) {
    if (!(error instanceof Refused)) {
      say(lost);
    } else if (error.status === 401) {
      say(path === "/api/state" && !state ? "" : `${sentence(error.message)}`);
      show(null);
    } else if (error.status === 409) {
      show(await call<State>("/api/state"));
      say(`${sentence(error.message)} This is your present item.`);
    } else {
      say(sentence(error.message));
    }
  } finally {
    isAsking = false;
    enable();
  }
}

login.addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = find<HTMLInputElement>("token");
  await ask("/api/login", { token: field.value }, "The server does not answer. Try again.");
  field.value = "";
});

item.addEventListener("submit", (event) => {
  event.preventDefault();
  const lost = "The server does not answer, so your answer may not be saved. Press “Save and go on” again.";
  void ask("/api/answer", answers(), lost);
});

find("pause").addEventListener("click", () => {
  void ask("/api/logout", {}, "The server does not answer. You may close this page; every saved answer is kept.");
});

find("larger").addEventListener("click", () => zoom.larger());
find("smaller").addEventListener("click", () => zoom.smaller());
find("fit").addEventListener("click", () => zoom.reset());

addEventListener("keydown", (event) => {
  if (item.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const set = document.activeElement?.closest("#ratings fieldset") ?? find("answer");
  const chosen = set.querySelector<HTMLInputElement>(`input[value="${CSS.escape(event.key)}"]:enabled`);
  if (/^[1-6]$/.test(event.key) && chosen) {
    chosen.checked = true;
    chosen.focus();
  } else if (event.key === "+" || event.key === "=") {
    zoom.larger();
  } else if (event.key === "-") {
    zoom.smaller();
  } else if (event.key === "0") {
    zoom.reset();
  }
});

void ask("/api/state", undefined, "The server does not answer. Reload this page.");
