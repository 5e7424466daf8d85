// The attention map of the selected head.
const map = { left: 0, top: 0, cell: 1, key: 0, query: 0 };

function drawMap() {
  const canvas = $("map");
  const room = canvas.parentElement.clientWidth;
  if (room <= 0) return;
  const labels = Math.min(110, Math.round(room * 0.22), widest(canvas.getContext("2d")) + 10);
  const cell = Math.min(44, (room - labels - 2) / TOKENS);
  const size = cell * TOKENS;
  Object.assign(map, { left: labels, top: 8, cell });
  const ctx = context(canvas, labels + size + 2, map.top + size + labels);
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(patternImage(), map.left, map.top, size, size);
  ctx.strokeStyle = ramps.line;
  ctx.strokeRect(map.left + 0.5, map.top + 0.5, size - 1, size - 1);
  if (state.token !== null) {
    ctx.strokeStyle = ramps.mark;
    ctx.lineWidth = 1.5;
    ctx.strokeRect(map.left + state.token * cell - 1, map.top, cell + 2, size);
  }
  mapLabels(ctx, labels, size);
  const found = sinksOf(state.layer, state.head).map(quoted).join(", ") || "none";
  $("map-title").textContent = `Attention of layer ${state.layer}, head ${state.head}`;
  canvas.setAttribute("aria-label", `Attention of layer ${state.layer}, head ${state.head}, ${TOKENS} by ${TOKENS} tokens. Sinks: ${found}. Arrow keys move over the map, Enter pins the key.`);
}

function widest(ctx) {
  ctx.font = `bold 12px ${FONT}`;
  return Math.ceil(Math.max(...range(TOKENS).map((token) => ctx.measureText(label(token)).width)));
}

// One pixel an entry; what a causal query cannot see stays transparent.
function patternImage() {
  const image = document.createElement("canvas");
  image.width = image.height = TOKENS;
  const ctx = image.getContext("2d");
  const pixels = ctx.createImageData(TOKENS, TOKENS);
  for (let query = 0; query < TOKENS; query += 1) {
    for (let key = 0; key <= query; key += 1) {
      const at = 4 * (query * TOKENS + key);
      pixels.data.set(shade("blue", pattern(state.layer, state.head, query, key)), at);
      pixels.data[at + 3] = 255;
    }
  }
  ctx.putImageData(pixels, 0, 0);
  return image;
}

function mapLabels(ctx, room, size) {
  // Every label where there is room, else every second, fifth …; sinks always come first.
  const every = [1, 2, 5, 10, 20, 50].find((n) => n * map.cell >= 9.5) ?? 100;
  const font = Math.min(12, every * map.cell * 0.95);
  const shown = new Set();
  const near = (token) => range(every).some((d) => shown.has(token - d) || shown.has(token + d));
  for (const token of sinksOf(state.layer, state.head)) if (!near(token)) shown.add(token);
  for (let token = 0; token < TOKENS; token += every) if (!near(token)) shown.add(token);
  ctx.textBaseline = "middle";
  for (const token of shown) {
    const sink = isSink(state.layer, state.head, token);
    ctx.font = `${sink ? "bold " : ""}${font}px ${FONT}`;
    ctx.fillStyle = token === state.token ? ramps.mark : sink ? ramps.ink : ramps.soft;
    const text = fitted(ctx, label(token), room - 8);
    const middle = (token + 0.5) * map.cell;
    ctx.textAlign = "right";
    ctx.fillText(text, map.left - 4, map.top + middle);
    ctx.save();
    ctx.translate(map.left + middle, map.top + size + 4);
    ctx.rotate(-Math.PI / 2);
    ctx.fillText(text, 0, 0);
    ctx.restore();
  }
}

const mapText = (query, key) =>
  `${quoted(query)} attends to ${quoted(key)}\n` +
  (key > query ? "a later token: not visible" : shareDigits(pattern(state.layer, state.head, query, key), query, key));

function pointAt(query, key) {
  Object.assign(map, { query, key });
  const box = (id, left, top, width, height) => {
    Object.assign($(id).style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    $(id).hidden = false;
  };
  box("cross-row", map.left, map.top + query * map.cell, map.cell * TOKENS, map.cell);
  box("cross-column", map.left + key * map.cell, map.top, map.cell, map.cell * TOKENS);
}
function pointAway() {
  $("cross-row").hidden = $("cross-column").hidden = true;
  tip(null);
}

function listenToMap() {
  const canvas = $("map");
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const key = Math.floor((event.clientX - box.left - map.left) / map.cell);
    const query = Math.floor((event.clientY - box.top - map.top) / map.cell);
    return key >= 0 && key < TOKENS && query >= 0 && query < TOKENS ? { query, key } : null;
  };
  canvas.addEventListener("pointermove", (event) => {
    const at = under(event);
    if (!at) return pointAway();
    pointAt(at.query, at.key);
    tip(mapText(at.query, at.key), event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerleave", pointAway);
  canvas.addEventListener("blur", pointAway);
  canvas.addEventListener("click", (event) => {
    const at = under(event);
    if (at) set({ token: at.key });
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Enter") set({ token: map.key });
    if (!step) return;
    event.preventDefault();
    pointAt(clamp(map.query + step[0], TOKENS), clamp(map.key + step[1], TOKENS));
    const box = canvas.getBoundingClientRect();
    const text = mapText(map.query, map.key);
    tip(text, box.left + map.left + (map.key + 1) * map.cell, box.top + map.top + (map.query + 1) * map.cell);
    say(text);
  });
  canvas.place = (query, key) => ({ x: map.left + (key + 0.5) * map.cell, y: map.top + (query + 0.5) * map.cell });
}
