// Tracks over time: a chart, and a table that says the same.

import { showScore } from "./counts.js";
import { colorOf } from "./view.js";

const SPACE = "http://www.w3.org/2000/svg";
const WIDE = 276, HIGH = 170, LEFT = 40, RIGHT = 6, TOP = 8, BOTTOM = 22;

// {number, points: [{time, x, y, score, frame}]} of frames in order; targetsOf(frame): those that are shown.
export function collect(frames, targetsOf) {
  const tracks = new Map();
  for (const frame of frames) {
    for (const target of frame.line ? targetsOf(frame) : []) {
      if (!target.track) continue;
      if (!tracks.has(target.track)) tracks.set(target.track, { number: target.track, points: [] });
      const { x, y, score } = target;
      tracks.get(target.track).points.push({ time: timeOf(frame), x, y, score, frame });
    }
  }
  return [...tracks.values()].sort((one, other) => one.number - other.number);
}

export const timeOf = (frame) => frame.time ?? frame.line.time ?? frame.line.frame;

const make = (tag, attributes, text) => {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
};

const number = (value, span) => value.toFixed(span < 0.1 ? 3 : span < 10 ? 1 : 0);

// axis: x, y or score; unit: "s" or "frame"; open(frame): the frame of the point next to a click.
export function drawChart(tracks, axis, unit, current, open) {
  const points = tracks.flatMap((track) => track.points);
  const bounds = (values) => {
    const [least, most] = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    return most > least ? [least, most] : [least - 0.5, most + 0.5];
  };
  const [first, last] = bounds(points.map(({ time }) => time));
  const [low, high] = axis === "score" ? [0, 1] : bounds(points.map((point) => point[axis]));
  const across = (time) => LEFT + (time - first) / (last - first) * (WIDE - LEFT - RIGHT);
  // y grows downwards in a frame, and so it does here.
  const share = (value) => (axis === "y" ? value - low : high - value) / (high - low);
  const down = (value) => TOP + share(value) * (HIGH - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img",
    "aria-label": `${axis} of ${tracks.length} ${tracks.length === 1 ? "track" : "tracks"} over time; the table below says the same` });
  svg.append(make("path", { class: "axis", d: `M${LEFT} ${TOP}V${HIGH - BOTTOM}H${WIDE - RIGHT}` }));
  const label = (x, y, anchor, text) => svg.append(make("text", { x, y, "text-anchor": anchor }, text));
  const [above, below] = axis === "y" ? [low, high] : [high, low];
  label(LEFT - 4, TOP + 8, "end", axis === "score" ? "100%" : number(above, high - low));
  label(LEFT - 4, HIGH - BOTTOM, "end", axis === "score" ? "0%" : number(below, high - low));
  label(LEFT, HIGH - 6, "start", number(first, last - first));
  label(WIDE - RIGHT, HIGH - 6, "end", unit === "s" ? `${number(last, last - first)} s` : `frame ${last}`);
  for (const track of tracks) {
    const path = track.points.map((point, place) => `${place ? "L" : "M"}${across(point.time).toFixed(1)} ${down(point[axis]).toFixed(1)}`);
    svg.append(make("path", { d: path.join(""), fill: "none", stroke: colorOf(track.number), "stroke-width": 1.8,
      "stroke-linecap": "round", "stroke-linejoin": "round", class: "track" }));
  }
  if (current !== null && current >= first && current <= last) {
    svg.append(make("path", { class: "now", d: `M${across(current).toFixed(1)} ${TOP}V${HIGH - BOTTOM}` }));
  }
  svg.addEventListener("click", (event) => {
    const box = svg.getBoundingClientRect(), scale = Math.min(box.width / WIDE, box.height / HIGH);
    const x = (event.clientX - box.left - (box.width - WIDE * scale) / 2) / scale;
    const y = (event.clientY - box.top - (box.height - HIGH * scale) / 2) / scale;
    const away = (point) => Math.hypot(across(point.time) - x, (down(point[axis]) - y) / 4);
    open(points.reduce((best, point) => (away(point) < away(best) ? point : best)).frame);
  });
  return svg;
}

export function rows(tracks, unit, open) {
  return tracks.map(({ number: track, points }) => {
    const row = document.createElement("tr"), button = document.createElement("button");
    const swatch = document.createElement("span"), best = points.reduce((one, other) => (other.score > one.score ? other : one));
    swatch.className = "swatch";
    swatch.style.background = colorOf(track);
    button.type = "button";
    button.append(swatch, `#${track}`);
    button.setAttribute("aria-label", `Track ${track}: show its best frame`);
    button.addEventListener("click", () => open(best.frame));
    const time = ({ time: value }) => (unit === "s" ? value.toFixed(2) : String(value));
    const values = [button, time(points[0]), time(points[points.length - 1]), points.length, showScore(best.score)];
    row.append(...values.map((value) => {
      const cell = document.createElement("td");
      cell.append(value);
      return cell;
    }));
    return row;
  });
}
