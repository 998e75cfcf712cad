// The page in other languages: texts that the chosen language's table has are put in place of the English ones.
// What people wrote (prompts, names of files, styles and presets) is never touched: see UNTOUCHED.
(() => {
  "use strict";

  const MENU = LANGUAGE_MENU;     // code -> name
  const USUAL = USUAL_LANGUAGE; // for browsers that have chosen none; "": as the browser prefers
  const CHOICE = "easel-language";
  const UNTOUCHED = "script, style, textarea, code, pre, [translate=no], .notranslate, .excerpt:not(.none), .chip, .shot, #viewer img, [contenteditable]";
  const NAMED = ".lora"; // whose label is a name, though not all that is in it
  // Lists of what people named: of files only what choosing none is called is ours, of presets what the program brought.
  const OF_FILES = ["base_model", "refiner_model", "vae", "text_encoder_l", "text_encoder_g"].map((id) => `#${id}`).join();
  const NO_FILE = new Set(["None", "The checkpoint's own"]);
  const PRESETS = new Set(["Default", "Anime", "Easel", "Fast", "General", "Lcm", "Lightning", "Plain sdxl", "Playground", "Pony", "Realistic", "Sai"]);
  const ATTRIBUTES = ["placeholder", "title", "aria-label", "alt", "data-hint"];
  const JOINT = " · "; // between facts that are translated one by one

  let table = new Map();  // English text -> translation
  let patterns = [];      // { pattern, translation, longest piece, length of all pieces }, for keys with {}
  let known = new Map();  // English text -> what was found for it, with or without a pattern
  const originals = new WeakMap(); // node -> { name: { english, shown } }; a text node's own text has the name ""
  const MOST_KNOWN = 5000;
  const SHORT = 14; // characters of a key
  // Tables of some languages are for one way of writing it; a browser chooses its letters by the full name.
  const FULL_CODES = { zh: "zh-Hans" };

  // ---- finding a translation ------------------------------------------------------------------------------------
  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

  function learn(texts) {
    table = new Map();
    patterns = [];
    known = new Map();
    for (const [english, text] of Object.entries(texts)) {
      if (!english.includes("{}")) {
        table.set(english, text);
        continue;
      }
      const pieces = english.split("{}").map(escaped);
      const short = english.startsWith("{} ") && english.length < SHORT; // "{} min" means a number, not any words
      const first = short ? "((?:about )?\\d[^]*?)" : "([^]+?)";
      const longest = english.split("{}").reduce((one, other) => (other.length > one.length ? other : one));
      const pattern = new RegExp(`^${pieces[0]}${first}${pieces.slice(1).join("([^]+?)")}$`);
      patterns.push({ pattern, translation: text, longest, length: english.replaceAll("{}", "").length });
    }
  }

  // What is found for a text is { text, said }: of several ways the one in which our tables say most of it counts.

  const better = (one, other) => ((other?.said ?? -1) > (one?.said ?? -1) ? other : one);

  function filledIn(text, found) {
    let next = 0;
    let said = 0;
    const filled = text.replace(/\{(=?)(\d*)\}/g, (_, also, number) => { // {=}: what it stands for is one of our texts, too
      next = number ? Number(number) : next + 1;
      const piece = found[next] ?? "";
      if (!also || !/\p{L}/u.test(piece)) return piece;
      const own = better(look(piece.trim()), listed(piece.trim()));
      said += own?.said ?? 0;
      return own ? piece.replace(piece.trim(), () => own.text) : piece;
    });
    return { text: filled, said };
  }

  const total = (others) => others.reduce((sum, other) => sum + (other?.said ?? 0), 0);

  /** A list of our texts, "a, b and c". Names may be among them, and may have an "and" of their own. */
  function listed(text) {
    const items = text.split(", ");
    const others = items.map((item) => look(item) ?? joined(item));
    if (!others.some(Boolean)) return null;
    return { text: items.map((item, index) => others[index]?.text ?? item).join(", "), said: total(others) };
  }

  /** Our texts with "and" or "or" between them. */
  function joined(text) {
    const parts = text.split(/ (and|or) /);
    const others = parts.map((part, index) => (index % 2 ? { text: table.get(part) ?? part } : look(part)));
    if (parts.length === 1 || others.includes(null)) return null;
    return { text: others.map((other) => other.text).join(" "), said: total(others) };
  }

  /** Several of our sentences in a row. */
  function inSentences(text) {
    const sentences = text.split(/(?<=[.!?])\s+(?=\p{Lu})/u);
    const others = sentences.length > 1 ? sentences.map(look) : [null];
    if (others.includes(null)) return null;
    const joined = others.map((other) => other.text).join(" ").replace(/(?<=[。！？]) /g, ""); // these bring their own space
    return { text: joined, said: total(others) };
  }

  function sought(text) {
    const exact = table.get(text) ?? table.get(text[0].toUpperCase() + text.slice(1)); // "guidance scale" as a name in a list
    if (exact !== undefined) return { text: exact, said: text.length };
    let best = inSentences(text);
    for (const { pattern, translation, longest, length } of patterns) {
      const found = text.includes(longest) ? pattern.exec(text) : null;
      const filled = found && filledIn(translation, found);
      if (filled) best = better(best, { text: filled.text, said: length + filled.said });
    }
    const parts = text.split(JOINT);
    const others = parts.length > 1 ? parts.map(look) : [];
    if (!others.some(Boolean)) return best;
    return better({ text: parts.map((part, index) => others[index]?.text ?? part).join(JOINT), said: total(others) }, best);
  }

  function look(text) {
    if (text.length > 2000 || !/\p{L}/u.test(text)) return null;
    if (!known.has(text)) {
      if (known.size > MOST_KNOWN) known = new Map();
      known.set(text, null); // against going round
      known.set(text, sought(text));
    }
    return known.get(text);
  }

  const translated = (text) => look(text)?.text ?? null;

  /** `english` in the chosen language, or as it is. */
  const say = (english) => {
    const text = english.trim().replace(/\s+/g, " ");
    const found = table.size || patterns.length ? translated(text) : null;
    return found === null ? english : english.replace(english.trim(), () => found);
  };

  // ---- putting it in place --------------------------------------------------------------------------------------
  /** Whether `text`, an entry of the list around `element`, is a name that people gave. */
  function isName(element, text) {
    const ours = element.closest(OF_FILES) ? NO_FILE : element.closest("#preset") ? PRESETS : null;
    return Boolean(ours) && !ours.has(text.trim());
  }

  const untouched = (node) => {
    const element = node.nodeType === Node.TEXT_NODE ? node.parentElement : node;
    return !element || element.closest(UNTOUCHED) !== null;
  };

  function put(node, name, now, write) {
    const kept = originals.get(node) || {};
    const before = kept[name];
    const english = before && now === before.shown ? before.english : now;
    const option = (node.nodeType === Node.TEXT_NODE ? node.parentElement : node).closest("[role=option]");
    const shown = option && isName(option, english) ? english : say(english);
    if (shown === english && !before) return;
    kept[name] = { english, shown };
    originals.set(node, kept);
    if (shown !== now) write(shown);
  }

  function putText(node) {
    if (node.data.trim() && !untouched(node)) put(node, "", node.data, (text) => { node.data = text; });
  }

  function putAttributes(element) {
    for (const name of ATTRIBUTES) {
      const now = element.getAttribute(name);
      const own = name === "placeholder" || !untouched(element); // a text area's content is left alone, not its hint
      if (now && own && !(name === "aria-label" && element.matches(NAMED))) put(element, name, now, (text) => element.setAttribute(name, text));
    }
  }

  function putAll(root) {
    if (root.nodeType === Node.TEXT_NODE) { putText(root); return; }
    if (root.nodeType !== Node.ELEMENT_NODE) return;
    putAttributes(root);
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      if (node.nodeType === Node.TEXT_NODE) putText(node);
      else putAttributes(node);
    }
    putChosen();
  }

  // What a closed list shows is the value of an input, which the page reads: the translation is laid over it (style.css).
  function putChosen() {
    for (const input of document.querySelectorAll("input[role=listbox], input[role=combobox]")) {
      const text = isName(input, input.value) ? input.value : say(input.value);
      const over = input.parentElement;
      if (text === input.value) delete over.dataset.shown;
      else if (over.dataset.shown !== text) over.dataset.shown = text;
    }
  }

  function watch() {
    putAll(document.body);
    new MutationObserver((changes) => {
      if (!table.size && !patterns.length) return;
      for (const change of changes) {
        if (change.type === "childList") change.addedNodes.forEach(putAll);
        else if (change.type === "characterData") putText(change.target);
        else putAttributes(change.target);
      }
    }).observe(document.body, {
      subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ATTRIBUTES,
    });
    setInterval(() => { if (table.size) putChosen(); }, 300); // nothing tells that an input's value was set
  }

  // ---- choosing -------------------------------------------------------------------------------------------------
  const choice = () => { try { return localStorage.getItem(CHOICE) || ""; } catch { return ""; } };

  /** The language to show: as chosen here, else as the installation says, else the first that the browser prefers. */
  function wanted() {
    const told = choice() || USUAL;
    if (told && told !== "auto" && MENU[told]) return told;
    const codes = Object.keys(MENU);
    for (const preferred of navigator.languages || [navigator.language]) {
      const exact = codes.find((code) => code.toLowerCase() === preferred.toLowerCase());
      const found = exact || codes.find((code) => code === preferred.split("-")[0]);
      if (found) return found;
    }
    return "en";
  }

  async function speak() {
    const code = wanted();
    let found = { texts: {}, rightToLeft: false };
    if (code !== "en") {
      try {
        const answer = await fetch(`easel/texts/${encodeURIComponent(code)}`);
        if (answer.ok) found = await answer.json();
      } catch { /* English, then; the page tells when the server is gone */ }
    }
    learn(found.texts);
    document.documentElement.lang = code === "default" ? "" : FULL_CODES[code] || code;
    document.documentElement.dir = found.rightToLeft ? "rtl" : "ltr";
    if (document.body) putAll(document.body);
    document.dispatchEvent(new CustomEvent("easel:language", { detail: code }));
  }

  window.easel.language = {
    menu: MENU,
    choice: () => choice() || "auto",
    choose(code) {
      try { localStorage.setItem(CHOICE, code); } catch { /* private window */ }
      return speak();
    },
    say,
    /** The chosen language's texts by the English ones; a key with {} is in none of them. */
    texts: () => table,
    /** Whether the chosen language has a translation of `english`. */
    knows: (english) => translated(english.trim().replace(/\s+/g, " ")) !== null,
  };

  speak();
  if (document.body) watch();
  else document.addEventListener("DOMContentLoaded", watch);
})();
