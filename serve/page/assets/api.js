// Calls of the HTTP interface. A refusal becomes a Problem, which says what its document says.

export class Problem extends Error {
  constructor(document) {
    const fields = (document.errors ?? []).map((one) => `${one.pointer}: ${one.detail}`);
    super([document.detail ?? document.title, ...fields].join(" — "));
    this.status = document.status;
  }
}

let key = "";

export function setKey(value) {
  key = value;
}

async function send(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const request = body === undefined ? { headers } : { headers, method: "POST", body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, { ...request, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ detail: "The server does not answer." });
  }
  if (response.ok || path === "readyz") return response;
  const text = await response.text();
  let document;
  try {
    document = JSON.parse(text);
  } catch {
    document = { status: response.status, detail: `${response.status} ${response.statusText}` };
  }
  throw new Problem(document);
}

export async function call(path, body, signal) {
  return (await send(path, body, signal)).json();
}

// Server-sent events as [name, content], as they come.
export async function* events(path, body, signal) {
  const response = await send(path, { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    waiting += part.value;
    const blocks = waiting.split(/\r?\n\r?\n/);
    waiting = blocks.pop();
    for (const block of blocks) yield parsed(block);
  }
}

function parsed(block) {
  const field = (name) =>
    block.split(/\r?\n/).filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trim()).join("\n");
  const [name, content] = [field("event"), JSON.parse(field("data"))];
  if (name === "error") throw new Problem(content);
  return [name, content];
}
