// Small help with elements of a page.

export const find = <T extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as T;

/** A new element with properties and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K, properties: Partial<HTMLElementTagNameMap[K]> = {}, ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A reason of the server as a sentence. */
export function sentence(reason: string): string {
  return `${reason.charAt(0).toUpperCase()}${reason.slice(1)}${/[.!?]$/.test(reason) ? "" : "."}`;
}

/** A square of a type's color. */
export function swatch(color: string): HTMLElement {
  const made = make("span", { className: "swatch" });
  made.style.background = color;
  return made;
}

/** Fill a list of choices and keep the present one where it is still there. */
export function fillSelect(select: HTMLSelectElement, choices: [value: string, text: string][]): void {
  const before = select.value;
  select.replaceChildren(...choices.map(([value, text]) => make("option", { value, textContent: text })));
  if (choices.some(([value]) => value === before)) select.value = before;
}

/** A group of radio buttons; returns a function that chooses one by its value. */
export function radios(
  set: HTMLElement, name: string, choices: { value: string; text: string; color?: string; title?: string }[],
  chosen: (value: string) => void
): (value: string) => void {
  const inputs = choices.map(({ value }) => make("input", { type: "radio", name, value, onchange: () => chosen(value) }));
  const labels = choices.map(({ text, color, title }, i) =>
    make("label", { title: title ?? "" }, inputs[i], ...(color ? [swatch(color)] : []), text)
  );
  set.replaceChildren(set.querySelector("legend")!, ...labels);
  return (value) => {
    for (const input of inputs) input.checked = input.value === value;
    chosen(value);
  };
}
