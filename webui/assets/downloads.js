// Downloads of model files: the boxes of what a chosen mode or refiner lacks, and how a download goes, under the
// masthead, so that it is seen from every tab and after a reload. The boxes' HTML is made by webui/needs_box.py.
(() => {
  "use strict";

  const { fetch, make } = window.easel;
  const byId = (id) => document.getElementById(id);
  const CONTROLS = ["performance", "refiner_model"]; // whose choice may need a file
  const EVERY = 1000; // milliseconds between two looks at a download
  const amount = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${Math.round(bytes / 1e6)} MB`);

  // ---- what is lacking ------------------------------------------------------------------------------------------
  let asked = "";

  /** Show what the chosen mode and refiner lack, each below its list. `again`: even if neither has changed. */
  async function showNeeds(again = false) {
    const current = window.easel.current;
    if (!current) return;
    const chosen = new URLSearchParams(CONTROLS.map((name) => [name, current[name] || ""])).toString();
    if (chosen === asked && !again) return;
    asked = chosen;
    let boxes = {};
    try {
      const answer = await fetch(`easel/needs?${chosen}`, { cache: "no-store" });
      if (answer.ok) boxes = await answer.json();
    } catch { /* the page tells when the server is gone */ }
    if (chosen === asked) CONTROLS.forEach((name) => showBox(name, boxes[name] || ""));
  }

  function showBox(name, html) {
    let box = byId(`${name}_needs`);
    if (!box && html) {
      box = make("div", { id: `${name}_needs`, class: "needs-box", role: "status" });
      byId(name)?.after(box);
    }
    if (box && box.innerHTML !== html) box.innerHTML = html; // made and escaped by the server
    if (box) box.hidden = !html;
  }

  // ---- how a download goes --------------------------------------------------------------------------------------
  const UNASKED = { busy: false, problem: "Easel did not answer. Press again in a moment." };
  let next = 0;

  /** How the download stands; null if nobody can tell just now. */
  async function look() {
    clearTimeout(next);
    try {
      const answer = await fetch("easel/downloads", { cache: "no-store" });
      return answer.ok ? await answer.json() : null;
    } catch {
      return null;
    }
  }

  async function send(wanted) {
    clearTimeout(next);
    next = 0; // an answer that is on its way comes too late
    try {
      const answer = await fetch("easel/downloads", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(wanted) });
      const told = await answer.json();
      return answer.ok ? told : { busy: false, problem: told.error || UNASKED.problem };
    } catch {
      next = setTimeout(pickUp, 3 * EVERY); // what ran before runs on
      return UNASKED;
    }
  }

  async function pickUp() {
    const now = await look();
    if (now?.busy) follow(now);
  }

  function follow(now) {
    if (now) show(now);
    if (!now || now.busy) {
      clearTimeout(next);
      const mine = setTimeout(async () => {
        const then = await look();
        if (mine === next) follow(then);
      }, now ? EVERY : 3 * EVERY);
      next = mine;
    } else if (now.done || now.came) {
      showNeeds(true);
      document.dispatchEvent(new Event("easel:files"));
      byId("preset_again")?.click(); // does something only if the chosen preset lacked one of them
    }
  }

  /** Ask the servers how large the files are that the button is for: its box comes back with what they say. */
  async function askSizes(button) {
    const box = button.closest(".needs-box");
    button.disabled = true;
    try {
      const answer = await fetch("easel/sizes", { method: "POST", headers: { "Content-Type": "application/json" }, body: button.dataset.fetch });
      const told = await answer.json();
      if (told.box === undefined) {
        show({ busy: false, problem: told.problem || told.error });
      } else {
        box.innerHTML = told.box; // made and escaped by the server
        box.querySelector("[data-fetch]")?.focus();
      }
    } catch {
      show(UNASKED);
    }
    button.disabled = false;
  }

  async function start(button) {
    follow(await send(JSON.parse(button.dataset.fetch)));
  }

  function place() {
    let strip = byId("download");
    if (!strip) {
      const bar = make("progress", { max: 1, "aria-label": "Download" });
      strip = make("div", { id: "download", role: "group", "aria-label": "Download" },
        make("p", { role: "status" }), make("span", { class: "doing", role: "status" }), make("span", { class: "amount" }), bar,
        make("button", { type: "button", class: "plain stop", click: async () => follow(await send({})) }, "Stop"),
        make("button", { type: "button", class: "plain shut", click: () => strip.remove() }, "Close"));
      document.querySelector("header.masthead").after(strip);
    }
    return strip;
  }

  function show(now) {
    const strip = place();
    const part = (name) => strip.querySelector(name);
    const words = now.problem || (now.done ? "Everything is there." : now.name || "");
    if (part("p").textContent !== words) part("p").textContent = words; // only what is new is read aloud
    const [doing] = (now.busy && now.text || "").split(":"); // behind it is the reason
    if (part(".doing").textContent !== doing) part(".doing").textContent = doing;
    part(".doing").title = doing ? now.text : "";
    const facts = [now.total ? `${amount(now.bytes)} / ${amount(now.total)}` : "", now.speed ? `${amount(now.speed)}/s` : ""];
    part(".amount").textContent = now.busy ? facts.filter(Boolean).join(" · ") : "";
    if (typeof now.share === "number") part("progress").value = now.share;
    else part("progress").removeAttribute("value");
    part("progress").hidden = part(".stop").hidden = !now.busy;
    part(".shut").hidden = now.busy;
  }

  // ---- events ---------------------------------------------------------------------------------------------------
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const button = target?.closest("[data-fetch]");
    if (button) (button.hasAttribute("data-ask") ? askSizes : start)(button);
    else if (target?.closest("#refresh_models")) showNeeds(true);
  });
  document.addEventListener("easel:settings", () => showNeeds());

  // A download that runs already, perhaps since before a reload. The masthead comes later than this script, and never on
  // the page that asks for a password.
  const arriving = new MutationObserver(() => {
    if (!document.querySelector("header.masthead")) return;
    arriving.disconnect();
    pickUp();
  });
  arriving.observe(document.documentElement, { childList: true, subtree: true });
})();
