// Shows how far the checks of the installation are, and what they found as soon as they are done.
"use strict";
(() => {
  const note = document.getElementById("doctor-running");
  const stage = note.querySelector("[data-stage]");
  const done = note.querySelector("[data-done]");
  const look = async () => {
    try {
      const answer = await fetch("?now=1", { headers: { accept: "application/json" } });
      if (answer.status === 403) return;
      if (answer.ok) {
        const now = await answer.json();
        if (!now.running) { location.reload(); return; }
        stage.textContent = now.stage;
        done.textContent = now.done;
      }
    } catch { /* the next round tries again */ }
    setTimeout(look, 1000);
  };
  setTimeout(look, 500);
})();
