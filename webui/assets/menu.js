// The Page menu of the masthead (language, colours, sound, notifications: this browser's own), the list of keys, the end
// of a task made heard and seen, the page's title that tells how far it is, and the keys of the tabs.
(() => {
  "use strict";

  const { closesBeside, language, make, showModal, theme } = window.easel;
  const byId = (id) => document.getElementById(id);
  const SWITCHES = "easel-page"; // { sound, volume, notify }
  const TITLE = document.title || "Easel";
  const KEYS = [
    ["Ctrl Enter", "Generate"],
    ["Esc", "Stop, or close what is open"],
    ["Ctrl ↑ ↓", "In a prompt: more or less weight for the word or the selection"],
    ["← →", "Between the tabs, the tiles of Styles and History, and the pictures in full size"],
    ["Space", "Choose a style, select a picture"],
    ["F", "Mark a style or a picture as a favourite"],
    ["/", "Search the styles"],
    ["Delete", "Throw a picture of the history away"],
    ["Ctrl Z", "Undo throwing away"],
    ["?", "This list"],
  ];

  // ---- what this browser has switched on ------------------------------------------------------------------------
  function switches() {
    const usual = { sound: false, volume: 0.5, notify: false };
    try { return { ...usual, ...JSON.parse(localStorage.getItem(SWITCHES) || "{}") }; } catch { return usual; }
  }

  function keep(changes) {
    try { localStorage.setItem(SWITCHES, JSON.stringify({ ...switches(), ...changes })); } catch { /* private window */ }
  }

  // ---- the menu -------------------------------------------------------------------------------------------------
  function field(label, control) {
    return make("label", {}, make("span", {}, label), control);
  }

  function languages() {
    const list = make("select", { id: "page_language", change: () => language.choose(list.value) },
      make("option", { value: "auto" }, "As the browser prefers"),
      ...Object.entries(language.menu).map(([code, name]) => make("option", { value: code, lang: code, class: "notranslate" }, name)));
    list.value = language.choice();
    return field("Language", list);
  }

  function colours() {
    const names = { auto: "As the browser prefers", light: "Light", dark: "Dark" };
    const list = make("select", { id: "page_theme", change: () => theme.choose(list.value) },
      ...Object.entries(names).map(([value, words]) => make("option", { value }, words)));
    list.value = theme.choice();
    return field("Colours", list);
  }

  function sound() {
    const on = make("input", { type: "checkbox", id: "page_sound", change: () => {
      keep({ sound: on.checked });
      volume.disabled = !on.checked;
      if (on.checked) chime();
    } });
    const volume = make("input", { type: "range", min: 0.05, max: 1, step: 0.05, "aria-label": "Volume", change: () => {
      keep({ volume: Number(volume.value) });
      chime();
    } });
    on.checked = switches().sound;
    volume.value = switches().volume;
    volume.disabled = !on.checked;
    return make("div", { class: "switch" }, make("label", {}, on, make("span", {}, "Sound when a task ends")), volume);
  }

  function notifications() {
    const told = make("p", { class: "note", role: "status" });
    const on = make("input", { type: "checkbox", id: "page_notify", change: async () => {
      told.textContent = "";
      if (on.checked && Notification.permission !== "granted") on.checked = await Notification.requestPermission() === "granted";
      keep({ notify: on.checked });
      if (Notification.permission === "denied") told.textContent = "This browser does not let the page notify you. Its settings for this page can allow it.";
    } });
    on.checked = switches().notify && window.Notification?.permission === "granted";
    on.disabled = !window.Notification;
    return make("div", { class: "switch" }, make("label", {}, on, make("span", {}, "Notification when a task ends and the page is hidden")), told);
  }

  function openMenu() {
    const menu = byId("page_menu");
    menu.replaceChildren(languages(), colours(), sound(), notifications(),
      make("button", { type: "button", class: "plain", click: showKeys }, "Keys"));
    menu.hidden = false;
    byId("page_menu_button").setAttribute("aria-expanded", "true");
    menu.querySelector("select").focus();
  }

  function closeMenu(back) {
    const menu = byId("page_menu");
    if (!menu || menu.hidden) return;
    menu.hidden = true;
    byId("page_menu_button").setAttribute("aria-expanded", "false");
    if (back) byId("page_menu_button").focus();
  }

  // ---- the list of keys -----------------------------------------------------------------------------------------
  function showKeys() {
    closeMenu(false);
    const rows = KEYS.map(([keys, words]) => make("tr", {},
      make("th", { scope: "row", class: "notranslate" }, ...keys.split(" ").map((key) => make("kbd", {}, key))), make("td", {}, words)));
    const shut = make("button", { type: "button", class: "plain", click: () => dialog.close() }, "Close");
    const dialog = make("dialog", { id: "keys", "aria-labelledby": "keys_title", close: () => {
      dialog.remove();
      byId("page_menu_button")?.focus();
    } }, make("h2", { id: "keys_title" }, "Keys"), make("table", {}, make("tbody", {}, ...rows)), shut);
    closesBeside(dialog);
    document.body.append(dialog);
    showModal(dialog);
  }

  // ---- the end of a task ----------------------------------------------------------------------------------------
  let audio = null;

  /** Two soft notes, made here: there is no file to load. */
  function chime() {
    audio = audio || new AudioContext();
    audio.resume();
    const loudness = switches().volume;
    [[659.26, 0], [987.77, 0.16]].forEach(([pitch, after]) => { // hertz, seconds
      const [note, strength] = [audio.createOscillator(), audio.createGain()];
      const start = audio.currentTime + 0.02 + after;
      note.frequency.value = pitch;
      strength.gain.setValueAtTime(0, start);
      strength.gain.linearRampToValueAtTime(0.3 * loudness, start + 0.015);
      strength.gain.exponentialRampToValueAtTime(0.0001, start + 0.7);
      note.connect(strength).connect(audio.destination);
      note.start(start);
      note.stop(start + 0.75);
    });
  }

  function notice() {
    try {
      const note = new Notification(TITLE, { body: language.say("A task has ended."), tag: "easel" });
      note.addEventListener("click", () => { window.focus(); note.close(); });
    } catch { /* Chrome on Android lets no page make one */ }
  }

  function ended() {
    const { sound: heard, notify } = switches();
    if (document.hidden) unseen = true;
    if (heard) chime();
    if (notify && document.hidden && window.Notification?.permission === "granted") notice();
  }

  let running = "";   // id of the task that runs
  let unseen = false; // something ended while nobody looked

  function follow() {
    const bar = document.querySelector("#progress-bar [role=progressbar]");
    const before = running;
    running = bar?.matches(".running") ? bar.dataset.task : "";
    if (before && running !== before && !document.querySelector('#progress-bar [data-end="stopped"]')) ended();
    const title = bar ? `${bar.getAttribute("aria-valuenow")} % · ${TITLE}` : unseen ? `✓ ${TITLE}` : TITLE;
    if (document.title !== title) document.title = title;
  }

  // ---- events ---------------------------------------------------------------------------------------------------
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (target?.closest("#page_menu_button")) {
      if (byId("page_menu").hidden) openMenu();
      else closeMenu(true);
    } else if (!target?.closest("#page_menu")) {
      closeMenu(false);
    }
    if (target?.closest("a.skip")) {
      event.preventDefault();
      document.querySelector("#positive_prompt textarea")?.focus();
    }
  });

  function nextTab(event) {
    const tabs = [...event.target.closest("[role=tablist]").querySelectorAll("[role=tab]")].filter((tab) => tab.offsetParent);
    const at = tabs.indexOf(event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const tab = tabs[(to + tabs.length) % tabs.length];
    tab.click();
    tab.focus();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.target instanceof Element)) return;
    if (event.key === "Escape") closeMenu(true);
    else if (event.target.getAttribute("role") === "tab") nextTab(event);
    if (event.key !== "?" || document.querySelector("dialog[open]")) return;
    if (event.target.closest("textarea, select, [contenteditable], input:not([type=checkbox], [type=radio], [type=range])")) return;
    event.preventDefault();
    showKeys();
  });

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    unseen = false;
    follow();
  });

  function begin() {
    new MutationObserver(follow).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-valuenow"] });
  }
  if (document.body) begin();
  else document.addEventListener("DOMContentLoaded", begin);
})();
