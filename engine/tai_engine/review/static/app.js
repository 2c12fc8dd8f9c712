// The page: what it is made of, and what a pointer does.

import { acceptTag, accept, clearTag, deselect, extendTo, favourite, none, redo, reject, rejectTag, select, targets, toggleTag, undo } from "./actions.js";
import { openData } from "./data.js";
import { openDecisions } from "./decisions.js";
import { goTo, startGrid } from "./grid.js";
import { drawHeatmap, hasHeatmap } from "./heatmap.js";
import { startKeys } from "./keys.js";
import { drawCurrentHeat, openLarge, startLarge } from "./large.js";
import { startSync } from "./sync.js";
import { startTagBox } from "./tagbox.js";
import { describeView, startView } from "./view.js";
import { openFavouriteBox, openWordBox } from "./words.js";
import { byId, element, on, plural, state } from "./state.js";

const POINTED = 120; // milliseconds that a chip is pointed at before its heatmap comes
const TOAST = 5000;

async function start() {
  state.data = await openData();
  state.decisions = openDecisions(state.data);
  const { facts } = state.data;
  document.title = facts.title;
  byId("title").textContent = facts.title;
  byId("title").title = Object.entries(facts.provenance).map(([name, value]) => `${name}: ${value}`).join("\n");
  document.body.classList.toggle("report", !state.data.isLive);
  on("decisions", showCounts);
  on("view", showCounts);
  on("selection", showSelection);
  on("view", showSelection);
  on("toast", toast);
  startTagBox();
  startKeys();
  startLarge();
  startPointer();
  startButtons();
  startGrid();
  startView();
  // The grid is there at once; what was decided follows.
  state.decisions.take({ ...(await state.data.firstDecisions), all: true });
  startSync();
  document.documentElement.dataset.ready = "true";
}

function showCounts() {
  const { decisions } = state;
  byId("count").textContent = describeView();
  const share = decisions.total ? decisions.decided / decisions.total : 0;
  const progress = byId("progress");
  progress.textContent = `${decisions.decided.toLocaleString("en")} of ${plural(decisions.total, "picture")} decided`;
  progress.style.setProperty("--share", `${100 * share}%`);
  for (const name of ["undo", "redo"]) {
    byId(name).disabled = !decisions[name];
    byId(name).title = decisions[name]?.summary ?? "";
  }
  showFavourites();
}

function showFavourites() {
  const tags = state.decisions.favourites;
  const wanted = JSON.stringify(tags);
  const bar = byId("favourites");
  if (bar.dataset.tags === wanted) return;
  bar.dataset.tags = wanted;
  bar.replaceChildren(
    ...tags.map((tag, place) => {
      const button = element("button", { type: "button", title: `Key ${place + 1}; Alt+click chooses another tag` });
      button.dataset.key = place + 1;
      button.append(element("kbd", { textContent: place + 1, "aria-hidden": "true" }), element("span", { textContent: tag }));
      return button;
    }),
  );
}

function showSelection() {
  const count = state.selected.size;
  byId("selection").hidden = !count;
  byId("count").hidden = count > 0;
  byId("selected-count").textContent = `${count.toLocaleString("en")} selected`;
}

let toastTimer = 0;

function toast(sentence) {
  byId("toast").textContent = sentence;
  byId("toast").classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => byId("toast").classList.remove("shown"), TOAST);
}

function startButtons() {
  const buttons = {
    undo, redo,
    "bulk-accept": accept, "bulk-reject": reject, "bulk-none": none, "bulk-clear": deselect, "bulk-tag": openWordBox,
    "large-tag": openWordBox, "large-none": none,
  };
  for (const [id, press] of Object.entries(buttons)) byId(id).addEventListener("click", () => press());
  byId("favourites").addEventListener("click", (event) => {
    const key = Number(event.target.closest("button")?.dataset.key);
    if (!key) return;
    if (event.altKey) openFavouriteBox(key);
    else toggleTag(favourite(key));
  });
}

function pressChip(target, pictures) {
  const button = target.closest("[data-act]");
  if (!button) return false;
  const { tag } = button.closest(".chip").dataset;
  ({ accept: acceptTag, reject: rejectTag, clear: clearTag })[button.dataset.act](pictures, tag);
  return true;
}

function startPointer() {
  const grid = byId("grid");
  const heat = element("canvas", { className: "heat", hidden: true });
  let pointed = null;
  let timer = 0;

  grid.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const place = Number(cell.dataset.place);
    const picture = state.view[place];
    if (event.target.closest("[data-act]")) {
      // A chip of a selected picture means all selected ones.
      const pictures = state.selected.has(picture) ? targets() : [picture];
      if (place !== state.current) goTo(place, { isFocused: false });
      pressChip(event.target, pictures);
      cell.focus({ preventScroll: true });
    } else if (event.shiftKey) {
      extendTo(place);
    } else if (event.ctrlKey || event.metaKey) {
      goTo(place);
      state.anchor = place;
      select([place], !state.selected.has(picture));
    } else {
      goTo(place);
    }
  });
  grid.addEventListener("dblclick", (event) => event.target.closest(".frame") && openLarge());
  byId("large-chips").addEventListener("click", (event) => pressChip(event.target, [state.view[state.current]]));

  grid.addEventListener("pointerover", (event) => {
    const chip = event.target.closest(".chip");
    if (chip === pointed) return;
    pointed = chip;
    clearTimeout(timer);
    heat.hidden = true;
    if (!chip || !hasHeatmap(chip.dataset.tag)) return;
    timer = setTimeout(async () => {
      const cell = chip.closest(".cell");
      if (!cell) return;
      const frame = cell.querySelector(".frame");
      const isDrawn = await drawHeatmap(heat, frame.querySelector("img"), state.view[cell.dataset.place], chip.dataset.tag);
      if (!isDrawn || pointed !== chip) return;
      frame.append(heat);
      heat.hidden = false;
    }, POINTED);
  });
  grid.addEventListener("pointerleave", () => {
    pointed = null;
    clearTimeout(timer);
    heat.hidden = true;
  });
  byId("large-chips").addEventListener("pointerover", (event) => {
    const chip = event.target.closest(".chip");
    drawCurrentHeat(chip?.dataset.tag);
  });
  byId("large-chips").addEventListener("pointerleave", () => drawCurrentHeat());
}

start().catch((error) => {
  byId("banner").hidden = false;
  byId("banner").textContent = `The page cannot be shown: ${error.message}.`;
});
