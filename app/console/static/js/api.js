// The front door's HTTP API, by the browser's cookie. It knows how errors are told, and no path.

export class ApiError extends Error {
  constructor({ message, code = "unreachable", param = null, status = 0 }) {
    super(message);
    Object.assign(this, { code, param, status });
  }
}

const AWAY = "The front door does not answer. Is it still running? What you see may be old; it is asked again by itself.";

/** The JSON in the answer. Raises ApiError; one with status 401 is also told to the page as the event `signed-out`. */
export async function api(method, path, { json, form, signal } = {}) {
  return (await send(method, path, { json, form, signal })).json();
}

/** The whole answer, for audio. */
export async function send(method, path, { json, form, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      credentials: "same-origin",
      headers: json === undefined ? {} : { "content-type": "application/json" },
      body: json === undefined ? form : JSON.stringify(json),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ message: AWAY });
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw refusal(response.status, told);
}

function refusal(status, told) {
  const error = told?.error ?? { message: `The front door answered ${status}.` };
  if (status === 401) dispatchEvent(new CustomEvent("signed-out", { detail: error.message }));
  return new ApiError({ ...error, status });
}

/** POST a form and tell how much of it is sent: `onprogress(share)`. */
export function upload(path, form, { onprogress, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onprogress?.(event.loaded / event.total);
    request.onerror = () => reject(new ApiError({ message: AWAY }));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    request.onload = () =>
      request.status < 300 ? resolve(request.response) : reject(refusal(request.status, request.response));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** A job's server-sent events, each as `onjob(job)`, until it is over; a broken connection is taken up again. */
export async function follow(path, onjob, { signal }) {
  for (let pause = 500; !signal.aborted; pause = Math.min(2 * pause, 8000)) {
    try {
      const response = await send("GET", path, { signal });
      for await (const job of events(response.body)) {
        pause = 500;
        onjob(job);
        if (job.over) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status && error.status < 500) throw error;
    }
    await sleep(pause, signal);
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) yield JSON.parse(data.join("\n"));
    }
  }
}

export function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

/** Ask again every `ms` while the page is looked at: `task` may fail, which is told to `onerror`. */
export async function poll(task, ms, { signal, onerror }) {
  while (!signal.aborted) {
    if (!document.hidden) {
      try {
        await task();
      } catch (error) {
        if (signal.aborted) return;
        onerror?.(error);
      }
    }
    await sleep(ms, signal);
  }
}
