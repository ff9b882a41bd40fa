// @ts-check
// Keys that work everywhere: / goes to the filter or the search, Escape leaves it.

export function readKeys() {
  document.addEventListener("keydown", (event) => {
    const active = document.activeElement;
    const typing = active instanceof HTMLInputElement || active instanceof HTMLTextAreaElement || active instanceof HTMLSelectElement;
    if (event.key === "Escape" && active instanceof HTMLInputElement && active.type === "search") {
      if (active.value) {
        active.value = "";
        active.dispatchEvent(new Event("input", { bubbles: true }));
      } else {
        active.blur();
      }
    }
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const field = document.querySelector("main input[type=search], main form input");
    if (field instanceof HTMLInputElement) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  });
}
