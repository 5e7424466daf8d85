// What is looked at. It lives in the address behind #, so that a link shows the same.
const CHOICES = {
  colour: ["sink", "received", "writes", "stream"],
  map: ["first", "later", "count", "share"],
};
const state = { ...opening(), colour: "sink", map: "later", tag: null, active: null };
const initial = { ...state };

// The head whose weakest sink is strongest, of those with most sinks (three will do), as `ctr
// probe` chooses; and its strongest later sink.
function opening() {
  let best = { layer: 0, head: 0, token: null, number: -1 };
  for (const layer of range(LAYERS)) {
    for (const head of range(HEADS)) {
      const found = sinksOf(layer, head);
      if (found[0] !== 0) continue;
      const weakest = Math.min(...found.map((token) => alpha(layer, head, token)));
      const number = Math.min(found.length, 3) + 0.9 * weakest;
      if (number <= best.number) continue;
      const later = found.slice(1).sort((a, b) => alpha(layer, head, b) - alpha(layer, head, a));
      best = { layer, head, token: later.length > 0 ? later[0] : 0, number };
    }
  }
  const { layer, head, token } = best;
  return { layer, head, token };
}

const clamp = (value, size) => Math.max(0, Math.min(size - 1, value));

let writing = null;
function set(change) {
  Object.assign(state, change);
  state.layer = clamp(state.layer, LAYERS);
  state.head = clamp(state.head, HEADS);
  if ("token" in change && !("tag" in change)) state.tag = null;
  render();
  // Browsers refuse to have the address written a hundred times while a slider is drawn.
  clearTimeout(writing);
  writing = setTimeout(() => history.replaceState(null, "", `#${address()}`), 150);
}

function address() {
  const { layer, head, token, colour, map, tag } = state;
  const parts = { layer, head, token: token ?? "none", colour, map, ...(tag === null ? {} : { tag }) };
  return new URLSearchParams(parts).toString();
}

// Whatever the address says, what comes out can be shown.
function fromAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const number = (name, size) => {
    const text = said.get(name);
    return /^\d{1,6}$/.test(text ?? "") ? clamp(Number(text), size) : initial[name];
  };
  const choice = (name) => (CHOICES[name].includes(said.get(name)) ? said.get(name) : initial[name]);
  Object.assign(state, {
    layer: number("layer", LAYERS),
    head: number("head", HEADS),
    token: said.get("token") === "none" ? null : number("token", TOKENS),
    colour: choice("colour"),
    map: choice("map"),
    tag: /^\d{1,3}\.(\d{1,3}|all)$/.test(said.get("tag") ?? "") ? said.get("tag") : null,
  });
}
