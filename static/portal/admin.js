// Copy buttons of the administration, and the browser's time zone.
"use strict";
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  if (!document.cookie.includes("airelays_zone=" + encodeURIComponent(zone))) document.cookie = "airelays_zone=" + encodeURIComponent(zone) + "; path=/; max-age=31536000; samesite=lax";
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy], [data-copy-text]");
    if (!button) return;
    event.preventDefault();
    const source = button.dataset.copy ? document.querySelector(button.dataset.copy) : null;
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(source ? source.textContent : button.dataset.copyText);
      button.textContent = "✓";
    } catch {
      if (source) getSelection().selectAllChildren(source);
      button.textContent = "Ctrl-C";
    }
    setTimeout(() => { button.textContent = said; }, 1500);
  });
})();
