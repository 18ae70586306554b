// The table of running requests: what the websocket says, once a second.
(() => {
  "use strict";
  const rows = document.getElementById("running-rows");
  const state = document.getElementById("running-state");
  const workers = document.getElementById("running-workers");
  const words = rows.closest("table").dataset;
  const none = document.getElementById("running-none");
  const endUrl = rows.closest("table").dataset.end;
  let wait = 1000;

  const cell = (text, right) => {
    const td = document.createElement("td");
    td.className = "px-4 py-2" + (right ? " text-right" : "");
    td.textContent = text;
    return td;
  };

  const line = (row) => {
    const tr = document.createElement("tr");
    tr.className = "border-t border-base-200 dark:border-base-800";
    tr.dataset.id = row.id;
    fill(tr, row);
    return tr;
  };

  const fill = (tr, row) => {
    const link = tr.querySelector("a");
    const cells = [
      cell(row.age, true),
      cell(row.user),
      cell(row.token),
      cell(row.model),
      cell(row.key ? `${row.channel}, ${row.key}` : row.channel),
      cell(row.phase),
      cell(row.input, true),
      cell(row.output, true),
      cell(row.attempts, true),
    ];
    const last = document.createElement("td");
    last.className = "px-4 py-2";
    const a = link || document.createElement("a");
    a.className = "text-red-700 dark:text-red-400";
    a.href = endUrl.replace("req_", row.id);
    a.textContent = words.endWord;
    a.setAttribute("aria-label", `${words.endWord}: ${row.user}, ${row.model}`);
    const focused = document.activeElement === a;
    last.append(a);
    tr.replaceChildren(...cells, last);
    if (focused) a.focus(); // whoever goes through the links by keyboard keeps their place
  };

  const show = (data) => {
    const known = new Map([...rows.querySelectorAll("tr[data-id]")].map((tr) => [tr.dataset.id, tr]));
    const wanted = data.rows.map((row) => {
      const tr = known.get(row.id);
      if (!tr) return line(row);
      fill(tr, row);
      return tr;
    });
    const keep = new Set(wanted);
    for (const tr of [...rows.children]) if (!keep.has(tr)) tr.remove();
    wanted.forEach((tr, index) => {
      if (rows.children[index] !== tr) rows.insertBefore(tr, rows.children[index] || null);
    });
    none.hidden = data.rows.length > 0;
    rows.closest("div").hidden = !none.hidden;
    workers.replaceChildren(
      ...data.workers.map((worker) => {
        const li = document.createElement("li");
        li.className = "bg-base-100 dark:bg-base-800 px-3 py-1 rounded-default";
        const stopping = worker.stopping ? ", " + words.stoppingWord : "";
        const alone = worker.relay_only ? ", " + words.aloneWord : "";
        const crowded = (worker.upstream_waiting ? `, ${words.waitingWord}: ${worker.upstream_waiting}` : "")
          + (worker.upstream_refused ? `, ${words.refusedWord}: ${worker.upstream_refused}` : "");
        const { waiting = 0, refused = 0 } = worker.database || {};
        const database = (waiting ? `, ${words.databaseWaitingWord}: ${waiting}` : "")
          + (refused ? `, ${words.databaseRefusedWord}: ${refused}` : "");
        li.textContent = `${worker.name}: ${worker.running} ${words.runningWord}, ${worker.rss_mib} MiB`
          + crowded + database + alone + stopping;
        return li;
      }),
    );
  };

  const poll = async () => {
    try {
      const answer = await fetch(rows.closest("table").dataset.poll, { headers: { accept: "application/json" } });
      if (answer.status === 403) { state.textContent = words.forbidden; return; }
      if (answer.ok) { state.textContent = words.polling; show(await answer.json()); }
    } catch { state.textContent = words.lost; }
    setTimeout(poll, 3000);
  };

  let failures = 0;
  const open = () => {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/live/running");
    socket.onmessage = (event) => {
      wait = 1000;
      failures = 0;
      state.textContent = words.live;
      show(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      if (event.code === 4403) { state.textContent = words.forbidden; return; }
      state.textContent = words.lost;
      failures += 1;
      if (failures >= 3) { poll(); return; } // websockets are blocked on the way
      setTimeout(open, wait);
      wait = Math.min(wait * 2, 30000);
    };
  };
  open();
})();
