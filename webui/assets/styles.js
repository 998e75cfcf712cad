// The Styles tab: the library as tiles with sample pictures. The hidden control `styles` holds the choice as a JSON list.
(() => {
  "use strict";

  const FAVOURITES = "easel-favourite-styles";
  const SPECIAL = [
    { name: "Fooocus V2", group: "Special", prompt: "The prompt is continued by the expansion model.", negative: "", special: true },
    { name: "Random Style", group: "Special", prompt: "Another style is drawn for each picture.", negative: "", special: true },
  ];
  const root = element.querySelector(".styles");
  if (!root || root.dataset.ready) return;
  root.dataset.ready = "yes";

  const { composing, fetch, make } = window.easel;
  const key = (name) => name.replaceAll("-", " ").split(/\s+/).filter(Boolean).join(" ").toLowerCase();
  const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

  // ---- what there is ---------------------------------------------------------------------------------------------
  let library = { styles: [], aliases: {}, problems: [], samples: null };
  let tiles = [];            // in their order: { style, group, key, words, tile, box, second, star }
  let groups = [];           // as they are seen: { name, section, members, tiles }, first the one of the chosen, which has no name
  let inSight = false;
  const byKey = new Map();   // key -> entry of tiles
  let chosen = [];           // names, in the order in which they act
  let favourites = new Set();

  // ---- what is seen ----------------------------------------------------------------------------------------------
  const search = make("input", {
    type: "search", class: "query", placeholder: "Search the styles", "aria-label": "Search the styles",
    autocomplete: "off", spellcheck: "false", maxlength: 200,
  });
  const choice = make("select", { class: "tool group", "aria-label": "Group" });
  const onlyFavourites = make("button", { type: "button", class: "tool only", "aria-pressed": "false" }, "Favourites");
  const refresh = make("button", { type: "button", class: "tool refresh", title: "Read the style files again" }, "Refresh");
  const chips = make("ul", { class: "chosen", "aria-label": "Chosen styles" });
  const clear = make("button", { type: "button", class: "tool clear" }, "Remove all");
  const number = make("span", { class: "number" });
  const count = make("p", { class: "count", role: "status" }, number, " ", make("span", {}, "styles found"));
  const problems = make("details", { class: "problems", hidden: true },
    make("summary", {}, "Some style files have faults"), make("ul"));
  const grid = make("div", { class: "grid", role: "group", "aria-label": "All styles" });
  const help = make("p", { class: "keyhelp hide-on-touch" }, "Arrows move, Space chooses, F marks a favourite, / searches.");
  const preview = make("div", { class: "preview", id: "style_preview", role: "tooltip", hidden: true });
  root.append(
    make("div", { class: "head" }, search, make("div", { class: "tools" }, choice, onlyFavourites), chips),
    problems, make("div", { class: "foot" }, count, refresh), grid, help, preview);

  // ---- the control that holds the choice -------------------------------------------------------------------------
  const control = () => document.querySelector("#styles textarea, #styles input");

  function parsed(text) {
    try {
      const list = JSON.parse(text || "[]");
      return Array.isArray(list) ? list.filter((name) => typeof name === "string") : [];
    } catch {
      return [];
    }
  }

  function choose(names) {
    chosen = names;
    const input = control();
    if (input) {
      input.value = JSON.stringify(names);
      input.dispatchEvent(new Event("input", { bubbles: true }));
    }
    showChosen();
  }

  function follow(text) { // the page changed it: a preset, the last visit, a picture's settings
    const names = parsed(text);
    if (JSON.stringify(names) === JSON.stringify(chosen)) return;
    chosen = names;
    showChosen();
    chosenFirst(); // nobody is clicking here
  }

  const entryOf = (name) => byKey.get(key(name)) || byKey.get(key(library.aliases[key(name)] || ""));

  function toggle(entry) {
    const others = chosen.filter((name) => entryOf(name) !== entry);
    choose(others.length === chosen.length ? [...chosen, entry.style.name] : others);
  }

  // ---- favourites: this browser's own ----------------------------------------------------------------------------
  function readFavourites() {
    try { favourites = new Set(parsed(localStorage.getItem(FAVOURITES)).map(key)); } catch { /* private window */ }
  }

  function star(entry) {
    readFavourites(); // another window may have marked some
    if (!favourites.delete(entry.key)) favourites.add(entry.key);
    try { localStorage.setItem(FAVOURITES, JSON.stringify([...favourites])); } catch { /* private window */ }
    showFavourites();
  }

  function showFavourites() {
    for (const entry of tiles) entry.star.setAttribute("aria-pressed", String(favourites.has(entry.key)));
    if (onlyFavourites.getAttribute("aria-pressed") === "true") filter();
  }

  // ---- pictures and previews -------------------------------------------------------------------------------------
  function sample(style) {
    const made = make("span", { class: "sample", "aria-hidden": "true" });
    const sheet = library.samples;
    const cell = sheet?.cells[style.name];
    if (cell === undefined) return made;
    const at = (place, many) => (many > 1 ? (100 * place) / (many - 1) : 0);
    made.classList.add("drawn");
    made.style.backgroundImage = `url("${sheet.url}")`;
    made.style.backgroundSize = `${100 * sheet.columns}% ${100 * sheet.rows}%`;
    made.style.backgroundPosition = `${at(cell % sheet.columns, sheet.columns)}% ${at(Math.floor(cell / sheet.columns), sheet.rows)}%`;
    return made;
  }

  let shown = null; // whose preview is seen
  let waiting = 0;

  function look(entry, after) {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (shown) shown.box.removeAttribute("aria-describedby");
      shown = entry;
      preview.hidden = !entry;
      if (!entry) return;
      const { style } = entry;
      const picture = sample(style);
      const drawn = picture.classList.contains("drawn");
      preview.classList.toggle("bare", !drawn);
      const parts = [...(drawn ? [picture] : []), make("strong", { class: "notranslate" }, style.name), make("p", { class: style.prompt && !style.special ? "text notranslate" : "text" }, style.prompt || "Nothing is added to the prompt.")];
      if (style.negative) parts.push(make("p", { class: "against" }, make("span", {}, "Against:"), " ", make("span", { class: "notranslate" }, style.negative)));
      preview.replaceChildren(...parts);
      entry.box.setAttribute("aria-describedby", preview.id);
      place(entry.tile.getBoundingClientRect());
    }, after);
  }

  // On a wide screen it stands left of the column; on a narrow one styles.css keeps it at the foot of the screen.
  function place(tile) {
    const beside = root.getBoundingClientRect();
    const room = beside.left - 16;
    const wide = room > 280;
    preview.classList.toggle("beside", wide);
    const home = wide ? document.body : root; // the column would draw it behind the prompt
    if (preview.parentElement !== home) home.append(preview);
    if (!wide) { 
      preview.style.left = preview.style.top = "";
      return;
    }
    preview.style.left = `${room - preview.offsetWidth - 8}px`;
    preview.style.top = `${Math.max(8, Math.min(tile.top, window.innerHeight - preview.offsetHeight - 8))}px`;
  }

  // ---- drawing ---------------------------------------------------------------------------------------------------
  function drawn(style) {
    const second = make("span", { class: "second notranslate", hidden: true }); // the name in the chosen language
    const box = make("button", { type: "button", class: "choice", role: "checkbox", "aria-checked": "false", tabindex: -1 },
      sample(style), make("span", { class: "name notranslate" }, style.name), second);
    const mark = make("button", { type: "button", class: "star", "aria-pressed": "false", tabindex: -1, "aria-label": "Favourite", title: "Favourite" }, "★");
    const tile = make("div", { class: "tile" }, box, mark);
    return { style, group: style.group || "Others", key: key(style.name), words: "", tile, box, second, star: mark };
  }

  // Languages of the user's own may have the styles' names, also as the reference calls them. What is sent stays English.
  function translate() {
    const { say, texts } = window.easel.language;
    const byName = new Map([...texts()].map(([english, text]) => [key(english), text]));
    const former = new Map(); // a style's key -> the reference's names for it
    for (const [old, name] of Object.entries(library.aliases)) former.set(key(name), [...(former.get(key(name)) || []), old]);
    for (const entry of tiles) {
      const { name } = entry.style;
      const names = [entry.key, ...(former.get(entry.key) || [])].map((one) => byName.get(one));
      const others = [...new Set(names)].filter((text) => text && text !== name);
      entry.words = plain([name, entry.group, say(entry.group), ...others].join(" "));
      entry.second.textContent = others[0] || "";
      entry.second.hidden = !others.length;
    }
  }

  function draw() {
    const all = [...SPECIAL, ...library.styles];
    tiles = all.map(drawn);
    byKey.clear();
    const sections = new Map();
    for (const entry of tiles) {
      byKey.set(entry.key, entry);
      if (!sections.has(entry.group)) sections.set(entry.group, []);
      sections.get(entry.group).push(entry);
    }
    groups = [["", []], ...sections].map(([name, members]) => {
      const section = make("section", { class: "styles-group", "aria-label": name || "Chosen styles" },
        make("h3", {}, name || "Chosen styles"), make("div", { class: "tiles" }));
      return { name, section, members, tiles: [] };
    });
    translate();
    chosenFirst();
    grid.replaceChildren(...groups.map((group) => group.section));
    const before = choice.value;
    choice.replaceChildren(make("option", { value: "" }, "All groups"), ...[...sections.keys()].map((name) => make("option", { value: name }, name)));
    choice.value = sections.has(before) ? before : "";
    problems.hidden = !library.problems.length;
    problems.lastElementChild.replaceChildren(...library.problems.map((text) => make("li", {}, text)));
    readFavourites();
    showFavourites();
    showChosen();
    filter();
  }

  // Not while one clicks on tiles, which would put another one under the pointer.
  function chosenFirst() {
    if (!groups.length) return;
    const first = new Set(chosen.map(entryOf).filter(Boolean));
    for (const group of groups) {
      const there = group.name ? group.members.filter((entry) => !first.has(entry)) : [...first];
      if (there.length === group.tiles.length && there.every((entry, place) => entry === group.tiles[place])) continue;
      group.tiles = there;
      const box = group.section.lastElementChild;
      there.forEach((entry, place) => { // those that leave this group are taken by another one
        if (box.children[place] !== entry.tile) box.insertBefore(entry.tile, box.children[place] || null);
      });
      group.section.style.setProperty("--rows", Math.ceil(there.length / 3));
    }
    filter();
  }

  function showChosen() {
    const acting = new Set(chosen.map(entryOf));
    for (const entry of tiles) {
      const value = String(acting.has(entry));
      if (entry.box.getAttribute("aria-checked") !== value) entry.box.setAttribute("aria-checked", value);
    }
    chips.replaceChildren(...chosen.map((name) => {
      const entry = entryOf(name);
      const away = make("button", { type: "button", class: "away", "data-name": name, title: "Remove" },
        make("span", { class: "notranslate" }, name), make("span", { "aria-hidden": "true" }, "✕"), make("span", { class: "unseen" }, "Remove"));
      const chip = make("li", {}, away);
      if (!entry && tiles.length > SPECIAL.length) {
        chip.classList.add("unknown");
        away.title = "This style is not in the library; it is left out.";
      }
      return chip;
    }));
    if (chosen.length > 1) chips.append(make("li", {}, clear));
    chips.hidden = !chosen.length;
  }

  // ---- searching: only what changes is touched -------------------------------------------------------------------
  function filter() {
    const words = plain(search.value).split(/\s+/).filter(Boolean);
    const starred = onlyFavourites.getAttribute("aria-pressed") === "true";
    let found = 0;
    for (const group of groups) {
      let some = false;
      for (const entry of group.tiles) {
        const fits = (!choice.value || choice.value === entry.group) && (!starred || favourites.has(entry.key))
          && words.every((word) => entry.words.includes(word));
        if (entry.tile.hidden === fits) entry.tile.hidden = !fits;
        some = some || fits;
        found += fits;
      }
      if (group.section.hidden === some) group.section.hidden = !some;
    }
    number.textContent = String(found);
    reachable();
  }

  const seen = () => groups.flatMap((group) => group.tiles.filter((entry) => !entry.tile.hidden));

  // One tile takes part in the order of Tab; the arrows go on from there.
  let current = null;

  function reachable(entry) {
    const there = seen();
    const next = entry || (there.includes(current) ? current : there[0] || null);
    if (current && current !== next) current.box.tabIndex = -1;
    current = next;
    if (current) current.box.tabIndex = 0;
  }

  function go(entry) {
    if (!entry) return;
    reachable(entry);
    entry.box.focus();
    entry.tile.scrollIntoView({ block: "nearest" });
  }

  function rows() {
    const columns = getComputedStyle(grid.querySelector("section:not([hidden]) .tiles")).gridTemplateColumns.split(" ").length;
    return groups.flatMap((group) => {
      const there = group.tiles.filter((entry) => !entry.tile.hidden);
      return Array.from({ length: Math.ceil(there.length / columns) }, (_, row) => there.slice(row * columns, (row + 1) * columns));
    });
  }

  function moved(entry, by) {
    const all = rows();
    const row = all.findIndex((one) => one.includes(entry));
    const next = all[row + by];
    return next && next[Math.min(all[row].indexOf(entry), next.length - 1)];
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || composing(event)) return;
    const entry = tiles.find(({ box }) => box === event.target);
    if (event.target === search) {
      const first = seen()[0];
      if (event.key === "ArrowDown") { event.preventDefault(); go(first); }
      if (event.key === "Enter" && first && search.value.trim()) { event.preventDefault(); toggle(first); }
      return;
    }
    if (!entry) return;
    const there = seen();
    const at = there.indexOf(entry);
    const moves = {
      ArrowRight: () => there[at + 1], ArrowLeft: () => there[at - 1], ArrowDown: () => moved(entry, 1),
      ArrowUp: () => moved(entry, -1), Home: () => there[0], End: () => there[there.length - 1],
    };
    if (moves[event.key]) {
      event.preventDefault();
      const next = moves[event.key]();
      if (next) go(next);
      else if (event.key === "ArrowUp") search.focus();
    } else if (event.key === "f" || event.key === "F") {
      event.preventDefault();
      star(entry);
    }
  }

  // ---- events ----------------------------------------------------------------------------------------------------
  const entryAt = (target) => {
    const tile = target instanceof Element ? target.closest(".tile") : null;
    return tile && tiles.find((entry) => entry.tile === tile);
  };
  root.addEventListener("keydown", onKey);
  search.addEventListener("input", () => { if (tiles.length) chosenFirst(); });
  choice.addEventListener("change", filter);
  clear.addEventListener("click", () => { choose([]); chosenFirst(); search.focus(); });
  refresh.addEventListener("click", read);
  onlyFavourites.addEventListener("click", () => {
    onlyFavourites.setAttribute("aria-pressed", String(onlyFavourites.getAttribute("aria-pressed") !== "true"));
    filter();
  });
  chips.addEventListener("click", (event) => {
    const away = event.target.closest(".away");
    if (!away) return;
    const at = [...chips.children].indexOf(away.parentElement);
    choose(chosen.filter((_, index) => index !== at));
    chosenFirst();
    (chips.querySelectorAll(".away")[Math.min(at, chosen.length - 1)] || search).focus();
  });
  grid.addEventListener("click", (event) => {
    const entry = entryAt(event.target);
    if (!entry) return;
    reachable(entry);
    if (event.target.closest(".star")) star(entry);
    else toggle(entry);
  });
  grid.addEventListener("pointerover", (event) => { if (event.pointerType === "mouse") look(entryAt(event.target), 120); });
  grid.addEventListener("pointerleave", () => look(null, 80));
  grid.addEventListener("focusin", (event) => look(entryAt(event.target), 0));
  grid.addEventListener("focusout", () => look(null, 80));
  root.addEventListener("focusout", (event) => { if (!root.contains(event.relatedTarget) && !root.matches(":hover")) chosenFirst(); });
  window.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !shown) return;
    event.stopPropagation(); // Escape stops the running task otherwise
    look(null, 0);
  }, true);
  window.addEventListener("scroll", () => { if (shown) place(shown.tile.getBoundingClientRect()); }, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key !== "/" || typing || root.offsetParent === null || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    event.preventDefault();
    search.focus();
    search.select();
  });
  document.addEventListener("easel:language", () => { translate(); filter(); });
  document.addEventListener("easel:settings", (event) => follow(event.detail.styles));
  window.addEventListener("storage", (event) => {
    if (event.key === FAVOURITES) { readFavourites(); showFavourites(); }
  });

  async function read() {
    try {
      const answer = await fetch("easel/styles", { cache: "no-store" });
      const body = await answer.json();
      if (!answer.ok) throw new Error(body.error);
      library = body;
    } catch (problem) {
      library = { ...library, problems: [problem.message || "The styles could not be read."] };
    }
    chosen = parsed(control()?.value);
    draw();
  }

  // The library is asked for when the tab is seen for the first time.
  let asked = false;
  new IntersectionObserver((entries) => {
    inSight = entries[entries.length - 1].isIntersecting;
    if (!inSight) chosenFirst();
    else if (!asked) {
      asked = true;
      read();
    }
  }, { rootMargin: "1500px" }).observe(root); // below the fold of a phone, too
})();
