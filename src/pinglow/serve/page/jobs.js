// A clip or an archive as a job of the service: sent, waited for, and its results.

import { ask, query, upload, wait } from "./api.js";

const EVERY = 400;  // ms

// {id, lines, broken} of a frame that is a clip; tell(text, share): how far it is.
export async function runJob({ file, label }, settings, { tell, signal, onBusy }) {
  const path = query("v1/jobs", { name: label.slice(-200), save: "jsonl,coco,html,counts", ...settings });
  const onProgress = (sent) => tell(`${Math.floor((sent / file.size) * 100)}% sent`, 0);
  const job = await (await upload(path, file, { onProgress, onBusy, signal })).json();
  const cancel = () => forget(job);
  signal.addEventListener("abort", cancel, { once: true });
  let state = job;
  while (["queued", "running"].includes(state.state)) {
    const { done, total } = state;
    tell(state.state === "queued" ? "queued" : total ? `${done} of ${total}` : "started", total ? done / total : 0);
    await wait(EVERY, signal);
    state = await (await ask(`v1/jobs/${encodeURIComponent(job.id)}`, { signal, onBusy })).json();
  }
  signal.removeEventListener("abort", cancel);  // its results are wanted from now on
  if (state.state !== "done") throw Object.assign(new Error(state.detail ?? `the job was ${state.state}`), { status: 422 });
  const [lines, coco] = await Promise.all([results(job.id, "targets.jsonl"), results(job.id, "coco.json")]);
  return { id: job.id, lines: join(await lines.text(), JSON.parse(await coco.text())), broken: state.broken ?? [] };
}

// Cancel a job, or have its results removed.
export function forget({ id }) {
  ask(`v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

// A picture of what the job has written as a page.
export async function picture({ id }, name) {
  return createImageBitmap(await results(id, `html/${name}`));
}

// The counts of a frame as NPY; null: the job has its picture only.
export async function counts({ id }, name) {
  try {
    return await (await results(id, `counts/${name}.npy`)).arrayBuffer();
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function results(id, name) {
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
