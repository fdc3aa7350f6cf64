// Sensor counts: read from NPY, and turned into gray levels as the library does.

const KINDS = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array };

// {data, width, height} of an (H, W) array in NPY, little-endian as the service writes it.
export function readNpy(buffer) {
  const view = new DataView(buffer);
  const length = view.getUint16(8, true);  // version 1
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, 10, length));
  const kind = KINDS[/'descr': '[<|](\w\d)'/.exec(header)?.[1]];
  const shape = /'shape': \((\d+), (\d+)\)/.exec(header);
  if (!kind || !shape || header.includes("'fortran_order': True")) {
    throw new Error("the service sent counts that this page cannot read");
  }
  const height = Number(shape[1]), width = Number(shape[2]);
  return { data: new kind(buffer, 10 + length, width * height), width, height };
}

// The counts that are black and white: between two percentiles, as in the library's pictures.
export function autoWindow({ data, width, height }, low = 0.5, high = 99.9) {
  const step = Math.max(1, Math.floor(Math.sqrt(data.length / 2 ** 18)));
  const sample = [];
  for (let y = 0; y < height; y += step) {
    for (let x = 0; x < width; x += step) {
      const count = data[y * width + x];
      if (Number.isFinite(count)) sample.push(count);
    }
  }
  if (!sample.length) return { bottom: 0, top: 1 };
  const sorted = Float64Array.from(sample).sort();
  const at = (percent) => {
    const place = (sorted.length - 1) * percent / 100, below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
  };
  let bottom = at(low), top = at(high);
  if (top <= bottom) [bottom, top] = [sorted[0], sorted[sorted.length - 1]];
  return { bottom, top: top > bottom ? top : bottom + 1 };
}

export function range({ data }) {
  let least = Infinity, most = -Infinity;
  for (let place = 0; place < data.length; place += 1) {
    const count = data[place];
    if (count < least && count > -Infinity) least = count;
    if (count > most && count < Infinity) most = count;
  }
  return least <= most ? { least, most } : { least: 0, most: 1 };
}

// Gray levels of the counts, in a canvas of a pixel each.
export function paint(counts, { bottom, top }, invert, canvas) {
  const { data, width, height } = counts;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  const scale = 255 / Math.max(top - bottom, 1e-30);
  const gray = new Uint32Array(256).map((_, level) => 0xff000000 | ((invert ? 255 - level : level) * 0x010101));
  for (let place = 0; place < data.length; place += 1) {
    const level = (data[place] - bottom) * scale;  // NaN is black
    pixels[place] = gray[level > 255 ? 255 : level > 0 ? (level + 0.5) | 0 : 0];
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// A small picture of the counts: the brightest of each block, so that a dim target stays.
export function thumbnail(counts, width = 68, height = 58) {
  const scale = Math.min(width / counts.width, height / counts.height, 1);
  const wide = Math.max(1, Math.round(counts.width * scale));
  const high = Math.max(1, Math.round(counts.height * scale));
  const data = new Float32Array(wide * high).fill(-Infinity);
  for (let y = 0; y < counts.height; y += 1) {
    const row = Math.min(high - 1, Math.floor(y * scale)) * wide;
    for (let x = 0; x < counts.width; x += 1) {
      const place = row + Math.min(wide - 1, Math.floor(x * scale)), count = counts.data[y * counts.width + x];
      if (count > data[place]) data[place] = count;
    }
  }
  const small = { data, width: wide, height: high };
  return paint(small, autoWindow(counts), false, document.createElement("canvas"));
}

// What takes the place of counts: the gray levels of a picture that the browser itself can read.
export function ofPicture(source, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height), gray = new Uint8Array(width * height);
  for (let place = 0; place < gray.length; place += 1) {
    const at = place * 4;
    gray[place] = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2] + 0.5;
  }
  return { data: gray, width, height, levels: 255 };
}

// 97%, 99.6%, >99.99%: with the digits that tell a score from certainty, as in the library's pictures.
export function showScore(score) {
  if (score >= 1) return "100%";
  if (score > 0.9999) return ">99.99%";
  if (score < 0.01) return "<1%";
  const digits = score > 0.999 ? 2 : score > 0.99 ? 1 : 0, factor = 10 ** digits;
  return `${(Math.floor(score * 100 * factor + 1e-3) / factor).toFixed(digits)}%`;
}

// The scores of a slider, one of them the model's own point. Equal steps would put most frames into the last.
export function scoreSteps(point) {
  const even = Array.from({ length: 60 }, (_, place) => 1 / (1 + Math.exp(4 - (13.2 * place) / 59)));
  return [...new Set([0, ...even, point])].sort((one, other) => one - other);
}
