// What both pages of the studio share: the message line, the login, and what to do when the server refuses.

import { find, sentence } from "./dom";
import { call, Refused } from "./http";

export function say(message: string): void {
  find("message").textContent = message;
}

/** Run `act` and say why it failed; where a token is needed, ask for it. Returns whether it went well. */
export async function attempt(act: () => Promise<void>): Promise<boolean> {
  try {
    await act();
    return true;
  } catch (error) {
    if (error instanceof Refused && error.status === 401) askToken();
    else if (error instanceof Refused || !(error instanceof TypeError)) say(sentence((error as Error).message));
    else say("The server does not answer. Is it still running? Your map stays on this page.");
    return false;
  }
}

function askToken(): void {
  find("login").hidden = false;
  find("token").focus();
}

/** Run `start` now, and again after the login where a token is needed. */
export function whenLoggedIn(start: () => Promise<void>): void {
  const [form, field] = [find<HTMLFormElement>("login"), find<HTMLInputElement>("token")];
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void attempt(async () => {
      await call("/api/login", { token: field.value }).finally(() => (field.value = ""));
      form.hidden = true;
      say("");
      await start();
    }).then((went) => went || (form.hidden ? undefined : say("This is not the token that the server printed.")));
  });
  void attempt(start);
}

/** SHA-256 of ids, as hexadecimal digits; browsers compute it on this machine's own pages and over HTTPS only. */
export async function hashed(ids: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", ids));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
