// Numbers, classes and downloads of a result. As in the viewer, what comes from the server only ever becomes text.
const find = (name) => element.querySelector(name);

function make(tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

function legendItem(item) {
  const node = make("li");
  const square = make("i");
  square.style.background = item.color;
  node.append(square, make("span", "", item.name));
  return node;
}

function numberItems(item) {
  const box = make("div");
  box.append(make("dt", "", item.label), make("dd", "", item.value), make("dd", "note", item.note));
  return box;
}

function downloadLink(view, name) {
  const link = make("a", "", { "labels.png": "PNG", "coco.json": "COCO JSON", "outlines.svg": "SVG" }[name] || name);
  link.href = new URL(`result/${view.result}/${name}`, document.baseURI);
  link.download = ""; // under the name that the server says
  return link;
}

function update(view) {
  if (!view || !view.numbers) return;
  find(".numbers").replaceChildren(...view.numbers.map(numberItems));
  find(".legend").replaceChildren(...view.legend.map(legendItem));
  const links = view.downloads.map((name) => downloadLink(view, name));
  find(".downloads").replaceChildren(make("span", "", "Download"), ...links);
}

watch("value", () => update(props.value));
update(props.value);
