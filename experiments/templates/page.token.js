// The pinned token: what it receives, who catches it, who reads its tag, how large it is.
const received = grid("received", {
  title: () => `Sink score of ${quoted(state.token)} by layer and head`,
  colour: (layer, head) => shade("blue", alpha(layer, head, state.token)),
  text: (layer, head) =>
    `layer ${layer}, head ${head}\nα = ${digits(alpha(layer, head, state.token))}${isSink(layer, head, state.token) ? ", a sink" : ""}`,
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
    `Sink score α. It is a sink (α > ${data.epsilon}) in ${heads} of ${LAYERS * HEADS} heads; ` +
    (token > 0 && token >= TOKENS - data.tail
      ? `the last ${data.tail} tokens are never called sinks, because every head that looks at its neighbours would make sinks of them.`
      : `uniform attention would give ${digits(uniform(token))}.`);
  caught();
  legend();
  drawNorm();
}

function facts() {
  const { layer, head, token } = state;
  const found = caughtBy(layer, head, token);
  const rows = [
    ["Sink score α", `${digits(alpha(layer, head, token))} in layer ${layer}, head ${head}`],
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
    const item = element("li", `${quoted(sink)}: ${n} heads`);
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

// log10 of the norm by depth: this token, and the median of all.
function drawNorm() {
  const canvas = $("norm");
  const width = Math.min(520, canvas.parentElement.clientWidth);
  if (width <= 0) return;
  const height = 120;
  const depths = shapes.norm[0];
  const own = range(depths).map((depth) => norm(depth, state.token));
  const middle = range(depths).map((depth) => median(range(TOKENS).map((token) => norm(depth, token))));
  const log = (value) => Math.log10(Math.max(value, 1e-6));
  const low = Math.floor(Math.min(...own.map(log), ...middle.map(log)));
  const high = Math.max(low + 1, Math.ceil(Math.max(...own.map(log), ...middle.map(log))));
  const x = (depth) => 44 + (depth / Math.max(1, depths - 1)) * (width - 56);
  const y = (value) => 8 + ((high - log(value)) / (high - low)) * (height - 36);
  const ctx = context(canvas, width, height);
  ctx.font = `11px ${FONT}`;
  ctx.fillStyle = ramps.soft;
  ctx.strokeStyle = ramps.line;
  ctx.textBaseline = "middle";
  ctx.textAlign = "right";
  for (let power = low; power <= high; power += 1) {
    ctx.fillText((10 ** power).toLocaleString("en", { maximumFractionDigits: 6 }), 38, y(10 ** power));
    ctx.beginPath();
    ctx.moveTo(44, y(10 ** power));
    ctx.lineTo(width - 12, y(10 ** power));
    ctx.stroke();
  }
  ctx.textAlign = "center";
  for (const depth of new Set([0, Math.round((depths - 1) / 2), depths - 1])) ctx.fillText(depth, x(depth), height - 18);
  ctx.textAlign = "left";
  ctx.fillText("blocks passed →", 44, height - 5);
  for (const [values, colour, thick] of [[middle, ramps.soft, 1.5], [own, ramps.mark, 2]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = thick;
    ctx.beginPath();
    values.forEach((value, depth) => (depth === 0 ? ctx.moveTo(x(depth), y(value)) : ctx.lineTo(x(depth), y(value))));
    ctx.stroke();
  }
  ctx.fillStyle = ramps.mark;
  const marked = range(depths).filter((depth) => massive(depth, state.token));
  for (const depth of marked) ctx.fillRect(x(depth) - 2.5, y(own[depth]) - 2.5, 5, 5);
  const where = marked.length > 0 ? ` Squares: a massive activation, at ${marked.length} of ${depths} depths.` : " No massive activation.";
  $("norm-note").textContent = `Euclidean norm of the stream at this token (orange) and the median over tokens (grey).${where}`;
  canvas.setAttribute("aria-label", `Norm of the stream by depth: from ${digits(own[0])} to ${digits(own[depths - 1])}, at most ${digits(Math.max(...own))}.${where}`);
}

function median(values) {
  const sorted = values.sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
