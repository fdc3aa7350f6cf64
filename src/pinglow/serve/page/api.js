// What is asked of the service: with the token, and again after a while where it is busy.

const KEY = "pinglow-token";
const TRIES = 10;
const $ = (id) => document.getElementById(id);

export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const token = () => sessionStorage.getItem(KEY);
export const bearer = () => (token() ? [`bearer.${token()}`] : []);
const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

let asking = null;  // one dialog for all requests that wait for it

function askToken(refused) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = $("token-dialog");
    $("token-fault").hidden = !refused;
    $("token").value = "";
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      asking = null;
      if (dialog.returnValue !== "ok") {
        reject(new ServiceError(401, "This service needs a token: press Try again and give it."));
        return;
      }
      sessionStorage.setItem(KEY, $("token").value.trim());
      resolve();
    }, { once: true });
  });
  return asking;
}

export const wait = (milliseconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, milliseconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
});

export const query = (path, words) => {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(words)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null) search.append(name, each);
    }
  }
  return `${path}?${search}`;
};

// The answer, with status 2xx. send: a function that makes the request once more, each time it is called.
async function insist(send, signal, onBusy) {
  for (let tries = 1; ; tries += 1) {
    const used = token();
    const answer = await send();
    if (answer.status === 401) {
      if (token() === used) await askToken(used !== null);
    } else if ([429, 503].includes(answer.status) && tries < TRIES) {
      const after = Number(answer.headers.get("Retry-After")) || Math.min(2 ** tries / 4, 10);
      onBusy?.(after);
      await wait(after * 1000 * (1 + Math.random() / 4), signal);
    } else if (!answer.ok) {
      throw new ServiceError(answer.status, await reason(answer));
    } else return answer;
  }
}

async function reason(answer) {
  if ([429, 503].includes(answer.status)) return "The service is busy: press Try again in a while.";
  const text = await answer.text();
  try {
    const { detail } = JSON.parse(text);
    if (typeof detail === "string") return detail;
  } catch { /* no JSON: what stands between is no service of ours */ }
  return `The service failed with status ${answer.status}: see its log.`;
}

// Response of the service; options as of fetch, and onBusy(seconds).
export function ask(path, { onBusy, ...options } = {}) {
  const send = () => fetch(path, { ...options, headers: { ...options.headers, ...headers() } }).catch((error) => {
    if (options.signal?.aborted) throw error;
    throw new ServiceError(0, "The service cannot be reached: see whether it runs, then press Try again.");
  });
  return insist(send, options.signal, onBusy);
}

// The same as a POST whose progress is told, which fetch cannot do: onProgress(bytes sent).
export function upload(path, body, { onProgress, onBusy, signal }) {
  const send = () => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded));
    request.addEventListener("load", () => resolve(new Response(request.responseText, {
      status: request.status, headers: { "Retry-After": request.getResponseHeader("Retry-After") ?? "" },
    })));
    request.addEventListener("error", () => reject(new ServiceError(0,
      "The file could not be sent: see whether the service runs and takes files of this size, then press Try again.")));
    request.addEventListener("abort", () => reject(signal.reason));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(body);
  });
  return insist(send, signal, onBusy);
}
