// The lattice's cells in three dimensions: how far each is from rest, step by step.

import { call } from "./api.js";
import { find } from "./elements.js";

const FRAME_MS = 450;
let states = []; // of one row: step, x, y, z
let largest = 1;
let turn = 0.7;
let tilt = 0.45;
let timer = null;

export async function showLattice(embedding, signal) {
  const { states: [row] } = await call("v1/lattice/states", { embeddings: [embedding] }, signal);
  states = row;
  largest = Math.max(1e-9, ...row.flat(3));
  find("step").max = states.length - 1;
  play();
}

export function prepareLattice() {
  const canvas = find("cells");
  find("step").addEventListener("input", () => { stop(); draw(); });
  find("play").addEventListener("click", () => (timer === null ? play() : stop()));
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    turn += event.movementX / 120;
    tilt = Math.min(1.5, Math.max(-1.5, tilt + event.movementY / 120));
    draw();
  });
}

function play() {
  stop();
  find("step").value = 0;
  draw();
  find("play").textContent = "Stop";
  timer = setInterval(() => {
    const step = find("step");
    if (+step.value >= states.length - 1) return stop();
    step.value = +step.value + 1;
    draw();
  }, FRAME_MS);
}

function stop() {
  clearInterval(timer);
  timer = null;
  find("play").textContent = "Play";
}

function draw() {
  const canvas = find("cells");
  const pen = canvas.getContext("2d");
  const step = +find("step").value;
  find("step-number").value = step;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!states.length) return;
  const ink = getComputedStyle(document.documentElement).getPropertyValue("color-scheme");
  const cells = project(states[step], canvas);
  for (const { x, y, size, share } of cells) {
    pen.globalAlpha = 0.12 + 0.88 * share;
    pen.fillStyle = ink && share < 0.02 ? "#8a8d92" : `hsl(${190 - 150 * share} 65% 48%)`;
    pen.beginPath();
    pen.arc(x, y, size, 0, 2 * Math.PI);
    pen.fill();
  }
  pen.globalAlpha = 1;
}

// Cells from back to front, in the canvas' pixels; the input face is on the left.
function project(state, canvas) {
  const shape = [state.length, state[0].length, state[0][0].length];
  const unit = (0.62 * Math.min(canvas.width, canvas.height)) / Math.max(...shape);
  const found = [];
  state.forEach((plane, i) => plane.forEach((line, j) => line.forEach((norm, k) => {
    const [a, b, c] = [i, j, k].map((index, axis) => index - (shape[axis] - 1) / 2);
    const across = a * Math.cos(turn) - c * Math.sin(turn);
    const depth = a * Math.sin(turn) + c * Math.cos(turn);
    const up = b * Math.cos(tilt) - depth * Math.sin(tilt);
    const away = b * Math.sin(tilt) + depth * Math.cos(tilt);
    const share = norm / largest;
    found.push({
      x: canvas.width / 2 + across * unit,
      y: canvas.height / 2 - up * unit,
      size: unit * (0.1 + 0.28 * share),
      share,
      away,
    });
  })));
  return found.sort((one, other) => other.away - one.away);
}
