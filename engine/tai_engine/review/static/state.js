// What the parts of the page share, and how they tell each other that it has changed.

export const state = {
  data: null, // see data.js
  decisions: null, // see decisions.js
  view: new Uint32Array(0), // numbers of the pictures that are shown, in order
  current: 0, // place in the view
  chip: -1, // which chip of the current picture the keys mean; -1 for all
  selected: new Set(), // numbers of pictures
  anchor: -1, // where a selection with shift began; a place in the view
};

const listeners = new Map();

export function on(name, listener) {
  listeners.set(name, [...(listeners.get(name) ?? []), listener]);
}

export function emit(name, detail) {
  for (const listener of listeners.get(name) ?? []) listener(detail);
}

export function currentPicture() {
  return state.current < state.view.length ? state.view[state.current] : -1;
}

export function byId(id) {
  return document.getElementById(id);
}

export function element(name, properties = {}, children = []) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && key !== "role" && !key.startsWith("aria")) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}
