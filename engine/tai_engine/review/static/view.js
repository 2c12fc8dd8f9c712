// Which pictures are shown and in which order; both stand in the address, after its #.

import { DECIDED, NONE } from "./decisions.js";
import { byId, currentPicture, emit, plural, state } from "./state.js";

export const SIZES = [150, 200, 250, 340, 480];
const DEFAULTS = { tag: "", state: "any", from: "", to: "", order: "unsure", size: "250" };
const CHOICES = {
  state: ["any", "open", "decided", "none", "own", "untagged", "missing"],
  order: ["unsure", "surest", "highest"],
  size: SIZES.map(String),
};

export const filters = { ...DEFAULTS };

const FIELDS = { tag: "filter-tag", state: "filter-state", from: "filter-from", to: "filter-to", order: "filter-order" };

export function startView() {
  const { facts } = state.data;
  byId("range-name").textContent = facts.value === "probability" ? "Probability" : "Score";
  byId("vocabulary").replaceChildren(
    ...facts.tags.map((tag) => {
      const option = document.createElement("option");
      option.value = tag;
      return option;
    }),
  );
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const [name, id] of Object.entries(FIELDS)) {
    byId(id).addEventListener("change", () => setFilters({ [name]: byId(id).value.trim() }));
  }
  window.addEventListener("hashchange", readAddress);
  readAddress();
}

export function setFilters(changes) {
  Object.assign(filters, changes);
  show("order" in changes ? -1 : currentPicture()); // another order begins at its beginning
}

export function writeAddress(isLarge) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(filters)) {
    if (value !== DEFAULTS[name]) parts.set(name, value);
  }
  if (currentPicture() >= 0 && state.current > 0) parts.set("at", currentPicture());
  if (isLarge) parts.set("large", "1");
  const hash = parts.toString();
  if (hash !== location.hash.slice(1)) history.replaceState(null, "", `#${hash}`);
}

export function addressIsLarge() {
  return new URLSearchParams(location.hash.slice(1)).get("large") === "1";
}

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    const value = parts.get(name) ?? usual;
    filters[name] = CHOICES[name] && !CHOICES[name].includes(value) ? usual : value;
  }
  const at = parts.get("at");
  show(at !== null && /^\d+$/.test(at) ? Number(at) : -1);
}

// Make the view anew and go to a picture in it, or to the first one.
function show(picture) {
  for (const [name, id] of Object.entries(FIELDS)) byId(id).value = filters[name];
  state.view = order(chosen());
  state.current = Math.max(0, picture >= 0 ? state.view.indexOf(picture) : 0);
  state.chip = -1;
  state.selected.clear();
  state.anchor = -1;
  emit("view");
}

function number(text) {
  return text === "" || Number.isNaN(Number(text)) ? null : Number(text);
}

function chosen() {
  const { data, decisions } = state;
  const { facts, columns } = data;
  const { offsets, values } = columns;
  const there = facts.pictures - facts.missing;
  const [from, to] = [number(filters.from) ?? -Infinity, number(filters.to) ?? Infinity];
  const hasRange = from > -Infinity || to < Infinity;
  const found = [];
  const [start, stop] = filters.state === "missing" ? [there, facts.pictures] : [0, there];
  for (let n = start; n < stop; n++) {
    if (!hasState(n)) continue;
    if (filters.tag) {
      const at = decisions.place(n, filters.tag);
      const verdict = decisions.of(n).verdicts[filters.tag];
      if (at < 0 && verdict === undefined) continue;
      if (hasRange && (at < 0 || values[at] < from || values[at] > to)) continue;
    } else if (hasRange) {
      let isIn = false;
      for (let at = offsets[n]; at < offsets[n + 1] && !isIn; at++) isIn = values[at] >= from && values[at] <= to;
      if (!isIn) continue;
    }
    found.push(n);
  }
  return Uint32Array.from(found);

  function hasState(n) {
    const now = decisions.states[n];
    if (filters.state === "open") return now < DECIDED;
    if (filters.state === "decided") return now >= DECIDED;
    if (filters.state === "none") return now === NONE;
    if (filters.state === "own") return decisions.hasOwn(n);
    if (filters.state === "untagged") return offsets[n] === offsets[n + 1];
    return true;
  }
}

// Pictures are numbered from the least sure one on. Those without what is ordered by come last, in both directions.
function order(numbers) {
  const { columns } = state.data;
  const { offsets, values, doubts } = columns;
  if (filters.order === "unsure" && !filters.tag) return numbers;
  const keys = new Map();
  for (const n of numbers) {
    let key = -Infinity;
    if (filters.tag) {
      const at = state.decisions.place(n, filters.tag);
      if (at >= 0) key = filters.order === "unsure" ? doubts[at] : filters.order === "surest" ? -doubts[at] : values[at];
    } else {
      for (let at = offsets[n]; at < offsets[n + 1]; at++) {
        key = filters.order === "surest" ? n : Math.max(key, values[at]);
      }
    }
    keys.set(n, key);
  }
  return numbers.sort((a, b) => keys.get(b) - keys.get(a) || a - b);
}

export function openInView() {
  let open = 0;
  for (const n of state.view) open += state.decisions.states[n] < DECIDED;
  return open;
}

export function describeView() {
  return `${plural(state.view.length, "picture")}, ${openInView().toLocaleString("en")} to do`;
}
