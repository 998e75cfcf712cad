// The History tab. Runs when its gr.HTML is in the page; `element` is that component's own element.
(() => {
  "use strict";

  const TEXTS = {
    all: "All", favourites: "Favourites", trash: "Trash", search: "Search the history",
    hint: "fox  model:easel  style:oil  date:2026-11  fav  -blurry  \"red apple\"",
    nothing: "No picture yet. What you generate will be kept here.", noMatch: "No picture fits this search.",
    emptyTrash: "The trash is empty.", one: "1 picture", many: "{n} pictures", reading: "Reading {done} of {total} pictures",
    noPrompt: "No prompt", favourite: "Favourite", select: "Select", selected: "{n} selected", compare: "Compare", remove: "Delete",
    clear: "Clear", restore: "Put back", empty: "Empty the trash", saveDay: "Save this day as a page", close: "Close",
    use: "Use these settings", download: "Download", bare: "Download without settings", previous: "Previous picture", next: "Next picture",
    undo: "Undo", trashedOne: "1 picture is in the trash.", trashed: "{n} pictures are in the trash.",
    restored: "{n} put back.", deleted: "{n} deleted for good.", used: "Its settings are in the page now.",
    copied: "Its settings are in the clipboard.", noSettings: "This picture does not say how it was made.",
    emptyAsk: "Delete everything in the trash for good? This cannot be undone.", cancel: "Cancel",
    madeFrom: "Made from", madeOfIt: "Made from this picture", divide: "Divide between the two pictures",
    same: "Their settings are the same.", rescan: "Look for new pictures", foreign: "Of another program", yes: "yes", no: "no",
    failed: "The history does not answer. Is Easel still running?", gone: "The file is gone.", loading: "Loading",
    keys: "Arrows move, Enter opens, Space selects, F marks a favourite, Delete throws away, Ctrl+Z undoes.",
  };
  const say = (name, values = {}) => {
    return TEXTS[name].replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
  };
  const BASE = "easel/history";
  const WAIT = 120; // milliseconds after a key, so that a quick typist asks once a word
  const UNDO_TIME = 20000;
  const root = element.querySelector(".history");
  if (!root || root.dataset.ready) return;
  root.dataset.ready = "yes";

  const { make } = window.easel;
  const button = (text, onClick, attributes = {}) => make("button", { type: "button", click: onClick, ...attributes }, text);

  // ---- asking the server -----------------------------------------------------------------------------------------
  async function ask(path, options = {}) {
    let answer;
    try {
      answer = await fetch(BASE + path, { credentials: "same-origin", ...options });
    } catch (problem) {
      if (problem.name === "AbortError") throw problem;
      throw new Error(say("failed"));
    }
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(body.error || say(answer.status === 404 ? "gone" : "failed"));
    return body;
  }
  const tell = (path, body) => ask(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const pictureUrl = (picture) => `${BASE}/picture/${picture.key}`;
  const thumbnailUrl = (picture) => `${BASE}/thumbnail/${picture.key}`;
  const language = () => document.documentElement.lang || undefined;
  const own = (value) => ([say("yes"), say("no")].includes(value) ? "" : "notranslate"); // what somebody wrote or chose
  const label = (picture) => (picture.prompt || say("noPrompt")).slice(0, 120);

  // ---- what there is ---------------------------------------------------------------------------------------------
  const state = { view: "all", before: null, total: 0, shown: new Map(), selected: new Set(), undo: null, loading: null, asked: 0, open: null };

  const query = make("input", {
    type: "search", class: "query", placeholder: say("hint"), maxlength: 1000, autocomplete: "off", spellcheck: "false", "aria-label": say("search"),
  });
  const views = make("div", { class: "views", role: "group", "aria-label": say("all") });
  const viewButtons = Object.fromEntries(["all", "favourites", "trash"].map((name) => [
    name, button(say(name), () => show(name), { "aria-pressed": String(name === "all"), class: "view" }),
  ]));
  views.append(...Object.values(viewButtons));
  const empty = button(say("empty"), askToEmpty, { class: "plain danger", hidden: true });
  const rescan = button(say("rescan"), lookForNew, { class: "plain" });
  const count = make("p", { class: "count", role: "status" });
  const remarks = make("p", { class: "remarks", role: "status", hidden: true });
  const days = make("div", { class: "days" });
  const more = make("div", { class: "more", "aria-hidden": "true" });
  const keys = make("p", { class: "keyhelp" }, say("keys"));
  const selection = make("div", { class: "selection", role: "toolbar", "aria-label": say("select"), hidden: true });
  const toast = make("div", { class: "toast", role: "status" });
  root.append(
    make("div", { class: "bar" }, query, views),
    make("div", { class: "facts" }, count, make("span", { class: "tools" }, rescan, empty)),
    remarks, days, more, selection, toast, keys,
  );

  // ---- the list --------------------------------------------------------------------------------------------------
  function address(before) {
    const text = state.view === "favourites" ? `${query.value} fav` : query.value;
    const params = new URLSearchParams({ q: text });
    if (state.view === "trash") params.set("trash", "1");
    if (before) params.set("before", before);
    return `?${params}`;
  }

  async function load(fresh) {
    if (!fresh && (state.loading || !state.before)) return;
    if (state.loading) state.loading.abort();
    const abort = state.loading = new AbortController();
    try {
      const answer = await ask(address(fresh ? null : state.before), { signal: abort.signal });
      if (abort !== state.loading) return;
      state.asked = Date.now();
      if (fresh) clearList();
      state.before = answer.before;
      answer.pictures.forEach(place);
      if (fresh) tellCount(answer);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      if (fresh) clearList();
      state.before = null;
      complain([problem.message]);
    } finally {
      if (abort === state.loading) state.loading = null;
    }
    if (isNear(more)) load(false);
  }

  function clearList() {
    state.shown.clear();
    select([]);
    days.replaceChildren();
  }

  function tellTotal() {
    const none = query.value.trim() || state.view === "favourites" ? "noMatch" : state.view === "trash" ? "emptyTrash" : "nothing";
    count.textContent = state.total <= 0 ? say(none) : state.total === 1 ? say("one") : say("many", { n: state.total.toLocaleString() });
    empty.hidden = state.view !== "trash" || state.total <= 0;
  }

  function tellCount(answer) {
    state.total = answer.total;
    tellTotal();
    complain([...answer.remarks, ...(answer.reading ? [say("reading", answer.reading)] : [])]);
    if (answer.reading) setTimeout(() => isVisible() && !state.selected.size && atTop() && load(true), 3000);
  }

  function complain(messages) {
    remarks.textContent = messages.join(" ");
    remarks.hidden = messages.length === 0;
  }

  function place(picture) {
    if (state.shown.has(picture.key)) return;
    let section = days.lastElementChild;
    if (!section || section.dataset.day !== picture.day) {
      const name = new Date(`${picture.day}T12:00:00`).toLocaleDateString(language(), { weekday: "long", year: "numeric", month: "long", day: "numeric" });
      const save = make("a", { class: "plain", href: `${BASE}/day/${picture.day}`, download: "" }, say("saveDay"));
      section = make("section", { "data-day": picture.day, "aria-labelledby": `day_${picture.day}` },
        make("div", { class: "day" }, make("h3", { id: `day_${picture.day}`, class: "notranslate" }, name), ...(state.view === "trash" ? [] : [save])), make("ul", { class: "tiles" }));
      days.append(section);
    }
    section.querySelector("ul").append(tile(picture));
  }

  function tile(picture) {
    const image = make("img", { loading: "lazy", decoding: "async", alt: "", src: thumbnailUrl(picture), width: 256, height: 256 });
    image.addEventListener("error", () => item.classList.add("broken"));
    const open = button("", () => look(picture), { class: "open notranslate", "aria-label": `${label(picture)}, ${new Date(picture.time).toLocaleString(language())}`, title: label(picture) });
    open.append(image);
    const star = button("★", () => favour([picture], !picture.favourite), { class: "star", "aria-label": `${say("favourite")}: ${label(picture)}` });
    const pick = make("input", { type: "checkbox", class: "pick", "aria-label": `${say("select")}: ${label(picture)}` });
    pick.addEventListener("change", () => toggle(picture, pick.checked));
    const item = make("li", { class: "tile", "data-key": picture.key }, open, star, pick);
    if (picture.kind) item.append(make("span", { class: "kind" }, picture.kind));
    state.shown.set(picture.key, { picture, item });
    paint(picture);
    reachable(item, state.shown.size === 1);
    return item;
  }

  function paint(picture) {
    const shown = state.shown.get(picture.key);
    if (!shown) return;
    shown.item.querySelector(".star").setAttribute("aria-pressed", String(picture.favourite));
    shown.item.querySelector(".pick").checked = state.selected.has(picture.key);
    shown.item.classList.toggle("selected", state.selected.has(picture.key));
  }

  const items = () => [...days.querySelectorAll(".tile:not([hidden])")];
  const entryOf = (item) => state.shown.get(item.dataset.key);

  // Only one picture at a time is on the way of the Tab key; arrows go from one to the next.
  function reachable(item, yes) {
    for (const control of item.querySelectorAll("button, input")) control.tabIndex = yes ? 0 : -1;
  }

  function goTo(item) {
    if (!item) return;
    for (const other of days.querySelectorAll(".tile")) if (other.querySelector(".open").tabIndex === 0) reachable(other, false);
    reachable(item, true);
    item.querySelector(".open").focus();
    item.scrollIntoView({ block: "nearest" });
  }

  function hideTiles(keys, hidden) {
    for (const key of keys) {
      const shown = state.shown.get(key);
      if (shown) shown.item.hidden = hidden;
    }
    state.total += hidden ? -keys.length : keys.length;
    tellTotal();
    for (const section of days.children) section.hidden = !section.querySelector(".tile:not([hidden])");
    const first = items()[0];
    if (first && !days.querySelector('.tile:not([hidden]) .open[tabindex="0"]')) reachable(first, true);
  }

  function show(view) {
    state.view = view;
    for (const [name, each] of Object.entries(viewButtons)) each.setAttribute("aria-pressed", String(name === view));
    load(true);
  }

  // ---- choosing --------------------------------------------------------------------------------------------------
  function toggle(picture, chosen) {
    if (chosen) state.selected.add(picture.key);
    else state.selected.delete(picture.key);
    paint(picture);
    tellSelection();
  }

  function select(keys) {
    const before = [...state.selected];
    state.selected = new Set(keys);
    for (const key of [...before, ...keys]) if (state.shown.has(key)) paint(state.shown.get(key).picture);
    tellSelection();
  }

  const chosen = () => [...state.selected].map((key) => state.shown.get(key)?.picture).filter(Boolean);

  function tellSelection() {
    const pictures = chosen();
    selection.hidden = pictures.length === 0;
    const inTrash = state.view === "trash";
    selection.replaceChildren(
      make("span", { class: "number" }, say("selected", { n: pictures.length })),
      ...(pictures.length === 2 ? [button(say("compare"), () => compare(...chosen()), { class: "main" })] : []),
      ...(inTrash ? [button(say("restore"), () => restore(chosen().map((p) => p.key)))] : [
        button(`★ ${say("favourite")}`, () => favour(chosen(), !chosen().every((p) => p.favourite))),
        button(say("remove"), () => throwAway(chosen()), { class: "danger" }),
      ]),
      button(say("clear"), () => select([])),
    );
  }

  // ---- changing --------------------------------------------------------------------------------------------------
  async function attempt(change) {
    try {
      return await change();
    } catch (problem) {
      inform(problem.message);
      return null;
    }
  }

  async function favour(pictures, on) {
    const answer = await attempt(() => tell("/favourite", { keys: pictures.map((p) => p.key), on }));
    for (const picture of pictures) {
      if (!answer?.done.includes(picture.key)) continue;
      const known = state.shown.get(picture.key)?.picture;
      for (const each of [picture, known]) if (each) each.favourite = on;
      paint(picture);
    }
  }

  async function throwAway(pictures) {
    const all = items();
    const last = Math.max(...pictures.map((p) => all.indexOf(state.shown.get(p.key)?.item)));
    const answer = await attempt(() => tell("/trash", { keys: pictures.map((p) => p.key) }));
    if (!answer) return;
    const next = all.slice(last + 1).concat(all.slice(0, last + 1).reverse()).find((item) => !answer.done.includes(item.dataset.key));
    hideTiles(answer.done, true);
    select([]);
    if (answer.done.length) {
      state.undo = answer.done;
      inform(answer.done.length === 1 ? say("trashedOne") : say("trashed", { n: answer.done.length }), undo, answer.remarks);
      goTo(next);
    } else inform(answer.remarks.join(" "));
  }

  async function undo() {
    const keys = state.undo;
    state.undo = null;
    if (!keys) return;
    const answer = await attempt(() => tell("/restore", { keys }));
    if (!answer) return;
    hideTiles(answer.done, false);
    inform([say("restored", { n: answer.done.length }), ...answer.remarks].join(" "));
    goTo(state.shown.get(answer.done[0])?.item);
  }

  async function restore(keys) {
    const answer = await attempt(() => tell("/restore", { keys }));
    if (!answer) return;
    hideTiles(answer.done, true);
    select([]);
    inform([say("restored", { n: answer.done.length }), ...answer.remarks].join(" "));
    goTo(items()[0]);
  }

  function askToEmpty() {
    const dialog = openDialog("ask", say("empty"), make("p", {}, say("emptyAsk")), make("div", { class: "actions" },
      button(say("empty"), async () => {
        dialog.close();
        const answer = await attempt(() => tell("/empty", {}));
        if (answer) inform(say("deleted", { n: answer.deleted }));
        load(true);
      }, { class: "danger" }),
      button(say("cancel"), () => dialog.close(), { autofocus: true }),
    ));
  }

  async function lookForNew() {
    if (await attempt(() => tell("/rescan", {}))) setTimeout(() => load(true), 700);
  }

  let fading;
  function inform(text, onUndo, further = []) {
    clearTimeout(fading);
    toast.replaceChildren(make("span", {}, [text, ...further].join(" ")));
    if (onUndo) toast.append(button(say("undo"), onUndo, { class: "main" }));
    toast.classList.add("shown");
    fading = setTimeout(() => { toast.classList.remove("shown"); toast.replaceChildren(); }, onUndo ? UNDO_TIME : 6000);
  }

  // ---- dialogs ---------------------------------------------------------------------------------------------------
  function openDialog(kind, title, ...content) {
    const close = button("✕", () => dialog.close(), { class: "close", "aria-label": say("close") });
    const dialog = make("dialog", { class: kind, "aria-label": title }, make("header", {}, make("h3", {}, title), close), ...content);
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (state.open === dialog) state.open = null;
      if (back && back.isConnected && !back.closest("[hidden]")) back.focus();
    });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    const back = document.activeElement;
    root.append(dialog);
    dialog.showModal();
    state.open = dialog;
    return dialog;
  }

  const parsed = (text) => { try { return JSON.parse(text); } catch { return {}; } };

  /** Setting names and values as they are shown. The seed comes as text of its own: it may exceed a number here. */
  function facts(picture) {
    const settings = parsed(picture.settings);
    const written = { model: picture.model, ...settings, seed: picture.seed, size: `${picture.width} × ${picture.height}` };
    for (const name of ["base_model", "width", "height", "image_number", "preview", "output_format", "save_metadata"]) delete written[name];
    for (const name of Object.keys(written)) {
      const idle = (name.startsWith("freeu") && !settings.freeu) || (name.startsWith("refiner") && !settings.refiner_model);
      if (idle) delete written[name];
    }
    const known = Object.entries(written).filter(([, value]) => value !== null && value !== undefined && value !== "" && !(Array.isArray(value) && !value.length));
    return new Map(known.map(([name, value]) => [name.replaceAll("_", " "), plain(value)]));
  }

  function plain(value) {
    if (Array.isArray(value)) return value.map((each) => (each && each.name ? `${each.name} (${each.weight})` : String(each))).join(", ");
    if (typeof value === "boolean") return say(value ? "yes" : "no");
    return String(value);
  }

  async function look(picture) {
    const whole = await attempt(() => ask(`/details/${picture.key}`));
    if (!whole) return;
    const before = state.open;
    before?.close();
    before?.remove(); // its own event comes later, and two pictures' details must not be there at once
    const around = items().map((item) => entryOf(item).picture);
    const at = around.findIndex((other) => other.key === whole.key);
    const step = (by) => around[at + by] && at >= 0 && look(around[at + by]);
    const terms = make("dl", {});
    for (const [name, value] of facts(whole)) {
      if (name !== "prompt") terms.append(make("div", value.length > 60 ? { class: "long" } : {}, make("dt", {}, name), make("dd", { class: own(value) }, value)));
    }
    const star = button(`★ ${say("favourite")}`, async () => {
      await favour([whole], !whole.favourite);
      star.setAttribute("aria-pressed", String(whole.favourite));
    }, { class: "star", "aria-pressed": String(whole.favourite) });
    const image = make("img", { class: "notranslate", src: pictureUrl(whole), alt: label(whole), width: whole.width, height: whole.height });
    const actions = make("div", { class: "actions" },
      button(say("use"), () => use(whole), { class: "main", autofocus: true }), star,
      make("a", { class: "plain", href: pictureUrl(whole), download: whole.name }, say("download")),
      make("a", { class: "plain", href: `${pictureUrl(whole)}?plain=1`, download: whole.name }, say("bare")),
      ...(whole.trashed ? [button(say("restore"), () => { state.open.close(); restore([whole.key]); })]
        : whole.foreign ? [] : [button(say("remove"), () => { state.open.close(); throwAway([whole]); }, { class: "danger" })]),
    );
    const lines = [];
    if (whole.ancestors.length) lines.push(strip(say("madeFrom"), [...whole.ancestors, whole], whole));
    if (whole.children.length) lines.push(strip(say("madeOfIt"), whole.children, whole));
    const dialog = openDialog("details", new Date(whole.time).toLocaleString(language()),
      make("div", { class: "picture" }, image,
        ...(at > 0 ? [button("‹", () => step(-1), { class: "previous", "aria-label": say("previous") })] : []),
        ...(at >= 0 && at < around.length - 1 ? [button("›", () => step(1), { class: "next", "aria-label": say("next") })] : [])),
      make("div", { class: "text" }, make("p", { class: "prompt notranslate" }, whole.prompt || say("noPrompt")), actions,
        ...(whole.foreign ? [make("p", { class: "remarks" }, say("foreign"))] : []), ...lines, terms),
    );
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowRight") step(1);
      else if (event.key === "ArrowLeft") step(-1);
      else return;
      event.preventDefault();
    });
    if (at >= around.length - 3) load(false);
  }

  /** A row of small pictures, each opening its own details; `kind` says how one came from the one before. */
  function strip(title, pictures, current) {
    const list = make("ul", { class: "strip" });
    for (const picture of pictures) {
      const open = button("", () => look(picture), { "aria-label": `${picture.kind || ""} ${label(picture)}`.trim(), "aria-current": String(picture.key === current.key) });
      open.append(make("img", { src: thumbnailUrl(picture), alt: "", width: 72, height: 72 }), make("span", {}, picture.kind || ""));
      list.append(make("li", {}, open));
    }
    return make("nav", { class: "lineage", "aria-label": title }, make("h4", {}, title), list);
  }

  function use(picture) {
    if (Object.keys(parsed(picture.settings)).length === 0) { inform(say("noSettings")); state.open?.close(); return; }
    state.open?.close();
    if (window.easel && window.easel.useSettings) {
      window.easel.useSettings(picture.settings);
      inform(say("used"));
    } else if (navigator.clipboard) {
      navigator.clipboard.writeText(picture.settings).then(() => inform(say("copied")), () => {});
    }
  }

  async function compare(one, other) {
    const both = await attempt(() => Promise.all([one, other].map((picture) => ask(`/details/${picture.key}`))));
    if (!both) return;
    const [left, right] = both[0].time <= both[1].time ? both : [both[1], both[0]];
    const stage = make("div", { class: "stage" },
      make("img", { src: pictureUrl(left), alt: label(left), class: "notranslate" }), make("img", { src: pictureUrl(right), alt: label(right), class: "over notranslate" }), make("span", { class: "line", "aria-hidden": "true" }));
    const widest = Math.max(left.width / left.height, right.width / right.height);
    stage.style.aspectRatio = String(widest);
    stage.style.setProperty("--ratio", String(widest));
    const slider = make("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50, "aria-label": say("divide") });
    const move = () => stage.style.setProperty("--at", `${slider.value}%`);
    slider.addEventListener("input", move);
    stage.append(slider);
    const [before, after] = [facts(left), facts(right)];
    const names = [...new Set([...before.keys(), ...after.keys()])].filter((name) => before.get(name) !== after.get(name));
    const rows = names.map((name) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: own(before.get(name)) }, before.get(name) ?? ""), make("td", { class: own(after.get(name)) }, after.get(name) ?? "")));
    openDialog("compare", say("compare"), stage,
      rows.length ? make("div", { class: "text" }, make("table", {}, make("tbody", {}, ...rows))) : make("p", { class: "text" }, say("same")));
    move();
    slider.focus();
  }

  // ---- keys ------------------------------------------------------------------------------------------------------
  function neighbour(item, key) {
    const all = items();
    const at = all.indexOf(item);
    if (key === "ArrowRight") return all[at + 1];
    if (key === "ArrowLeft") return all[at - 1];
    if (key === "Home") return all[0];
    if (key === "End") return all[all.length - 1];
    const box = item.getBoundingClientRect();
    const down = key === "ArrowDown";
    const rows = (down ? all.slice(at + 1) : all.slice(0, at).reverse()).filter((other) => {
      const top = other.getBoundingClientRect().top;
      return down ? top > box.top + 4 : top < box.top - 4;
    });
    const top = rows[0]?.getBoundingClientRect().top;
    const row = rows.filter((other) => Math.abs(other.getBoundingClientRect().top - top) < 4);
    const distance = (other) => Math.abs(other.getBoundingClientRect().left - box.left);
    return row.sort((a, b) => distance(a) - distance(b))[0];
  }

  root.addEventListener("keydown", (event) => {
    if (state.open) return;
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && state.undo && !event.target.closest("input[type=search]")) {
      event.preventDefault();
      undo();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.keyCode === 229) return;
    const item = event.target.closest(".tile");
    if (event.target === query) {
      if (event.key === "ArrowDown") { event.preventDefault(); goTo(items()[0]); }
      return;
    }
    if (!item) return;
    const { picture } = entryOf(item);
    const onTile = event.target.classList.contains("open");
    if (["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
      const next = neighbour(item, event.key);
      if (next) goTo(next);
      else if (event.key === "ArrowUp") query.focus();
    } else if (event.key === " " && onTile) toggle(picture, !state.selected.has(picture.key));
    else if (event.key.toLowerCase() === "f") favour([picture], !picture.favourite);
    else if (event.key === "Delete" && state.view !== "trash") throwAway(state.selected.size ? chosen() : [picture]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  root.addEventListener("keyup", (event) => {
    if (event.key === " " && event.target.classList.contains("open")) event.preventDefault(); // a button would open at the key's release
  });

  // ---- when to ask -----------------------------------------------------------------------------------------------
  const isVisible = () => root.offsetParent !== null;
  const isNear = (mark) => isVisible() && mark.getBoundingClientRect().top < window.innerHeight + 600;
  const atTop = () => !days.firstElementChild || days.firstElementChild.getBoundingClientRect().top > 0;

  let typing;
  query.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => load(true), WAIT);
  });

  // Seen again after a while: what was made meanwhile is added by reading the list anew, unless somebody is at work in it.
  new IntersectionObserver((entries) => {
    const seen = entries.some((entry) => entry.isIntersecting);
    if (seen && !state.loading && !state.selected.size && !state.open && (!state.asked || Date.now() - state.asked > 1500)) load(true);
  }).observe(count);
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && state.asked) load(false);
  }, { rootMargin: "600px" }).observe(more);
})();
