// The playground: asks /v1 as any app does, with a short-lived key for the chosen token.
"use strict";
(() => {
  const root = document.getElementById("playground");
  const words = document.getElementById("pg-words").dataset;
  const at = (id) => document.getElementById("pg-" + id);
  const log = at("log");
  const history = [];
  let asked = [];  // the messages of the last request
  const LARGEST = 10 * 1024 * 1024;
  let key = null;
  let running = null;
  let language = "curl";

  // -- the key ------------------------------------------------------------------------------------------------------

  const currentKey = async () => {
    const token = at("token").value;
    if (key && key.token === token && key.until - 30 > Date.now() / 1000) return key.value;
    const form = new FormData();
    form.set("token", token);
    const answer = await fetch(root.dataset.key, {
      method: "POST",
      body: form,
      headers: { "X-CSRFToken": at("settings").elements.csrfmiddlewaretoken.value },
    });
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(found.error || answer.status + " " + answer.statusText);
    key = { token, value: found.key, until: found.until };
    return key.value;
  };

  // -- what is sent -------------------------------------------------------------------------------------------------

  const path = () => (at("mode").value === "image" ? "/images/generations" : "/chat/completions");

  const body = (messages) => {
    if (at("mode").value === "image") {
      const last = [...messages].reverse().find((message) => message.role === "user");
      const text = last
        ? typeof last.content === "string"
          ? last.content
          : last.content.find((part) => part.type === "text").text
        : at("text").value;
      return { model: at("model").value, prompt: text };
    }
    const found = { model: at("model").value, messages: [] };
    if (at("system").value.trim()) found.messages.push({ role: "system", content: at("system").value.trim() });
    found.messages.push(...messages);
    if (at("temperature").value) found.temperature = Number(at("temperature").value);
    if (at("max").value) found.max_completion_tokens = Number(at("max").value);
    found.stream = true;
    return found;
  };

  const shortened = (value) =>
    JSON.parse(
      JSON.stringify(value, (name, part) =>
        typeof part === "string" && part.startsWith("data:image") ? part.slice(0, 30) + "…" : part,
      ),
    );

  const code = () => {
    const text = at("text").value.trim();
    const messages = running || !text ? asked : [...history, { role: "user", content: text }];
    const sent = shortened(body(messages.length ? messages : [{ role: "user", content: "Hello!" }]));
    const base = root.dataset.base;
    if (language === "curl") {
      const json = JSON.stringify(sent, null, 2).replaceAll("'", "'\\''");
      const headers = ["Authorization: Bearer sk-…", "Content-Type: application/json"];
      const options = [...headers.map((header) => `-H '${header}'`), `-d '${json}'`];
      at("code").textContent = [`curl -N ${base}${path()}`, ...options].join(" \\\n  ");
      return;
    }
    const image = at("mode").value === "image";
    if (language === "python") {
      const python = (value, indent) =>
        JSON.stringify(value, null, 4)
          .replaceAll("\n", "\n" + indent)
          .replace(/\btrue\b/g, "True")
          .replace(/\bfalse\b/g, "False")
          .replace(/\bnull\b/g, "None");
      const lines = Object.entries(sent)
        .map(
          ([name, value]) =>
            `    ${name}=${typeof value === "string" ? JSON.stringify(value) : python(value, "    ")},`,
        )
        .join("\n");
      const call = image ? "answer = client.images.generate" : "stream = client.chat.completions.create";
      const rest = image
        ? "print(answer.data[0])"
        : "for chunk in stream:\n    if chunk.choices:\n" +
          '        print(chunk.choices[0].delta.content or "", end="")';
      const client = `client = OpenAI(base_url="${base}", api_key="sk-…")`;
      const start = `# pip install openai\nfrom openai import OpenAI\n\n${client}\n`;
      at("code").textContent = `${start}${call}(\n${lines}\n)\n${rest}\n`;
      return;
    }
    const call = image
      ? "const answer = await client.images.generate"
      : "const stream = await client.chat.completions.create";
    const rest = image
      ? "console.log(answer.data[0]);"
      : 'for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");';
    const client = `const client = new OpenAI({ baseURL: "${base}", apiKey: "sk-…" });`;
    const start = `// npm install openai\nimport OpenAI from "openai";\n\n${client}\n`;
    at("code").textContent = `${start}${call}(${JSON.stringify(sent, null, 2)});\n${rest}\n`;
  };

  // -- what is shown ------------------------------------------------------------------------------------------------

  const turn = (who, kind) => {
    at("hint")?.remove();
    const article = document.createElement("article");
    article.className = "turn " + kind;
    const head = document.createElement("h3");
    head.textContent = who;
    const text = document.createElement("p");
    text.className = "text";
    const meta = document.createElement("p");
    meta.className = "meta dim";
    article.append(head, text, meta);
    log.append(article);
    log.scrollTop = log.scrollHeight;
    return { article, text, meta };
  };

  const picture = (place, source) => {
    if (source.startsWith("data:")) {
      const image = document.createElement("img");
      image.src = source;
      image.alt = words.picture;
      place.article.insertBefore(image, place.meta);
    } else {
      const link = document.createElement("a");
      link.href = source;
      link.rel = "noreferrer";
      link.target = "_blank";
      link.textContent = words.open;
      place.article.insertBefore(link, place.meta);
    }
  };

  const account = async (place, id, first) => {
    if (!id) return;
    const parts = first === null ? [] : [words.first.replace("%(ms)s", Math.round(first).toLocaleString())];
    try {
      const answer = await fetch(root.dataset.base.replace(/^https?:\/\/[^/]+/, "") + "/usage/" + id, {
        headers: { authorization: "Bearer " + (await currentKey()) },
      });
      if (answer.ok) {
        const receipt = await answer.json();
        parts.push(
          words.tokens
            .replace("%(in)s", receipt.usage.input.toLocaleString())
            .replace("%(out)s", receipt.usage.output.toLocaleString()),
          words.cost.replace("%(usd)s", "$" + receipt.cost_usd),
        );
      }
    } catch { /* the receipt is still behind the link */ }
    const link = document.createElement("a");
    link.href = root.dataset.receipts + id + "/";
    link.textContent = words.receipt;
    place.meta.replaceChildren(parts.join(" · ") + (parts.length ? " · " : ""), link);
  };

  // -- asking -------------------------------------------------------------------------------------------------------

  const events = async function* (answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const lines = rest.split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines)
        if (line.startsWith("data:") && line.slice(5).trim() !== "[DONE]") yield JSON.parse(line.slice(5));
    }
  };

  const read = (file) => new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });

  const ask = async () => {
    const text = at("text").value.trim();
    const file = at("image").files[0];
    if (!text) return;
    if (file && file.size > LARGEST) { turn(words.model, "failed").text.textContent = words.large; return; }
    const mine = turn(words.you, "user");
    mine.text.textContent = text;
    let content = text;
    if (file && at("mode").value === "chat") {
      const url = await read(file);
      content = [{ type: "text", text }, { type: "image_url", image_url: { url } }];
      picture(mine, url);
    }
    history.push({ role: "user", content });
    asked = [...history];
    at("text").value = "";
    at("image").value = "";
    const place = turn(at("model").value, "answer");
    place.meta.textContent = words.thinking;
    running = new AbortController();
    at("send").disabled = true;
    at("stop").hidden = false;
    code();
    const began = performance.now();
    let id = null;
    let said = "";
    let first = null;
    try {
      const answer = await fetch(root.dataset.base.replace(/^https?:\/\/[^/]+/, "") + path(), {
        method: "POST", signal: running.signal, body: JSON.stringify(body(history)),
        headers: { authorization: "Bearer " + (await currentKey()), "content-type": "application/json" },
      });
      id = answer.headers.get("x-request-id");
      if (!answer.ok) {
        const found = await answer.json().catch(() => ({}));
        throw new Error(found.error?.message || answer.status + " " + answer.statusText);
      }
      if ((answer.headers.get("content-type") || "").includes("event-stream")) {
        for await (const event of events(answer)) {
          if (event.error) throw new Error(event.error.message);
          const delta = event.choices?.[0]?.delta ?? {};
          if (first === null && (delta.content || delta.reasoning_content)) first = performance.now() - began;
          if (delta.content) {
            if (!said) place.meta.textContent = "";  // it waits for nothing any more
            said += delta.content;
            place.text.textContent = said;
            log.scrollTop = log.scrollHeight;
          }
        }
        history.push({ role: "assistant", content: said });
      } else {
        const found = await answer.json();
        for (const made of found.data ?? [])
          picture(place, made.b64_json ? "data:image/png;base64," + made.b64_json : made.url);
        if (found.choices) {
          said = found.choices[0].message.content || "";
          place.text.textContent = said;
          history.push({ role: "assistant", content: said });
        } else history.pop();
      }
      place.meta.textContent = "";
    } catch (error) {
      history.pop();
      place.meta.textContent = "";
      if (error.name === "AbortError") {
        place.meta.textContent = words.stopped;
      } else {
        place.article.classList.add("failed");
        const why = words.failed + (error instanceof TypeError ? words.offline : error.message);
        place.text.textContent = said ? said + "\n\n" + why : why;  // what was delivered is charged
      }
    }
    running = null;
    at("send").disabled = false;
    at("stop").hidden = true;
    await account(place, id, first);
    log.scrollTop = log.scrollHeight;
    code();
    at("text").focus();
  };

  at("ask").addEventListener("submit", (event) => { event.preventDefault(); if (!running) ask(); });
  at("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      at("ask").requestSubmit();
    }
  });
  at("settings").addEventListener("submit", (event) => event.preventDefault());
  at("stop").addEventListener("click", () => running?.abort());
  at("clear").addEventListener("click", () => {
    running?.abort();
    history.length = 0;
    asked = [];
    log.replaceChildren();
    code();
    at("text").focus();
  });

  // Only the models that the chosen token can call.
  const offer = () => {
    const purpose = at("token").selectedOptions[0]?.dataset.purpose || "";
    const models = [...at("model").options];
    for (const option of models) {
      const fits = !purpose || (purpose === "images") === (option.dataset.images === "1");
      option.disabled = option.hidden = !fits;
    }
    if (at("model").selectedOptions[0]?.disabled) {
      const first = models.find((option) => !option.disabled);
      if (first) first.selected = true;
    }
    fit();
  };

  const fit = () => {
    const images = at("model").selectedOptions[0]?.dataset.images === "1";
    at("mode").value = images ? "image" : "chat";
    at("images").hidden = at("mode").value === "image";
    code();
  };
  at("model").addEventListener("change", fit);
  at("token").addEventListener("change", offer);
  for (const field of ["mode", "system", "temperature", "max", "text"])
    at(field).addEventListener("input", () => {
      at("images").hidden = at("mode").value === "image";
      code();
    });

  const tabs = [...document.querySelectorAll("[data-code]")];
  const choose = (tab) => {
    for (const other of tabs) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
    }
    document.getElementById("pg-panel").setAttribute("aria-labelledby", tab.id);
    language = tab.dataset.code;
    code();
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      choose(next);
      next.focus();
    });
  });
  offer();
})();
