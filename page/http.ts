// Requests to the server that has served the page.

/** The server answered, and refuses: `status` is the HTTP status, the message one line for the reader. */
export class Refused extends Error {
  constructor(message: string, readonly status: number) {
    super(message);
  }
}

/** The JSON at `path`; posts `body` where there is one. Throws Refused, or TypeError where no server answers. */
export async function call<T>(path: string, body?: object): Promise<T> {
  const posted = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return answered<T>(await fetch(path, body === undefined ? {} : posted));
}

/** The JSON that the server answers to a file or a blob. Throws as `call` does. */
export async function send<T>(path: string, body: Blob, type: string): Promise<T> {
  return answered<T>(await fetch(path, { method: "POST", body, headers: { "Content-Type": type } }));
}

async function answered<T>(response: Response): Promise<T> {
  if (response.ok) return (await response.json()) as T;
  const found = await response.json().catch(() => ({}));
  throw new Refused(found.error ?? `the server answered with status ${response.status}`, response.status);
}
