// The ways in which a person gives a recording: choosing, dropping, pasting, or one of the samples.

import { element } from "./badges.js";

const SAMPLES = [
  { name: "English", tag: "en", file: "en_1.flac" },
  { name: "普通话", tag: "zh-CN", file: "zh_1.flac" },
  { name: "粵語", tag: "zh-HK", file: "yue_1.flac" },
  { name: "日本語", tag: "ja", file: "ja_1.flac" },
  { name: "한국어", tag: "ko", file: "ko_2.flac" },
];

// take(content, name) gets what was given; tooMany(name) is told if only the first was taken.
export function listen({ input, button, box, veil, samples }, take, tooMany) {
  button.onclick = () => input.click();
  input.onchange = () => {
    const [file] = input.files;
    if (file) take(file, file.name);
    input.value = "";
  };
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (!file) return;
    event.preventDefault();
    take(file, file.name);
  });
  drops((shown) => {
    box.classList.toggle("over", shown);
    veil.hidden = !shown;
  }, ([file, ...others]) => {
    if (!file) return;
    if (others.length) tooMany(file.name);
    take(file, file.name);
  });
  for (const { name, tag, file } of SAMPLES) {
    const made = element("button", { type: "button", text: name, lang: tag });
    made.onclick = async () => {
      const response = await fetch(`page/samples/${file}`);
      if (response.ok) take(await response.blob(), `${name}.flac`);
    };
    samples.append(made);
  }
}

// Files can be dropped anywhere on the page.
function drops(show, take) {
  let inside = 0; // elements that the pointer has entered and not left
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => { if (carries(event)) { inside += 1; show(true); } });
  addEventListener("dragleave", (event) => { if (carries(event)) { inside -= 1; show(inside > 0); } });
  addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    inside = 0;
    show(false);
    if (!carries(event)) return;
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
}
