// The helpers of the prompt: completions while a tag or wildcard is typed, and the panel of what the prompt becomes.
(() => {
  "use strict";

  const PROMPTS = "#positive_prompt textarea, #negative_prompt textarea";
  const REACH = 200; // characters around the caret that matter for a completion
  const { fetch, make } = window.easel;
  const byId = (id) => document.getElementById(id);

  async function ask(path, body, signal) {
    const answer = await fetch(path, body === undefined ? { signal, cache: "no-store" } : {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
    });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error || "Easel did not answer.");
    return found;
  }

  // ---- completions -----------------------------------------------------------------------------------------------
  const BEGUN = /(__[\p{L}\p{N}_/. -]{0,60}|<lora:[^:<>\n]*|<style:[^<>\n]*|embedding:(?:\\[()]|[^\s,():])*)$/iu; // worth asking
  const ASK_AFTER = 60; // milliseconds after a key
  let list = null;
  let status = null;
  let area = null;     // the prompt that is being completed
  let found = [];
  let at = 0;          // which of them is marked
  let start = 0;       // where in the text they begin
  let rest = 0;        // how much text was behind the caret
  let pending = false; // an answer is on its way
  let early = false;   // Enter came before it
  let timer = 0;
  let asking = null;

  const open = () => Boolean(list && !list.hidden);

  function makeList() {
    list = make("ul", { id: "prompt_completions", role: "listbox", "aria-label": "Completions", hidden: true });
    list.addEventListener("pointerdown", (event) => event.preventDefault()); // the caret stays in the prompt
    list.addEventListener("click", (event) => {
      const option = event.target.closest("li");
      if (option) take([...list.children].indexOf(option));
    });
    status = make("div", { class: "unseen", role: "status" });
    document.body.append(list, status);
  }

  function close() {
    clearTimeout(timer);
    asking?.abort();
    pending = early = false;
    if (!open()) return;
    list.hidden = true;
    list.replaceChildren();
    status.textContent = "";
    for (const name of ["aria-activedescendant", "aria-controls", "aria-autocomplete"]) area.removeAttribute(name);
  }

  function offer(target) {
    clearTimeout(timer);
    asking?.abort();
    const caret = target.selectionStart;
    const head = target.value.slice(Math.max(0, caret - REACH), caret);
    if (target.selectionEnd !== caret || !BEGUN.test(head)) { close(); return; }
    pending = true;
    timer = setTimeout(async () => {
      asking = new AbortController();
      try {
        const answer = await ask("easel/prompt/complete", { head, tail: target.value.slice(caret, caret + REACH) }, asking.signal);
        if (document.activeElement !== target || target.selectionStart !== caret) return;
        pending = false;
        found = answer.found;
        if (!found.length) { close(); return; }
        const wanted = early;
        early = false;
        show(target);
        if (wanted) take(0);
      } catch { /* asked anew by the next key; a server that is gone is told by the page */ }
    }, ASK_AFTER);
  }

  function show(target) {
    if (!list) makeList();
    area = target;
    start = target.selectionStart - found[0].before;
    rest = target.value.length - target.selectionStart;
    list.replaceChildren(...found.map((one, index) => make("li", { role: "option", id: `prompt_completion_${index}`, class: "notranslate", "aria-selected": "false" }, one.label)));
    list.hidden = false;
    target.setAttribute("aria-autocomplete", "list");
    target.setAttribute("aria-controls", list.id);
    status.textContent = "Completions are there: arrows choose, Enter takes one.";
    at = 0;
    mark(0);
    place();
  }

  function mark(to) {
    list.children[at]?.setAttribute("aria-selected", "false");
    at = (to + found.length) % found.length;
    const option = list.children[at];
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    area.setAttribute("aria-activedescendant", option.id);
  }

  // Where the caret is: a copy of the text with the same shape, and a mark in it.
  function caretBox() {
    let copy = byId("prompt_caret");
    if (!copy) {
      copy = make("div", { id: "prompt_caret", "aria-hidden": "true" });
      document.body.append(copy);
    }
    const shape = getComputedStyle(area);
    for (const name of ["fontFamily", "fontSize", "fontWeight", "fontStyle", "letterSpacing", "lineHeight", "padding", "border", "boxSizing", "textIndent", "tabSize", "direction"]) {
      copy.style[name] = shape[name];
    }
    copy.style.width = `${area.clientWidth + parseFloat(shape.borderLeftWidth) + parseFloat(shape.borderRightWidth)}px`;
    const sign = make("span", {}, "\u200b");
    copy.replaceChildren(area.value.slice(0, area.selectionStart), sign);
    const box = area.getBoundingClientRect();
    const top = box.top + sign.offsetTop - area.scrollTop;
    return { left: box.left + sign.offsetLeft, top: Math.max(box.top, top), bottom: Math.min(box.bottom, top + sign.offsetHeight) };
  }

  function place() {
    const caret = caretBox();
    const [width, height] = [list.offsetWidth, list.offsetHeight];
    const below = caret.bottom + 4;
    const above = caret.top - height - 4;
    list.style.left = `${Math.max(8, Math.min(caret.left, window.innerWidth - width - 8))}px`;
    list.style.top = `${below + height <= window.innerHeight - 8 || above < 8 ? below : above}px`;
  }

  let taking = false;

  function take(index) {
    const one = found[index];
    const target = area;
    const end = target.selectionStart + one.after;
    close();
    target.focus();
    target.setSelectionRange(start, end);
    taking = true;
    // As if it were typed, so that Ctrl+Z takes it back.
    if (!document.execCommand("insertText", false, one.insert)) {
      target.setRangeText(one.insert, start, end, "end");
      target.dispatchEvent(new Event("input", { bubbles: true }));
    }
    taking = false;
  }
  function onKey(event) {
    if (!open() || event.target !== area || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const accept = () => { if (pending) early = true; else take(at); };
    const acts = {
      ArrowDown: () => mark(at + 1), ArrowUp: () => mark(at - 1), Enter: accept, Tab: accept, Escape: close,
    };
    if (!acts[event.key] || event.shiftKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    acts[event.key]();
  }

  window.addEventListener("keydown", onKey, true); // before the page's own keys, which hear it on the document
  document.addEventListener("input", (event) => {
    if (!taking && event.target instanceof Element && event.target.matches(PROMPTS)) offer(event.target);
  });
  document.addEventListener("selectionchange", () => { // typing moves the caret too, but leaves what is behind it
    if (!open() || document.activeElement !== area || area.value.length - area.selectionStart === rest) return;
    close();
    offer(area);
  });
  document.addEventListener("focusout", (event) => { if (event.target === area) close(); });
  window.addEventListener("resize", close);
  window.addEventListener("scroll", (event) => { if (open() && event.target !== list && event.target !== area) place(); }, { passive: true, capture: true });

  // ---- what the prompt becomes -----------------------------------------------------------------------------------
  const SHOW_AFTER = 300; // milliseconds after a change
  const view = { made: false, index: 0, draw: Math.floor(Math.random() * 2 ** 31), timer: 0, asking: null };

  function settings() {
    if (window.easel.current) return window.easel.current;
    try { return JSON.parse(window.easel.session() || "{}"); } catch { return {}; }
  }

  const body = () => byId("becomes")?.querySelector(".body");

  function frame() {
    const button = (name, words, press) => {
      const made = make("button", { type: "button", class: name }, words);
      made.addEventListener("click", press);
      return made;
    };
    const turn = (by) => () => { view.index += by; explain(); };
    const choose = (made) => () => { view.made = made; view.index = 0; explain(); };
    body().append(
      make("div", { class: "which" },
        button("now", "Next pictures", choose(false)), button("made", "Latest picture", choose(true)),
        button("previous", "‹", turn(-1)), button("next", "›", turn(1)),
        button("again", "Draw again", () => { view.draw = Math.floor(Math.random() * 2 ** 31); explain(); }),
        make("span", { class: "facts" })),
      make("p", { class: "facts chance", hidden: true }, "The seed is random: this is one of many possibilities."),
      make("div", { class: "found", role: "region", "aria-label": "What the prompt becomes", tabindex: "0" }));
    body().querySelector(".previous").setAttribute("aria-label", "Previous picture");
    body().querySelector(".next").setAttribute("aria-label", "Next picture");
  }

  const latest = () => {
    const shot = document.querySelector("#final_gallery a.shot");
    return shot && shot.getAttribute("href").replace("easel/pictures/", "easel/prompt/made/");
  };

  function explain(after = 0) {
    if (!byId("becomes")?.open) return;
    if (!body().firstElementChild) frame();
    clearTimeout(view.timer);
    view.timer = setTimeout(async () => {
      view.asking?.abort();
      view.asking = new AbortController();
      const picture = latest();
      if (view.made && !picture) view.made = false;
      view.index = Math.max(0, view.index);
      try {
        tell(await ask(view.made ? picture : "easel/prompt/becomes",
          view.made ? undefined : { settings: settings(), index: view.index, draw: view.draw }, view.asking.signal), picture);
      } catch (problem) {
        if (problem.name !== "AbortError") tell({ problem: problem.message }, picture);
      }
    }, after);
  }

  const section = (title, content) => make("section", {}, make("h3", {}, title), content);

  function origin(source) { // the prompt, one of its further lines, or a style
    const line = source.match(/^line (\d+)$/);
    if (line) return make("span", { class: "source" }, `Line ${line[1]}`);
    return source === "prompt" ? make("span", { class: "source" }, "Prompt") : make("span", { class: "source notranslate" }, source);
  }

  function texts(side, continued) { // `continued`: one more text, of the expansion model
    const line = (source, text) => make("li", {}, source, make("span", { class: "words notranslate" }, text));
    return make("ol", { class: "texts" }, ...side.map(({ text, source }) => line(origin(source), text)),
      ...(continued ? [line(make("span", { class: "source" }, "Continued prompt"), continued)] : []));
  }

  function pairs(entries) {
    return make("ul", { class: "pairs notranslate" }, ...entries.map(([written, became]) => make("li", {},
      make("code", {}, written), make("span", { "aria-hidden": "true" }, "→"), make("span", {}, became))));
  }

  function tell(told, picture) {
    const part = (name) => body().querySelector(name);
    const images = told.images || 1;
    view.index = told.index ?? view.index;
    part(".now").setAttribute("aria-pressed", String(!view.made));
    part(".made").setAttribute("aria-pressed", String(view.made));
    part(".made").disabled = !picture;
    const drawn = Boolean(told.chance && (told.foretold || told.choices.some(({ written }) => written.startsWith("__")) || settings().styles?.includes("Random Style")));
    part(".chance").hidden = part(".again").hidden = view.made || !drawn;
    for (const name of [".previous", ".next"]) part(name).hidden = view.made || images < 2;
    part(".previous").disabled = view.index === 0;
    part(".next").disabled = view.index >= images - 1;
    part(".which .facts").textContent = images > 1 && !view.made ? `${view.index + 1} / ${images}` : "";
    if (told.problem) {
      part(".found").replaceChildren(make("div", { class: "problem", role: "alert" }, told.problem));
      return;
    }
    const parts = [];
    if (told.notices.length) parts.push(make("ul", { class: "notices" }, ...told.notices.map((words) => make("li", {}, words))));
    parts.push(section("The texts", texts(told.positive, told.continued)));
    if (told.expansion && !told.continued) {
      parts.push(make("p", {}, view.made ? "What the expansion model added is not kept in this picture."
        : "What the expansion model adds is drawn when the picture is made."));
    }
    if (told.negative.length) parts.push(section("Against", texts(told.negative)));
    if (told.choices.length) parts.push(section("What was drawn", pairs(told.choices.map(({ written, became }) => [written, became]))));
    if (told.loras.length) parts.push(section("LoRAs", pairs(told.loras.map(({ name, weight }) => [name, String(weight)]))));
    if (told.combinations > 1) {
      parts.push(make("p", { class: "facts" }, make("span", {}, "Different prompts that the arrays make:"), " ", make("span", {}, String(told.combinations))));
    }
    const kept = part(".found").scrollTop;
    part(".found").replaceChildren(...parts);
    part(".found").scrollTop = kept;
  }

  document.addEventListener("toggle", (event) => { if (event.target.id === "becomes") explain(); }, true);
  document.addEventListener("easel:settings", () => { if (!view.made) explain(SHOW_AFTER); });

  // A picture that has just been made is shown in the panel, if that is what it shows.
  let newest = null;
  function watchGallery() {
    new MutationObserver(() => {
      const now = latest();
      if (now === newest) return;
      newest = now;
      explain();
    }).observe(document.body, { childList: true, subtree: true });
  }
  if (document.body) watchGallery();
  else document.addEventListener("DOMContentLoaded", watchGallery);
})();
