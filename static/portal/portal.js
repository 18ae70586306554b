// Copy buttons, and usage rows that appear as requests finish. The pages work without either.
"use strict";

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.querySelector(button.dataset.copy);
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // No clipboard without TLS: select the text, so that the keyboard can copy it.
      getSelection().selectAllChildren(source);
      button.textContent = "Press Ctrl-C";
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
  const connect = () => {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + table.dataset.live);
    socket.onopen = () => { wait = 1000; };
    socket.onmessage = (message) => {
      for (const row of JSON.parse(message.data).rows) {
        document.querySelector("[data-empty]")?.remove();
        table.closest("[hidden]")?.removeAttribute("hidden");
        const line = table.tBodies[0].insertRow(0);
        line.className = "new";
        const cells = [row.time, row.model, row.input, row.output, row.cost, row.ms + " ms", row.end + (row.status >= 400 ? " (" + row.status + ")" : ""), row.request_id];
        cells.forEach((text, index) => {
          const cell = line.insertCell();
          cell.textContent = typeof text === "number" ? text.toLocaleString("en") : text;
          if (index > 1 && index < 6) cell.className = "num";
          if (index === 7 && table.dataset.receipts) {
            const link = document.createElement("a");
            link.href = table.dataset.receipts + text + "/";
            link.append(...cell.childNodes);
            cell.append(link);
          }
        });
      }
    };
    socket.onclose = (event) => { if (event.code !== 4401) setTimeout(connect, wait); wait = Math.min(wait * 2, 30000); };
  };
  connect();
}
