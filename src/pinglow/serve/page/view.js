// The frame on a canvas: window, zoom, pan, targets, and regions drawn with the mouse.

import { paint, showScore } from "./counts.js";

const MARKED = 300;  // targets; more would cover the frame
const CLEAR = 3;  // screen pixels between a target and its box, at least
const mark = "#ffb000";

export const colorOf = (track) => `hsl(${(track * 137.5) % 360} 80% 60%)`;

export class View {
  // on: region(text), move(x, y, count), zoom(scale), draw(mode), pick(number)
  constructor(canvas, on) {
    this.canvas = canvas;
    this.on = on;
    this.frame = null;  // {counts, targets, outlines: Map}
    this.window = { bottom: 0, top: 1 };
    this.invert = false;
    this.showOutlines = true;
    this.chosen = -1;
    this.regions = [];
    this.mode = null;  // null, "rectangle", "polygon"
    this.points = [];  // of the region that is drawn, in pixels of the frame
    this.fingers = new Map();
    this.pointer = null;  // where the mouse was last; null: not here
    this.picture = document.createElement("canvas");
    this.scale = 1;
    this.left = 0;  // of the frame, on the screen
    this.top = 0;
    this.fitted = true;
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
  }

  show(frame) {
    const same = this.frame?.counts.width === frame?.counts.width && this.frame?.counts.height === frame?.counts.height;
    this.frame = frame;
    this.chosen = -1;
    if (frame) this.repaint();
    if (frame && (!same || this.fitted)) this.fit();
    else this.draw();
  }

  repaint() {
    if (this.frame) paint(this.frame.counts, this.window, this.invert, this.picture);
    this.draw();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas, ratio = devicePixelRatio;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    if (this.fitted) this.fit();
    else this.draw();
  }

  get wide() { return this.canvas.clientWidth; }
  get high() { return this.canvas.clientHeight; }

  fit() {
    if (!this.frame || !this.wide) return;
    const { width, height } = this.frame.counts;
    this.scale = Math.min(this.wide / width, this.high / height);
    this.left = (this.wide - width * this.scale) / 2;
    this.top = (this.high - height * this.scale) / 2;
    this.fitted = true;
    this.on.zoom(this.scale);
    this.draw();
  }

  // By a factor, about a point on the screen; the middle of the view if none is given.
  zoom(factor, x = this.wide / 2, y = this.high / 2) {
    const scale = Math.min(64, Math.max(0.05, this.scale * factor)), by = scale / this.scale;
    this.left = x - (x - this.left) * by;
    this.top = y - (y - this.top) * by;
    this.scale = scale;
    this.fitted = false;
    this.on.zoom(scale);
    this.draw();
  }

  move(x, y) {
    this.left += x;
    this.top += y;
    this.fitted = false;
    this.draw();
  }

  // Show a target in the middle, large enough to be seen.
  choose(number, near = true) {
    this.chosen = number;
    const target = this.frame?.targets[number];
    if (target && near) {
      this.scale = Math.max(this.scale, 4);
      this.left = this.wide / 2 - (target.x + 0.5) * this.scale;
      this.top = this.high / 2 - (target.y + 0.5) * this.scale;
      this.fitted = false;
      this.on.zoom(this.scale);
    }
    this.draw();
  }

  draw() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.drawNow();
    });
  }

  drawNow() {
    this.canvas.classList.toggle("whole", this.fitted);  // a finger scrolls the page then
    this.tell();  // below a mouse that rests is something else
    const context = this.canvas.getContext("2d"), ratio = devicePixelRatio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.wide, this.high);
    if (!this.frame) return;
    const { width, height } = this.frame.counts;
    context.imageSmoothingEnabled = this.scale < 1;
    context.drawImage(this.picture, this.left, this.top, width * this.scale, height * this.scale);
    this.drawRegions(context);
    this.frame.targets.slice(0, MARKED).forEach((target, number) => this.drawTarget(context, target, number));
  }

  drawTarget(context, target, number) {
    const [left, top, width, height] = target.bbox, { scale } = this;
    const clear = Math.max(CLEAR, 2 * scale);
    const x = this.left + left * scale - clear, y = this.top + top * scale - clear;
    const wide = width * scale + 2 * clear, high = height * scale + 2 * clear;
    context.strokeStyle = context.fillStyle = target.track ? colorOf(target.track) : mark;
    context.lineWidth = number === this.chosen ? 3 : 1.5;
    context.strokeRect(x, y, wide, high);
    if (this.showOutlines && scale >= 3) this.drawOutline(context, target);
    const text = (target.track ? `#${target.track} ` : "") + showScore(target.score);
    context.font = "600 13px system-ui, sans-serif";
    const at = Math.min(Math.max(x, 2), this.wide - context.measureText(text).width - 4);
    const line = y > 18 ? y - 5 : y + high + 14;
    context.lineWidth = 3;
    context.strokeStyle = "#000c";
    context.strokeText(text, at, line);
    context.fillText(text, at, line);
  }

  drawOutline(context, target) {
    const path = this.frame.outlines(target);
    if (!path) return;
    const { scale } = this;
    context.save();
    context.translate(this.left, this.top);
    context.scale(scale, scale);
    context.lineWidth = 1.5 / scale;
    context.stroke(path);
    context.restore();
  }

  drawRegions(context) {
    const drawn = this.points.length ? [...this.regions, this.points] : this.regions;
    context.lineWidth = 1.5;
    context.strokeStyle = "#fff";
    context.fillStyle = "#0009";
    for (const points of drawn) {
      context.beginPath();
      for (const [x, y] of points) context.lineTo(this.left + x * this.scale, this.top + y * this.scale);
      if (points !== this.points || this.mode === "rectangle") context.closePath();
      context.setLineDash([5, 4]);
      context.fill();
      context.stroke();
      context.setLineDash([]);
    }
  }

  // Drawing

  setMode(mode) {
    this.mode = mode;
    this.points = [];
    this.canvas.classList.toggle("drawing", mode !== null);
    this.on.draw(mode);
    this.draw();
  }

  // An edge between pixels, in the frame.
  edge(event) {
    const { width, height } = this.frame.counts, box = this.canvas.getBoundingClientRect();
    const inside = (value, most) => Math.min(most, Math.max(0, Math.round(value)));
    return [inside((event.clientX - box.left - this.left) / this.scale, width),
      inside((event.clientY - box.top - this.top) / this.scale, height)];
  }

  closeRegion() {
    const points = this.points, mode = this.mode;
    this.setMode(null);
    if (mode === "rectangle") {
      const [[left, top], , [right, bottom]] = points;
      const wide = Math.abs(right - left), high = Math.abs(bottom - top);
      if (wide && high) this.on.region(`${Math.min(left, right)},${Math.min(top, bottom)},${wide},${high}`);
      return;
    }
    const corners = points.filter((point, place) => String(point) !== String(points[place - 1]));
    if (corners.length > 2) this.on.region(corners.map((point) => point.join(",")).join(";"));
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.release(event));
    canvas.addEventListener("pointerleave", () => { this.pointer = null; this.tell(); });
    canvas.addEventListener("dblclick", () => { if (this.mode === "polygon") this.closeRegion(); });
    canvas.addEventListener("wheel", (event) => {
      if (!this.frame) return;
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY / (event.deltaMode ? 10 : 300)), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
  }

  press(event) {
    if (!this.frame || event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.moved = false;
    if (this.mode === "rectangle") this.points = Array(4).fill(this.edge(event));
    else if (this.mode === "polygon") this.points = [...this.points, this.edge(event)];
    this.draw();
  }

  drag(event) {
    this.pointer = { x: event.clientX, y: event.clientY };
    this.tell();
    if (!this.frame) return;
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    if (this.mode === "rectangle") {
      const [first] = this.points, [x, y] = this.edge(event);
      this.points = [first, [x, first[1]], [x, y], [first[0], y]];
      this.draw();
    }
    const now = { x: event.clientX, y: event.clientY };
    if (!this.mode && this.fingers.size === 1) {
      this.moved ||= Math.hypot(now.x - before.x, now.y - before.y) > 3;
      if (!this.moved) return;
      this.move(now.x - before.x, now.y - before.y);
    } else if (!this.mode && this.fingers.size === 2) {
      const [other] = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (at) => Math.max(1, Math.hypot(at.x - other.x, at.y - other.y));
      const box = this.canvas.getBoundingClientRect();
      this.moved = true;
      this.zoom(apart(now) / apart(before), (now.x + other.x) / 2 - box.left, (now.y + other.y) / 2 - box.top);
      this.move((now.x - before.x) / 2, (now.y - before.y) / 2);
    }
    this.fingers.set(event.pointerId, now);
  }

  release(event) {
    if (!this.fingers.delete(event.pointerId)) return;
    if (this.mode === "rectangle") this.closeRegion();
    else if (!this.mode && !this.moved && event.type === "pointerup") this.pick(event);
  }

  // The target that was clicked on.
  pick(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = (event.clientX - box.left - this.left) / this.scale, y = (event.clientY - box.top - this.top) / this.scale;
    const reach = 12 / this.scale;
    const number = this.frame.targets.findIndex(({ bbox: [left, top, width, height] }) => left - reach <= x
      && x <= left + width + reach && top - reach <= y && y <= top + height + reach);
    if (number >= 0) this.on.pick(number);
  }

  tell() {
    if (!this.frame || !this.pointer) return this.on.move();
    const { data, width, height } = this.frame.counts, box = this.canvas.getBoundingClientRect();
    const x = Math.floor((this.pointer.x - box.left - this.left) / this.scale);
    const y = Math.floor((this.pointer.y - box.top - this.top) / this.scale);
    if (x < 0 || y < 0 || x >= width || y >= height) this.on.move();
    else this.on.move(x, y, data[y * width + x]);
  }
}
