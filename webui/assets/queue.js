// The list of tasks: its buttons, moving a task by keys or by dragging, and what is said of it to those who cannot see it.
// Runs as js_on_load of the component: `element` holds the list, `trigger` sends an event to the server.

const WORDS = {
  moved: (place, count) => `Moved to place ${place} of ${count}`,
  first: "It is the first already",
  last: "It is the last already",
  edit: "Its settings are in the page; it keeps its place, and waits for them",
  keep: "It stays as it was",
  cancelled: "Cancelled",
  held: "Paused",
  released: "Going on",
  sure: (count) => `Cancel all ${count} tasks? Finished pictures stay.`,
};

const waiting = () => [...element.querySelectorAll("li.waiting[data-task]")];
const itemOf = (target) => (target instanceof Element ? target.closest("li[data-task]") : null);

function send(action, task = "", place = 0) {
  trigger("click", { action, task, place });
}

function say(words) {
  let status = document.getElementById("queue_status");
  if (!status) {
    status = document.createElement("div");
    status.id = "queue_status";
    status.setAttribute("role", "status");
    document.body.append(status);
  }
  status.textContent = "";
  requestAnimationFrame(() => { status.textContent = words; });
}

// A place is absolute, so of several moves of a task the last one says all; two requests at once may overtake each other.
let unsent = null;

function sendMove(task, place) {
  if (unsent && unsent.task !== task) sendUnsent();
  clearTimeout(unsent?.timer);
  unsent = { task, place, timer: setTimeout(sendUnsent, 80) };
}

function sendUnsent() {
  const { task, place, timer } = unsent;
  clearTimeout(timer);
  unsent = null;
  send("move", task, place);
}

// ---- the order, ahead of the server's answer so that keys pressed quickly add up ----------------------------------
let order = null;

function move(task, place) {
  order = order || waiting().map((item) => item.dataset.task);
  const from = order.indexOf(task);
  if (from < 0) return;
  if (place < 0 || place >= order.length) {
    say(place < 0 ? WORDS.first : WORDS.last);
    return;
  }
  if (place === from) return;
  order.splice(place, 0, ...order.splice(from, 1));
  sendMove(task, place);
  say(WORDS.moved(place + 1, order.length));
}

function moveBy(item, by) {
  const { task } = item.dataset;
  const now = order || waiting().map((other) => other.dataset.task);
  if (now.includes(task)) move(task, now.indexOf(task) + by);
}

// ---- buttons and keys ---------------------------------------------------------------------------------------------
const SAID = { edit: WORDS.edit, keep: WORDS.keep, cancel: WORDS.cancelled, cancel_all: WORDS.cancelled, hold: WORDS.held, release: WORDS.released };

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  const { action } = button.dataset;
  const item = itemOf(button);
  if (action === "up" || action === "down") {
    moveBy(item, action === "up" ? -1 : 1);
    return;
  }
  const count = element.querySelectorAll("li[data-task]").length;
  if (action === "cancel_all" && !window.confirm(window.easel.language.say(WORDS.sure(count)))) return;
  send(action, item ? item.dataset.task : "");
  if (SAID[action]) say(SAID[action]);
});

element.addEventListener("keydown", (event) => {
  const item = itemOf(event.target);
  if (!item || !event.altKey || event.ctrlKey || event.metaKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  moveBy(item, event.key === "ArrowUp" ? -1 : 1);
});

// ---- a list of prompts from text files ----------------------------------------------------------------------------
const UTF8_OR_16 = [["utf-8", []], ["utf-16le", [0xff, 0xfe]], ["utf-16be", [0xfe, 0xff]]];

// The text of a file; null if it is none. What is not UTF-8 (or UTF-16 that says so) is read as older Windows editors write.
async function textOf(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const [name] = UTF8_OR_16.findLast(([, mark]) => mark.every((byte, place) => bytes[place] === byte));
  let text;
  try {
    text = new TextDecoder(name, { fatal: true }).decode(bytes);
  } catch {
    text = new TextDecoder("windows-1252").decode(bytes);
  }
  return text.includes("\0") ? null : text;
}

document.addEventListener("change", async (event) => {
  if (event.target.id !== "read_prompts" && event.target.id !== "read_prompt_folder") return;
  const input = document.querySelector("#prompt_list textarea");
  const all = [...event.target.files].sort((one, other) => one.webkitRelativePath.localeCompare(other.webkitRelativePath));
  const files = event.target.id === "read_prompts" ? all : all.filter((file) => /\.(txt|md)$/i.test(file.name));
  const texts = await Promise.all(files.map(textOf));
  event.target.value = "";
  const refused = files.filter((_, place) => texts[place] === null).map((file) => file.name);
  if (refused.length) window.easel.tell(`${refused.slice(0, 5).join(", ")}: no text, so it was left out.`);
  else if (!files.length && all.length) window.easel.tell("The folder has no text files (.txt or .md).");
  input.value = [input.value, ...texts].map((text) => (text || "").trim()).filter(Boolean).join("\n");
  input.dispatchEvent(new Event("input", { bubbles: true }));
});

// ---- dragging, with mouse, pen or finger --------------------------------------------------------------------------
let dragged = null;

function marker() {
  let line = document.getElementById("drop_line");
  if (!line) {
    line = document.createElement("div");
    line.id = "drop_line";
    document.body.append(line);
  }
  return line;
}

function dragTo(y) {
  const others = waiting().filter((item) => item.dataset.task !== dragged.task);
  const boxes = others.map((item) => item.getBoundingClientRect());
  const before = boxes.filter((box) => box.top + box.height / 2 < y);
  dragged.place = before.length;
  const box = boxes[dragged.place] || boxes[boxes.length - 1];
  if (!box) return;
  const edge = dragged.place < boxes.length ? box.top - 4 : box.bottom + 4;
  Object.assign(marker().style, { display: "block", top: `${edge - 1}px`, left: `${box.left}px`, width: `${box.width}px` });
}

function drop(keep) {
  if (!dragged) return;
  marker().style.display = "none";
  document.body.classList.remove("dragging-task");
  const { task, place, moved } = dragged;
  dragged = null;
  if (keep && moved) move(task, place);
}

element.addEventListener("pointerdown", (event) => {
  const grip = event.target.closest(".grip");
  if (!grip || event.button !== 0) return;
  event.preventDefault();
  element.setPointerCapture(event.pointerId); // of the whole list: its items are drawn anew meanwhile
  dragged = { task: itemOf(grip).dataset.task, place: 0, moved: false };
  document.body.classList.add("dragging-task");
});
element.addEventListener("pointermove", (event) => {
  if (!dragged) return;
  dragged.moved = true;
  dragTo(event.clientY);
});
element.addEventListener("pointerup", () => drop(true));
element.addEventListener("pointercancel", () => drop(false));
window.addEventListener("keydown", (event) => {
  if (!dragged || event.key !== "Escape") return;
  event.stopPropagation(); // Escape stops the running task otherwise
  drop(false);
}, true);

// ---- the focus stays with its task, though the page puts other tasks into the same elements -----------------------
let focused = null;

element.addEventListener("focusin", (event) => {
  const item = itemOf(event.target);
  const items = [...element.querySelectorAll("li[data-task]")];
  focused = { task: item?.dataset.task, action: event.target.dataset.action, at: items.indexOf(item) };
});
element.addEventListener("focusout", (event) => {
  if (event.relatedTarget && !element.contains(event.relatedTarget)) focused = null;
});
document.addEventListener("pointerdown", (event) => { if (!element.contains(event.target)) focused = null; });

function keepFocus() {
  order = null;
  const active = document.activeElement;
  if (!focused || (active !== document.body && !element.contains(active))) return;
  const items = [...element.querySelectorAll("li[data-task]")];
  const item = items.find((other) => other.dataset.task === focused.task)
    || items[Math.min(Math.max(focused.at, 0), items.length - 1)] || element;
  const same = focused.task && item.dataset.task === focused.task;
  const scope = same ? item : element;
  // Where its button is gone, the item itself: a key pressed once more must not act on another task.
  const wanted = (same || !focused.task ? scope.querySelector(`[data-action="${focused.action}"]`) : null) || item;
  if (wanted !== element && wanted !== active) wanted.focus();
}

new MutationObserver(keepFocus).observe(element, { subtree: true, childList: true, attributes: true });
