// The camera of this machine: its frames go to the service one by one, and are shown with their targets.

import { Camera, Stream } from "./stream.js";

const KEPT = 3000;  // frames whose targets are kept, for tracks and downloads
const RATE = 25;  // frames a second that the tracker is told

const $ = (id) => document.getElementById(id);

export class Live {
  // settings(): of the stream; show(frame, counts); changed(fault)
  constructor({ settings, show, changed }) {
    Object.assign(this, { settings, show, changed, on: false, frames: [], rate: 0, run: 0 });
  }

  async open(device) {
    this.close();
    const run = (this.run += 1);
    const camera = new Camera();
    try {
      await camera.open(device);
    } catch (error) {
      camera.close();
      this.changed(error.message);
      return;
    }
    if (run !== this.run) return camera.close();
    Object.assign(this, { camera, on: true, frames: [], rate: 0 });
    $("live").setAttribute("aria-pressed", "true");
    const devices = await camera.others();
    $("device").hidden = devices.length < 2;
    $("device").replaceChildren(...devices.map(({ id, label, used }) => new Option(label, id, used, used)));
    this.restart();
  }

  // With other settings, from the next frame on; its tracks are new.
  async restart() {
    if (!this.on) return;
    this.stream?.close();
    const run = (this.run += 1), { camera } = this;
    const [width, height] = camera.size, settings = this.settings();
    this.asked = settings.min_score;
    const stream = (this.stream = new Stream({ rate: RATE, outlines: true, raw: `${width}x${height}:gray8`, ...settings }));
    this.frames = [];
    const begun = performance.now();
    try {
      await stream.open();
      while (run === this.run) {
        const counts = camera.take(), taken = performance.now();
        const line = await stream.send(counts.data);
        if (run !== this.run) return;
        if (line.detail) throw new Error(line.detail);
        const time = (taken - begun) / 1000;
        const frame = { live: true, state: "done", label: `camera, ${time.toFixed(1)} s`, line: { ...line, source: "camera", time } };
        this.frames.push(frame);
        if (this.frames.length > KEPT) this.frames.shift();
        this.rate = this.rate * 0.9 + 100 / Math.max(1, performance.now() - taken);
        this.show(frame, counts);
        await new Promise(requestAnimationFrame);
      }
    } catch (error) {
      if (run !== this.run) return;
      this.close();
      this.changed(error.message);
    }
  }

  // Below what it was asked with, nothing is known yet.
  lower(score) {
    if (score < this.asked) this.restart();
  }

  close() {
    if (!this.on) return;
    this.run += 1;
    this.stream?.close();
    this.camera?.close();
    this.on = false;
    $("live").setAttribute("aria-pressed", "false");
    $("device").hidden = true;
    this.changed("");
  }

  clear() {
    this.close();
    this.frames = [];
    this.changed();
  }
}
