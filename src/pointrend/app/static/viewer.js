// The large image, the small ones, and what lies under the pointer. Names come from model files and visitors: they
// only ever become text, never markup.
const viewer = document.querySelector("#viewer");
const [stage, main, cross, tip, reading, panels] = ["stage", "main", "cross", "tip", "reading", "panels"].map((name) =>
  viewer.querySelector(`.${name}`),
);
let selected = 0; // the panel that is large
let at = null; // where the cross is, in pixels of the image
let view = null;
let index = null; // region of every pixel
let probability = null; // of every pixel's label, 255 for 1

/** A new element with a class and a text. */
export function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** Show what the server rendered. */
export async function show(rendered) {
  [index, probability] = await Promise.all([unpack(rendered.hover.index), unpack(rendered.hover.probability)]);
  view = rendered;
  viewer.classList.add("filled");
  stage.style.aspectRatio = `${view.hover.width} / ${view.hover.height}`;
  stage.style.setProperty("--ratio", view.hover.width / view.hover.height);
  if (panels.children.length === view.panels.length) {
    view.panels.forEach((panel, i) => (panels.children[i].querySelector("img").src = panel.source)); // focus stays
  } else {
    panels.replaceChildren(...view.panels.map(panelButton));
  }
  select(Math.min(selected, view.panels.length - 1));
  if (at) point(at.x, at.y);
  viewer.dataset.version = Number(viewer.dataset.version || 0) + 1;
}

async function unpack(text) {
  if (!text) return null;
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function select(number) {
  selected = number;
  main.src = view.panels[number].source;
  main.alt = `${view.panels[number].name}. ${view.summary}`;
  Array.from(panels.children).forEach((button, i) => button.setAttribute("aria-pressed", String(i === number)));
}

function panelButton(panel, number) {
  const button = make("button");
  button.type = "button";
  const image = make("img");
  image.src = panel.source;
  image.alt = "";
  button.append(image, make("span", "", panel.name));
  button.addEventListener("click", () => select(number));
  return button;
}

function read(x, y) {
  const pixel = y * view.hover.width + x;
  const region = view.hover.regions[index[pixel]];
  if (!region) return "nothing";
  return `${region.name}, score ${(region.score ?? probability[pixel] / 255).toFixed(2)}`;
}

function point(x, y) {
  at = {
    x: Math.min(Math.max(Math.floor(x), 0), view.hover.width - 1),
    y: Math.min(Math.max(Math.floor(y), 0), view.hover.height - 1),
  };
  const [left, top] = [(100 * (at.x + 0.5)) / view.hover.width, (100 * (at.y + 0.5)) / view.hover.height];
  tip.textContent = read(at.x, at.y);
  reading.textContent = `${tip.textContent} (pixel ${at.x}, ${at.y})`;
  for (const node of [tip, cross]) {
    node.hidden = false;
    node.style.left = `${left}%`;
    node.style.top = `${top}%`;
  }
  tip.classList.toggle("leftwards", left > 60);
  tip.classList.toggle("upwards", top > 80);
}

function hideCross() {
  at = null;
  tip.hidden = cross.hidden = true;
  reading.textContent = "";
}

for (const name of ["pointermove", "pointerdown"]) {
  stage.addEventListener(name, (event) => {
    if (!view) return;
    const box = stage.getBoundingClientRect();
    point(((event.clientX - box.left) / box.width) * view.hover.width, ((event.clientY - box.top) / box.height) * view.hover.height);
  });
}
stage.addEventListener("pointerleave", (event) => {
  if (event.pointerType !== "touch") hideCross(); // a finger that was lifted leaves what it read
});
stage.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key === "Escape") return hideCross();
  if (!view || !moves[event.key]) return;
  event.preventDefault();
  const step = event.shiftKey ? 1 : Math.max(1, Math.round(view.hover.width / 64));
  const from = at || { x: view.hover.width / 2, y: view.hover.height / 2 };
  point(from.x + step * moves[event.key][0], from.y + step * moves[event.key][1]);
});
