// The page: what is shown, and what keys, buttons and files do.

import { ask } from "./api.js";
import { Brightness } from "./brightness.js";
import { scoreSteps, showScore } from "./counts.js";
import { ofDrop, ofInput } from "./files.js";
import { List, describe } from "./list.js";
import { Live } from "./live.js";
import { Regions } from "./regions.js";
import { download, outlineOf, toCoco, toCsv, toJsonLines } from "./results.js";
import { Store } from "./store.js";
import { collect, drawChart, rows as trackRows, timeOf } from "./tracks.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const VERSION = document.querySelector("meta[name=version]").content;
const FAULT = 8000;  // ms that a fault is shown
const LISTED = 500;  // targets of a frame in the table

const model = { point: 0.5 };
let steps = [0];
let shown = null;  // the frame whose counts are on the canvas
let busyUntil = 0;

const store = new Store(() => update(), (seconds) => {
  busyUntil = Date.now() + seconds * 1000;
  update();
  setTimeout(update, seconds * 1000 + 50);
});
const view = new View($("canvas"), {
  region: (word) => regions.add(word),
  move: (x, y, count) => {
    $("readout").textContent = x === undefined ? "\u00a0" : `x ${x}, y ${y}: ${Number.isInteger(count) ? count : count.toPrecision(7)}`
      + (view.frame.counts.levels ? ` of ${view.frame.counts.levels}` : "");
  },
  zoom: (scale) => { $("zoom").textContent = `${Math.round(scale * 100)}%`; },
  draw: (mode) => {
    for (const id of ["rectangle", "polygon"]) $(id).setAttribute("aria-pressed", String(id === mode));
  },
  pick: (number) => choose(number, false),
});
const brightness = new Brightness(view);
const regions = new Regions((words, polygons) => {
  view.regions = polygons;
  view.draw();
  store.setRegions(words);
  live.restart();
}, say);
const list = new List($("scroll"), $("frames"), (frame) => open(frame), (frame) => store.want(frame));
const live = new Live({
  settings: () => ({ ...store.settings, min_score: bound() }),
  show: (frame, counts) => place(frame, counts),
  changed: (fault) => {
    if (fault) say(fault, true);
    if (store.current) open(store.current);
    update();
  },
});

// What is shown of what was found

const bound = () => steps[$("lowest").value] ?? 0;
const above = (frame) => frame.line.targets.filter(({ score }) => score > bound());
const isLive = () => live.on || !store.frames.length;
const everything = () => (isLive() ? live.frames : store.frames);

const outlines = new WeakMap();
function outline(target) {
  if (target.segmentation && !outlines.has(target)) outlines.set(target, outlineOf(target.segmentation));
  return outlines.get(target);
}

function listed() {
  const frames = store.frames.filter((frame) => $("bare").checked || !frame.line || above(frame).length);
  if ($("sort").value === "order") return frames;
  const best = (frame) => (frame.line ? above(frame)[0]?.score ?? -1 : -2);
  return frames.sort((one, other) => best(other) - best(one));
}

let waiting = null;
function update() {  // many changes, one picture
  waiting ??= requestAnimationFrame(() => { waiting = null; render(); });
}

function render() {
  const { frames } = store, any = frames.length > 0 || live.on || live.frames.length > 0;
  $("empty").hidden = any;
  $("listing").hidden = !frames.length || live.on;
  $("stage").hidden = $("panels").hidden = !any;
  if (frames.length && !live.on) {
    if (!frames.includes(store.current)) store.current = frames[0];
    const late = shown !== store.current && store.kept.has(store.current);
    if (late || opened.frame !== store.current || opened.any !== hasPicture(store.current)) open(store.current);
  }
  list.show(listed(), store.current, (frame) => describe(frame, frame.line ? above(frame) : []));
  renderStatus();
  renderFrame();
  renderTracks();
  renderDownload();
}

function renderStatus() {
  const count = (state) => store.frames.filter((frame) => frame.state === state).length;
  const broken = count("broken"), left = count("waiting") + count("asked"), stopped = count("stopped");
  const done = store.frames.length - left;
  $("progress").hidden = $("stop").hidden = !left;
  $("progress").max = store.frames.length;
  $("progress").value = done + store.frames.reduce((sum, { state, share }) => sum + (state === "asked" ? share ?? 0 : 0), 0);
  $("again").hidden = !(model.missing || stopped || store.frames.some((frame) => frame.state === "broken" && frame.passing));
  // What changes all the time is not read aloud.
  $("done").textContent = live.on ? `${plural(live.frames.length, "frame")}, ${live.rate.toFixed(1)} a second`
    : left ? `${done} of ${store.frames.length}` : "";
  if (Date.now() < faultUntil) return;
  if (live.on) say("The camera is watched");
  else if (Date.now() < busyUntil && left) say("The service is busy: it is asked again soon.");
  else if (store.frames.length) {
    const parts = [plural(store.frames.length, "frame")];
    if (left) parts[0] += " being searched";
    if (broken) parts.push(`${broken} cannot be used`);
    if (stopped) parts.push(`${stopped} stopped`);
    say(parts.join(", "));
  }
}

let said = "", faultUntil = 0;
function say(text, fault = false) {
  if (fault) {
    faultUntil = Date.now() + FAULT;
    setTimeout(update, FAULT + 50);
  }
  $("status").classList.toggle("fault", fault);
  if (text !== said) $("status").textContent = said = text;  // a reader says each change
}

function renderFrame() {
  const frame = isLive() ? live.frames.at(-1) : store.current;
  const order = listed(), place = order.indexOf(frame);
  $("title").textContent = frame ? frame.label : "";
  $("title").title = frame?.label ?? "";
  $("back").disabled = live.on || place <= 0;
  $("next").disabled = live.on || place < 0 || place === order.length - 1;
  const reason = frame?.state === "broken" ? frame.detail : frame?.clip && !frame.line ? frame.progress || frame.state : "";
  $("detail").hidden = !reason;
  $("detail").classList.toggle("broken", frame?.state === "broken");
  $("detail").setAttribute("aria-live", frame?.state === "broken" ? "assertive" : "off");
  if ($("detail").textContent !== reason) $("detail").textContent = reason;
  const targets = frame?.line ? above(frame) : [];
  if (view.frame && shown === frame) {
    view.frame.targets = targets;
    if (view.chosen >= targets.length) view.chosen = -1;
    view.draw();
  }
  $("canvas").setAttribute("aria-label", frame ? `${frame.label}, ${frame.line ? plural(targets.length, "target") : frame.state}` : "");
  renderTargets(frame, targets);
}

let tableOf = "";
function renderTargets(frame, targets) {
  const state = frame?.state === "done" || frame?.line ? plural(targets.length, "target") : frame?.state === "broken" ? "cannot be used" : "searched for ...";
  $("caption").textContent = targets.length > LISTED ? `${state}, the best ${LISTED} are listed` : state;
  const tracked = targets.some(({ track }) => track);
  $("targets").parentNode.classList.toggle("tracked", tracked);
  const key = JSON.stringify([frame?.label, targets.map(({ x, y, score, track }) => [x, y, score, track])]);
  if (key !== tableOf) {
    tableOf = key;
    $("targets").replaceChildren(...targets.slice(0, LISTED).map((target, number) => {
      const row = document.createElement("tr"), button = document.createElement("button");
      button.type = "button";
      button.textContent = showScore(target.score);
      button.setAttribute("aria-label", `Target ${number + 1}, ${showScore(target.score)}: show it`);
      button.addEventListener("click", () => choose(number));
      const cells = [button, target.x.toFixed(1), target.y.toFixed(1), target.area, target.track ? `#${target.track}` : ""];
      row.append(...cells.map((value, column) => {
        const cell = document.createElement("td");
        if (column === 4) cell.className = "tracked";
        cell.append(value);
        return cell;
      }));
      return row;
    }));
  }
  [...$("targets").children].forEach((row, number) => row.setAttribute("aria-current", String(number === view.chosen)));
  const job = frame?.job ?? frame?.sequence, old = job?.settings && store.isOld(job);
  $("floor").hidden = !old || live.on;
  const { min_score: floor, ignore } = job?.settings ?? {};
  if (old) $("floor-text").textContent = String(ignore) === String(store.regions)
    ? `This was searched above ${showScore(floor)} only.` : "This was searched with other regions ignored.";
}

function choose(number, near = true) {
  view.choose(number, near);
  update();
  requestAnimationFrame(() => $("targets").children[number]?.scrollIntoView({ block: "nearest" }));
}

let chartOf = "";
function renderTracks() {
  const frames = everything(), tracks = collect(frames, above);
  $("tracks-panel").hidden = !tracks.length;
  if (!tracks.length) return;
  const unit = frames.some((frame) => frame.time !== undefined || frame.line?.time !== undefined) ? "s" : "frame";
  const now = store.current?.line && !isLive() ? timeOf(store.current) : null;
  const key = JSON.stringify([$("axis").value, unit, now, frames.length, tracks.map(({ number, points }) => [number, points.length])]);
  if (key === chartOf) return;
  chartOf = key;
  const show = (frame) => { if (!isLive()) open(frame); };
  $("chart").replaceChildren(drawChart(tracks, $("axis").value, unit, now, show));
  $("tracks").replaceChildren(...trackRows(tracks, unit, show));
}

const lines = () => everything().filter((frame) => frame.line).map((frame) => ({ ...frame.line, targets: above(frame) }));

function renderDownload() {
  const ready = everything().filter((frame) => frame.line);
  const targets = ready.reduce((sum, frame) => sum + above(frame).length, 0);
  $("download-count").textContent = `${plural(targets, "target")} of ${plural(ready.length, "frame")}, above ${showScore(bound())}`;
  for (const id of ["csv", "jsonl", "coco"]) $(id).disabled = !ready.length;
}

// Frames

let opened = {};  // the frame that the canvas was last asked for, and whether it had any picture
const hasPicture = (frame) => (frame.clip || frame.job ? Boolean(frame.line) : !frame.unreadable);

async function open(frame) {
  store.current = frame;
  opened = { frame, any: hasPicture(frame) };
  view.setMode(null);
  update();
  const none = () => {
    shown = null;
    view.show(null);
  };
  if (!opened.any) return none();
  try {
    const counts = await store.counts(frame);
    if (opened.frame === frame && shown !== frame && !live.on) place(frame, counts);
  } catch (error) {
    if (opened.frame === frame) none();
    if (frame.state === "done") say(error.message, true);
  }
}

function place(frame, counts) {
  const same = shown && ((frame.live && shown.live) || (shown.job && shown.job === frame.job));
  shown = frame;
  brightness.adopt(counts, same);
  view.show({ counts, targets: frame.line ? above(frame) : [], outlines: outline });
  update();
}

function step(by) {
  const order = listed(), next = order[order.indexOf(store.current) + by];
  if (next && !live.on) open(next);
}

for (const id of ["rectangle", "polygon"]) {
  $(id).addEventListener("click", () => {
    view.setMode(view.mode === id ? null : id);
    $("canvas").scrollIntoView({ block: "nearest" });
  });
}

// Files

function take(files) {
  if (!files.length) return;
  live.close();
  const added = store.add(files, $("sequence").checked ? Number($("rate").value) || 25 : 0);
  open(added[0]);
}

for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", (event) => {
    take(ofInput(event.target.files));
    event.target.value = "";
  });
}
$("open-files").addEventListener("click", () => $("files").click());
$("empty-open").addEventListener("click", () => $("files").click());
$("open-folder").addEventListener("click", () => $("folder").click());
$("live").addEventListener("click", () => (live.on ? live.close() : live.open()));
$("device").addEventListener("change", () => live.open($("device").value));
$("sequence").addEventListener("change", () => { $("rate-label").hidden = !$("sequence").checked; });
addEventListener("paste", (event) => take(ofInput(event.clipboardData.files)));
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("main").classList.add("dropping");
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("main").classList.remove("dropping"); });
addEventListener("drop", async (event) => {
  event.preventDefault();
  $("main").classList.remove("dropping");
  try {
    take(await ofDrop(event.dataTransfer));
  } catch {
    say("The folder cannot be read: use Open folder.", true);
  }
});

// The rest of the buttons, and keys

$("back").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("in").addEventListener("click", () => view.zoom(1.5));
$("out").addEventListener("click", () => view.zoom(1 / 1.5));
$("fit").addEventListener("click", () => view.fit());
$("outlines").addEventListener("change", () => { view.showOutlines = $("outlines").checked; view.draw(); });
$("stop").addEventListener("click", () => store.stop());
$("again").addEventListener("click", () => {
  faultUntil = 0;
  store.again();
  if (model.missing) start();
});
$("search-again").addEventListener("click", () => store.searchAgain());
$("clear").addEventListener("click", () => {
  store.clear();
  live.clear();
  shown = null;
  opened = {};
  view.show(null);
});
for (const id of ["sort", "bare", "axis"]) $(id).addEventListener("change", update);
$("lowest").addEventListener("input", showBound);
$("lowest").addEventListener("change", () => live.lower(bound()));
$("csv").addEventListener("click", () => download("targets.csv", toCsv(lines()), "text/csv"));
$("jsonl").addEventListener("click", () => download("targets.jsonl", toJsonLines(lines()), "application/x-ndjson"));
$("coco").addEventListener("click", () => download("coco.json", toCoco(lines(), VERSION), "application/json"));
$("help").addEventListener("click", () => $("help-dialog").showModal());

function showBound() {
  const score = bound();
  store.lowest = score;
  $("lowest-shown").textContent = showScore(score);
  $("lowest").setAttribute("aria-valuetext", `${showScore(score)}${score === model.point ? ", the model's own" : ""}`);
  update();
}

const targetsNow = () => view.frame?.targets.length ?? 0;
const keys = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  ArrowUp: () => { if (targetsNow()) choose(Math.max(0, view.chosen - 1)); },
  ArrowDown: () => { if (targetsNow()) choose(Math.min(targetsNow() - 1, view.chosen + 1)); },
  "+": () => view.zoom(1.5),
  "=": () => view.zoom(1.5),
  "-": () => view.zoom(1 / 1.5),
  0: () => view.fit(),
  "[": () => brightness.nudge(-0.05, 0),
  "]": () => brightness.nudge(0.05, 0),
  "{": () => brightness.nudge(0, -0.1),
  "}": () => brightness.nudge(0, 0.1),
  a: () => brightness.auto(),
  m: () => $("outlines").click(),
  r: () => $("rectangle").click(),
  p: () => $("polygon").click(),
  Escape: () => view.setMode(null),
  Enter: () => view.mode === "polygon" && view.closeRegion(),
  "?": () => $("help-dialog").showModal(),
};
addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]") || !keys[key]) return;
  if (target.closest("input:not([type=checkbox]), select, textarea")) return;
  if (key === "Enter" && view.mode !== "polygon") return;
  // Elsewhere they scroll.
  if (key.endsWith("Up") || key.endsWith("Down")) {
    if (!target.closest("#canvas, #scroll, #targets") && (target !== document.body || innerWidth <= 860)) return;
  }
  event.preventDefault();
  keys[key]();
});

function setSteps() {
  steps = scoreSteps(model.point);
  $("lowest").max = steps.length - 1;
  $("lowest").value = steps.indexOf(model.point);
  showBound();
}

async function start() {
  try {
    model.missing = false;
    const { models: [first] } = await (await ask("v1/models")).json();
    model.point = first.min_score;
    store.track = first.tracks;
    $("model").textContent = first.name;
    setSteps();
  } catch (error) {
    model.missing = true;
    say(error.message, true);
    update();
  }
}

setSteps();
start();
