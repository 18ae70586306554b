// The browser's time zone, the menu, copy buttons, and usage rows that appear as requests finish.
// The pages work without any of it.
"use strict";

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
if (!document.cookie.includes("airelays_zone=" + encodeURIComponent(zone))) {
  document.cookie = "airelays_zone=" + encodeURIComponent(zone) + "; path=/; max-age=31536000; samesite=lax";
}

// A form is sent once: a second click while the first is answered does nothing.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "1";
  setTimeout(() => { delete form.dataset.sent; }, 10000);
});
addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

const menu = document.getElementById("menu");
if (menu) {
  const wide = matchMedia("(min-width: 52.01rem)");
  const fit = () => { menu.open = wide.matches; };
  wide.addEventListener("change", fit);
  fit();
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.querySelector(button.dataset.copy);
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = document.body.dataset.copied;
    } catch {
      // No clipboard without TLS: select the text, so that the keyboard can copy it.
      getSelection().selectAllChildren(source);
      button.textContent = document.body.dataset.press;
    }
    setTimeout(() => { button.textContent = said; }, 2000);
  });
}

for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => { if (!confirm(form.dataset.confirm)) event.preventDefault(); });
}

const table = document.querySelector("[data-live]");
if (table) {
  let wait = 1000;
  let newest = 0;
  let failures = 0;

  // The figures, charts and tables above move with the rows: they are asked for again, at most every five seconds.
  let due = null;
  const refresh = async () => {
    due = null;
    const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
    if (!answer?.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-figures]"))
      part.innerHTML = page.getElementById(part.id)?.innerHTML ?? part.innerHTML;
  };

  const show = (rows) => {
    if (rows.length && due === null) due = setTimeout(refresh, newest ? 5000 : 500);
    for (const row of rows) {
      if (row.id <= newest) continue;
      newest = row.id;
      document.querySelector("[data-empty]")?.remove();
      table.closest("[hidden]")?.removeAttribute("hidden");
      const line = table.tBodies[0].insertRow(0);
      line.className = "new";
      line.innerHTML = row.html;
    }
  };

  // Where websockets are blocked on the way, the same rows are asked for every few seconds.
  const poll = async () => {
    try {
      const answer = await fetch(table.dataset.poll + "?after=" + newest, { headers: { accept: "application/json" } });
      if (answer.ok) {
        const found = await answer.json();
        if (newest) show(found.rows);
        newest = Math.max(newest, found.newest);
        table.dataset.state = "polling";
      }
    } catch { /* the next round tries again */ }
    setTimeout(poll, 4000);
  };

  const connect = () => {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + table.dataset.live);
    socket.onopen = () => { wait = 1000; failures = 0; table.dataset.state = "live"; };
    socket.onmessage = (message) => show(JSON.parse(message.data).rows);
    socket.onclose = (event) => {
      delete table.dataset.state;
      if (event.code === 4401) return;
      failures += 1;
      if (failures >= 3 && table.dataset.poll) { poll(); return; }
      setTimeout(connect, wait);
      wait = Math.min(wait * 2, 30000);
    };
  };
  connect();
}

// Passkeys: say why one could not be used; allauth's script only writes it to the console.
document.addEventListener("allauth.error", (event) => {
  const texts = document.getElementById("passkey-texts")?.dataset;
  if (!texts) return;
  event.preventDefault();
  const kinds = {
    NotAllowedError: "cancelled", AbortError: "cancelled", SecurityError: "address", InvalidStateError: "known",
  };
  const note = document.querySelector("#passkey-note") ?? document.createElement("p");
  Object.assign(note, { id: "passkey-note", className: "note error" });
  note.setAttribute("role", "alert");
  note.textContent = texts[kinds[event.detail?.exception?.name] ?? "failed"];
  document.querySelector("main")?.prepend(note);
});
