// What the box for words is opened for.

import { acceptTag, chooseFavourite, targets } from "./actions.js";
import { openTagBox } from "./tagbox.js";
import { plural } from "./state.js";

export function openWordBox() {
  const pictures = targets();
  if (!pictures.length) return;
  openTagBox({
    title: pictures.length > 1 ? `Add a tag to ${plural(pictures.length, "picture")}` : "Add a tag",
    canStay: true,
    choose: (tag) => acceptTag(pictures, tag),
  });
}

export function openFavouriteBox(number) {
  openTagBox({
    title: `The tag of the key ${number}`,
    canStay: false,
    choose: (tag) => chooseFavourite(number, tag),
  });
}
