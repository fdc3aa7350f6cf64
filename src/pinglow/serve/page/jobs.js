// A clip or an archive as a job of the service: sent, waited for, and its results.

import { ask, query, upload, wait } from "./api.js";

const EVERY = 400;  // ms

// {id, lines, broken} of a frame that is a clip; tell(text): how far it is.
export async function runJob({ file, label }, settings, { tell, signal, onBusy }) {
  const path = query("v1/jobs", { name: label, track: true, save: "jsonl,coco,html", ...settings });
  const onProgress = (sent) => tell(`sent ${Math.floor((sent / file.size) * 100)}%`);
  const job = await (await upload(path, file, { onProgress, onBusy, signal })).json();
  const address = `v1/jobs/${encodeURIComponent(job.id)}`;
  signal.addEventListener("abort", () => { ask(address, { method: "DELETE", keepalive: true }).catch(() => {}); }, { once: true });
  let state = job;
  while (["queued", "running"].includes(state.state)) {
    tell(state.state === "queued" ? "queued" : `${state.done} of ${state.total ?? "?"}`);
    await wait(EVERY, signal);
    state = await (await ask(address, { signal, onBusy })).json();
  }
  if (state.state !== "done") throw Object.assign(new Error(state.detail ?? `the job was ${state.state}`), { status: 422 });
  const [lines, coco] = await Promise.all([results(job.id, "targets.jsonl"), results(job.id, "coco.json")]);
  return { id: job.id, lines: join(await lines.text(), JSON.parse(await coco.text())), broken: state.broken ?? [] };
}

export async function results(id, name) {
  return (await ask(`v1/jobs/${encodeURIComponent(id)}/results/${name}`)).blob();
}

// The lines of targets.jsonl, each target with what COCO's file says of its pixels.
function join(text, { annotations }) {
  const lines = text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  let place = 0;  // both files have all targets in one order
  for (const { targets } of lines) {
    for (const target of targets) {
      const { segmentation, bbox } = annotations[place];
      if (segmentation) target.segmentation = segmentation;
      else target.box = bbox;
      place += 1;
    }
  }
  return lines;
}
