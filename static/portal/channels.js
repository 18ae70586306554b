// How channels stand, live over a websocket, asked for every few seconds where websockets are blocked.
"use strict";
(() => {
  const list = document.getElementById("live-channels");
  const said = document.getElementById("live-state");
  if (!list) return;
  const words = JSON.parse(list.dataset.words);
  let wait = 1000;
  let failures = 0;

  const show = (channels) => {
    for (const channel of channels) {
      const line = document.querySelector(`[data-channel="${channel.id}"]`);
      if (!line) continue;
      const state = line.querySelector(".ar-state");
      if (state.textContent !== channel.word) {
        state.className = "ar-state " + channel.state;
        state.textContent = channel.word;
      }
      const text = line.querySelector(".text");
      if (!text) state.title = channel.text;
      else if (text.textContent !== channel.text) text.textContent = channel.text;
    }
  };

  const poll = async () => {
    said.textContent = words.polling;
    try {
      const answer = await fetch(list.dataset.poll, { headers: { accept: "application/json" } });
      if (answer.status === 403) return;
      if (answer.ok) show((await answer.json()).channels);
    } catch { /* the next round tries again */ }
    setTimeout(poll, 4000);
  };

  const open = () => {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + list.dataset.socket);
    socket.onmessage = (event) => {
      wait = 1000;
      failures = 0;
      said.textContent = words.live;
      show(JSON.parse(event.data).channels);
    };
    socket.onclose = (event) => {
      said.textContent = "";
      if (event.code === 4403) return;
      failures += 1;
      if (failures >= 3) { poll(); return; }
      setTimeout(open, wait);
      wait = Math.min(wait * 2, 30000);
    };
  };
  open();
})();
