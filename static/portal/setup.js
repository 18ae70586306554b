// The guide's first step: the vendor fills in its address and a name.
"use strict";
(() => {
  const provider = document.getElementById("id_provider");
  const url = document.getElementById("id_base_url");
  const name = document.getElementById("id_name");
  let filled = "";
  let named = "";
  const fill = () => {
    const chosen = provider.selectedOptions[0];
    if (!url.value || url.value === filled) url.value = filled = chosen.dataset.url;
    url.placeholder = chosen.dataset.form;
    const label = chosen.textContent.split(/[,(]/)[0].trim();
    if (!name.value || name.value === named) name.value = named = label;
  };
  provider.addEventListener("change", fill);
  fill();
})();
