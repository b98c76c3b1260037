// The drop zone and the examples. A file goes to the server as it is; its ticket becomes the component's value.
const zone = element.querySelector(".zone");
const input = element.querySelector("input[type=file]");
const message = element.querySelector(".message");
const examples = element.querySelector(".examples");
let sending = false;

function choose(ticket) {
  props.value = ticket;
  mark(ticket);
  trigger("image");
}

function mark(ticket) {
  for (const button of examples.children) button.setAttribute("aria-pressed", String(button.dataset.ticket === ticket));
}

function say(text, wrong) {
  message.textContent = text;
  message.classList.toggle("wrong", Boolean(wrong));
}

async function send(file) {
  if (!file || sending) return;
  if (file.size > props.most_bytes) {
    say(`The file is larger than ${props.most_megabytes} MB, which is the limit here.`, true);
    return;
  }
  sending = true;
  say(`Reading ${file.name} …`);
  try {
    const answer = await fetch(new URL("image", document.baseURI), {
      method: "POST",
      body: file,
      headers: { "X-File-Name": encodeURIComponent(file.name) },
    });
    const content = await answer.json();
    if (answer.ok) {
      say(file.name);
      choose(content.ticket);
    } else {
      say(content.error, true);
    }
  } catch (error) {
    say("The server does not answer, or refused the file. Try again.", true);
  } finally {
    sending = false;
    input.value = "";
  }
}

function imageOf(list) {
  return Array.from(list || []).find((file) => file);
}

for (const item of props.examples) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.ticket = item.ticket;
  button.title = item.name;
  const image = document.createElement("img");
  image.src = item.source;
  image.alt = `Example: ${item.name}`;
  button.append(image);
  button.addEventListener("click", () => {
    say("");
    choose(item.ticket);
  });
  examples.append(button);
}
mark(props.value);

zone.addEventListener("click", () => input.click());
input.addEventListener("change", () => send(imageOf(input.files)));
for (const name of ["dragenter", "dragover"]) {
  zone.addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  zone.addEventListener(name, (event) => {
    event.preventDefault();
    zone.classList.remove("over");
  });
}
zone.addEventListener("drop", (event) => send(imageOf(event.dataTransfer.files)));
// An image dropped beside the zone must not replace the page; one in the clipboard may be pasted anywhere.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
window.addEventListener("paste", (event) => {
  const file = imageOf(event.clipboardData && event.clipboardData.files);
  if (file) send(file);
});
