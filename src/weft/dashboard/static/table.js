// @ts-check
// Tables that sort by a click on a column, filter by what is typed, and are walked with the arrow keys.

/** What readers chose, by the table's id: it outlives every update. @type {Map<string, {column: number, down: boolean}>} */
const chosen = new Map();

/** Serve the tables that are there, and those that come. */
export function keepTables() {
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("th > button.sort") : null;
    const head = button?.parentElement;
    const table = head?.closest("table");
    if (!(head instanceof HTMLTableCellElement) || !table) return;
    const now = chosen.get(table.id);
    const number = head.classList.contains("num");
    const down = now?.column === head.cellIndex ? !now.down : number;
    chosen.set(table.id, { column: head.cellIndex, down });
    sort(table);
  });
  document.addEventListener("input", (event) => {
    if (event.target instanceof HTMLInputElement && event.target.dataset.filter) {
      filter(event.target);
      const address = new URL(location.href);
      if (event.target.value) address.searchParams.set("q", event.target.value);
      else address.searchParams.delete("q");
      history.replaceState(null, "", address);
    }
  });
  document.addEventListener("keydown", walk);
  document.addEventListener("weft:page", apply);
  apply();
}

function apply() {
  for (const table of document.querySelectorAll("table[id]")) {
    if (table instanceof HTMLTableElement && chosen.has(table.id)) sort(table);
  }
  for (const field of document.querySelectorAll("input[data-filter]")) {
    if (field instanceof HTMLInputElement) filter(field);
  }
}

/** @param {HTMLTableElement} table */
function sort(table) {
  const choice = chosen.get(table.id);
  const body = table.tBodies[0];
  if (!choice || !body) return;
  for (const head of table.tHead?.rows[0]?.cells ?? []) {
    if (head.cellIndex !== choice.column) head.removeAttribute("aria-sort");
    else head.setAttribute("aria-sort", choice.down ? "descending" : "ascending");
  }
  const rows = [...body.rows].map((row) => ({ row, value: valueOf(row.cells[choice.column]) }));
  rows.sort((a, b) => compare(a.value, b.value) * (choice.down ? -1 : 1));
  body.dataset.sorted = "";
  const active = document.activeElement;
  rows.forEach(({ row }, place) => {
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place]);
  });
  if (active instanceof HTMLElement && active !== document.activeElement) active.focus({ preventScroll: true });
}

/** @param {HTMLTableCellElement | undefined} cell @returns {number | string | null} */
function valueOf(cell) {
  const given = cell?.dataset.value;
  if (given === undefined) return cell?.textContent?.trim() ?? "";
  return given === "" ? null : Number(given);
}

/** Nothing known is less than any number. @param {number | string | null} a @param {number | string | null} b */
function compare(a, b) {
  if (a === null || b === null) return a === b ? 0 : a === null ? -1 : 1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

/** Rows that have every word. @param {HTMLInputElement} field */
function filter(field) {
  const table = document.getElementById(field.dataset.filter ?? "");
  if (!(table instanceof HTMLTableElement)) return;
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  let all = 0;
  for (const body of table.tBodies) {
    for (const row of body.rows) {
      const text = row.textContent?.toLowerCase() ?? "";
      row.hidden = !words.every((word) => text.includes(word));
      all += 1;
      shown += row.hidden ? 0 : 1;
    }
  }
  const said = document.getElementById(`${table.id}-count`);
  if (said) said.textContent = words.length ? `${shown} of ${all}` : `${all}`;
}

/** @param {KeyboardEvent} event */
function walk(event) {
  if (!["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key) || event.altKey || event.ctrlKey || event.metaKey) return;
  const active = document.activeElement;
  const field = active instanceof HTMLInputElement ? active.dataset.filter : undefined;
  if (active instanceof HTMLInputElement && !(field && event.key === "ArrowDown")) return;
  const table = field ? document.getElementById(field) : active?.closest("table");
  const links = [...(table?.querySelectorAll("tbody tr:not([hidden]) th a, tbody tr:not([hidden]) td:first-child a") ?? [])];
  if (!links.length) return;
  const row = active?.closest("tr");
  const now = links.findIndex((link) => link.closest("tr") === row);
  const last = links.length - 1;
  const next = field || event.key === "Home" ? 0 : event.key === "End" ? last
    : Math.min(last, Math.max(0, now + (event.key === "ArrowDown" ? 1 : -1)));
  const link = links[next];
  if (link instanceof HTMLElement) {
    event.preventDefault();
    link.focus();
  }
}
