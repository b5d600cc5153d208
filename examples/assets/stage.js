// The prompt desk: runs the cues, and follows the runtime's events so that an edit shows without a reload.
"use strict";

const caption = document.getElementById("caption");
const desk = document.getElementById("cues");
const bell = document.getElementById("bell");
const live = document.getElementById("live");

let drops = [
  { id: "harbour", name: "Harbour, night", line: 9, trim_metres: 4.25 },
  { id: "hills", name: "Hills, dawn", line: 7, trim_metres: 4.25 },
];

function fly(id) {
  const drop = drops.find((one) => one.id === id);
  for (const picture of document.querySelectorAll(".drop")) {
    picture.classList.toggle("in", picture.id === `drop-${id}`);
  }
  if (drop) caption.textContent = `${drop.name}: on line ${drop.line}, trim ${drop.trim_metres} m.`;
}

function ring() {
  bell.currentTime = 0;
  bell.play().catch(() => {}); // a browser that wants silence gets it
}

desk.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  for (const other of desk.querySelectorAll("button")) other.removeAttribute("aria-current");
  button.setAttribute("aria-current", "true");
  if (button.dataset.sound) ring();
  fly(button.dataset.fly);
});

/** Replaces the two buttons of the page by the cues of data/cues.json; opened as a file, the page keeps its two. */
async function readCues() {
  const answer = await fetch("data/cues.json");
  if (!answer.ok) return;
  const book = await answer.json();
  drops = book.drops;
  document.documentElement.style.setProperty("--fly", `${book.tempo.fly_seconds}s`);
  desk.replaceChildren(
    ...book.cues.map((cue) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.fly = cue.fly;
      button.dataset.sound = cue.sound ?? "";
      button.append(`${cue.cue}. ${cue.at}`, Object.assign(document.createElement("small"), { textContent: cue.say }));
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
}

function say(state, text) {
  live.dataset.state = state;
  live.textContent = text;
}

/** Loads the new stylesheet beside the old one and takes the old one away when the new one stands. */
function restyle(stamp) {
  const old = document.querySelector('link[rel="stylesheet"]');
  const next = old.cloneNode();
  next.href = `style.css?generation=${stamp}`;
  next.addEventListener("load", () => old.remove());
  next.addEventListener("error", () => next.remove());
  old.after(next);
}

function published(event) {
  const paths = event.changed.map((one) => one.path);
  const total = event.changed_total ?? paths.length;
  say("changed", `generation ${event.generation}: ${total === 1 ? paths[0] : `${total} assets`}`);
  if (total > paths.length) return location.reload(); // a long list comes shortened
  if (paths.some((path) => /^(index\.html|stage\.js)$/.test(path))) return location.reload();
  if (paths.includes("style.css") || paths.includes("textures/boards.png")) restyle(event.generation);
  if (paths.includes("data/cues.json")) readCues();
  for (const picture of document.querySelectorAll("img")) {
    const path = picture.getAttribute("src").split("?")[0];
    if (paths.includes(path)) picture.src = `${path}?generation=${event.generation}`;
  }
}

function follow() {
  const events = new EventSource("/events");
  const heard = (message) => {
    let event;
    try {
      event = JSON.parse(message.data);
    } catch {
      return; // a greeting or a heartbeat
    }
    if (event.type === "published") published(event);
    if (event.type === "build_failed") say("failed", `${event.path}: the last good version stays`);
    if (event.type === "healed") say("on", `${event.path}: healed`);
  };
  events.onopen = () => say("on", "live");
  events.onerror = () => say("off", "not connected");
  for (const type of ["published", "build_failed", "healed"]) events.addEventListener(type, heard);
}

if (location.protocol.startsWith("http")) {
  readCues().catch(() => {});
  follow();
}
