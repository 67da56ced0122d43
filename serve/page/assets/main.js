// What happens when a person asks, and the stages' health.

import { Problem, call, setKey } from "./api.js";
import { showHybrid, showNearest, showWritten } from "./decoders.js";
import { element, find } from "./elements.js";
import { prepareLattice, showLattice } from "./lattice.js";
import { stand, walk } from "./path.js";

const PANELS = { RETDecoder: showWritten, PhraseBankDecoder: showNearest, HybridDecoder: showHybrid, Lattice: showLattice };
const HEALTH_MS = 5000;
let stages = {};
let asked = new AbortController(); // ends the calls of a question when the next is asked

function tell(error) {
  if (error?.name === "AbortError") return;
  const place = find("problem");
  place.hidden = error === null;
  place.textContent = error?.message ?? "";
  if (error instanceof Problem && error.status === 401) find("key-field").hidden = false;
}

async function refresh() {
  try {
    const ready = await call("readyz");
    stages = ready.stages;
    find("stages").replaceChildren(
      ...Object.entries(stages).map(([name, state]) => element("li", name, { class: state, title: state })),
    );
    for (const panel of document.querySelectorAll("[data-stage]")) panel.hidden = !(panel.dataset.stage in stages);
  } catch (error) {
    find("stages").replaceChildren(element("li", "server", { class: "unavailable", title: error.message }));
  }
}

// The embedding that was pasted, or that of the text.
async function embedding(input, signal) {
  if (/^\s*\[/.test(input)) {
    try {
      return JSON.parse(input);
    } catch {
      throw new Problem({ detail: "This list of numbers cannot be read: write it as [0.1, -0.2, …]." });
    }
  }
  const { data: [{ embedding: found }] } = await call("v1/embeddings", { input }, signal);
  return found;
}

function question(form, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    asked.abort();
    asked = new AbortController();
    setKey(find("key").value);
    tell(null);
    try {
      await work(await embedding(find("input").value, asked.signal), asked.signal);
    } catch (error) {
      tell(error);
    }
  });
}

question(find("ask"), async (vector, signal) => {
  find("embedded").textContent = `${vector.length} numbers`;
  const shown = Object.entries(PANELS).filter(([stage]) => stage in stages);
  const outcomes = await Promise.allSettled(shown.map(([, show]) => show(vector, signal)));
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  if (failed) throw failed.reason;
});
question(find("path"), (vector, signal) => walk(vector, find("other").value, signal));
find("place").addEventListener("input", stand);
prepareLattice();
await refresh();
setInterval(refresh, HEALTH_MS);
document.body.dataset.ready = "true";
