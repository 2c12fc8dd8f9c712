// A box for a word, completed from the vocabulary.

import { byId, element, state } from "./state.js";

const MOST = 8;

let purpose = null; // {choose(tag), title, canStay}
let options = [];
let active = 0;

export function startTagBox() {
  const input = byId("tag-input");
  input.addEventListener("input", () => refresh());
  input.addEventListener("keydown", onKey);
  byId("tag-options").addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) choose(Number(option.dataset.number), false);
  });
  byId("tag-box").addEventListener("click", (event) => {
    if (event.target === byId("tag-box")) byId("tag-box").close(); // outside of it
  });
}

export function openTagBox(wanted) {
  purpose = wanted;
  byId("tag-box-title").textContent = wanted.title;
  byId("tag-input").value = "";
  byId("tag-box").showModal();
  byId("tag-input").focus();
  refresh();
}

// Words that begin with the text, then those with a word that does, then those that hold it.
export function completions(words, text, most) {
  const wanted = text.trim().toLocaleLowerCase();
  const ranks = [[], [], []];
  for (const word of words) {
    const lower = word.toLocaleLowerCase();
    const at = lower.indexOf(wanted);
    if (at < 0) continue;
    ranks[at === 0 ? 0 : /[\s-]/.test(lower[at - 1]) ? 1 : 2].push(word);
    if (ranks[0].length >= most && wanted === "") break;
  }
  const exact = ranks[0].findIndex((word) => word.toLocaleLowerCase() === wanted);
  if (exact > 0) ranks[0].unshift(...ranks[0].splice(exact, 1));
  return ranks.flat().slice(0, most);
}

function refresh() {
  const { facts } = state.data;
  const text = byId("tag-input").value.trim().replace(/\s+/g, " ");
  const words = text ? facts.tags : [...new Set([...state.decisions.favourites, ...facts.tags])];
  options = completions(words, text, MOST).map((tag) => ({ tag, isNew: false }));
  const isKnown = options.some(({ tag }) => tag.toLocaleLowerCase() === text.toLocaleLowerCase());
  if (text && !isKnown && facts.freeWords) options.push({ tag: text, isNew: true });
  active = 0;
  byId("tag-options").replaceChildren(
    ...options.map(({ tag, isNew }, number) => {
      const option = element("li", { role: "option", id: `tag-option-${number}`, textContent: tag });
      option.dataset.number = number;
      if (isNew) option.append(element("span", { className: "new", textContent: " new word" }));
      return option;
    }),
  );
  byId("tag-hint").textContent = options.length
    ? purpose.canStay
      ? "Enter takes it, Shift+Enter takes it and goes on"
      : "Enter takes it"
    : "No word of the vocabulary is like that.";
  mark();
}

function mark() {
  for (const [number, option] of [...byId("tag-options").children].entries()) {
    option.setAttribute("aria-selected", number === active);
    if (number === active) option.scrollIntoView({ block: "nearest" });
  }
  if (options.length) byId("tag-input").setAttribute("aria-activedescendant", `tag-option-${active}`);
  else byId("tag-input").removeAttribute("aria-activedescendant");
}

function onKey(event) {
  event.stopPropagation(); // its letters are no commands
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (options.length) active = (active + (event.key === "ArrowDown" ? 1 : options.length - 1)) % options.length;
    mark();
  } else if (event.key === "Enter") {
    choose(active, event.shiftKey && purpose.canStay);
  } else return;
  event.preventDefault();
}

function choose(number, isStaying) {
  if (!options[number]) return;
  purpose.choose(options[number].tag);
  if (!isStaying) {
    byId("tag-box").close();
    return;
  }
  byId("tag-input").value = "";
  refresh();
}
