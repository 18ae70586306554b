// Copy buttons of the administration, and the browser's time zone.
"use strict";
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "";
  if (!document.cookie.includes("airelays_zone=" + encodeURIComponent(zone)))
    document.cookie = "airelays_zone=" + encodeURIComponent(zone) + "; path=/; max-age=31536000; samesite=lax";

  // What the theme leaves without a name for those who do not see: fields within lists, search boxes, hints.
  const name = () => {
    for (const field of document.querySelectorAll("#result_list td input:not([type=hidden]), #result_list td select")) {
      if (field.getAttribute("aria-label") || field.labels?.length) continue;
      const cell = field.closest("td");
      const row = field.closest("tr");
      const what = cell && [...cell.classList].find((one) => one.startsWith("field-"));
      const of = row?.querySelector("th, td a")?.textContent.trim() || "";
      field.setAttribute("aria-label", `${(what || "").slice(6).replaceAll("_", " ")} ${of}`.trim() || field.name);
      field.removeAttribute("aria-describedby");
    }
    for (const field of document.querySelectorAll(".select2-search__field"))
      if (!field.getAttribute("aria-label"))
        field.setAttribute(
          "aria-label",
          field.closest(".field-row, .form-row, div[class*=field-]")?.querySelector("label")?.textContent.trim() ||
            "search",
        );
    for (const box of document.querySelectorAll(".select2-selection[role=combobox]")) {
      const field = box.closest(".select2")?.previousElementSibling;
      const label = field?.labels?.[0]?.textContent.trim() || field?.name || "choose";
      for (const part of [box, ...box.querySelectorAll("[role=textbox]")]) {
        part.setAttribute("aria-label", label);
        part.removeAttribute("aria-labelledby");
      }
    }
    // What the theme lets only a mouse press, such as "More" above a page.
    for (const press of document.querySelectorAll("[x-on\\:click]")) {
      if (press.matches("a[href], button, input, select, textarea, [tabindex]")) continue;
      if (press.querySelector("a, button, input, select, textarea")) continue;
      press.tabIndex = 0;
      press.setAttribute("role", "button");
    }
    for (const hint of document.querySelectorAll("span.help-tooltip[aria-label]")) hint.setAttribute("role", "img");
    for (const box of document.querySelectorAll("#main .overflow-x-auto, #content .overflow-x-auto"))
      if (!box.hasAttribute("tabindex")) box.tabIndex = 0;
  };
  addEventListener("load", () => {
    name();
    setTimeout(() => {
      name();
      document.documentElement.dataset.named = "1";
    }, 150);
  });
  document.addEventListener("focusin", name);
  // Its lists of actions stand at the end of the page, where Tab would come to them last.
  let opener = null;
  document.addEventListener("keydown", (event) => {
    const pressed = event.target;
    if (event.key === "Escape" && opener && pressed.closest("body > nav")) {
      opener.click();
      opener.focus();
    }
    if (!["Enter", " "].includes(event.key) || !pressed.matches("[x-on\\:click][role=button]:not(button)")) return;
    event.preventDefault();
    pressed.click();
    opener = pressed;
    setTimeout(() => {
      const open = [...document.querySelectorAll("body > nav")].find((list) => list.checkVisibility());
      open?.querySelector("a")?.focus();
    }, 200);
  });

  // The search in the menu: Enter opens what is chosen, or else the first result. The theme's own looks for a list that
  // is not there, and fails.
  document.addEventListener("alpine:init", () => {
    const theirs = window.searchDropdown;
    if (!theirs) return;
    window.searchDropdown = () => ({
      ...theirs(),
      links: () => [...document.querySelectorAll("#search-results a")],
      maxItem() {
        return this.links().length;
      },
      selectItem() {
        const link = this.links()[Math.max(this.currentIndex, 1) - 1];
        if (link) location.assign(link.href);
      },
    });
  });

  // The redirect URL of a sign-in provider, while its kind and word are typed.
  addEventListener("load", () => {
    const callback = document.getElementById("callback");
    if (!callback) return;
    const urls = JSON.parse(callback.dataset.callbacks);
    const kind = document.getElementById("id_provider");
    const word = document.getElementById("id_provider_id");
    const show = () => {
      const typed = encodeURIComponent(word.value.trim()) || "your-word";
      callback.textContent = urls[kind.value].replace("your-word", typed);
    };
    kind.addEventListener("change", show);
    word.addEventListener("input", show);
    show();
  });

  // Thousands of ticks are sent as one field of lines: servers limit the number of fields.
  document.addEventListener("submit", (event) => {
    const name = event.target.dataset.pack;
    const ticks = name ? [...event.target.querySelectorAll(`input[type=checkbox][name="${name}"]:checked`)] : [];
    if (ticks.filter((tick) => !tick.disabled).length < 100) return;
    const lines = event.target.appendChild(document.createElement("textarea"));
    lines.hidden = true;
    lines.name = name + "_lines";
    lines.value = ticks.filter((tick) => !tick.disabled).map((tick) => tick.value).join("\n");
    const sent = ticks.filter((tick) => !tick.disabled);
    for (const tick of sent) tick.disabled = true;
    setTimeout(() => {
      for (const tick of sent) tick.disabled = false;
      lines.remove();
    });
  });

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
})();
