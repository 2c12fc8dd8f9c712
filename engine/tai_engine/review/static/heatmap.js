// Where in a picture a tag was found, drawn over it.

import { state } from "./state.js";

const kept = new Map();

export function hasHeatmap(tag) {
  return state.data.isLive && state.data.facts.heatmaps.includes(tag);
}

// Draw the heatmap of a tag over an image that fills its frame as `object-fit: contain` does.
export async function drawHeatmap(canvas, image, picture, tag) {
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  if (!width) return false;
  const key = `${picture}\n${tag}`;
  if (!kept.has(key)) {
    kept.set(key, state.data.heatmap(picture, tag, width, height));
    if (kept.size > 64) kept.delete(kept.keys().next().value);
  }
  let heat;
  try {
    heat = await kept.get(key);
  } catch {
    kept.delete(key);
    return false;
  }
  const { grid, box } = heat;
  const scale = Math.min(image.clientWidth / width, image.clientHeight / height);
  const [shownWidth, shownHeight] = [width * scale, height * scale];
  canvas.width = Math.max(1, Math.round(shownWidth));
  canvas.height = Math.max(1, Math.round(shownHeight));
  canvas.style.left = `${image.offsetLeft + (image.clientWidth - shownWidth) / 2}px`;
  canvas.style.top = `${image.offsetTop + (image.clientHeight - shownHeight) / 2}px`;
  canvas.style.width = `${shownWidth}px`;
  canvas.style.height = `${shownHeight}px`;
  const small = paint(grid);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  const [left, top, right, bottom] = box;
  pen.drawImage(
    small, left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height,
  ); // prettier-ignore
  return true;
}

// A pixel a patch, from nothing at the least similarity of this picture to glowing at the greatest.
function paint(grid) {
  const values = grid.flat();
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const canvas = document.createElement("canvas");
  canvas.width = grid[0].length;
  canvas.height = grid.length;
  const pen = canvas.getContext("2d");
  const pixels = pen.createImageData(canvas.width, canvas.height);
  for (const [at, value] of values.entries()) {
    const share = high > low ? (value - low) / (high - low) : 0;
    // From violet over red to yellow; the weak half hardly covers the picture.
    pixels.data.set([120 + 135 * share, 20 + 210 * share ** 2, 160 * (1 - share), 185 * share ** 1.5], 4 * at);
  }
  pen.putImageData(pixels, 0, 0);
  return canvas;
}
