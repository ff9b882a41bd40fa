// @ts-check
// What every page has: colours, keys, tables, times, and staying live.
import { follow } from "./live.js";
import { readKeys } from "./keys.js";
import { keepTables } from "./table.js";
import { tellTimes } from "./times.js";

const THEMES = ["system", "light", "dark"];

/** @param {string} theme */
function show(theme) {
  const root = document.documentElement;
  if (theme === "system") {
    delete root.dataset.theme;
    localStorage.removeItem("theme");
  } else {
    root.dataset.theme = theme;
    localStorage.setItem("theme", theme);
  }
  const button = document.getElementById("theme");
  const label = `Colours: ${theme === "system" ? "as the system" : theme}`;
  button?.setAttribute("aria-label", label);
  button?.setAttribute("title", label);
  document.dispatchEvent(new CustomEvent("weft:theme"));
}

show(document.documentElement.dataset.theme ?? "system");
document.getElementById("theme")?.addEventListener("click", () => {
  const now = THEMES.indexOf(document.documentElement.dataset.theme ?? "system");
  show(THEMES[(now + 1) % THEMES.length]);
});

// On a narrow screen the pages are a row that scrolls: show where we are.
const current = document.querySelector("nav [aria-current]");
const row = current?.parentElement;
if (current instanceof HTMLElement && row && row.scrollWidth > row.clientWidth) {
  row.scrollLeft = current.offsetLeft - (row.clientWidth - current.offsetWidth) / 2;
}

// A choice takes effect when it is made; without scripts its form has a button.
document.addEventListener("change", (event) => {
  const changed = event.target;
  if (changed instanceof HTMLSelectElement && changed.hasAttribute("data-go")) changed.form?.requestSubmit();
});

readKeys();
keepTables();
tellTimes();
if (document.body.hasAttribute("data-live")) follow();
if (document.querySelector("[data-chart]")) {
  import("./charts.js").then((charts) => charts.keepCharts());
}
