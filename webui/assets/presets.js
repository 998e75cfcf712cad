// What a preset made of the present settings would hold: shown anew after each change while its group is open.
(() => {
  "use strict";

  const QUIET = 300; // milliseconds without a change
  let waiting = 0;

  document.addEventListener("easel:settings", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      if (document.querySelector("#preset_keeping .label-wrap.open")) document.getElementById("preset_compare")?.click();
    }, QUIET);
  });
})();
