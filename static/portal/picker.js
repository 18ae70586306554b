// A long list of models to tick: filter by text and kind, tick all that are shown. Without it, the list is the list.
"use strict";
(() => {
  for (const picker of document.querySelectorAll("[data-picker]")) {
    const part = (name) => picker.querySelector(`[data-picker-${name}]`);
    const rows = [...picker.querySelectorAll("li")].map((row) => ({
      row,
      box: row.querySelector("input"),
      text: row.querySelector("code").textContent.toLowerCase(),
    }));
    const count = () => {
      part("count").textContent = part("count").dataset.said
        .replace("%(ticked)s", rows.filter(({ box }) => box.checked).length)
        .replace("%(all)s", rows.length);
    };
    const show = () => {
      const words = part("text").value.toLowerCase().split(/\s+/).filter(Boolean);
      const kind = part("kind").value;
      for (const { row, text } of rows)
        row.hidden = !(words.every((word) => text.includes(word)) && (!kind || row.dataset.kind === kind));
    };
    const tick = (on) => {
      for (const { row, box } of rows) if (!box.disabled && (!on || !row.hidden)) box.checked = on;
      count();
    };
    part("text").addEventListener("input", show);
    part("text").addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
    part("kind").addEventListener("change", show);
    part("all").addEventListener("click", () => tick(true));
    part("none").addEventListener("click", () => tick(false));
    picker.addEventListener("change", count);
    part("tools").hidden = rows.length < 10;
    show();
    count();
  }
})();
