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
    copied: "Its settings are in the clipboard.",
    emptyAsk: "Delete everything in the trash for good? This cannot be undone.", cancel: "Cancel",
    madeFrom: "Made from", madeOfIt: "Made from this picture", divide: "Divide between the two pictures",
    same: "Their settings are the same.", rescan: "Look for new pictures", foreign: "Of another program", yes: "yes", no: "no",
    failed: "The history does not answer. Is Easel still running?", gone: "The file is gone.", loading: "Loading", again: "Try again",
    keys: "Arrows move, Enter opens, Space selects, F marks a favourite, Delete throws away, Ctrl+Z undoes.",
  };
  const say = (name, values = {}) => {
    return TEXTS[name].replace(/\{(\w+)\}/g, (_, key) => String(values[key]));
  };
  const SPELT = { freeu: "FreeU", vae: "VAE" }; // settings that people do not write as their names are
  const BASE = "easel/history";
  const WAIT = 120; // milliseconds after a key, so that a quick typist asks once a word
  const UNDO_TIME = 20000;
  const root = element.querySelector(".history");
  if (!root || root.dataset.ready) return;
  root.dataset.ready = "yes";

  const { closesBeside, composing, fetch, make, showModal } = window.easel;
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
  /** The page's language as the browser writes it; a user's own file may have a name that is none: the browser's, then. */
  const language = () => {
    try {
      return Intl.getCanonicalLocales(document.documentElement.lang.replaceAll("_", "-"))[0];
    } catch {
      return undefined;
    }
  };
  const own = (value) => ([say("yes"), say("no")].includes(value) ? "" : "notranslate"); // what somebody wrote or chose
  const label = (picture) => (picture.prompt || say("noPrompt")).slice(0, 120);

  // Days and times are the browser's, which need not be in the server's zone.
  const when = (picture) => new Date(picture.time).toLocaleString(language());
  const midnight = (day, later = 0) => {
    const [year, month, date] = day.split("-").map(Number);
    return new Date(year, month - 1, date + later);
  };
  const dayName = (day) => midnight(day).toLocaleDateString(language(), { weekday: "long", year: "numeric", month: "long", day: "numeric" });
  const dayOf = (picture) => {
    const made = new Date(picture.time);
    return [made.getFullYear(), made.getMonth() + 1, made.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
  };

  // ---- what there is ---------------------------------------------------------------------------------------------
  const state = {
    view: "all", before: null, total: 0, shown: new Map(), selected: new Set(), undo: null, loading: null, asked: 0, open: null,
    list: 0, reading: false, stale: false, // how often the list was begun anew; it was not read when it should have been
  };

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
  const retry = make("div", { class: "retry", role: "status", hidden: true });
  const more = make("div", { class: "more", "aria-hidden": "true" });
  const keys = make("p", { class: "keyhelp" }, say("keys"));
  const selection = make("div", { class: "selection", role: "toolbar", "aria-label": say("select"), hidden: true });
  const toast = make("div", { class: "toast", role: "status" });
  root.append(
    make("div", { class: "bar" }, query, views),
    make("div", { class: "facts" }, count, make("span", { class: "tools" }, rescan, empty)),
    remarks, days, retry, more, selection, toast, keys,
  );

  // ---- the list --------------------------------------------------------------------------------------------------
  function address(before) {
    const text = state.view === "favourites" ? `${query.value} fav` : query.value;
    const params = new URLSearchParams({ q: text });
    if (state.view === "trash") params.set("trash", "1");
    if (before) params.set("before", before);
    return `?${params}`;
  }

  /** One question about the list at a time: `work` gets a function that reads a page, and is left when another begins. */
  async function reading(work, failed) {
    state.loading?.abort();
    const abort = state.loading = new AbortController();
    try {
      await work(async (before) => {
        const answer = await ask(address(before), { signal: abort.signal });
        abort.signal.throwIfAborted();
        return answer;
      });
      state.asked = Date.now();
      tellFailure("");
    } catch (problem) {
      if (problem.name !== "AbortError") failed(problem.message);
      return;
    } finally {
      if (abort === state.loading) state.loading = null;
    }
    if (isNear(more)) load(false);
  }

  async function load(fresh) {
    if (!fresh && (state.loading || !state.before)) return;
    if (fresh) state.list += 1;
    await reading(async (page) => {
      const answer = await page(fresh ? null : state.before);
      if (fresh) clearList();
      state.before = answer.before;
      answer.pictures.reduce((last, picture) => place(picture, last), tiles().pop());
      if (fresh) tellCount(answer);
    }, (message) => {
      if (fresh) clearList();
      tellFailure(message);
    });
  }

  /** Take in what has come and gone. It waits while somebody is at work in the list. */
  async function refresh() {
    if (state.loading) {
      refreshIn(500);
      return;
    }
    const atWork = state.open || state.selected.size || days.contains(document.activeElement);
    state.stale = Boolean(atWork) || !isVisible() || !atTop();
    if (state.stale || !state.asked) return;
    await reading(async (page) => {
      const first = await page(null);
      const pictures = [...first.pictures];
      let { before } = first;
      while (state.reading && before && pictures.length < state.shown.size) {
        const answer = await page(before);
        pictures.push(...answer.pictures);
        before = answer.before;
      }
      merge(pictures, before, state.reading || first.reading);
      tellCount(first);
    }, (message) => complain([message]));
  }

  let awaited;
  function refreshIn(milliseconds) {
    clearTimeout(awaited);
    awaited = setTimeout(refresh, milliseconds);
  }

  /** Put the newest `pictures` where they belong; tiles that are there stay. `mixed`: among older ones, too, some are new. */
  function merge(pictures, before, mixed) {
    const read = new Set(pictures.map((picture) => picture.key));
    const cut = before && (mixed || !pictures.some((picture) => state.shown.has(picture.key))); // the older ones are read again
    const last = pictures.reduce((item, picture) => place(picture, item), null);
    const all = tiles();
    for (const item of before && !cut ? all.slice(0, all.indexOf(last)) : all) {
      if (read.has(item.dataset.key) || (item.hidden && !cut)) continue; // a hidden one may be put back
      state.shown.delete(item.dataset.key);
      item.remove();
    }
    if (cut || !before) state.before = before;
    tidy();
  }

  function clearList() {
    state.before = null;
    state.shown.clear();
    select([]);
    days.replaceChildren();
  }

  function tellTotal() {
    const none = query.value.trim() || state.view === "favourites" ? "noMatch" : state.view === "trash" ? "emptyTrash" : "nothing";
    count.textContent = state.total <= 0 ? say(none) : state.total === 1 ? say("one") : say("many", { n: state.total.toLocaleString(language(), { numberingSystem: "latn" }) });
    empty.hidden = state.view !== "trash" || state.total <= 0;
  }

  function tellCount(answer) {
    state.total = answer.total;
    state.reading = Boolean(answer.reading);
    tellTotal();
    complain([...answer.remarks, ...(answer.reading ? [say("reading", answer.reading)] : [])]);
    if (state.reading) refreshIn(3000);
  }

  function complain(messages) {
    remarks.textContent = messages.join(" ");
    remarks.hidden = messages.length === 0;
  }

  function tellFailure(message) {
    retry.hidden = !message;
    retry.replaceChildren(...(message ? [make("span", {}, message), button(say("again"), () => load(!state.before))] : []));
  }

  /** Make a tile for `picture`, if there is none yet, behind the tile of the next newer one; without that, at the front. */
  function place(picture, newer) {
    const known = state.shown.get(picture.key);
    if (known) {
      Object.assign(known.picture, picture);
      paint(picture);
      return known.item;
    }
    const item = tile(picture);
    const day = dayOf(picture);
    const behind = newer?.closest("section");
    if (behind?.dataset.day === day) newer.after(item);
    else sectionOf(day, behind).querySelector("ul").prepend(item);
    item.closest("section").hidden = false;
    return item;
  }

  function sectionOf(day, behind) {
    const known = [...days.children].find((section) => section.dataset.day === day);
    if (known) return known;
    const save = make("a", { class: "plain", href: `${BASE}/day/${day}?since=${+midnight(day)}&until=${+midnight(day, 1)}`, download: "" }, say("saveDay"));
    const section = make("section", { "data-day": day, "aria-labelledby": `day_${day}` },
      make("div", { class: "day" }, make("h3", { id: `day_${day}`, class: "notranslate" }, dayName(day)), ...(state.view === "trash" ? [] : [save])), make("ul", { class: "tiles" }));
    if (behind) behind.after(section);
    else days.prepend(section);
    return section;
  }

  const tileName = (picture) => `${label(picture)}, ${when(picture)}`;

  function tile(picture) {
    const image = make("img", { loading: "lazy", decoding: "async", alt: "", src: thumbnailUrl(picture), width: 256, height: 256 });
    image.addEventListener("error", () => item.classList.add("broken"));
    const open = button("", () => look(picture), { class: "open notranslate", "aria-label": tileName(picture), title: label(picture) });
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

  const tiles = () => [...days.querySelectorAll(".tile")];
  const items = () => tiles().filter((item) => !item.hidden);
  const entryOf = (item) => state.shown.get(item.dataset.key);

  // Only one picture at a time is on the way of the Tab key; arrows go from one to the next.
  function reachable(item, yes) {
    for (const control of item.querySelectorAll("button, input")) control.tabIndex = yes ? 0 : -1;
  }

  function goTo(item) {
    if (!item?.isConnected) return;
    for (const other of tiles()) if (other.querySelector(".open").tabIndex === 0) reachable(other, false);
    reachable(item, true);
    item.querySelector(".open").focus();
    item.scrollIntoView({ block: "nearest" });
  }

  function hideTiles(keys, hidden) {
    for (const key of keys) {
      const item = state.shown.get(key)?.item;
      if (!item || item.hidden === hidden) continue;
      item.hidden = hidden;
      state.total += hidden ? -1 : 1;
    }
    tellTotal();
    tidy();
  }

  /** No day without a picture, and one picture that the Tab key comes to. */
  function tidy() {
    for (const section of [...days.children]) {
      section.hidden = !section.querySelector(".tile:not([hidden])");
      if (!section.querySelector(".tile")) section.remove();
    }
    const first = items()[0];
    if (first && !days.querySelector('.tile:not([hidden]) .open[tabindex="0"]')) reachable(first, true);
  }

  /** `keys` went to the trash or came back: their tiles go or come, unless it is another list than the one of then. */
  async function moved(keys, toTrash, list) {
    const hidden = toTrash !== (state.view === "trash");
    const known = keys.every((key) => state.shown.has(key));
    if (list !== state.list || !(known || hidden)) return load(true);
    hideTiles(keys, hidden);
    if (!known) refreshIn(0);
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
    if (state.stale) refreshIn(300);
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
    const { list } = state;
    const all = items();
    const last = Math.max(...pictures.map((p) => all.indexOf(state.shown.get(p.key)?.item)));
    const answer = await attempt(() => tell("/trash", { keys: pictures.map((p) => p.key) }));
    if (!answer) return;
    const next = all.slice(last + 1).concat(all.slice(0, last + 1).reverse()).find((item) => !answer.done.includes(item.dataset.key));
    await moved(answer.done, true, list);
    select([]);
    if (answer.done.length) {
      state.undo = { keys: answer.done, list: state.list };
      inform(answer.done.length === 1 ? say("trashedOne") : say("trashed", { n: answer.done.length }), undo, answer.remarks);
      goTo(next);
    } else inform(answer.remarks.join(" "));
  }

  async function undo() {
    const thrown = state.undo;
    state.undo = null;
    if (!thrown) return;
    const answer = await attempt(() => tell("/restore", { keys: thrown.keys }));
    if (!answer) return;
    await moved(answer.done, false, thrown.list);
    inform([say("restored", { n: answer.done.length }), ...answer.remarks].join(" "));
    goTo(state.shown.get(answer.done[0])?.item);
  }

  async function restore(keys) {
    const { list } = state;
    const answer = await attempt(() => tell("/restore", { keys }));
    if (!answer) return;
    await moved(answer.done, false, list);
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
      if (state.stale) refreshIn(300);
    });
    closesBeside(dialog);
    const back = document.activeElement;
    root.append(dialog);
    showModal(dialog);
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
    return new Map(known.map(([name, value]) => [SPELT[name] || name.replaceAll("_", " "), plain(value)]));
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
    const dialog = openDialog("details", when(whole),
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

  async function use(picture) {
    state.open?.close();
    const found = await attempt(() => ask(`/use/${picture.key}`));
    if (!found) return;
    if (window.easel && window.easel.useSettings) {
      window.easel.useSettings(found.settings);
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
    if (event.ctrlKey || event.metaKey || event.altKey || composing(event)) return;
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
  const atTop = () => days.getBoundingClientRect().top > 0;

  let typing;
  query.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => load(true), WAIT);
  });

  new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watchGallery();
    if (state.loading) return;
    if (!state.asked) load(true);
    else if (state.stale || Date.now() - state.asked > 1500) refresh();
  }).observe(count);
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && state.asked) load(false);
  }, { rootMargin: "600px" }).observe(more);
  root.addEventListener("focusout", () => { if (state.stale) refreshIn(300); });

  let gallery;
  /** What is made while the list is open comes into it. */
  function watchGallery() {
    if (gallery) return;
    gallery = document.querySelector("#final_gallery");
    if (!gallery) return;
    const shots = () => [...gallery.querySelectorAll("a.shot")].map((shot) => shot.href).join(" ");
    let known = shots();
    new MutationObserver(() => {
      if (shots() === known) return;
      known = shots();
      refreshIn(300);
    }).observe(gallery, { childList: true, subtree: true });
  }

  document.addEventListener("easel:language", () => {
    for (const section of days.children) section.querySelector("h3").textContent = dayName(section.dataset.day);
    for (const { picture, item } of state.shown.values()) item.querySelector(".open").setAttribute("aria-label", tileName(picture));
    if (state.asked) tellTotal();
  });
})();
