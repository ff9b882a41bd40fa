// @ts-check
// The waterfall of a trace: arrow keys go from span to span, a button opens or closes all of them.

function spans() {
  return [...document.querySelectorAll("#spans details.span")].filter((one) => one instanceof HTMLDetailsElement);
}

const button = document.getElementById("spans-all");
button?.addEventListener("click", () => {
  const all = spans();
  const open = !all.every((one) => one.open);
  for (const one of all) one.open = open;
  tell();
});
document.getElementById("spans")?.addEventListener("toggle", tell, true);

function tell() {
  const all = spans();
  if (button) button.textContent = all.length && all.every((one) => one.open) ? "Close all" : "Open all";
}

document.getElementById("spans")?.addEventListener("keydown", (event) => {
  const row = event.target instanceof HTMLElement ? event.target.closest("summary") : null;
  const span = row?.parentElement;
  if (!(span instanceof HTMLDetailsElement) || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = spans();
  const now = all.indexOf(span);
  const next = { ArrowDown: now + 1, ArrowUp: now - 1, Home: 0, End: all.length - 1 }[event.key];
  if (event.key === "ArrowRight") span.open = true;
  else if (event.key === "ArrowLeft") span.open = false;
  else if (next === undefined) return;
  else all[Math.max(0, Math.min(all.length - 1, next))].querySelector("summary")?.focus();
  event.preventDefault();
});
