// The keys: one table that is both followed and shown.

import {
  accept, chosenTag, clear, deselect, extendTo, favourite, nextOpen, none, redo, reject, rejectTag, select, selectAll,
  targets, toggleTag, undo,
} from "./actions.js";
import { columnsOfGrid, focusCurrent, goTo, resize, rowsInSight } from "./grid.js";
import { openLarge } from "./large.js";
import { openFavouriteBox, openWordBox } from "./words.js";
import { byId, currentPicture, element, state } from "./state.js";

const page = () => rowsInSight() * columnsOfGrid();

// [keys, what they do, whether it changes something, the doing]. `Mod` is Ctrl, or Cmd on a Mac.
const TABLE = [
  ["Going about"],
  [["ArrowLeft", "ArrowRight"], "previous, next picture", false, (key) => goTo(state.current + (key === "ArrowLeft" ? -1 : 1))],
  [["ArrowUp", "ArrowDown"], "the picture above, below", false, (key) => goTo(state.current + (key === "ArrowUp" ? -1 : 1) * verticalStep())],
  [["PageUp", "PageDown"], "a page up, down", false, (key) => goTo(state.current + (key === "PageUp" ? -1 : 1) * page())],
  [["Home", "End"], "the first, last picture", false, (key) => goTo(key === "Home" ? 0 : state.view.length - 1)],
  [["n"], "next picture that is to do", false, () => nextOpen(1)],
  [["Shift+n"], "previous picture that is to do", false, () => nextOpen(-1)],
  [["Enter"], "large view, and back", false, () => (byId("large").open ? byId("large").close() : openLarge())],
  [["Escape"], "back; deselect", false, () => (state.chip >= 0 ? moveChip(0) : deselect())],
  [["f"], "choose which pictures are shown", false, () => byId("filter-tag").focus()],
  [["-", "+"], "smaller, larger pictures", false, (key) => resize(key === "-" ? -1 : 1)],
  ["Several at once"],
  [["s"], "select the picture, or deselect it", true, () => toggleSelected()],
  [["Shift+ArrowLeft", "Shift+ArrowRight", "Shift+ArrowUp", "Shift+ArrowDown"], "select from here on", true, extendByKey],
  [["Mod+a"], "select all that are shown", true, selectAll],
  ["Help"],
  [["?"], "this page", false, () => (byId("keys").open ? byId("keys").close() : byId("keys").showModal())],
  ["Deciding"],
  [[",", "."], "previous, next tag of the picture; the keys below then mean this tag, and its heatmap is shown", false, (key) => moveChip(key === "," ? -1 : 1)],
  [["a"], "accept all that is suggested and not decided, or the tag", true, accept],
  [["r"], "reject all that is suggested and not decided, or the tag", true, reject],
  [["e"], "none of these: no tag fits", true, none],
  [["c"], "take decisions back, or that of the tag", true, clear],
  [[" ", "t"], "add a tag", true, () => openWordBox()],
  [["1", "9"], "a favourite: put it on, or take it off again", true, null],
  [["Shift+1", "Shift+9"], "reject a favourite", true, null],
  [["Alt+1", "Alt+9"], "choose the tag of this key", true, null],
  [["u", "Mod+z"], "undo", true, undo],
  [["y", "Mod+y", "Mod+Shift+z"], "redo", true, redo],
];

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "Space", Mod: "Ctrl", Escape: "Esc" };

function isOffered([, , changes]) {
  return state.data.isLive || !changes;
}

export function startKeys() {
  document.addEventListener("keydown", onKeyDown);
  byId("help").addEventListener("click", () => byId("keys").showModal());
  byId("keys-close").addEventListener("click", () => byId("keys").close());
  const parts = [];
  let rows = null;
  for (const entry of TABLE) {
    if (entry.length === 1) {
      rows = element("tbody");
      parts.push(element("section", {}, [element("h3", { textContent: entry[0] }), element("table", {}, [rows])]));
    } else if (isOffered(entry)) {
      const isRange = entry[3] === null; // all keys from the first to the last
      const keys = entry[0].flatMap((key, n) => [...(n ? [isRange ? " … " : " "] : []), keyCaps(key)]);
      rows.append(element("tr", {}, [element("th", { scope: "row" }, keys), element("td", { textContent: entry[1] })]));
    }
  }
  byId("keys-list").replaceChildren(...parts.filter((part) => part.querySelector("tr")));
}

function keyCaps(key) {
  const caps = key
    .split(/(?<=.)\+(?=.)/)
    .map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part))
    .flatMap((part, n) => [...(n ? ["+"] : []), element("kbd", { textContent: part })]);
  return element("span", { className: "together" }, caps);
}

function pressed(event) {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1];
  const mod = event.ctrlKey || event.metaKey ? "Mod+" : "";
  const alt = event.altKey ? "Alt+" : "";
  if (digit) return `${mod}${alt}${event.shiftKey ? "Shift+" : ""}${digit}`;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  // Signs such as ? and + have their shift in them already.
  const shift = event.shiftKey && (event.key.length > 1 || /[a-z]/i.test(event.key)) ? "Shift+" : "";
  return `${mod}${alt}${shift}${key}`;
}

function onKeyDown(event) {
  if (event.defaultPrevented || event.isComposing) return;
  const { target } = event;
  const isWriting = target.matches("input, select, textarea");
  if (isWriting) {
    if (event.key === "Escape") {
      event.preventDefault(); // which would empty a field for searching
      focusCurrent();
    }
    return;
  }
  const key = pressed(event);
  const dialog = document.querySelector("dialog[open]");
  if (dialog && key === "Escape") return; // the browser closes it
  if (dialog && dialog.id !== "large" && !(dialog.id === "keys" && key === "?")) return;
  // A button that has the focus is pressed by these.
  if (target.matches("button") && (key === "Enter" || key === " ")) return;
  const digit = /^(Alt\+|Shift\+)?([1-9])$/.exec(key);
  if (digit) {
    if (state.data.isLive) pressDigit(digit[1] ?? "", Number(digit[2]));
    event.preventDefault();
    return;
  }
  const entry = TABLE.find((other) => other.length > 1 && other[3] && other[0].includes(key) && isOffered(other));
  if (!entry) return;
  event.preventDefault();
  entry[3](key);
}

function pressDigit(modifier, number) {
  if (modifier === "Alt+") {
    openFavouriteBox(number);
    return;
  }
  const tag = favourite(number);
  if (tag === undefined) openFavouriteBox(number);
  else if (modifier === "Shift+") rejectTag(targets(), tag);
  else toggleTag(tag);
}

function verticalStep() {
  return byId("large").open ? 1 : columnsOfGrid();
}

function moveChip(step) {
  if (currentPicture() < 0) return;
  const count = state.decisions.chips(currentPicture()).length;
  const chip = step === 0 ? -1 : ((state.chip + 1 + step + count + 1) % (count + 1)) - 1;
  goTo(state.current, { chip });
  const tag = chosenTag();
  if (tag !== null) byId("toast").textContent = tag; // for those who cannot see it marked
}

function toggleSelected() {
  if (currentPicture() < 0) return;
  state.anchor = state.current;
  select([state.current], !state.selected.has(currentPicture()));
}

function extendByKey(key) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columnsOfGrid(), ArrowDown: columnsOfGrid() };
  extendTo(state.current + steps[key.slice("Shift+".length)]);
}
