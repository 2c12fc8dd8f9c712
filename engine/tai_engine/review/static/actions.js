// What a person can do with pictures; each act is one entry of the journal and is undone as one.

import { DECIDED } from "./decisions.js";
import { act } from "./sync.js";
import { currentPicture, emit, plural, state } from "./state.js";
import { goTo } from "./grid.js";

// The pictures that are meant: those selected, else the current one.
export function targets() {
  if (state.selected.size) return [...state.view].filter((n) => state.selected.has(n));
  return currentPicture() >= 0 ? [currentPicture()] : [];
}

// The tag of the chip that is meant, or null for all of them.
export function chosenTag() {
  if (state.chip < 0 || currentPicture() < 0) return null;
  return state.decisions.chips(currentPicture())[state.chip]?.tag ?? null;
}

function decide(pictures, changeOf) {
  if (!state.data.isLive || !pictures.length) return Promise.resolve(null);
  return act(() => {
    const groups = new Map(); // pictures with the same change go together
    for (const picture of pictures) {
      const change = changeOf(picture);
      if (change === null) continue;
      const key = JSON.stringify(change);
      if (!groups.has(key)) groups.set(key, { pictures: [], ...change });
      groups.get(key).pictures.push(picture);
    }
    if (!groups.size) return null;
    return { name: "decide", body: { changes: [...groups.values()] } };
  });
}

export function acceptTag(pictures, tag) {
  return decide(pictures, (n) => ({ [state.decisions.isSuggested(n, tag) ? "accept" : "add"]: [tag] }));
}

export function rejectTag(pictures, tag) {
  return decide(pictures, () => ({ reject: [tag] }));
}

export function clearTag(pictures, tag) {
  // Who takes back "none of these" for one tag means that the others stay out.
  return decide(pictures, (n) => {
    const decision = state.decisions.of(n);
    if (decision.verdicts[tag] !== undefined) return { clear: [tag] };
    return decision.none ? { none: false } : null;
  });
}

export function accept() {
  const tag = chosenTag();
  if (tag !== null) return acceptTag(targets(), tag);
  return decide(targets(), (n) => listed("accept", state.decisions.openTags(n)));
}

export function reject() {
  const tag = chosenTag();
  if (tag !== null) return rejectTag(targets(), tag);
  return decide(targets(), (n) => listed("reject", state.decisions.openTags(n)));
}

export function clear() {
  const tag = chosenTag();
  if (tag !== null) return clearTag(targets(), tag);
  return decide(targets(), (n) => {
    const decision = state.decisions.of(n);
    if (decision.none) return { none: false };
    return listed("clear", Object.keys(decision.verdicts));
  });
}

export function none() {
  return decide(targets(), (n) => (state.decisions.of(n).none ? null : { none: true }));
}

// A favourite's key puts its tag on the pictures; if all have it from a person already, it takes it off again.
export function toggleTag(tag) {
  const pictures = targets();
  const has = (n) => ["accept", "add"].includes(state.decisions.of(n).verdicts[tag]);
  return pictures.every(has) ? clearTag(pictures, tag) : acceptTag(pictures, tag);
}

function listed(verb, tags) {
  return tags.length ? { [verb]: tags } : null;
}

export function favourite(number) {
  return state.decisions.favourites[number - 1];
}

export function chooseFavourite(number, tag) {
  return act(() => {
    const tags = state.decisions.favourites.filter((other) => other !== tag);
    tags.splice(number - 1, state.decisions.favourites.includes(tag) ? 0 : 1, tag);
    return { name: "favourites", body: { tags: tags.slice(0, 9) } };
  });
}

export const undo = () => step("undo", "Undone");
export const redo = () => step("redo", "Done again");

async function step(name, word) {
  let summary = "";
  const update = await act(() => {
    const last = state.decisions[name];
    if (!last) return null;
    summary = last.summary;
    return { name, body: { of: last.revision } };
  });
  if (update === null) return;
  emit("toast", `${word}: ${summary}`);
  const [picture, ...others] = Object.keys(update.pictures).map(Number);
  const place = picture === undefined || others.length ? -1 : state.view.indexOf(picture);
  if (place >= 0) goTo(place);
}

export function select(places, isOn) {
  for (const place of places) {
    if (isOn) state.selected.add(state.view[place]);
    else state.selected.delete(state.view[place]);
  }
  emit("selection");
}

export function selectAll() {
  state.selected = new Set(state.view);
  emit("selection");
}

export function deselect() {
  state.selected.clear();
  state.anchor = -1;
  emit("selection");
}

// Select from where the selection began to a place, and go there.
export function extendTo(place) {
  if (!state.view.length) return;
  const stop = Math.max(0, Math.min(state.view.length - 1, place));
  if (state.anchor < 0) state.anchor = state.current;
  state.selected.clear();
  const [low, high] = [Math.min(state.anchor, stop), Math.max(state.anchor, stop)];
  for (let n = low; n <= high; n++) state.selected.add(state.view[n]);
  goTo(stop);
  emit("selection");
}

let hasSaidEnd = false;

// The next picture in a direction that is to do; at the end it says so, and asked again it begins at the other end.
export function nextOpen(direction) {
  const { view, decisions } = state;
  const isOpen = (place) => decisions.states[view[place]] < DECIDED;
  const begin = hasSaidEnd ? (direction > 0 ? 0 : view.length - 1) : state.current + direction;
  hasSaidEnd = false;
  for (let place = begin; place >= 0 && place < view.length; place += direction) {
    if (isOpen(place)) {
      goTo(place);
      return;
    }
  }
  let open = 0;
  for (let place = 0; place < view.length; place++) open += isOpen(place);
  hasSaidEnd = open > 0;
  const where = direction > 0 ? "behind" : "before";
  emit(
    "toast",
    open
      ? `Nothing is to do ${where} this picture; ${plural(open, "picture")} on the other side. Press again to go there.`
      : "Everything here is decided.",
  );
}
