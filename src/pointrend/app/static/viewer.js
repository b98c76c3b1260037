// Shows what the server computed. Names come from model files and visitors: they only ever become text, never markup.
const find = (name) => element.querySelector(name);
let shown = 0; // the panel that is large
let at = null; // where the cross is, in pixels of the image
let view = null;
let index = null; // region of every pixel
let certainty = null; // probability of every pixel, 255 for 1
let version = 0;

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function make(tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

function enlarge(number) {
  shown = number;
  const main = find(".main");
  main.src = view.panels[number].source;
  main.alt = `${view.panels[number].name}. ${view.summary}`;
  Array.from(find(".panels").children).forEach((button, i) => button.setAttribute("aria-pressed", String(i === number)));
}

function panelButton(panel, number) {
  const button = make("button");
  button.type = "button";
  const image = make("img");
  image.src = panel.source;
  image.alt = "";
  button.append(image, make("span", "", panel.name));
  button.addEventListener("click", () => enlarge(number));
  return button;
}

async function update(value) {
  const mine = ++version;
  if (!value || !value.panels) return;
  const [newIndex, newCertainty] = await Promise.all([
    unpack(value.hover.index),
    value.hover.certainty ? unpack(value.hover.certainty) : null,
  ]);
  if (mine !== version) return; // a newer result came meanwhile
  [view, index, certainty] = [value, newIndex, newCertainty];
  find(".viewer").classList.add("filled");
  find(".stage").style.aspectRatio = `${view.hover.width} / ${view.hover.height}`;
  find(".stage").style.setProperty("--ratio", view.hover.width / view.hover.height);
  const panels = find(".panels");
  if (panels.children.length === view.panels.length) {
    view.panels.forEach((panel, i) => (panels.children[i].querySelector("img").src = panel.source)); // focus stays
  } else {
    panels.replaceChildren(...view.panels.map(panelButton));
  }
  enlarge(Math.min(shown, view.panels.length - 1));
  if (at) point(at.x, at.y);
  element.dataset.version = version;
}

function reading(x, y) {
  const region = view.hover.regions[index[y * view.hover.width + x]];
  if (!region) return "nothing";
  if (region.score !== undefined) return `${region.name}, score ${region.score.toFixed(2)}`;
  return `${region.name}, score ${(certainty[y * view.hover.width + x] / 255).toFixed(2)}`;
}

function point(x, y) {
  if (!view) return;
  at = {
    x: Math.min(Math.max(Math.floor(x), 0), view.hover.width - 1),
    y: Math.min(Math.max(Math.floor(y), 0), view.hover.height - 1),
  };
  const [left, top] = [(100 * (at.x + 0.5)) / view.hover.width, (100 * (at.y + 0.5)) / view.hover.height];
  const [tip, cross] = [find(".tip"), find(".cross")];
  tip.textContent = reading(at.x, at.y);
  find(".reading").textContent = `${tip.textContent} (pixel ${at.x}, ${at.y})`;
  for (const node of [tip, cross]) {
    node.hidden = false;
    node.style.left = `${left}%`;
    node.style.top = `${top}%`;
  }
  tip.classList.toggle("leftwards", left > 60);
  tip.classList.toggle("upwards", top > 80);
}

function shutdown() {
  at = null;
  find(".tip").hidden = find(".cross").hidden = true;
  find(".reading").textContent = "";
}

const stage = find(".stage");
for (const name of ["pointermove", "pointerdown"]) {
  stage.addEventListener(name, (event) => {
    if (!view) return;
    const box = stage.getBoundingClientRect();
    point(((event.clientX - box.left) / box.width) * view.hover.width, ((event.clientY - box.top) / box.height) * view.hover.height);
  });
}
stage.addEventListener("pointerleave", (event) => {
  if (event.pointerType !== "touch") shutdown(); // a finger that was lifted leaves what it read
});
stage.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key === "Escape") return shutdown();
  if (!view || !moves[event.key]) return;
  event.preventDefault();
  const step = event.shiftKey ? 1 : Math.max(1, Math.round(view.hover.width / 64));
  const from = at || { x: view.hover.width / 2, y: view.hover.height / 2 };
  point(from.x + step * moves[event.key][0], from.y + step * moves[event.key][1]);
});

watch("value", () => update(props.value));
update(props.value);
