// @ts-check
// Keys that work everywhere: / goes to the filter or the search, Escape leaves it, g and a letter go to a page,
// ? says which there are.

const SOON_MS = 1500;

export function readKeys() {
  const help = document.getElementById("keys");
  const tell = () => help instanceof HTMLDialogElement && !help.open && help.showModal();
  document.getElementById("keys-open")?.addEventListener("click", tell);
  // A click beside it closes it.
  help?.addEventListener("click", (event) => event.target === help && help instanceof HTMLDialogElement && help.close());
  let going = -Infinity;
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
    if ((typing && !(active instanceof HTMLInputElement && active.type === "checkbox")) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.timeStamp - going < SOON_MS) {
      going = -Infinity;
      const link = document.querySelector(`nav a[data-go-key="${CSS.escape(event.key)}"]`);
      if (link instanceof HTMLAnchorElement) {
        event.preventDefault();
        link.click();
      }
      return;
    }
    if (event.key === "g") going = event.timeStamp;
    if (event.key === "?") tell();
    if (event.key !== "/") return;
    const field = document.querySelector("main input[type=search], main form input:not([type=hidden])");
    if (field instanceof HTMLInputElement) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  });
}
