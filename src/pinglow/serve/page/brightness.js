// Which counts are black and which are white: level and width, as sliders, numbers and keys.

import { autoWindow, range } from "./counts.js";

const $ = (id) => document.getElementById(id);

export class Brightness {
  constructor(view) {
    this.view = view;
    this.own = false;  // whether the user has chosen it
    this.levels = undefined;  // those that it is in; undefined: counts
    for (const suffix of ["", "-number"]) {
      $(`level${suffix}`).addEventListener("input", (event) => this.choose(event.target.valueAsNumber, this.width));
      $(`width${suffix}`).addEventListener("input", (event) => this.choose(this.level, event.target.valueAsNumber));
    }
    $("auto").addEventListener("click", () => this.auto());
    $("invert").addEventListener("change", () => {
      view.invert = $("invert").checked;
      view.repaint();
    });
  }

  get level() { return (this.view.window.bottom + this.view.window.top) / 2; }
  get width() { return this.view.window.top - this.view.window.bottom; }

  // For the next frame: the same if the user wants it so, or chose it for the clip that this is of.
  adopt(counts, same) {
    const { least, most } = range(counts), span = Math.max(most - least, 1e-9);
    Object.assign($("level"), { min: least, max: most });
    Object.assign($("width"), { min: span / 1000, max: span });
    const alike = counts.levels === this.levels;  // a window on counts hides a picture
    this.levels = counts.levels;
    if (alike && ($("keep").checked || (same && this.own))) this.set(this.view.window);
    else this.auto(counts);
  }

  auto(counts = this.view.frame?.counts) {
    if (!counts) return;
    this.own = false;
    this.set(autoWindow(counts));
  }

  choose(level, width) {
    if (!this.view.frame || !Number.isFinite(level) || !(width > 0)) return;
    this.own = true;
    this.set({ bottom: level - width / 2, top: level + width / 2 });
  }

  // By shares of the width.
  nudge(level, width) {
    this.choose(this.level + level * this.width, this.width * (1 + width));
  }

  set(window) {
    this.view.window = window;
    this.view.repaint();
    const digits = this.width > 50 ? 0 : this.width > 1 ? 2 : 5;
    for (const id of ["level", "width"]) {
      const number = $(`${id}-number`), text = this[id].toFixed(digits);
      $(id).value = this[id];
      $(id).setAttribute("aria-valuetext", `${text} counts`);
      if (document.activeElement !== number) number.value = text;
    }
  }
}
