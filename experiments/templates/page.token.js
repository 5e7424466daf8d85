// The pinned token: what it receives, who catches it.
const received = grid("received", {
  title: () => `Sink score of ${quoted(state.token)} by layer and head`,
  colour: (layer, head) => shade("blue", alpha(layer, head, state.token)),
  text: (layer, head) =>
    `layer ${layer}, head ${head}\nα = ${digits(alpha(layer, head, state.token))}${isSink(layer, head, state.token) ? ", a sink" : ""}\ngives ${percent(keyShare(layer, head, state.token))} of what the head writes`,
});

const caught = grid("caught", {
  title: () => `The sink that ${quoted(state.token)} rests most on, by layer and head`,
  colour: (layer, head) => {
    const found = caughtBy(layer, head, state.token);
    return found ? mix(ramps.blue[0], sinkColour(found.sink), 0.15 + 0.85 * found.weight) : ramps.blue[0];
  },
  text: (layer, head) => {
    const found = caughtBy(layer, head, state.token);
    const what = found ? `rests on ${quoted(found.sink)} with ${digits(found.weight)}` : "no sink that it can see";
    return `layer ${layer}, head ${head}\n${what}`;
  },
});

function drawToken() {
  const token = state.token;
  const none = token === null;
  $("token-body").hidden = $("unpin").hidden = none;
  $("token-title").textContent = none ? "Click a token" : `Token ${quoted(token)}`;
  if (none) return;
  facts();
  received();
  const heads = range(LAYERS * HEADS).filter((i) => arrays.sinks[i * TOKENS + token]).length;
  $("received-note").textContent =
    `Sink score α. It is a sink (α > ${data.epsilon}) in ${heads} of ${several(LAYERS * HEADS, "head")}; ` +
    (token > 0 && token >= TOKENS - data.tail
      ? `the last ${data.tail} tokens are never called sinks, because every head that looks at its neighbours would make sinks of them.`
      : `uniform attention would give ${digits(uniform(state.layer, token))}.`);
  caught();
  legend();
  drawNorm();
}

function facts() {
  const { layer, head, token } = state;
  const found = caughtBy(layer, head, token);
  const rows = [
    ["Sink score α", `${digits(alpha(layer, head, token))} in layer ${layer}, head ${head}`],
    ["Gives", `${percent(keyShare(layer, head, token))} of what this head writes`],
    ["Rests on", found ? `${quoted(found.sink)} with ${digits(found.weight)}` : "no sink in this head"],
    ["Largest entry", `${digits(peak(layer + 1, token))} in dimension ${peakDim(layer + 1, token)} after layer ${layer}${massive(layer + 1, token) ? ", massive" : ""}`],
  ];
  $("facts").replaceChildren(...rows.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
}

function element(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function legend() {
  const times = new Map();
  for (const layer of range(LAYERS)) {
    for (const head of range(HEADS)) {
      const found = caughtBy(layer, head, state.token);
      if (found) times.set(found.sink, (times.get(found.sink) ?? 0) + 1);
    }
  }
  const items = [...times].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([sink, n]) => {
    const item = element("li", `${quoted(sink)}: ${several(n, "head")}`);
    const swatch = element("span", "");
    swatch.className = "swatch";
    swatch.style.background = rgb(sinkColour(sink));
    item.prepend(swatch);
    return item;
  });
  $("caught-legend").replaceChildren(...items);
  $("caught-note").textContent = items.length > 0
    ? "Colour: the sink of that head which this token rests most on; strength: with how much of its attention."
    : "No head has a sink that this token can see.";
}
