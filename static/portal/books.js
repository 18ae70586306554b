// Shows the outcome of a proof of the books as soon as it is there.
"use strict";
(() => {
  const note = document.getElementById("books-running");
  const look = async () => {
    try {
      const answer = await fetch(note.dataset.poll, { headers: { accept: "application/json" } });
      if (answer.ok && !(await answer.json()).running) { location.reload(); return; }
      if (answer.status === 403) return;
    } catch { /* the next round tries again */ }
    setTimeout(look, 2000);
  };
  setTimeout(look, 1000);
})();
