// What the page does in the browser alone: light and dark, keys, example prompts, the full-screen viewer.
(() => {
  "use strict";

  const { composing, fetch, make, showModal } = window.easel;
  const byId = (id) => document.getElementById(id);
  const field = (id) => document.querySelector(`#${id} textarea, #${id} input`);
  const visible = (element) => Boolean(element && element.offsetParent !== null);

  function write(id, text) {
    const input = field(id);
    if (!input) return;
    input.value = text;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // ---- settings that come and go: the last visit's, a picture's, an entry's of the history -----------------------
  const SESSION = "easel-session";
  let leaving = 0;

  function keepSession() {
    clearTimeout(leaving);
    leaving = 0;
    for (const store of ["sessionStorage", "localStorage"]) {
      try { window[store].setItem(SESSION, JSON.stringify(window.easel.current)); } catch { /* private window */ }
    }
  }

  // What was typed a moment ago may not have come through the controls yet.
  window.addEventListener("pagehide", () => {
    const { current } = window.easel;
    if (!current) return;
    let fresh = leaving > 0;
    for (const [name, id] of [["prompt", "positive_prompt"], ["negative_prompt", "negative_prompt"]]) {
      const typed = field(id)?.value ?? current[name];
      fresh = fresh || typed !== current[name];
      current[name] = typed;
    }
    if (fresh) keepSession(); // an older window that is closed leaves the latest alone
  });

  Object.assign(window.easel, {
    session() {
      // A tab has its own; a new one begins with the latest of all.
      try { return sessionStorage.getItem(SESSION) || localStorage.getItem(SESSION) || ""; } catch { return ""; }
    },
    remember(names, values) {
      const kept = Object.fromEntries(names.map((name, index) => [name, values[index]]));
      window.easel.current = kept; // for those parts of the page that follow the controls
      document.dispatchEvent(new CustomEvent("easel:settings", { detail: kept }));
      clearTimeout(leaving);
      leaving = setTimeout(keepSession, 150);
      return [];
    },
    useSettings(text) {
      write("incoming_settings", text);
    },
    tell(words) {
      write("incoming_settings", JSON.stringify({ problem: words }));
    },
  });

  let reading = null; // what ends the reading of a picture that is under way

  /** Show the settings in the picture that `get` gives, unless another one is asked for meanwhile: that ends `get`'s signal. */
  async function readPicture(get) {
    reading?.abort();
    reading = new AbortController();
    const { signal } = reading;
    tellReading("Reading the picture");
    let problem = "The picture could not be fetched; it may have been deleted.";
    try {
      const body = await get(signal);
      problem = "The picture could not be sent to Easel.";
      const answer = await fetch("easel/read", { method: "POST", body, signal });
      const text = await answer.text();
      signal.throwIfAborted();
      if (answer.ok) window.easel.useSettings(text);
      else window.easel.tell(text.slice(0, 500));
    } catch {
      if (!signal.aborted) window.easel.tell(problem);
    }
    if (!signal.aborted) tellReading("");
  }

  function tellReading(words) {
    let line = byId("reading_picture");
    if (!line) {
      line = make("p", { id: "reading_picture", class: "note", role: "status" });
      byId("message").before(line);
    }
    line.textContent = words;
    if (words) line.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  function readFile(file) {
    if (file) readPicture(() => file);
  }

  const carriesFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");

  function watchDrops() {
    let inside = 0;
    const show = (shown) => document.body.classList.toggle("dropping", shown);
    document.body.dataset.hint = "Drop the picture to use its settings";
    document.addEventListener("dragenter", (event) => { if (carriesFile(event)) { inside += 1; show(true); } });
    document.addEventListener("dragleave", (event) => { if (carriesFile(event)) { inside -= 1; show(inside > 0); } });
    document.addEventListener("dragover", (event) => { if (carriesFile(event)) event.preventDefault(); });
    document.addEventListener("drop", (event) => {
      inside = 0;
      show(false);
      if (!carriesFile(event)) return;
      event.preventDefault();
      readFile(event.dataTransfer.files[0]);
    });
    document.addEventListener("change", (event) => {
      if (event.target.id !== "read_picture") return;
      readFile(event.target.files[0]);
      event.target.value = "";
    });
    document.addEventListener("paste", (event) => {
      readFile([...(event.clipboardData?.files || [])].find((file) => file.type.startsWith("image/")));
    });
  }

  // A prompt that is really the text of a picture's settings is offered to be taken as such.
  function watchPrompt() {
    const offer = byId("settings_offer");
    const text = field("positive_prompt")?.value || "";
    const found = /(^|\n)\s*Steps: \d+, /.test(text) || (/^\s*\{/.test(text) && /\}\s*$/.test(text));
    if (offer) offer.hidden = !found;
  }

  // ---- light and dark -------------------------------------------------------------------------------------------
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  function remembered() {
    try { return localStorage.getItem("easel-theme"); } catch { return null; }
  }

  const chosenTheme = () => remembered() || "PREFERRED_THEME";

  function wanted() {
    const choice = chosenTheme();
    return choice === "auto" ? (system.matches ? "dark" : "light") : choice;
  }

  function dress() {
    const dark = wanted() === "dark";
    if (document.body && document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
    byId("theme_toggle")?.setAttribute("data-choice", chosenTheme());
  }

  function chooseTheme(choice) {
    try { localStorage.setItem("easel-theme", choice); } catch { /* private window */ }
    dress();
  }

  // From "auto" first to what is not seen, so that the press shows; then to the other; then to "auto" again.
  function switchTheme() {
    const other = system.matches ? "light" : "dark";
    const round = ["auto", other, other === "dark" ? "light" : "dark"];
    chooseTheme(round[(round.indexOf(chosenTheme()) + 1) % 3]);
  }

  window.easel.theme = { choice: chosenTheme, choose: chooseTheme };

  function keepDressed() {
    dress();
    new MutationObserver(dress).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    const masthead = new MutationObserver(() => { // its button comes later than this script
      if (!byId("theme_toggle")) return;
      masthead.disconnect();
      dress();
    });
    masthead.observe(document.body, { childList: true, subtree: true });
    system.addEventListener("change", dress);
  }

  // ---- attention weights: Ctrl and an arrow in a prompt ---------------------------------------------------------
  const DELIMITERS = new Set(".,\\/!?%^*;:{}=`~()[]| \t\n\r");
  const EMBEDDING = /\bembedding:(?:\\[()]|[^\s,():])+/gi;
  const WEIGHT = /^:\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*$/;

  /** The weight between the colon at `colon` and the `close` behind it, and where that is; null if it is none. */
  function weightAt(text, colon, close) {
    const end = text.indexOf(close, colon);
    const found = end < 0 ? null : WEIGHT.exec(text.slice(colon, end));
    return found && { weight: Number(found[1]), end };
  }

  // A tag that has no weight is left as it is: "<style:3D Render>", "<lora:2d_style>".
  function inBareTag(text, at) {
    const start = at && text.lastIndexOf("<", at - 1);
    const tag = /^<(lora|style):[^<>]*>/i.exec(text.slice(start));
    if (!tag || start >= at || start + tag[0].length <= at) return false;
    return tag[1].toLowerCase() === "style" || tag[0].split(":").length < 3 || !weightAt(tag[0], tag[0].lastIndexOf(":"), ">");
  }

  function groupAround(text, at) {
    for (const [open, close] of [["(", ")"], ["<", ">"]]) {
      const start = text.lastIndexOf(open, at - 1);
      const end = text.indexOf(close, at);
      if (start < 0 || end < 0 || text.slice(start + 1, at).includes(close) || text.slice(at, end).includes(open)) continue;
      const colon = text.lastIndexOf(":", end);
      if (colon > start && weightAt(text, colon, close)) return [start + 1, colon];
    }
    return null;
  }

  function wordAround(text, at) {
    for (const found of text.matchAll(EMBEDDING)) {
      const end = found.index + found[0].replace(/[.;!?]+$/, "").length;
      if (found.index <= at && at <= end) return [found.index, end];
    }
    let start = at;
    let end = at;
    while (start > 0 && !DELIMITERS.has(text[start - 1])) start -= 1;
    while (end < text.length && !DELIMITERS.has(text[end])) end += 1;
    return [start, end];
  }

  // "(embedding:name)" counts 1.1 times, as a word in parentheses does.
  function embeddingIn(text, start, end) {
    const whole = /^embedding:/i.test(text.slice(start, end)) && text[start - 1] === "(" && text[end] === ")";
    return whole && { weight: 1.1, end };
  }

  function weigh(area, up) {
    const text = area.value;
    let [start, end] = [area.selectionStart, area.selectionEnd];
    if (inBareTag(text, start)) return;
    if (start === end) [start, end] = groupAround(text, start) || wordAround(text, start);
    while (end > start && text[end - 1] === " ") end -= 1;
    if (start === end) return;
    const closing = { "(": ")", "<": ">" }[text[start - 1]];
    const inside = closing && (weightAt(text, end, closing) || embeddingIn(text, start, end));
    const angle = Boolean(inside) && closing === ">";
    const before = text.slice(0, inside ? start - 1 : start);
    const after = text.slice(inside ? inside.end + 1 : end);
    let weight = inside ? inside.weight : 1;
    weight = Number.parseFloat((weight + (up ? 1 : -1) * (angle ? 0.05 : 0.1)).toPrecision(12));
    const bare = weight === 1 && !angle;
    const shown = String(weight).length === 1 ? `${weight}.0` : String(weight);
    const core = text.slice(start, end);
    const [open, close] = angle ? ["<", ">"] : ["(", ")"];
    const written = bare ? core : `${open}${core}:${shown}${close}`;
    area.setSelectionRange(before.length, text.length - after.length);
    // As if it were typed, so that Ctrl+Z takes it back.
    if (!document.execCommand("insertText", false, written)) {
      area.setRangeText(written);
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
    const from = before.length + (bare ? 0 : 1);
    area.setSelectionRange(from, from + core.length);
  }

  // ---- keys -----------------------------------------------------------------------------------------------------
  // Whether Escape is for something nearer than the task under way.
  function closesSomething(target) {
    if (document.querySelector("dialog[open]") || visible(byId("page_menu"))) return true;
    if (!(target instanceof Element)) return false;
    return target.getAttribute("aria-expanded") === "true" || (target.matches("input[type=search]") && target.value !== "");
  }

  function generate() {
    const now = document.activeElement; // what is typed there counts, though it has not been left
    if (now?.closest("#lora_list")) now.dispatchEvent(new Event("change", { bubbles: true }));
    byId("generate_button")?.click();
  }

  function onKey(event) {
    if (composing(event)) return;
    const chord = event.ctrlKey || event.metaKey || event.altKey;
    if (viewer && viewer.open) {
      if (event.key === "ArrowRight") turn(1);
      else if (event.key === "ArrowLeft") turn(-1);
      return;
    }
    if (chord && event.key === "Enter") {
      event.preventDefault();
      if (!event.repeat) generate();
    } else if (event.key === "Escape" && visible(byId("stop_button")) && !closesSomething(event.target)) {
      byId("stop_button").click();
    } else if ((event.ctrlKey || event.metaKey) && ["ArrowUp", "ArrowDown"].includes(event.key)) {
      const area = event.target;
      if (!(area instanceof HTMLTextAreaElement) || !area.closest('[id*="_prompt"]')) return;
      event.preventDefault();
      weigh(area, event.key === "ArrowUp");
    }
  }

  // ---- the full-screen viewer -----------------------------------------------------------------------------------
  let viewer = null;
  let shots = [];
  let at = 0;
  let pressed = null; // where in the viewer the pointer went down

  function makeViewer() {
    const button = (name, label, sign) => make("button", { type: "button", class: name, "aria-label": label, title: label }, sign);
    viewer = make("dialog", { id: "viewer", "aria-label": "Picture" },
      make("img", { alt: "" }),
      make("div", { class: "caption" }, make("span", { class: "notranslate" }), make("span")),
      make("div", { class: "tools" },
        make("button", { type: "button", class: "reuse", title: "Put the seed of this picture into the seed box" }, "Use seed"),
        make("button", { type: "button", class: "use", title: "Put all settings of this picture into the page" }, "Use settings"),
        make("a", { class: "save", download: "", title: "Download the file" }, "Download"),
        make("a", { class: "save plain", download: "", title: "Download the picture without its settings, to share it" }, "Without settings"),
        make("button", { type: "button", class: "size", title: "Fit the window, or one pixel a pixel" }, "Actual size"),
        button("close", "Close", "✕")),
      button("previous", "Previous picture", "‹"),
      button("next", "Next picture", "›"));
    viewer.addEventListener("pointerdown", (event) => { pressed = event.target; });
    viewer.addEventListener("click", (event) => {
      const name = event.target.className;
      if (name === "previous") turn(-1);
      else if (name === "next") turn(1);
      else if (name === "size") viewer.classList.toggle("actual");
      else if (name === "reuse") reuseSeed();
      else if (name === "use") useShot();
      else if (name === "close" || (event.target === pressed && onBackdrop(pressed))) viewer.close();
    });
    document.body.append(viewer);
  }

  const onBackdrop = (element) => element === viewer || element.matches("#viewer img"); // the picture fills it

  function look(shot) {
    if (!viewer) makeViewer();
    shots = [...(shot.closest("#final_gallery, #stage") || document).querySelectorAll("a.shot")];
    at = Math.max(0, shots.indexOf(shot));
    viewer.classList.remove("actual");
    showModal(viewer);
    turn(0);
  }

  function turn(by) {
    if (!shots.length) return;
    at = (at + by + shots.length) % shots.length;
    const { href, dataset } = shots[at];
    const image = viewer.querySelector("img");
    image.src = href;
    image.alt = dataset.prompt;
    const [prompt, facts] = viewer.querySelector(".caption").children;
    prompt.textContent = dataset.prompt;
    facts.textContent = ` · ${dataset.size} · seed ${dataset.seed}`;
    viewer.querySelector(".save").href = href;
    viewer.querySelector(".save.plain").href = `${href}?plain=1`;
    viewer.classList.toggle("single", shots.length < 2);
  }

  function useShot() {
    const { href } = shots[at];
    viewer.close();
    readPicture(async (signal) => {
      const answer = await fetch(href, { signal });
      if (!answer.ok) throw new Error(answer.statusText);
      return answer.blob();
    });
  }

  function reuseSeed() {
    const random = field("random_seed");
    if (random && random.checked) random.click();
    write("seed", shots[at].dataset.seed);
    viewer.close();
  }

  // ---- clicks ---------------------------------------------------------------------------------------------------
  function onClick(event) {
    const target = event.target instanceof Element ? event.target : null;
    const shot = target?.closest("a.shot");
    if (shot && event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      look(shot);
      return;
    }
    const chip = target?.closest(".chip");
    if (chip) {
      write("positive_prompt", chip.dataset.prompt);
      field("positive_prompt")?.focus();
    }
    if (target) forgetDrafts(target);
    if (target?.closest("#theme_toggle")) switchTheme();
    if (target?.closest("#settings_offer")) {
      window.easel.useSettings(field("positive_prompt").value);
      byId("settings_offer").hidden = true;
    }
  }

  // ---- the Advanced tab's search: settings whose words, which the tab brings along, hold all that is typed ---------
  function searchAdvanced({ value, dataset }) {
    const typed = value.toLowerCase().split(/\s+/).filter(Boolean);
    const { here, elsewhere } = JSON.parse(dataset.words);
    const fits = (words) => {
      const all = words.flatMap((word) => [word, window.easel.language.say(word)]).join("\n").toLowerCase();
      return typed.every((word) => all.includes(word));
    };
    const found = new Set(Object.keys(here).filter((name) => fits(here[name])));
    for (const group of document.querySelectorAll("#advanced .card")) {
      const inside = Object.keys(here).filter((name) => group.contains(byId(name)));
      for (const name of inside) byId(name).classList.toggle("unmatched", !found.has(name));
      group.classList.toggle("unmatched", !inside.some((name) => found.has(name)));
    }
    const told = found.size ? [] : ["No setting here has these words."];
    for (const [tab, settings] of typed.join("").length > 1 ? Object.entries(elsewhere) : []) {
      const names = Object.keys(settings).filter((label) => fits([label, ...settings[label]]));
      if (names.length) told.push(`In the tab ${tab}: ${names.join(", ")}`);
    }
    tellFound(told);
  }

  /** Say `lines` below the search; only what is new is read aloud. */
  function tellFound(lines) {
    const line = byId("advanced_found");
    if (line.dataset.told === lines.join()) return;
    line.dataset.told = lines.join();
    line.replaceChildren(...lines.map((words) => make("span", {}, words)));
  }

  // A message that appears above the fold is brought into sight.
  function watchMessages() {
    let shown = "";
    new MutationObserver(() => {
      const problem = document.querySelector("#message :is(.problem, .notice)");
      const text = problem ? problem.textContent : "";
      if (text && text !== shown) problem.scrollIntoView({ block: "nearest", behavior: "smooth" });
      shown = text;
    }).observe(document.body, { childList: true, subtree: true, characterData: true });
  }

  // ---- a server that is gone is told; when it is back, the page begins anew with what was set -------------------
  const ASK_EVERY = 4000; // milliseconds
  let server = "";

  async function ask() {
    if (document.hidden) return;
    let now = "";
    try {
      const answer = await fetch("easel/alive", { cache: "no-store" });
      now = answer.ok ? await answer.text() : "";
    } catch { /* told below */ }
    const gone = byId("server_gone");
    if (!now && server && !gone) {
      const words = "Easel does not answer. Was it ended? When it runs again, this page goes on by itself.";
      document.body.append(make("div", { id: "server_gone", role: "alert" }, words));
    } else if (now && gone) {
      gone.remove();
    }
    if (now && server && now !== server) location.reload();
    server = now || server;
  }

  // ---- what is typed beside the controls comes back after a reload, until it has been used ------------------------
  const DRAFTS = "easel-drafts";
  const USED_BY = {
    prompt_list: "#queue_list", grid_x_values: "#make_grid", grid_y_values: "#make_grid", preset_name: "#preset_save, #preset_replace, #preset_rename",
  };

  function drafts() {
    try { return JSON.parse(sessionStorage.getItem(DRAFTS)) || {}; } catch { return {}; }
  }

  function keepDrafts(changes) {
    try { sessionStorage.setItem(DRAFTS, JSON.stringify({ ...drafts(), ...changes })); } catch { /* private window */ }
  }

  function keepDraft(target) {
    const id = Object.keys(USED_BY).find((one) => target.closest(`#${one}`));
    if (id) keepDrafts({ [id]: target.value });
  }

  function forgetDrafts(target) {
    const used = Object.keys(USED_BY).filter((id) => target.closest(USED_BY[id]));
    if (used.length) keepDrafts(Object.fromEntries(used.map((id) => [id, ""])));
  }

  // The fields come later than this script, some only when their part is opened.
  function bringDraftsBack() {
    const left = new Map(Object.entries(drafts()).filter(([id, text]) => USED_BY[id] && text));
    const seen = new MutationObserver(() => {
      for (const [id, text] of left) {
        if (!field(id)) continue;
        left.delete(id);
        if (!field(id).value) write(id, text);
      }
      if (!left.size) seen.disconnect();
    });
    if (left.size) seen.observe(document.body, { childList: true, subtree: true });
  }

  // Gradio keeps the rules of an @media of style.css inside the page; dialogs and messages stand outside.
  const STILL = "*, ::before, ::after { animation: none !important; transition: none !important; }";

  function begin() {
    document.head.append(make("style", { media: "(prefers-reduced-motion: reduce)" }, STILL));
    keepDressed();
    bringDraftsBack();
    watchDrops();
    ask();
    setInterval(ask, ASK_EVERY);
    watchMessages();
  }

  document.addEventListener("click", onClick);
  document.addEventListener("input", (event) => {
    if (event.target.id === "advanced_search") searchAdvanced(event.target);
    if (event.target.closest("#positive_prompt")) watchPrompt();
    keepDraft(event.target);
  });
  document.addEventListener("keydown", onKey, true);
  if (document.body) begin();
  else document.addEventListener("DOMContentLoaded", begin);
})();
