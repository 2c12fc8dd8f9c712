// One picture as large as the window allows, with all that is known of its tags.

import { chipElement, valueText } from "./chips.js";
import { STATE_NAMES } from "./decisions.js";
import { drawHeatmap, hasHeatmap } from "./heatmap.js";
import { focusCurrent, goTo } from "./grid.js";
import { addressIsLarge, writeAddress } from "./view.js";
import { byId, currentPicture, element, on, plural, state } from "./state.js";

let shown = -1;
let row = null;

export function startLarge() {
  const dialog = byId("large");
  byId("large-close").addEventListener("click", () => dialog.close());
  byId("large-back").addEventListener("click", () => goTo(state.current - 1));
  byId("large-next").addEventListener("click", () => goTo(state.current + 1));
  dialog.addEventListener("close", () => {
    shown = -1;
    byId("large-picture").removeAttribute("src");
    writeAddress(false);
    focusCurrent();
  });
  byId("large-picture").addEventListener("error", async () => {
    if (!byId("large-picture").getAttribute("src")) return;
    byId("large-problem").hidden = false;
    byId("large-problem").textContent = await problem();
  });
  byId("large-picture").addEventListener("load", drawCurrentHeat);
  on("current", () => {
    if (dialog.open) refresh();
    writeAddress(dialog.open);
  });
  on("decisions", (numbers) => dialog.open && numbers.has(currentPicture()) && refresh());
  on("view", () => {
    if (addressIsLarge() && !dialog.open) openLarge();
    else if (dialog.open) refresh();
  });
}

export function openLarge() {
  if (currentPicture() < 0 || byId("large").open) return;
  byId("large").showModal();
  byId("large-name").focus();
  refresh();
  writeAddress(true);
}

async function problem() {
  if (!state.data.isLive) return "This picture could not be read when the report was made.";
  try {
    const response = await fetch(byId("large-picture").src);
    return `This picture cannot be shown: ${(await response.json()).error}.`;
  } catch {
    return "This picture cannot be shown.";
  }
}

function refresh() {
  const picture = currentPicture();
  if (picture < 0) {
    byId("large").close();
    return;
  }
  if (picture !== shown) {
    shown = picture;
    row = null;
    byId("large-problem").hidden = true;
    byId("large-heat").hidden = true;
    const image = byId("large-picture");
    image.src = state.data.picture(picture);
    byId("large-name").textContent = "";
    state.data.row(picture).then(
      (found) => {
        if (shown !== picture) return;
        row = found;
        byId("large-name").textContent = row.id;
        image.alt = row.id;
        list(picture);
      },
      () => {},
    );
  }
  const decision = state.decisions.of(picture);
  const who = decision.by ? `, by ${decision.by}, ${new Date(decision.at).toLocaleString()}` : "";
  const place = `${(state.current + 1).toLocaleString("en")} of ${plural(state.view.length, "picture")}`;
  byId("large-state").textContent = `${place} · ${STATE_NAMES[state.decisions.states[picture]]}${who}`;
  byId("large-back").disabled = state.current === 0;
  byId("large-next").disabled = state.current === state.view.length - 1;
  list(picture);
}

function list(picture) {
  const chips = state.decisions.chips(picture);
  byId("large-chips").replaceChildren(
    ...chips.map((chip, number) => {
      const line = element("li", {}, [chipElement(chip, number === state.chip)]);
      const text = details(chip);
      if (text) line.append(element("span", { className: "details", textContent: text }));
      return line;
    }),
  );
  drawCurrentHeat();
}

function details(chip) {
  if (chip.isOwn || row === null) return "";
  const [score, threshold] = [row.scores[chip.place], row.thresholds[chip.place]];
  const isShown = valueText(chip.value) === score.toFixed(2);
  const parts = isShown ? [] : [`score ${score}`];
  if (threshold !== null) parts.push(`threshold ${threshold}`);
  return parts.join(", ");
}

// The heatmap of the chip that the keys mean, or that is pointed at.
export async function drawCurrentHeat(pointedTag) {
  const canvas = byId("large-heat");
  const tag = typeof pointedTag === "string" ? pointedTag : state.decisions.chips(shown)[state.chip]?.tag;
  const picture = shown;
  if (picture < 0 || tag === undefined || !hasHeatmap(tag)) {
    canvas.hidden = true;
    return;
  }
  const isDrawn = await drawHeatmap(canvas, byId("large-picture"), picture, tag);
  canvas.hidden = !isDrawn || picture !== shown;
}
