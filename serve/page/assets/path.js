// From one text to another: embeddings on the great circle between the two, each decoded by RET.

import { call } from "./api.js";
import { element, find } from "./elements.js";

const STATIONS = 9;
const LENGTH = 64; // pieces of a station: about 130 characters
let texts = [];

export async function walk(embedding, other, signal) {
  const { data: [{ embedding: target }] } = await call("v1/embeddings", { input: other }, signal);
  const embeddings = Array.from({ length: STATIONS }, (_, index) => between(embedding, target, index / (STATIONS - 1)));
  const { results } = await call("v1/decode", { embeddings, decoder: "ret", max_length: LENGTH }, signal);
  texts = results.map((result) => result.text);
  find("stations").replaceChildren(...texts.map((text) => element("li", text)));
  Object.assign(find("place"), { max: STATIONS - 1, value: 0, disabled: false });
  stand();
}

export function stand() {
  const place = +find("place").value;
  find("between").textContent = texts[place] ?? "";
  [...find("stations").children].forEach((item, index) => item.classList.toggle("here", index === place));
}

// Spherical interpolation (Shoemake 1985); opposite vectors have no shortest way, any will do.
function between(from, to, share) {
  const cosine = Math.min(1, Math.max(-1, from.reduce((sum, value, index) => sum + value * to[index], 0)));
  const angle = Math.acos(cosine);
  if (Math.sin(angle) < 1e-6) return share < 1 ? from : to;
  const [one, two] = [Math.sin((1 - share) * angle), Math.sin(share * angle)].map((part) => part / Math.sin(angle));
  return from.map((value, index) => one * value + two * to[index]);
}
