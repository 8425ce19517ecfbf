"use strict";
(() => {
  const root = document.documentElement;

  // Light and dark: the system's choice until the button is pressed; nothing is stored.
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = dark() ? "light" : "dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);
  theme.hidden = false;
  name();

  // Tables: a click on a heading sorts, another one turns the order round.
  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.sort ?? cell.textContent.trim();
    return value === "" || isNaN(value) ? value : Number(value);
  };
  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === "number" ? -1 : typeof b === "number" ? 1 : a.localeCompare(b);
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      if (!button.textContent.trim()) button.setAttribute("aria-label", "name");
      heading.append(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => order(key(a, column), key(b, column)));
        body.append(...(down ? rows.reverse() : rows));
      });
    });
  }

  // Pictures: saved as they are seen, with the colours written out.
  const source = (svg) => {
    const style = getComputedStyle(root);
    return new XMLSerializer().serializeToString(svg).replace(
      /var\((--[\w-]+),\s*(#[0-9a-fA-F]{6})\)/g,
      (_, variable, otherwise) => style.getPropertyValue(variable).trim() || otherwise);
  };
  const save = (blob, file) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = file;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const savePng = (text, svg, file) => {
    const picture = new Image();
    const scale = 3;
    picture.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = Math.ceil(svg.viewBox.baseVal.width * scale);
      canvas.height = Math.ceil(svg.viewBox.baseVal.height * scale);
      const pen = canvas.getContext("2d");
      pen.fillStyle = getComputedStyle(root).getPropertyValue("--plot-paper");
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, file), "image/png");
    };
    picture.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  };
  for (const figure of document.querySelectorAll("figure")) {
    const svg = figure.querySelector("svg");
    const text = () => source(svg);
    figure.querySelector(".save").hidden = false;
    figure.querySelector("[data-save=svg]").addEventListener("click", () =>
      save(new Blob([text()], { type: "image/svg+xml" }), `${figure.dataset.name}.svg`));
    figure.querySelector("[data-save=png]").addEventListener("click", () =>
      savePng(text(), svg, `${figure.dataset.name}.png`));
  }
})();
