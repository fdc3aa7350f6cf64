// What was dropped, opened or pasted: files with their paths, in the order of their numbers.

const CLIPS = new Set(("mp4 avi mkv mov webm wmv mxf y4m ts m2ts mpg mpeg m4v seq zip tar tgz gz bz2 xz h5 hdf5").split(" "));
const NO_FRAMES = new Set(("txt md csv json jsonl xml html pdf doc docx py log yaml yml toml ini hdr ds_store").split(" "));

const suffix = (name) => name.slice(name.lastIndexOf(".") + 1).toLowerCase();
export const isClip = (name) => CLIPS.has(suffix(name));

const order = new Intl.Collator("en", { numeric: true });

// [{file, name}], a name with the folders that it lies in.
export function ofInput(list) {
  return sorted([...list].map((file) => ({ file, name: file.webkitRelativePath || file.name })));
}

export async function ofDrop(transfer) {
  const dropped = [...transfer.items].filter(({ kind }) => kind === "file");  // they last until the first await
  const entries = dropped.map((item) => item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.length) return ofInput(transfer.files);
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return sorted(found);
}

async function walk(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, name: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {  // it gives a hundred at a time
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) return;
    for (const each of part) await walk(each, found);
  }
}

// Of a folder, what lies beside frames is left out; a file that was named is tried, whatever it is.
function sorted(found) {
  const inFolder = ({ name }) => name.includes("/");
  return found
    .filter((each) => !inFolder(each) || !(NO_FRAMES.has(suffix(each.name)) || each.file.name.startsWith(".")))
    .sort((one, other) => order.compare(one.name, other.name));
}
