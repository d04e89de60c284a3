"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const radios = (name) => [...document.querySelectorAll(`input[name=${name}]`)];

// Packed contents are unpacked when they are first needed.
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}
byId("old").hidden = "DecompressionStream" in window;
const ready = unpacked(byId("plotly").textContent).then((packed) => packed.text()).then((source) => {
  const script = document.createElement("script");
  script.textContent = source;
  document.head.append(script);
  for (const [name, figure] of Object.entries(data.figures))
    Plotly.newPlot(name, figure.data, figure.layout, { responsive: true, displaylogo: false });
});

// On paper plots are as wide as the page, and what is wider by its contents is made smaller.
const PAPER = 1030; // CSS pixels between the margins of A4 across
const PRINTED = 0.75; // width of a table in the print's smaller letters
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll(".wide > *")) {
    const isPlot = part.matches(".js-plotly-plot");
    if (isPlot) Plotly.Plots.resize(part);
    part.style.setProperty("--fit", Math.min(1, PAPER / (part.scrollWidth * (isPlot ? 1 : PRINTED))));
  }
});

// Table 1 shows one score at a time.
const table = byId("table1");
radios("score").forEach((radio) => radio.addEventListener("change", () => {
  table.dataset.score = radio.value;
  heads.forEach((head) => head.removeAttribute("aria-sort"));
}));
byId("with-sd").addEventListener("change", (event) => table.classList.toggle("without-sd", !event.target.checked));

// A click on a head sorts by it, a second one the other way round; averages stand in a body of their own.
const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") !== "descending";
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => column ? parseFloat(row.cells[column].dataset[table.dataset.score]) : row.cells[0].textContent;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (!column) return x.localeCompare(y);
    return (isNaN(x) ? -1 : x) - (isNaN(y) ? -1 : y);
  });
  if (down) rows.reverse();
  table.tBodies[0].append(...rows);
}));

function hide(section) {
  for (const part of [byId(section), document.querySelector(`nav a[href='#${section}']`)]) part.hidden = true;
}
if (!data.figures.curves) hide("curves-section");
