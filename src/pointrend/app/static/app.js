// The page: an image and settings go to the server, and what it renders comes back.
import { make, show } from "./viewer.js";

const find = (name) => document.querySelector(name);
const [source, message, examples, fileInput] = ["#source", "#source .message", "#source .examples", "#source input"].map(find);
const model = find("#model select");
const sliders = { resolution: find("#resolution input"), points: find("#points input"), min_score: find("#score input") };
const DOWNLOAD_NAMES = { "labels.png": "PNG", "coco.json": "COCO JSON", "outlines.svg": "SVG" };
const options = await call("options", { method: "GET" }).catch((error) => {
  say(error.message, true);
  throw error;
});
let image = options.examples[0].image;
let wanted = null; // the newest request; older ones that have not been sent are dropped
let rendering = false;

async function call(path, init) {
  let answer, content;
  try {
    answer = await fetch(path, { method: "POST", ...init });
    content = await answer.json();
  } catch {
    throw new Error("The server does not answer, or refused the request. Try again.");
  }
  if (!answer.ok) throw new Error(content.error || "The server failed; its log says why.");
  return content;
}

function say(text, wrong) {
  message.textContent = text;
  message.classList.toggle("wrong", Boolean(wrong));
}

/** Render at the sliders' values, or (`reset`) at the model's own, which the sliders then take. */
async function render(reset) {
  wanted = { reset: reset || Boolean(wanted?.reset) };
  if (rendering) return;
  rendering = true;
  find("main").setAttribute("aria-busy", "true");
  while (wanted) {
    const { reset } = wanted;
    wanted = null;
    const values = { min_score: Number(sliders.min_score.value) };
    if (!reset) for (const name of ["resolution", "points"]) values[name] = Number(sliders[name].value);
    try {
      const body = JSON.stringify({ model: model.value, image, ...values });
      const rendered = await call("render", { body, headers: { "content-type": "application/json" } });
      if (message.classList.contains("wrong")) say("");
      if (wanted?.reset) continue; // for an image or a model that is no longer chosen
      if (reset) setControls(rendered.controls);
      showFacts(rendered);
      await show(rendered);
    } catch (error) {
      say(error.message, true);
    }
  }
  rendering = false;
  find("main").removeAttribute("aria-busy");
}

function setControls(controls) {
  const cells = controls.instances ? "cells along each side of a box" : "cells along the longer side";
  const points = controls.instances ? "in each box" : "where most uncertain";
  for (const [name, text] of [["resolution", cells], ["points", points]]) {
    const [slider, range] = [sliders[name], controls[name]];
    [slider.min, slider.max, slider.step, slider.value] = [range.minimum, range.maximum, range.step, range.start];
    find(`#${name} small`).textContent = `${text}; the model's own: ${range.own}`;
    find(`#${name} output`).textContent = slider.value;
  }
  find("#score").hidden = !controls.instances;
}

function showFacts(rendered) {
  const numbers = rendered.numbers.map((item) => {
    const box = make("div");
    box.append(make("dt", "", item.label), make("dd", "", item.value), make("dd", "note", item.note));
    return box;
  });
  const legend = rendered.legend.map((item) => {
    const [node, square] = [make("li"), make("i")];
    square.style.background = item.color;
    node.append(square, make("span", "", item.name));
    return node;
  });
  const links = rendered.downloads.map((name) => {
    const link = make("a", "", DOWNLOAD_NAMES[name] || name);
    link.href = `results/${rendered.result}/${name}`;
    link.download = ""; // under the name that the server says
    return link;
  });
  find("#facts .numbers").replaceChildren(...numbers);
  find("#facts .legend").replaceChildren(...legend);
  find("#facts .downloads").replaceChildren(make("span", "", "Download"), ...links);
}

function choose(id) {
  image = id;
  for (const button of examples.children) button.setAttribute("aria-pressed", String(button.dataset.image === id));
  render(true);
}

async function upload(file) {
  if (!file) return;
  if (file.size > options.max_bytes) {
    const megabytes = Number((options.max_bytes / 2 ** 20).toFixed(1));
    return say(`The file is larger than ${megabytes} MB, which is the limit here.`, true);
  }
  say(`Reading ${file.name} …`);
  try {
    const headers = { "X-File-Name": encodeURIComponent(file.name) };
    choose((await call("images", { body: file, headers })).image);
    say(file.name);
  } catch (error) {
    say(error.message, true);
  }
}

for (const name of options.models) model.append(new Option(name, name));
model.addEventListener("change", () => render(true));
for (const slider of Object.values(sliders)) {
  slider.addEventListener("input", () => {
    slider.parentElement.querySelector("output").textContent = slider.value;
    render(false);
  });
}
for (const item of options.examples) {
  const button = make("button");
  button.type = "button";
  button.dataset.image = item.image;
  button.title = item.name;
  const thumbnail = make("img");
  thumbnail.src = item.source;
  thumbnail.alt = `Example: ${item.name}`;
  button.append(thumbnail);
  button.addEventListener("click", () => {
    say("");
    choose(item.image);
  });
  examples.append(button);
}

// An image may be dropped or pasted anywhere on the page.
const zone = source.querySelector(".zone");
zone.addEventListener("click", () => fileInput.click());
fileInput.addEventListener("change", () => {
  upload(fileInput.files[0]);
  fileInput.value = ""; // the same file may be chosen again
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.toggle("over", name === "dragenter" || name === "dragover");
  });
}
window.addEventListener("drop", (event) => upload(event.dataTransfer.files[0]));
window.addEventListener("paste", (event) => upload(event.clipboardData?.files[0]));
choose(image);
