// window.easel, which the page's scripts share: how they make elements (data only ever becomes text), how they ask the server, and
// what they ask of keys and dialogs.
window.easel = {
  // Of the attributes a function is a listener, true is the bare name, and false leaves it out.
  make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name, value);
      else if (value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
  },

  // The browser's own; but where a login has ended the page begins anew, with the login and then with what was set.
  async fetch(path, options) {
    const answer = await window.fetch(path, options);
    if (answer.status !== 401 || !document.querySelector("header.masthead")) return answer; // the page of the login has none
    location.reload();
    return new Promise(() => {}); // nobody has to tell of it
  },

  // Whether the key belongs to a word that an input method is about to write.
  composing: (event) => event.isComposing || event.keyCode === 229,

  // A dialog closes by a press that begins and ends beside it: where a selection of text ends is no reason to.
  closesBeside(dialog) {
    const beside = ({ target, clientX, clientY }) => {
      const box = dialog.getBoundingClientRect();
      return target === dialog && (clientX < box.left || clientX > box.right || clientY < box.top || clientY > box.bottom);
    };
    let pressed = false;
    dialog.addEventListener("pointerdown", (event) => { pressed = beside(event); });
    dialog.addEventListener("click", (event) => { if (pressed && beside(event)) dialog.close(); });
  },
};

// window.easel.showModal(dialog): the browser's Back closes it, too, which on a phone would leave the page. So the history has an
// entry of ours while dialogs are open; one may follow another at once, as when pages are turned.
(() => {
  "use strict";

  let entered = false;
  let leaving = false; // the way back is no matter of now: it is gone when popstate comes
  const isOpen = () => document.querySelector("dialog[open]");

  function enter() {
    if (entered || leaving) return;
    window.history.pushState({ easel: "dialog" }, "");
    entered = true;
  }

  function closed() {
    if (!entered || isOpen()) return;
    entered = false;
    leaving = true;
    window.history.back();
  }

  window.addEventListener("popstate", () => {
    const back = entered;
    entered = leaving = false;
    if (back) document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
    else if (isOpen()) enter(); // it was opened on the way
  });

  window.easel.showModal = (dialog) => {
    dialog.addEventListener("close", closed, { once: true });
    dialog.showModal();
    enter();
  };
})();
