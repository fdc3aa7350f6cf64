// The list of frames: only those on the screen are in the document, so thousands scroll.

import { showScore } from "./counts.js";

const ROW = 68;  // px, as in style.css

export class List {
  // open(frame): it was chosen; want(frame): it came into sight
  constructor(scroll, list, open, want) {
    Object.assign(this, { scroll, list, open, want, frames: [], current: null });
    scroll.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(scroll);
  }

  show(frames, current, describe) {
    const moved = this.current !== current;
    Object.assign(this, { frames, current, describe });
    if (moved) this.reveal();
    this.draw();
  }

  reveal() {
    const place = this.frames.indexOf(this.current), { scroll } = this;
    if (place < 0) return;
    this.list.style.height = `${this.frames.length * ROW}px`;
    const top = place * ROW, bottom = top + ROW;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (bottom > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = bottom - scroll.clientHeight;
  }

  draw() {
    const { scroll, list, frames } = this;
    list.style.height = `${frames.length * ROW}px`;
    const first = Math.max(0, Math.floor(scroll.scrollTop / ROW) - 2);
    const shown = frames.slice(first, Math.ceil((scroll.scrollTop + scroll.clientHeight) / ROW) + 2);
    shown.forEach(this.want);
    const items = shown.map((frame, place) => this.item(frame, first + place));
    const kept = new Set(items);
    for (const item of [...list.children]) if (!kept.has(item)) item.remove();
    items.forEach((item, place) => { if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null); });
  }

  item(frame, place) {
    if (!frame.item) this.make(frame);
    const { item } = frame, button = item.firstChild, about = this.describe(frame);
    item.classList.toggle("broken", frame.state === "broken");
    item.style.top = `${place * ROW}px`;
    item.setAttribute("aria-posinset", place + 1);
    item.setAttribute("aria-setsize", this.frames.length);
    button.setAttribute("aria-current", String(frame === this.current));
    if (button.title !== about.title || button.children[1].textContent !== about.score) {
      button.title = about.title;
      button.setAttribute("aria-label", `${frame.label}: ${about.score}`);
      button.children[1].textContent = about.score;
    }
    if (frame.thumbnail && button.firstChild !== frame.thumbnail) button.replaceChild(frame.thumbnail, button.firstChild);
    return item;
  }

  make(frame) {
    frame.item = document.createElement("li");
    const button = document.createElement("button"), name = document.createElement("span");
    button.type = "button";
    name.className = "name";
    // From the end of a long path; the mark keeps its dots and slashes in their order.
    name.textContent = `\u200e${frame.label}\u200e`;
    const score = document.createElement("span");
    score.className = "score";
    button.append(document.createElement("canvas"), score, name);
    button.addEventListener("click", () => this.open(frame));
    frame.item.append(button);
  }
}

// What the list says of a frame: {score, title}; targets: those that are shown.
export function describe(frame, targets) {
  if (frame.state === "broken") return { score: "cannot be used", title: frame.detail };
  if (!frame.line) return { score: frame.state === "stopped" ? "stopped" : frame.progress || "waiting", title: frame.label };
  if (!targets.length) return { score: "no target", title: frame.label };
  const more = targets.length > 1 ? ` · ${targets.length} targets` : "";
  return { score: showScore(targets[0].score) + more, title: frame.label };
}
