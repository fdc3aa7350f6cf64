// What is ignored of every frame: drawn or typed, listed, and as options of the command.

const $ = (id) => document.getElementById(id);
const RECTANGLE = /^\d+,\d+,[1-9]\d*,[1-9]\d*$/;
const POLYGON = /^(\d+(\.\d+)?,\d+(\.\d+)?;){2,}\d+(\.\d+)?,\d+(\.\d+)?;?$/;

export class Regions {
  // changed(words, polygons); say(text)
  constructor(changed, say) {
    this.changed = changed;
    this.words = [];
    $("add-region").addEventListener("submit", (event) => {
      event.preventDefault();
      const word = $("region").value.replaceAll(" ", ""), fits = RECTANGLE.test(word) || POLYGON.test(word);
      $("region-fault").hidden = fits;
      $("region-fault").textContent = fits ? "" : "Give whole pixels as 0,0,64,20, or a polygon as 0,0;64,0;0,20.";
      if (!fits) return;
      $("region").value = "";
      this.add(word);
    });
    $("copy").addEventListener("click", async () => {
      $("options").select();
      await navigator.clipboard?.writeText($("options").value).catch(() => {});  // else they are selected
      say("The options are selected, and in the clipboard where the browser allows it.");
    });
  }

  add(word) {
    this.set([...this.words, word]);
  }

  set(words) {
    this.words = words;
    $("regions").replaceChildren(...words.map((word, number) => {
      const item = document.createElement("li"), code = document.createElement("code");
      const button = document.createElement("button");
      code.textContent = code.title = word;
      button.type = "button";
      button.textContent = "Remove";
      button.setAttribute("aria-label", `Remove region ${word}`);
      button.addEventListener("click", () => {
        this.set(this.words.filter((_, other) => other !== number));
        $("region").focus();
      });
      item.append(code, button);
      return item;
    }));
    $("options-row").hidden = !words.length;
    $("options").value = words.map((word) => `--ignore "${word}"`).join(" ");
    this.changed(words, words.map(corners));
  }
}

function corners(word) {
  if (word.includes(";")) return word.split(";").filter(Boolean).map((pair) => pair.split(",").map(Number));
  const [left, top, width, height] = word.split(",").map(Number);
  return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]];
}
