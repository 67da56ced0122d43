// The three decoders' panels: each shows what one answer of /v1/decode holds.

import { call, events } from "./api.js";
import { bars, element, find } from "./elements.js";

const SHOWN = 12; // candidates of hybrid that are listed

export async function showNearest(embedding, signal) {
  const body = { embeddings: [embedding], decoder: "phrase_bank", method: "greedy" };
  const { results: [result] } = await call("v1/decode", body, signal);
  bars(find("nearest"), result.candidates.map(({ phrase, score }) => ({ text: phrase, cosine: score })));
}

export async function showWritten(embedding, signal) {
  const place = find("written");
  place.textContent = "";
  for await (const [name, content] of events("v1/decode", { embeddings: [embedding], decoder: "ret" }, signal)) {
    if (name === "text") place.textContent += content.text;
    if (name === "result") place.textContent = (content.results?.[0] ?? content).text ?? place.textContent;
  }
}

export async function showHybrid(embedding, signal) {
  const body = { embeddings: [embedding], decoder: "hybrid", explain: true };
  const { results: [result] } = await call("v1/decode", body, signal);
  find("chosen").textContent = result.text;
  const judged = result.candidates.filter((one) => one.judged);
  drawClimb(judged.map((one) => one.cosine));
  const best = [...judged].sort((one, other) => other.cosine - one.cosine).slice(0, SHOWN);
  bars(find("candidates"), best.map(({ text, cosine }) => ({ text, cosine, chosen: text === result.text })));
}

// The best cosine so far, candidate after candidate.
function drawClimb(cosines) {
  const space = "http://www.w3.org/2000/svg";
  let best = -1;
  const climb = cosines.map((cosine) => (best = Math.max(best, cosine)));
  const low = Math.max(0, Math.min(...climb, 1) - 0.05);
  const x = (index) => 30 + (280 * index) / Math.max(1, climb.length - 1);
  const y = (cosine) => 105 - (95 * (cosine - low)) / (1 - low);
  const make = (name, attributes, text = "") => {
    const made = document.createElementNS(space, name);
    made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const steps = climb.flatMap((cosine, index) => [
    ...(index ? [`${x(index)},${y(climb[index - 1])}`] : []),
    `${x(index)},${y(cosine)}`,
  ]);
  find("climb").replaceChildren(
    ...[low, 1].flatMap((cosine) => [
      make("line", { x1: 30, x2: 310, y1: y(cosine), y2: y(cosine) }),
      make("text", { x: 2, y: y(cosine) + 3 }, cosine.toFixed(2)),
    ]),
    make("polyline", { points: steps.join(" ") }),
    make("text", { x: 310, y: 118, "text-anchor": "end" }, `${climb.length} candidates`),
  );
}
