// What was decided, beside what the machine suggests, and the state of each picture that follows from both.

import { emit } from "./state.js";

export const UNDECIDED = 0;
export const STARTED = 1;
export const DECIDED = 2;
export const NONE = 3;
export const STATE_NAMES = ["undecided", "not all decided", "decided", "none of these"];

// Without a prototype: "constructor" is a word like others.
const NOTHING = { verdicts: Object.create(null), none: false, by: "", at: "" };

export function openDecisions(data) {
  const { facts, columns } = data;
  const tagNumbers = new Map(facts.tags.map((tag, number) => [tag, number]));
  const byPicture = new Map();
  const states = new Uint8Array(facts.pictures);
  const shown = facts.pictures - facts.missing; // those that are not there come last
  const decisions = {
    revision: 0,
    undo: null,
    redo: null,
    favourites: facts.favourites,
    decided: 0, // of the pictures that are there
    total: shown,
    states,
    of: (number) => byPicture.get(number) ?? NOTHING,
    pictures: () => byPicture.keys(),
    isSuggested: (number, tag) => placeOf(number, tag) >= 0,
    verdict(number, tag) {
      const decision = decisions.of(number);
      return decision.verdicts[tag] ?? (decision.none ? "reject" : undefined);
    },
    // The chips of a picture: suggestions, best first, then the person's own tags.
    chips(number) {
      const decision = decisions.of(number);
      const chips = [];
      for (let at = columns.offsets[number]; at < columns.offsets[number + 1]; at++) {
        const tag = facts.tags[columns.classes[at]];
        chips.push({
          tag,
          value: columns.values[at],
          place: at - columns.offsets[number],
          isWeak: columns.flags[at] === 1,
          isOwn: false,
          verdict: decisions.verdict(number, tag),
        });
      }
      for (const [tag, verdict] of Object.entries(decision.verdicts)) {
        if (placeOf(number, tag) >= 0) continue;
        chips.push({ tag, value: NaN, place: -1, isWeak: false, isOwn: true, verdict });
      }
      return chips;
    },
    // The tags that wait for a verdict: suggestions that reach their threshold.
    openTags: (number) =>
      decisions
        .chips(number)
        .filter((chip) => !chip.isOwn && !chip.isWeak && chip.verdict === undefined)
        .map((chip) => chip.tag),
    hasOwn: (number) => decisions.chips(number).some((chip) => chip.isOwn && chip.verdict !== "reject"),
    place: placeOf,
    take,
  };

  function placeOf(number, tag) {
    const wanted = tagNumbers.get(tag);
    if (wanted === undefined) return -1;
    for (let at = columns.offsets[number]; at < columns.offsets[number + 1]; at++) {
      if (columns.classes[at] === wanted) return at;
    }
    return -1;
  }

  function stateOf(number) {
    const decision = byPicture.get(number);
    if (decision === undefined) return UNDECIDED;
    if (decision.none) return NONE;
    return decisions.openTags(number).length ? STARTED : DECIDED;
  }

  // Take in what a server or a report says; what it does not know of again is not older than what is here.
  function take(update) {
    if (update.revision < decisions.revision) return;
    const numbers = new Set(Object.keys(update.pictures).map(Number));
    if (update.all) {
      for (const number of byPicture.keys()) numbers.add(number);
      byPicture.clear();
    }
    for (const [key, decision] of Object.entries(update.pictures)) {
      if (decision === null) byPicture.delete(Number(key));
      else byPicture.set(Number(key), { ...decision, verdicts: Object.assign(Object.create(null), decision.verdicts) });
    }
    for (const number of numbers) {
      if (number < shown && states[number] >= DECIDED) decisions.decided--;
      states[number] = stateOf(number);
      if (number < shown && states[number] >= DECIDED) decisions.decided++;
    }
    decisions.revision = update.revision;
    decisions.undo = update.undo;
    decisions.redo = update.redo;
    decisions.favourites = update.favourites ?? facts.favourites;
    emit("decisions", numbers);
  }

  return decisions;
}
