// Tags as chips: what the machine suggests and what a person said of it.

import { element, state } from "./state.js";

const WORDS = { accept: "accepted", add: "added", reject: "rejected" };
const MARKS = { accept: "✓", add: "+", reject: "✗" };

export function valueText(value) {
  if (Number.isNaN(value)) return "";
  return state.data.facts.value === "probability" ? `${Math.round(100 * value)}%` : value.toFixed(2);
}

// One chip; `data-tag` says which, and its buttons what is to be done (`data-act`).
export function chipElement(chip, isCurrent) {
  const { verdict } = chip;
  const kind = verdict ?? (chip.isWeak ? "weak" : "open");
  const value = valueText(chip.value);
  const said = WORDS[verdict] ?? (chip.isWeak ? "below its threshold" : "suggested");
  const made = element("span", { className: `chip ${kind}${isCurrent ? " current" : ""}` });
  made.dataset.tag = chip.tag;
  if (state.data.facts.value === "probability" && value) made.style.setProperty("--share", value);
  const text = [
    element("span", { className: "mark", textContent: MARKS[verdict] ?? "", "aria-hidden": "true" }),
    element("span", { className: "name", textContent: chip.tag }),
    element("span", { className: "value", textContent: value }),
  ];
  if (!state.data.isLive) {
    made.append(element("span", { className: "body" }, text));
    made.title = said;
    return made;
  }
  const isIn = verdict === "accept" || verdict === "add";
  const body = element("button", { type: "button", className: "body", tabIndex: -1, title: said }, text);
  body.dataset.act = isIn ? "clear" : "accept";
  body.setAttribute("aria-pressed", isIn);
  body.setAttribute("aria-label", `${chip.tag} ${value}, ${said}`);
  const no = element("button", { type: "button", className: "no", tabIndex: -1, textContent: "×", title: "Reject" });
  no.dataset.act = verdict === "reject" ? "clear" : "reject";
  no.setAttribute("aria-pressed", verdict === "reject");
  no.setAttribute("aria-label", `Reject ${chip.tag}`);
  made.append(body, no);
  return made;
}

const widths = new Map();
let pen = null;

// How many chips fit into some lines of a width, leaving room to say how many there are more.
export function fittingChips(chips, width, lines) {
  let [line, used] = [1, 0];
  for (const [count, chip] of chips.entries()) {
    const wanted = Math.min(width, chipWidth(chip));
    const isLast = count === chips.length - 1;
    if (used + wanted > width) [line, used] = [line + 1, 0];
    if (line > lines || (line === lines && !isLast && used + wanted + MORE > width)) return count;
    used += wanted + GAP_BETWEEN;
  }
  return chips.length;
}

const GAP_BETWEEN = 4;
const MORE = 44;

function chipWidth(chip) {
  const text = `${chip.tag} ${valueText(chip.value)}`;
  if (!widths.has(text)) {
    pen ??= document.createElement("canvas").getContext("2d");
    pen.font = `13px ${getComputedStyle(document.body).fontFamily}`;
    widths.set(text, pen.measureText(text).width + (state.data.isLive ? 43 : 24));
  }
  return widths.get(text) + (chip.verdict ? 18 : 0);
}
