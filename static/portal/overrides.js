// Overrides of channels: rows to fill in, in place of JSON. Without it, the JSON is the field.
"use strict";
(() => {
  const HEADERS = ["set_header", "remove_header"];
  const list = (text) => text.split(",").map((one) => one.trim()).filter(Boolean);
  const shown = (value) => (typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value));
  const meant = (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  };

  const edit = (area) => {
    const words = JSON.parse(area.dataset.overrides);
    const make = (tag, options = {}, ...inside) => {
      const made = Object.assign(document.createElement(tag), options);
      made.append(...inside);
      return made;
    };
    const field = (label, value, placeholder = label) => {
      const input = make("input", { type: "text", value, placeholder, autocomplete: "off", spellcheck: false });
      input.setAttribute("aria-label", label);
      return input;
    };
    const rows = make("ol", { className: "ar-rules" });
    const button = (text, act, quiet = "ar-button quiet") => {
      const made = make("button", { type: "button", className: quiet, textContent: text });
      made.addEventListener("click", act);
      return made;
    };

    const read = (row) => {
      const part = (name) => row.querySelector(`[data-part=${name}]`).value.trim();
      const action = part("do");
      const rule = { do: action, [HEADERS.includes(action) ? "header" : "path"]: part("path") };
      if (action === "rename") rule.to = part("value");
      else if (action === "set_header") rule.value = part("value");
      else if (action === "set" || action === "default") rule.value = meant(part("value"));
      const models = list(part("models"));
      const apis = list(part("apis"));
      if (models.length) rule.models = models;
      if (apis.length) rule.apis = apis;
      return rule;
    };
    const write = () => {
      const rules = [...rows.children].map(read).map((rule) => "  " + JSON.stringify(rule));
      area.value = rules.length ? `[\n${rules.join(",\n")}\n]` : "[]";
      area.dispatchEvent(new Event("change", { bubbles: true }));
    };
    const add = (rule) => {
      const action = make("select", {});
      action.setAttribute("aria-label", words.what);
      for (const [name, text] of Object.entries(words.actions)) action.append(new Option(text, name));
      action.value = rule.do in words.actions ? rule.do : "set";
      const path = field(words.path, rule.path ?? rule.header ?? "");
      const text = rule.value;
      // A text that would be read as something else keeps its quotes.
      const quoted = typeof text === "string" && rule.do !== "set_header" && typeof meant(text) !== "string";
      const value = field(words.value, rule.to ?? (quoted ? JSON.stringify(text) : shown(text)));
      const models = field(words.models, (rule.models ?? []).join(", "), words.every_model);
      const apis = field(words.apis, (rule.apis ?? []).join(", "), words.every_api);
      apis.setAttribute("list", families.id);
      const parts = { do: action, path, value, models, apis };
      for (const [name, part] of Object.entries(parts)) part.dataset.part = name;
      const fit = () => {
        const header = HEADERS.includes(action.value);
        value.hidden = action.value.startsWith("remove");
        value.placeholder = action.value === "rename" ? words.to : words.value;
        value.setAttribute("aria-label", value.placeholder);
        path.placeholder = header ? words.header : words.path;
        path.setAttribute("aria-label", path.placeholder);
      };
      const row = make("li", {}, ...Object.values(parts));
      const up = button("↑", () => {
        if (row.previousElementSibling) row.previousElementSibling.before(row);
        write();
        up.focus();
      });
      up.setAttribute("aria-label", words.up);
      const gone = button("✕", () => {
        (row.nextElementSibling ?? row.previousElementSibling)?.querySelector("select").focus();
        row.remove();
        write();
      });
      gone.setAttribute("aria-label", words.delete);
      row.append(up, gone);
      action.addEventListener("change", fit);
      row.addEventListener("input", write);
      fit();
      rows.append(row);
      return path;
    };

    const families = make("datalist", { id: `${area.id}_families` });
    for (const name of words.families) families.append(new Option(name, name));
    const examples = make("select", {}, new Option(words.examples, ""));
    examples.setAttribute("aria-label", words.examples);
    words.cases.forEach(([label], number) => examples.append(new Option(label, number)));
    examples.addEventListener("change", () => {
      if (examples.value === "") return;
      add(words.cases[examples.value][1]).focus();
      examples.value = "";
      write();
    });
    const tools = make("div", { className: "ar-rule-tools" });
    const fill = () => {
      let rules;
      try {
        rules = JSON.parse(area.value || "[]");
      } catch {
        return false;
      }
      if (!Array.isArray(rules) || !rules.every((rule) => rule && typeof rule === "object" && rule.do in words.actions))
        return false;
      rows.replaceChildren();
      rules.forEach(add);
      return true;
    };
    const show = (asRows) => {
      area.hidden = asRows;
      rows.hidden = !asRows;
      plus.hidden = examples.hidden = !asRows;
      turn.textContent = asRows ? words.json : words.rows;
    };
    const plus = button(words.add, () => add({ do: "set" }).focus());
    const turn = button(words.json, () => {
      if (rows.hidden) show(fill());
      else show(false);
    });
    tools.append(plus, examples, turn);
    area.before(rows);
    area.after(tools, families);
    show(fill());
    document.querySelector("[data-overrides-help]")?.remove();
  };
  const start = () => document.querySelectorAll("textarea[data-overrides]").forEach(edit);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
