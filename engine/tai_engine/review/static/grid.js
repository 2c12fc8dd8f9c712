// The grid of thumbnails: only the rows in sight are in the page.

import { chipElement, fittingChips } from "./chips.js";
import { NONE, DECIDED, STATE_NAMES } from "./decisions.js";
import { SIZES, filters, openInView, setFilters } from "./view.js";
import { byId, element, emit, on, plural, state } from "./state.js";

const GAP = 12;
const PADDING = 12;
const CHIP_LINES = 3;
const CHIPS_HEIGHT = CHIP_LINES * 30;
const CELL_EXTRA = CHIPS_HEIGHT + 10;
const HIGHEST = 12e6; // pixels; browsers cannot lay out much higher things
const SETTLED = 60; // milliseconds without scrolling, after which thumbnails are asked for

let grid, end, size;
let columnCount = 1;
let cellWidth = 0;
let rowHeight = 0;
let drawn = new Map(); // row number to its element
let lastScroll = 0;
let settleTimer = 0;

export function startGrid() {
  grid = byId("grid");
  size = element("div", { className: "extent", role: "presentation" });
  end = element("p", { className: "end", role: "presentation" });
  grid.append(size);
  byId("grid").parentElement.append(end);
  grid.addEventListener("scroll", onScroll, { passive: true });
  new ResizeObserver(() => relayout()).observe(grid);
  byId("smaller").addEventListener("click", () => resize(-1));
  byId("larger").addEventListener("click", () => resize(1));
  on("view", () => {
    drawn.forEach((row) => row.remove());
    drawn = new Map();
    relayout();
    goTo(state.current, { isFocused: false });
  });
  on("decisions", (numbers) => redraw((n) => numbers.has(n)));
  on("selection", () => redraw(() => true));
  on("current", ({ before }) => {
    const numbers = new Set([state.view[before], state.view[state.current]]);
    redraw((n) => numbers.has(n));
  });
}

export function resize(step) {
  const place = SIZES.indexOf(Number(filters.size)) + step;
  if (place >= 0 && place < SIZES.length) setFilters({ size: String(SIZES[place]) });
}

export function columnsOfGrid() {
  return columnCount;
}

export function rowsInSight() {
  return Math.max(1, Math.floor(grid.clientHeight / rowHeight));
}

// Make the picture at a place of the view the current one, and bring it into sight.
export function goTo(place, { isFocused = true, chip = -1 } = {}) {
  if (!state.view.length) {
    draw();
    return;
  }
  const before = state.current;
  state.current = Math.max(0, Math.min(state.view.length - 1, place));
  state.chip = chip;
  const top = Math.floor(state.current / columnCount) * rowHeight + PADDING;
  const at = position();
  if (top < at + PADDING) scrollToPosition(top - PADDING);
  else if (top + rowHeight > at + grid.clientHeight) scrollToPosition(top + rowHeight - grid.clientHeight);
  draw();
  emit("current", { before });
  if (isFocused && !document.querySelector("dialog[open]")) focusCurrent();
}

export function focusCurrent() {
  cellAt(state.current)?.focus({ preventScroll: true });
}

function cellAt(place) {
  return drawn.get(Math.floor(place / columnCount))?.children[place % columnCount];
}

// A list that is higher than browsers can lay out is scrolled through in proportion.

function fullHeight() {
  return Math.ceil(state.view.length / columnCount) * rowHeight + 2 * PADDING;
}

function ratio() {
  const laidOut = Math.min(fullHeight(), HIGHEST);
  const range = laidOut - grid.clientHeight;
  return range > 0 ? Math.max(1, (fullHeight() - grid.clientHeight) / range) : 1;
}

function position() {
  return grid.scrollTop * ratio();
}

function scrollToPosition(top) {
  grid.scrollTop = top / ratio();
}

function relayout() {
  const wide = Math.max(1, grid.clientWidth - 2 * PADDING);
  // Two pictures side by side wherever they can still be told apart.
  const least = Math.min(Number(filters.size), Math.max(120, Math.floor((wide - GAP) / 2)));
  const before = state.current;
  columnCount = Math.max(1, Math.floor((wide + GAP) / (least + GAP)));
  cellWidth = Math.floor((wide - (columnCount - 1) * GAP) / columnCount);
  rowHeight = Math.round(cellWidth * 0.75) + CELL_EXTRA + GAP;
  const rows = Math.ceil(state.view.length / columnCount);
  size.style.height = `${Math.min(fullHeight(), HIGHEST)}px`;
  grid.style.setProperty("--cell", `${cellWidth}px`);
  grid.style.setProperty("--columns", columnCount);
  grid.setAttribute("aria-rowcount", rows);
  grid.setAttribute("aria-colcount", columnCount);
  drawn.forEach((row) => row.remove());
  drawn = new Map();
  goTo(before, { isFocused: false });
}

function onScroll() {
  const now = performance.now();
  const isFast = now - lastScroll < SETTLED;
  lastScroll = now;
  draw(isFast);
  clearTimeout(settleTimer);
  settleTimer = setTimeout(() => draw(), SETTLED);
}

function draw(isFast = false) {
  const at = position();
  const rows = Math.ceil(state.view.length / columnCount);
  const first = Math.max(0, Math.floor((at - PADDING) / rowHeight) - 1);
  const last = Math.min(rows - 1, Math.ceil((at + grid.clientHeight) / rowHeight) + 1);
  const hadFocus = grid.contains(document.activeElement) && document.activeElement !== grid;
  for (const [row, made] of drawn) {
    if (row >= first && row <= last) continue;
    for (const image of made.querySelectorAll("img")) image.removeAttribute("src"); // no longer wanted
    made.remove();
    drawn.delete(row);
  }
  for (let row = first; row <= last; row++) {
    let made = drawn.get(row);
    if (!made) {
      made = makeRow(row);
      drawn.set(row, made);
      // In the order of the rows, for those who read the page aloud.
      const following = [...drawn.keys()].filter((other) => other > row).sort((a, b) => a - b)[0];
      size.insertBefore(made, following === undefined ? null : drawn.get(following));
    }
    made.style.transform = `translateY(${grid.scrollTop + row * rowHeight + PADDING - at}px)`;
    if (!isFast) made.querySelectorAll("img[data-src]").forEach(load);
  }
  if (hadFocus && !grid.contains(document.activeElement)) grid.focus({ preventScroll: true });
  drawEnd(rows === 0 || last === rows - 1);
}

function drawEnd(isInSight) {
  end.hidden = !isInSight || (state.view.length > 0 && position() + grid.clientHeight < fullHeight() - PADDING);
  if (end.hidden) return;
  const open = openInView();
  end.textContent = state.view.length
    ? open
      ? `That is all. ${plural(open, "picture")} here ${open === 1 ? "is" : "are"} still to do.`
      : "That is all, and all of it is decided."
    : "No picture is like that.";
}

function load(image) {
  image.src = image.dataset.src;
  delete image.dataset.src;
}

function makeRow(row) {
  const made = element("div", { className: "row", role: "row" });
  made.setAttribute("aria-rowindex", row + 1);
  for (let place = row * columnCount; place < Math.min(state.view.length, (row + 1) * columnCount); place++) {
    made.append(makeCell(place));
  }
  return made;
}

function makeCell(place) {
  const picture = state.view[place];
  const cell = element("div", { className: "cell", role: "gridcell" });
  cell.dataset.place = place;
  cell.setAttribute("aria-colindex", (place % columnCount) + 1);
  const frame = element("div", { className: "frame" });
  const image = element("img", { alt: "", decoding: "async", draggable: false });
  image.dataset.src = state.data.thumbnail(picture);
  image.addEventListener("error", () => image.getAttribute("src") && frame.classList.add("broken"));
  image.addEventListener("load", () => frame.classList.add("loaded"));
  frame.append(image);
  cell.append(frame, element("div", { className: "chips" }));
  fillCell(cell, picture, place);
  const { facts } = state.data;
  if (picture >= facts.pictures - facts.missing) frame.classList.add("broken");
  state.data.row(picture).then(
    (row) => {
      cell.dataset.id = row.id;
      frame.title = row.id;
      label(cell, picture);
    },
    () => {},
  );
  return cell;
}

function label(cell, picture) {
  const chips = state.decisions.chips(picture).filter((chip) => chip.verdict !== "reject");
  const name = cell.dataset.id ?? `picture ${picture}`;
  const tags = chips.map((chip) => chip.tag).join(", ") || "no tags";
  cell.setAttribute("aria-label", `${name}, ${STATE_NAMES[state.decisions.states[picture]]}: ${tags}`);
}

function fillCell(cell, picture, place) {
  const isCurrent = place === state.current;
  const now = state.decisions.states[picture];
  cell.classList.toggle("current", isCurrent);
  cell.classList.toggle("decided", now >= DECIDED);
  cell.classList.toggle("none", now === NONE);
  cell.tabIndex = isCurrent ? 0 : -1;
  cell.setAttribute("aria-selected", state.selected.has(picture));
  const chips = state.decisions.chips(picture);
  const current = isCurrent ? state.chip : -1;
  const fitting = fittingChips(chips, cellWidth - 2, CHIP_LINES);
  // The chip that the keys mean is in sight, whatever else is not.
  const from = current >= fitting ? current - Math.max(1, fitting) + 1 : 0;
  const shown = chips.slice(from, from + Math.max(1, fitting));
  const box = cell.querySelector(".chips");
  box.replaceChildren(...shown.map((chip, n) => chipElement(chip, from + n === current)));
  if (shown.length < chips.length) {
    box.append(element("span", { className: "more", textContent: `+${chips.length - shown.length}` }));
  }
  label(cell, picture);
}

function redraw(isWanted) {
  for (const row of drawn.values()) {
    for (const cell of row.children) {
      const place = Number(cell.dataset.place);
      if (!isWanted(state.view[place])) continue;
      const hadFocus = cell.contains(document.activeElement);
      fillCell(cell, state.view[place], place);
      if (hadFocus && !cell.contains(document.activeElement)) cell.focus({ preventScroll: true });
    }
  }
}
