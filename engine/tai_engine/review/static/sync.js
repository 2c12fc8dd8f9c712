// Decisions to the server, one act after the other, and what other tabs have decided from it.

import { Refused } from "./data.js";
import { byId, element, emit, state } from "./state.js";

const EVERY = 1500; // milliseconds

let queue = Promise.resolve();
let waiting = 0;
let timer = 0;
let isStopped = false;
let channel = null;

export function startSync() {
  if (!state.data.isLive) return;
  if ("BroadcastChannel" in window) {
    channel = new BroadcastChannel("tai-review");
    channel.onmessage = () => poll();
  }
  document.addEventListener("visibilitychange", () => document.hidden || poll());
  window.addEventListener("beforeunload", (event) => {
    if (waiting) event.preventDefault();
  });
  timer = setTimeout(poll, EVERY);
}

// Do an act once those before it are done. `make` gives its name and content then, or null if nothing is left to do.
export function act(make) {
  waiting++;
  const turn = queue.then(async () => {
    const made = make();
    if (made === null) return null;
    const update = await state.data.send(made.name, { ...made.body, since: state.decisions.revision });
    state.decisions.take(update);
    say("");
    channel?.postMessage(update.revision);
    return update;
  });
  queue = turn.then(
    () => {},
    (error) => failed(error),
  );
  queue = queue.then(() => {
    waiting--;
    emit("saved", waiting);
  });
  return turn.catch(() => null);
}

async function failed(error) {
  if (error instanceof Refused && error.status === 409) {
    await poll();
    emit("toast", error.message);
  } else if (error instanceof Refused && error.status !== 403) {
    say(`Not saved: ${error.message}.`);
  } else {
    say(`Not saved: ${reason(error)}`);
  }
}

function reason(error) {
  if (error instanceof Refused && error.status === 403) {
    isStopped = true;
    return error.message;
  }
  return "the server does not answer. Start tai review again if it was ended, and open the address that it prints.";
}

let isLost = false;

async function poll() {
  clearTimeout(timer);
  if (isStopped) return;
  if (!document.hidden) {
    try {
      const update = await state.data.changes(state.decisions.revision);
      if (update.revision !== state.decisions.revision) state.decisions.take(update);
      if (isLost) say("");
      isLost = false;
    } catch (error) {
      if (!isLost) say(`Decisions are not saved: ${reason(error)}`);
      isLost = true;
    }
  }
  clearTimeout(timer);
  if (!isStopped) timer = setTimeout(poll, EVERY);
}

function say(sentence) {
  const banner = byId("banner");
  if (banner.textContent === sentence) return;
  banner.hidden = !sentence;
  banner.replaceChildren(...(sentence ? [element("p", { textContent: sentence })] : []));
}
