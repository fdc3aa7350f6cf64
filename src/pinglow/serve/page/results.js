// What was answered, as the files that the command writes; see src/pinglow/output/{tables,coco}.py.

const COLUMNS = ["source", "frame", "x", "y", "left", "top", "width", "height", "area", "score", "time", "track"];
const real = (value) => (value === undefined || value === null ? "" : Number.isInteger(value) ? `${value}.0` : String(value));
const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const plain = ({ segmentation, box, ...target }) => target;

// lines: of targets.jsonl, whose targets may have "segmentation" and "box" too.
export function toCsv(lines) {
  const rows = lines.flatMap(({ source, frame, time, targets }) => targets.map((target) => [
    quoted(source), frame, real(target.x), real(target.y), ...target.bbox, target.area, real(target.score),
    real(time), target.track ?? "",
  ].join(",")));
  return [COLUMNS.join(","), ...rows, ""].join("\n");
}

export function toJsonLines(lines) {
  return lines.map((line) => `${JSON.stringify({ ...line, targets: line.targets.map(plain) })}\n`).join("");
}

export function toCoco(lines, version) {
  const several = ({ time, frame }) => time !== undefined || frame > 0;  // of its source
  const images = lines.map(({ targets, ...line }, place) => ({
    id: place + 1, file_name: several(line) ? `${line.source}#${line.frame}` : line.source, ...line,
  }));
  let id = 0;
  const annotations = lines.flatMap(({ targets }, place) => targets.map((target) => ({
    id: (id += 1), image_id: place + 1, category_id: 1, bbox: target.box ?? target.bbox, score: target.score,
    ...(target.segmentation && { segmentation: target.segmentation }),
    area: target.box ? target.box[2] * target.box[3] : target.area, iscrowd: 0,
    ...((target.track ?? null) !== null && { track_id: target.track }),
  })));
  const info = { description: "targets found by pinglow", version };
  return `${JSON.stringify({ info, categories: [{ id: 1, name: "target" }], images, annotations })}\n`;
}

// The edges of a target's pixels, from COCO's compressed run lengths, as a path; pixel i from i to i + 1.
export function outlineOf({ size: [height], counts }) {
  const columns = new Map();  // x to [top, bottom) runs
  const runs = [];
  for (let place = 0; place < counts.length;) {
    let value = 0, shift = 0, digit;
    do {
      digit = counts.charCodeAt(place) - 48;
      value |= (digit & 0x1f) << shift;
      shift += 5;
      place += 1;
    } while (digit & 0x20);
    if (digit & 0x10) value |= -1 << shift;
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  let start = runs[0];
  for (let place = 1; place < runs.length; place += 2) {
    for (let from = start, end = start + runs[place]; from < end;) {
      const x = Math.floor(from / height), to = Math.min(end, (x + 1) * height);
      if (!columns.has(x)) columns.set(x, []);
      columns.get(x).push([from - x * height, to - x * height]);
      from = to;
    }
    start += runs[place] + (runs[place + 1] ?? 0);
  }
  const path = new Path2D();
  const holds = (x, y) => columns.get(x)?.some(([top, bottom]) => top <= y && y < bottom);
  for (const [x, parts] of columns) {
    for (const [top, bottom] of parts) {
      for (const y of [top, bottom]) path.moveTo(x, y), path.lineTo(x + 1, y);
      for (let y = top; y < bottom; y += 1) {
        if (!holds(x - 1, y)) path.moveTo(x, y), path.lineTo(x, y + 1);
        if (!holds(x + 1, y)) path.moveTo(x + 1, y), path.lineTo(x + 1, y + 1);
      }
    }
  }
  return path;
}

export function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
