// The LoRA rows of the Models tab: they read and write the hidden control `loras`, a JSON list.
(() => {
  "use strict";

  const { fetch, make } = window.easel;
  const byId = (id) => document.getElementById(id);
  const control = () => document.querySelector("#loras textarea, #loras input");
  const facts = new Map(); // name -> promise of what the file says about itself
  let names = [];
  let drawn = "";

  function entries() {
    try {
      const list = JSON.parse(control().value || "[]");
      return Array.isArray(list) ? list : [];
    } catch {
      return [];
    }
  }

  function keep(list) {
    const input = control();
    drawn = JSON.stringify(list);
    input.value = drawn;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  const about = () => byId("lora_list").dataset; // how many rows at least, and which weights the slider offers
  const short = (name) => name.replace(/\.safetensors$/, "");
  const plain = (name) => short(name.toLowerCase()).replaceAll("\\", "/");
  const last = (name) => plain(name).split("/").pop();

  /** The one of `all` that `typed` means: by its whole name, its last part, or any part of it; "" if none, or several. */
  function meant(typed, all) {
    const ways = [
      (name) => name === typed,
      (name) => short(name) === typed,
      (name) => plain(name) === plain(typed),
      (name) => last(name) === last(typed),
      (name) => plain(name).includes(plain(typed)),
    ];
    const found = ways.map((way) => all.filter(way)).find((some) => some.length) || [];
    return found.length === 1 ? found[0] : "";
  }

  async function tell(note, name) {
    note.textContent = "";
    note.dataset.of = name;
    if (!name) return;
    if (!facts.has(name)) {
      facts.set(name, fetch(`easel/lora?name=${encodeURIComponent(name)}`).then((answer) => answer.json()).catch(() => ({})));
    }
    const found = await facts.get(name);
    if (note.dataset.of !== name) return; // another name was typed meanwhile
    if (found.problem) {
      note.textContent = found.problem;
    } else if (found.refines) {
      note.textContent = `Made for ${found.family}: it acts on a refiner of that kind, not on an SDXL base model.`;
    } else if (found.fits === false) {
      note.textContent = `Made for ${found.family}: it will not fit an SDXL model.`;
    } else {
      const words = found.words?.length ? found.words : found.tags || [];
      if (words.length) note.append(make("span", {}, "Words that call it: "), make("span", { class: "words notranslate" }, words.join(", ")));
    }
  }

  // A field to search a LoRA in; `use` is called with the file that is meant, null for an empty field, and "" if there is
  // none, which `note` tells.
  function nameInput(value, note, use) {
    const input = make("input", {
      type: "text", class: "lora-name", list: "lora_names", value: short(value), placeholder: "Search the LoRAs",
      "aria-label": "LoRA", autocomplete: "off", spellcheck: "false",
    });
    input.addEventListener("change", () => {
      const wanted = input.value.trim();
      const chosen = wanted && meant(wanted, [...new Set([value, ...names])].filter(Boolean));
      const unknown = wanted !== "" && !chosen;
      input.classList.toggle("unknown", unknown);
      if (unknown) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
      if (chosen) input.value = short(chosen);
      tell(note, chosen);
      if (unknown) note.textContent = "There is no LoRA of this name; the row is off.";
      use(wanted ? chosen : null);
    });
    return input;
  }

  // A row that waits for a LoRA.
  function emptyRow() {
    const note = make("p", { class: "lora-note" });
    const name = nameInput("", note, (chosen) => {
      if (!chosen) return;
      const entry = { name: chosen, weight: 1, enabled: true };
      const held = name === document.activeElement;
      keep([...entries(), entry]);
      const filled = row(entry);
      byId("lora_list").querySelector(".lora.empty").before(filled); // the other rows stay: a Tab key may be on its way to one
      box.remove();
      if (held) filled.querySelector(".lora-weight").focus();
    });
    const box = make("div", { class: "lora empty" }, name, note);
    return box;
  }

  /** Put the focus on the name in the row at `place`, or in the last one. */
  function goTo(place) {
    const fields = [...document.querySelectorAll("#lora_list .lora-name")];
    (fields[place] || fields.pop() || byId("add_lora")).focus();
  }

  function row(entry) {
    const index = () => [...byId("lora_list").children].indexOf(box);
    const change = (changes) => keep(entries().map((one, at) => (at === index() ? { ...one, ...changes } : one)));
    const remove = (held) => {
      const place = index();
      keep(entries().filter((_, at) => at !== place));
      box.remove();
      fillUp();
      if (held) goTo(place);
    };
    const note = make("p", { class: "lora-note" });
    const on = make("input", { type: "checkbox", checked: entry.enabled !== false, "aria-label": "Use this LoRA" });
    let enabled = on.checked;
    on.addEventListener("change", () => {
      enabled = on.checked;
      change({ enabled });
    });
    const name = nameInput(entry.name, note, (chosen) => {
      if (chosen === null) {
        remove(name === document.activeElement);
        return;
      }
      on.disabled = !chosen; // under a name that is unknown nothing acts
      on.checked = Boolean(chosen) && enabled;
      change({ enabled: on.checked, ...(chosen ? { name: chosen } : {}) });
    });
    const number = make("input", { type: "number", class: "lora-weight", min: -10, max: 10, step: 0.05, value: entry.weight ?? 1, "aria-label": "Weight" });
    const slider = make("input", { type: "range", min: about().min, max: about().max, step: 0.05, value: entry.weight ?? 1, "aria-label": "Weight" });
    const weigh = (weight) => {
      slider.value = weight;
      change({ weight });
      return weight;
    };
    const typed = () => Math.min(10, Math.max(-10, Number.parseFloat(number.value) || 0));
    number.addEventListener("input", () => { if (number.value !== "") weigh(typed()); });
    number.addEventListener("change", () => { number.value = weigh(typed()); });
    slider.addEventListener("input", () => { number.value = slider.value; });
    slider.addEventListener("change", () => change({ weight: Number.parseFloat(slider.value) }));
    const away = make("button", { type: "button", class: "plain", "aria-label": "Remove this LoRA", title: "Remove this LoRA" }, "✕");
    away.addEventListener("click", () => remove(true));
    tell(note, entry.name);
    const box = make("div", { class: "lora", role: "group", "aria-label": short(entry.name) || "LoRA" },
      make("div", { class: "lora-head" }, on, name, away), make("div", { class: "lora-strength" }, slider, number), note);
    return box;
  }

  function fillUp() {
    const list = byId("lora_list");
    if (names.length) {
      while (list.children.length < about().rows) list.append(emptyRow());
    } else if (!list.children.length) {
      list.append(make("p", { class: "note" }, "There is no LoRA in models/loras yet."));
    }
  }

  function draw(force = false) {
    const list = byId("lora_list");
    const input = control();
    if (!list || !input || (!force && input.value === drawn && list.dataset.drawn)) return;
    drawn = input.value;
    list.dataset.drawn = "yes";
    list.replaceChildren(...entries().map((entry) => row(entry)));
    fillUp();
  }

  async function readNames() {
    try {
      const answer = await fetch("easel/loras", { cache: "no-store" });
      names = answer.ok ? await answer.json() : [];
    } catch { /* the page tells when the server is gone */ }
    byId("lora_names")?.remove();
    document.body.append(make("datalist", { id: "lora_names" }, ...names.map((name) => make("option", { value: short(name) }))));
    if (byId("lora_list")?.contains(document.activeElement)) fillUp(); // somebody is writing in it
    else draw(true);
  }

  function readAnew() {
    facts.clear();
    readNames();
  }

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (target?.closest("#add_lora")) {
      keep([...entries(), { name: names.find((name) => !entries().some((entry) => entry.name === name)) || names[0] || "", weight: 1, enabled: true }].filter((entry) => entry.name));
      draw(true);
      [...document.querySelectorAll("#lora_list .lora-name")].pop()?.focus();
    } else if (target?.closest("#refresh_models")) {
      readAnew();
    }
  });
  document.addEventListener("easel:files", readAnew); // a download has brought some

  // The page may change the list by itself: another preset, a picture's settings, the last visit.
  document.addEventListener("easel:settings", () => draw());
  // The tab is made when it is first opened; drawing what is drawn already does nothing.
  new MutationObserver(() => draw()).observe(document.documentElement, { childList: true, subtree: true });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", readNames);
  else readNames();
})();
