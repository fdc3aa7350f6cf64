// All frames, and what was answered for them; a few are asked for at a time.

import { ServiceError, ask, query } from "./api.js";
import { ofPicture, readNpy, thumbnail } from "./counts.js";
import { isClip } from "./files.js";
import { counts as countsOf, forget, picture, runJob } from "./jobs.js";
import { Stream } from "./stream.js";

const AT_ONCE = 2;  // requests for frames
const JOBS_AT_ONCE = 1;
const PICTURES = 4;
const NAME = 200;  // characters that the service takes
const KEPT = 96 * 2 ** 20;  // bytes of counts

// A frame is {label, state, detail, line, thumbnail}, with {file}, or of a clip {job}; files of a
// sequence share a {sequence}. state: waiting, asked, done, broken (and why in detail), stopped.
export class Store {
  // changed(): of any frame; busy(seconds): the service asks to wait
  constructor(changed, busy) {
    this.changed = changed;
    this.busy = busy;
    this.frames = [];
    this.regions = [];
    this.lowest = 0;  // what clips are searched with
    this.track = true;  // whether the service can
    this.current = null;
    this.running = new Set();
    this.kept = new Map();  // frame to its counts, least recently used first
    this.abort = new AbortController();
    this.loading = new Map();  // frame to the promise of its counts
    this.pictures = 0;  // that are on their way
  }

  // Of what is searched with tracks.
  get settings() { return { min_score: this.lowest, ignore: this.regions, track: this.track }; }

  // rate: frames a second of files that are one sequence; 0: they are not.
  add(files, rate = 0) {
    const sequence = rate ? { rate, stream: null } : null;
    const added = files.map(({ file, name }) => {
      const clip = isClip(name);
      return { file, label: name, state: "waiting", clip, sequence: clip ? null : sequence };
    });
    this.frames.push(...added);
    this.pump();
    return added;
  }

  // All that was asked with other regions is asked again; clips, which take long, when the user says so.
  setRegions(words) {
    this.regions = words;
    this.restart((frame) => frame.file && !frame.clip && !frame.unreadable);
  }

  stop() {
    this.interrupt();
    for (const frame of this.frames) if (["waiting", "asked"].includes(frame.state)) frame.state = "stopped";
    this.changed();
  }

  again() {
    for (const frame of this.frames) {
      if (frame.state === "stopped" || (frame.state === "broken" && frame.passing)) frame.state = "waiting";
    }
    this.pump();
  }

  restart(which) {
    this.interrupt();
    for (const frame of this.frames) {
      if (which(frame)) Object.assign(frame, { state: "waiting", line: null, detail: "" });
      else if (frame.state === "asked") frame.state = "waiting";
    }
    this.pump();
  }

  interrupt() {
    this.abort.abort();
    this.abort = new AbortController();
    for (const { sequence } of this.frames) {
      sequence?.stream?.close();
      if (sequence) sequence.stream = null;
    }
  }

  clear() {
    this.interrupt();
    new Set(this.frames.map(({ job }) => job).filter(Boolean)).forEach(forget);
    this.frames = [];
    this.current = null;
    this.kept.clear();
    this.changed();
  }

  pump() {
    for (;;) {
      const busy = [...this.running];
      const fits = (frame) => frame.state === "waiting" && !this.running.has(frame)
        && busy.filter(({ clip }) => clip === frame.clip).length < (frame.clip ? JOBS_AT_ONCE : AT_ONCE)
        && !(frame.sequence && busy.some(({ sequence }) => sequence === frame.sequence));
      const first = this.current && !this.current.sequence && fits(this.current);
      const frame = first ? this.current : this.frames.find(fits);
      if (!frame) break;
      frame.state = "asked";
      this.running.add(frame);
      this.work(frame, this.abort.signal).finally(() => {
        this.running.delete(frame);
        this.pump();
      });
    }
    this.changed();
  }

  async work(frame, signal) {
    try {
      if (frame.clip) await this.workOnClip(frame, signal);
      else await this.workOnFrame(frame, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 422 && !frame.clip && error.message.includes("/v1/jobs")) {  // it has several frames
        Object.assign(frame, { clip: true, state: "waiting" });
        return;
      }
      Object.assign(frame, { state: "broken", detail: error.message, passing: error.status !== 422 });
    }
  }

  async workOnFrame(frame, signal) {
    if (!frame.thumbnail) {
      try {
        await this.counts(frame);
      } catch (error) {
        frame.unreadable = error.status === 422;
        throw error;
      }
      if (signal.aborted) return;
      this.changed();
    }
    const words = { save: "outlines", min_score: 0, ignore: this.regions };
    const answer = frame.sequence ? await this.follow(frame)
      : { line: await (await this.post(frame, words, signal)).json() };
    if (!signal.aborted) Object.assign(frame, { ...answer, state: "done", detail: "" });
  }

  // The line of the next frame of a sequence, with tracks.
  async follow({ file, label, sequence }) {
    const others = this.frames.filter((frame) => frame.sequence === sequence);
    if (!sequence.stream?.isOpen) {
      // After an interruption tracks begin anew, with numbers that are not taken.
      const taken = others.flatMap(({ line }) => line?.targets ?? []).map(({ track }) => track ?? 0);
      sequence.before = taken.reduce((most, track) => Math.max(most, track), 0);
      sequence.settings = this.settings;
      sequence.stream = new Stream({ rate: sequence.rate, outlines: true, ...sequence.settings });
      await sequence.stream.open();
    }
    const { time: _, ...line } = await sequence.stream.send(await file.arrayBuffer());
    if (line.detail) throw new ServiceError(422, line.detail);
    for (const target of line.targets) target.track &&= target.track + sequence.before;
    // The line of a still has no time.
    const time = others.findIndex((frame) => frame.file === file) / sequence.rate;
    return { time, line: { ...line, source: label, frame: 0 } };
  }

  async workOnClip(frame, signal) {
    const { settings } = this;
    const tell = (progress, share) => { Object.assign(frame, { progress, share }); this.changed(); };
    const job = await runJob(frame, settings, { tell, signal, onBusy: this.busy });
    const place = this.frames.indexOf(frame);
    if (place < 0 || signal.aborted) return;
    const found = [...job.lines.map((line) => ({ line, state: "done" })),
      ...job.broken.map(({ source, detail }) => ({ label: source, state: "broken", detail }))];
    Object.assign(job, { of: frame, settings });
    for (const each of found) {
      each.job = job;
      each.label ??= each.line.time === undefined ? each.line.name : `${each.line.name} ${each.line.time.toFixed(2)} s`;
    }
    this.frames.splice(place, 1, ...found);
    if (this.current === frame) this.current = found[0] ?? null;
  }

  // Search clips again, with what is set now; all of a clip's frames become one entry until then.
  searchAgain() {
    const jobs = new Set(this.frames.map((frame) => frame.job).filter((job) => job && this.isOld(job)));
    for (const job of jobs) {
      const place = this.frames.findIndex((frame) => frame.job === job);
      forget(job);
      if (this.current?.job === job) this.current = job.of;
      this.frames = this.frames.filter((frame) => frame.job !== job);
      this.frames.splice(place, 0, Object.assign(job.of, { state: "waiting", progress: "" }));
    }
    this.restart(({ sequence }) => sequence?.settings && this.isOld(sequence));
  }

  isOld({ settings }) {
    return this.lowest < settings.min_score || String(this.regions) !== String(settings.ignore);
  }

  // The counts of a frame; where a job has not kept them, the gray levels of its picture.
  async counts(frame) {
    let counts = this.kept.get(frame);
    if (!counts) {
      if (!this.loading.has(frame)) this.loading.set(frame, this.load(frame).finally(() => this.loading.delete(frame)));
      counts = await this.loading.get(frame);
    }
    this.kept.delete(frame);
    this.kept.set(frame, counts);
    let bytes = 0;
    for (const each of this.kept.values()) bytes += each.data.byteLength;
    for (const [old, { data }] of this.kept) {
      if (bytes <= KEPT || old === frame) break;
      this.kept.delete(old);
      bytes -= data.byteLength;
    }
    return counts;
  }

  async load(frame) {
    if (frame.job) {
      const { width, height } = frame.line, name = encodeURIComponent(frame.line.name);
      const kept = await countsOf(frame.job, name);
      return kept ? readNpy(kept) : ofPicture(await picture(frame.job, `frames/${name}.webp`), width, height);
    }
    const counts = readNpy(await (await this.post(frame, { save: "counts" })).arrayBuffer());
    frame.thumbnail = thumbnail(counts);
    return counts;
  }

  // The small picture of a frame that comes into sight in the list.
  async want(frame) {
    if (!frame.job || !frame.line || frame.wanted || this.pictures >= PICTURES) return;
    frame.wanted = true;
    this.pictures += 1;
    try {
      const bitmap = await picture(frame.job, `thumbnails/${encodeURIComponent(frame.line.name)}.webp`);
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width: bitmap.width, height: bitmap.height }).getContext("2d").drawImage(bitmap, 0, 0);
      frame.thumbnail = canvas;
    } catch { /* the list does without */ }
    this.pictures -= 1;
    this.changed();
  }

  async post(frame, words, signal) {
    let body;
    try {
      body = await frame.file.arrayBuffer();
    } catch {
      throw new Error(`${frame.label} has changed or is gone since it was opened: open it again.`);
    }
    return ask(query("v1/predict", { name: frame.label.slice(-NAME), ...words }), { method: "POST", body, signal, onBusy: this.busy,
      headers: { "Content-Type": "application/octet-stream" } });
  }
}
