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
    if (error instanceof Refused && error.status === 401) await renew();
    else if (error instanceof TypeError) say("The server does not answer. Is it still running? Your map stays on this page.");
    else say(sentence((error as Error).message));
    return false;
  }
}

/** Begin a new session where the server gives one without a token, and ask for the token otherwise. */
async function renew(): Promise<void> {
  try {
    await call("/api/state");
    say("Your session had ended, and what you had uploaded is gone. Your map is still here. Try again.");
  } catch {
    find("login").hidden = false;
    find("token").focus();
  }
}

/** Run `start` now, or after the login where a token is needed. A later login keeps the page as it is. */
export function whenLoggedIn(start: () => Promise<void>): void {
  const [form, field] = [find<HTMLFormElement>("login"), find<HTMLInputElement>("token")];
  let isStarted = false;
  const begin = async () => {
    if (isStarted) return;
    await start();
    isStarted = true;
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await call("/api/login", { token: field.value });
    } catch (error) {
      say(error instanceof Refused ? sentence(error.message) : "The server does not answer. Try again.");
      return;
    } finally {
      field.value = "";
    }
    form.hidden = true;
    say("");
    await attempt(begin);
  });
  void attempt(begin);
}

/** SHA-256 of ids, as hexadecimal digits; browsers compute it on this machine's own pages and over HTTPS only. */
export async function hashed(ids: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", ids));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
