// The labelling page: one object after the other, its points one after the other, yes or no.
const find = (name) => document.querySelector(name);
const [canvas, question, progress, message] = ["canvas", ".question", ".progress", ".message"].map(find);
const [no, yes, undo, skip, draw, take, leave, category] = ["no", "yes", "undo", "skip", "draw", "take", "leave", "category"].map((id) => find(`#${id}`));
let task = null; // of the server: an object with its points, an image to draw on, or neither
let labels = []; // of the points that were answered
let seconds = 0; // that this object took before it was last shown
let since = 0; // when it was last shown
let keeping = Promise.resolve(); // answers on their way to the server, in their order
let image = null;
let box = null; // that is being drawn: [x, y, width, height] in pixels of the image; null while points are asked for
let busy = false;
let view = null; // what of the image is shown, and where: {x, y, scale, left, top}

async function call(path, body) {
  let answer, content;
  try {
    answer = await fetch(path, body === undefined ? {} : { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });
    content = await answer.json();
  } catch {
    throw new Error("The server does not answer. Start it again and reload the page; what was answered before is kept.");
  }
  if (!answer.ok) throw new Error(content.error || "The server failed; its log says why.");
  return content;
}

/** One request at a time; keys and taps meanwhile are dropped. */
async function go(path, body) {
  if (busy) return;
  busy = true;
  try {
    await keeping;
    await takeTask(await call(path, body));
    message.textContent = "";
  } catch (error) {
    message.textContent = error.message;
    if (task?.points) labels.length = Math.min(labels.length, task.points.length - 1); // to be answered again
  }
  busy = false;
  render();
}

async function takeTask(next) {
  labels = next.labels || [];
  seconds = next.took || 0;
  if (next.image !== null && (task === null || task.image !== next.image || image === null)) {
    const loaded = new Image();
    loaded.src = `images/${next.image}`;
    await loaded.decode().catch(() => { throw new Error(`${next.name} cannot be shown; it may be no image.`); });
    image = loaded;
  }
  task = next;
  if (category.options.length === 0) category.append(...task.categories.map((name) => new Option(name, name)));
  box = task.object === null && task.image !== null ? middle() : null;
  since = performance.now();
}

function middle() {
  const [width, height] = task.size;
  return [width / 4, height / 4, width / 2, height / 2];
}

function answered() {
  const took = seconds + (performance.now() - since) / 1000;
  return { object: task.object, labels: [...labels], seconds: Math.round(100 * took) / 100 };
}

/** Have the server keep the answers so far, for a reload or another start. */
function keep() {
  const answers = answered();
  keeping = keeping.then(() => call("keep", answers)).catch((error) => { message.textContent = error.message; });
  render();
}

function answer(label) {
  if (busy || box || !task || task.object === null) return;
  labels.push(label);
  if (labels.length < task.points.length) return keep();
  go("answer", answered());
}

function back() {
  if (busy || (box && task.object !== null)) return;
  if (!labels.length) return go("undo", {});
  labels.pop();
  keep();
}

function startBox() {
  if (busy || box || !task || task.image === null || !task.size) return;
  box = middle();
  render();
  canvas.focus();
}

/** Cancel the box; where boxes are asked for, go on to the next image. */
function leaveBox() {
  if (busy || !box) return;
  if (task.object === null) return go("finish", { image: task.image });
  box = null;
  render();
}

function render() {
  if (!task) return;
  const asking = task.object !== null && !box;
  const speed = task.seconds === null ? "" : `, ${task.seconds} s each`;
  progress.textContent = `${task.finished} of ${task.total} objects${speed}`;
  find(".answers").hidden = !asking;
  find(".drawing").hidden = !box;
  skip.disabled = !asking;
  draw.disabled = !asking;
  find(".more").hidden = Boolean(box) && task.object !== null;
  leave.firstChild.textContent = task.object === null ? "Next image " : "Cancel ";
  if (asking) question.textContent = `Is the point on the ${task.category}? (${labels.length + 1} of ${task.points.length})`;
  else if (box) question.textContent = `Draw a box round an object in ${task.name}`;
  else question.textContent = "All objects are labelled.";
  paint(asking);
}

/** The object with its surroundings, or the whole image while a box is drawn. */
function paint(asking) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  if (!image || task.image === null) return;
  let [x, y, w, h] = [0, 0, ...task.size];
  if (asking) {
    const margin = 0.4 * Math.max(task.box[2], task.box[3], 20);
    [x, y, w, h] = [task.box[0] - margin, task.box[1] - margin, task.box[2] + 2 * margin, task.box[3] + 2 * margin];
  }
  const scale = Math.min(width / w, height / h);
  view = { x, y, scale, left: (width - w * scale) / 2, top: (height - h * scale) / 2 };
  const [left, top] = shown(0, 0);
  pen.imageSmoothingEnabled = scale * (task.size[0] / image.naturalWidth) < 3;
  pen.drawImage(image, left, top, task.size[0] * scale, task.size[1] * scale);
  frame(pen, asking ? task.box : box);
  if (!asking) return;
  const [px, py] = shown(task.points[labels.length][0] + 0.5, task.points[labels.length][1] + 0.5);
  for (const [radius, line, color] of [[11, 5, "#000"], [11, 2.5, "#ff0"], [1.5, 2, "#ff0"]]) {
    pen.beginPath();
    pen.arc(px, py, radius, 0, 2 * Math.PI);
    pen.lineWidth = line;
    pen.strokeStyle = color;
    pen.stroke();
  }
}

function frame(pen, rectangle) {
  if (!rectangle) return;
  const [left, top] = shown(rectangle[0], rectangle[1]);
  for (const [line, color] of [[4, "#000"], [2, "#fff"]]) {
    pen.lineWidth = line;
    pen.strokeStyle = color;
    pen.strokeRect(left, top, rectangle[2] * view.scale, rectangle[3] * view.scale);
  }
}

const shown = (x, y) => [view.left + (x - view.x) * view.scale, view.top + (y - view.y) * view.scale];

function pointed(event) {
  const area = canvas.getBoundingClientRect();
  const x = view.x + (event.clientX - area.left - view.left) / view.scale;
  const y = view.y + (event.clientY - area.top - view.top) / view.scale;
  return [Math.min(Math.max(x, 0), task.size[0]), Math.min(Math.max(y, 0), task.size[1])];
}

let corner = null; // where a drag began
canvas.addEventListener("pointerdown", (event) => {
  if (!box) return;
  corner = pointed(event);
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!box || !corner) return;
  const [x, y] = pointed(event);
  box = [Math.min(x, corner[0]), Math.min(y, corner[1]), Math.abs(x - corner[0]), Math.abs(y - corner[1])];
  render();
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { corner = null; });

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Move the box that is being drawn by a fiftieth of the image, or (`size`) its lower right corner. */
function moveBox([dx, dy], size) {
  const [width, height] = task.size;
  const step = Math.max(width, height) / 50;
  if (size) box = [box[0], box[1], Math.max(1, box[2] + dx * step), Math.max(1, box[3] + dy * step)];
  else box = [box[0] + dx * step, box[1] + dy * step, box[2], box[3]];
  render();
}

window.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === category) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const onButton = event.target instanceof HTMLButtonElement && (key === "Enter" || key === " ");
  if (onButton) return; // it is pressed
  const actions = box
    ? { Enter: () => take.click(), Escape: leaveBox, u: back, Backspace: back }
    : { y: () => answer(1), ArrowRight: () => answer(1), n: () => answer(0), ArrowLeft: () => answer(0), u: back, Backspace: back, s: () => skip.click(), b: startBox };
  const action = box && MOVES[key] ? () => moveBox(MOVES[key], event.shiftKey) : actions[key];
  if (!action) return;
  event.preventDefault();
  action();
});

yes.addEventListener("click", () => answer(1));
no.addEventListener("click", () => answer(0));
undo.addEventListener("click", back);
skip.addEventListener("click", () => task && task.object !== null && !box && go("skip", { object: task.object }));
draw.addEventListener("click", startBox);
leave.addEventListener("click", leaveBox);
take.addEventListener("click", () => box && go("boxes", { image: task.image, box, category: category.value }));
window.addEventListener("resize", render);
await go("task");
