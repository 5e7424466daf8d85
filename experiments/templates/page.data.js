// The arrays of one prompt: decoded once, read through functions.
const data = JSON.parse(document.getElementById("data").textContent);

const KINDS = { f4: Float32Array, i4: Int32Array, u1: Uint8Array, u2: Uint16Array };

function decoded({ dtype, data }) {
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return new KINDS[dtype](bytes.buffer); // little-endian, as every browser's machine is
}

const shapes = Object.fromEntries(Object.entries(data.arrays).map(([name, a]) => [name, a.shape]));
const arrays = Object.fromEntries(Object.entries(data.arrays).map(([name, a]) => [name, decoded(a)]));
const [LAYERS, HEADS, TOKENS] = shapes.alpha;
const ENTRIES = (TOKENS * (TOKENS + 1)) / 2;

// A share of attention: code 0 is "below 2^-16", else 2^((code - 65535) / 4096).
const share = (code) => (code === 0 ? 0 : 2 ** ((code - 65535) / 4096));
const pattern = (layer, head, query, key) =>
  key > query ? 0 : share(arrays.pattern[(layer * HEADS + head) * ENTRIES + (query * (query + 1)) / 2 + key]);
const ofHead = (name) => (layer, head, token) => arrays[name][(layer * HEADS + head) * TOKENS + token];
const alpha = ofHead("alpha");
const isSink = ofHead("sinks");
const atDepth = (name) => (depth, token) => arrays[name][depth * TOKENS + token];
const norm = atDepth("norm");
const peak = atDepth("peak");
const peakDim = atDepth("peak_dim");
const massive = atDepth("massive");

// The score that attention without any preference would give: the control of every score shown.
const uniform = (layer, token) => arrays.null[layer * TOKENS + token];
const keyShare = ofHead("share");
const percent = (value) => `${Math.round(100 * value)}%`;

const range = (n) => Array.from({ length: n }, (_, i) => i);
const sinksOf = (layer, head) => range(TOKENS).filter((token) => isSink(layer, head, token));

// The sink that a query rests most on, among those it can see; null where it sees none.
function caughtBy(layer, head, query) {
  let best = null;
  for (const sink of sinksOf(layer, head)) {
    const weight = pattern(layer, head, query, sink);
    if (sink <= query && (best === null || weight > best.weight)) best = { sink, weight };
  }
  return best;
}

function laterSinks(layer, head) {
  return sinksOf(layer, head).filter((token) => token > 0);
}

// Three significant digits; what the code cannot hold is said to be below its least value.
function digits(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return size < 1e-3 ? value.toExponential(2) : value.toPrecision(3);
}
const shareDigits = (value, query, key) => (value === 0 && key <= query ? "below 0.0000153" : digits(value));

const several = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

// A token on one line: nothing that could turn the line around or break it.
const VISIBLE = { "\n": "⏎", "\t": "⇥", "\r": "␍", " ": "␣" };
function plain(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, (c) =>
    VISIBLE[c] ?? `‹U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`);
}
function label(token) {
  const text = plain(data.tokens[token]);
  return text.trim() === "" ? text.replaceAll(" ", "␣") || "∅" : text.trim();
}
// Set apart from its neighbours' direction of writing.
const quoted = (token) => `“\u2068${label(token)}\u2069” (${token})`;
