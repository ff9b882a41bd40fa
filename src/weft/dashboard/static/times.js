// @ts-check
// Times as people say them, counting on; the exact one, in the reader's own time zone, on hovering.

const UNITS = /** @type {const} */ ([["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]);

/** @param {number} seconds */
export function span(seconds) {
  for (const [place, [name, length]] of UNITS.entries()) {
    if (seconds < length) continue;
    const whole = Math.floor(seconds / length);
    const smaller = UNITS[place + 1];
    const rest = smaller ? Math.floor((seconds % length) / smaller[1]) : 0;
    return smaller && rest ? `${whole}${name} ${rest}${smaller[0]}` : `${whole}${name}`;
  }
  return "0s";
}

export function tellTimes() {
  tell();
  document.addEventListener("weft:page", tell);
  setInterval(() => document.hidden || tell(), 1000);
}

function tell() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const then = Date.parse(time.getAttribute("datetime") ?? "");
    if (Number.isNaN(then)) continue;
    const passed = Math.round((Date.now() - then) / 1000);
    const words = passed < 0 ? `in ${span(-passed)}` : passed < 2 ? "just now" : `${span(passed)} ago`;
    if (time.textContent !== words) time.textContent = words;
    if (!time.hasAttribute("title")) time.setAttribute("title", new Date(then).toLocaleString());
  }
}
