// The control API with one key, which stays in this module's memory: calls, and the stream of the whole broker.

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.rule || problem.title || `HTTP ${status}`);
    this.status = status;
    this.code = problem.code ?? "";
    this.field = problem.field ?? "";
    this.title = problem.title ?? "";
    this.retryAfterMs = problem.retry_after_ms ?? 0;
  }
}

const UNREACHABLE = { code: "UNREACHABLE", title: "", rule: "" };

/** `onRefused()`: the key has been refused: it was revoked, or has expired. */
export function makeApi(key, onRefused = () => {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};

  async function call(operation, fields = {}, { keepalive = false } = {}) {
    let answer;
    try {
      answer = await fetch(`/v1/${operation.replace(".", "/")}`, {
        method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(fields), keepalive, cache: "no-store",
      });
    } catch { throw new ApiError(0, UNREACHABLE); }
    const body = await answer.json().catch(() => ({}));
    if (answer.status === 401) onRefused();
    if (!answer.ok) throw new ApiError(answer.status, body);
    return body;
  }

  /** All items of a list, page by page, up to `most`. */
  async function all(operation, fields = {}, most = 500) {
    const found = [];
    let cursor = null;
    do {
      const page = await call(operation, { ...fields, limit: 100, ...(cursor ? { cursor } : {}) });
      found.push(...page.items);
      cursor = page.next;
    } while (cursor && found.length < most);
    return found;
  }

  /** Reads GET /stats until `signal` is aborted: onEvent(fields, name), onState("live" | "cut" | "refused"). Comes back by itself. */
  async function follow(path, signal, onEvent, onState) {
    for (let wait = 500; !signal.aborted; wait = Math.min(wait * 2, 8000)) {
      try {
        const answer = await fetch(path, { headers, signal, cache: "no-store" });
        if (answer.status === 401) { onRefused(); return; }
        if (answer.status === 403) { onState("refused"); return; }
        if (answer.ok) {
          onState("live");
          wait = 500;
          await readEvents(answer.body, onEvent);
        }
      } catch (error) { if (signal.aborted) return; if (!(error instanceof TypeError) && error.name !== "AbortError") console.warn(error.name); }
      onState("cut");
      await new Promise((done) => setTimeout(done, wait * (0.5 + Math.random())));
    }
  }

  /** Id of the key, "" where there is none. */
  const keyId = /^rk_([a-z0-9-]+)_/.exec(key)?.[1] ?? "";
  return { call, all, follow, keyId };
}

const MOST = 1 << 20;

async function readEvents(body, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    if (text.length > MOST) throw new TypeError("an event is too large");
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n"), of = (field) => lines.filter((line) => line.startsWith(field)).map((line) => line.slice(field.length)).join("\n");
      const data = of("data: "), name = of("event: ") || "message";
      text = text.slice(end + 2);
      if (data) onEvent(JSON.parse(data), name);
    }
  }
}
