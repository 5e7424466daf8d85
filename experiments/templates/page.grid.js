// A heat map of layers (across) by heads (down): hover for a value, click to select the head.
const MARGIN = { left: 30, bottom: 30, top: 4, right: 4 };

function grid(id, { colour, text, title, choose }) {
  const canvas = $(id);
  let cell = { width: 1, height: 1 };

  function draw() {
    const room = canvas.parentElement.clientWidth - MARGIN.left - MARGIN.right;
    if (room <= 0) return;
    cell = { width: Math.min(30, room / LAYERS), height: Math.max(4, Math.min(18, 190 / HEADS)) };
    const ctx = context(canvas, MARGIN.left + Math.max(60, cell.width * LAYERS) + MARGIN.right, MARGIN.top + cell.height * HEADS + MARGIN.bottom);
    const gap = cell.width > 6 && cell.height > 6 ? 1 : 0;
    for (const layer of range(LAYERS)) {
      for (const head of range(HEADS)) {
        ctx.fillStyle = rgb(colour(layer, head));
        ctx.fillRect(MARGIN.left + layer * cell.width, MARGIN.top + head * cell.height, cell.width - gap, cell.height - gap);
      }
    }
    ticks(ctx);
    // Dark on light or light on dark, with a rim of the other: seen on every colour.
    for (const [colour, thick] of [[rgb(ramps.card), 5], [ramps.ink, 2]]) {
      ctx.strokeStyle = colour;
      ctx.lineWidth = thick;
      ctx.strokeRect(MARGIN.left + state.layer * cell.width - 1, MARGIN.top + state.head * cell.height - 1, cell.width + 1, cell.height + 1);
    }
    canvas.setAttribute("aria-label", `${title()}. Selected: ${text(state.layer, state.head)}. Arrow keys move.`);
  }

  function ticks(ctx) {
    ctx.fillStyle = ramps.soft;
    ctx.font = `11px ${FONT}`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "right";
    const every = (size, least) => [1, 2, 5, 10, 20, 50].find((n) => n * size >= least) ?? 100;
    for (let head = 0; head < HEADS; head += every(cell.height, 14)) {
      ctx.fillText(head, MARGIN.left - 5, MARGIN.top + (head + 0.5) * cell.height);
    }
    ctx.textAlign = "center";
    const bottom = MARGIN.top + HEADS * cell.height;
    for (let layer = 0; layer < LAYERS; layer += every(cell.width, 22)) {
      ctx.fillText(layer, MARGIN.left + (layer + 0.5) * cell.width, bottom + 9);
    }
    ctx.textAlign = "left";
    ctx.fillText("layer →", MARGIN.left, bottom + 23);
    ctx.textAlign = "center";
    ctx.save();
    ctx.translate(7, MARGIN.top + (HEADS * cell.height) / 2);
    ctx.rotate(-Math.PI / 2);
    if (HEADS * cell.height > 30) ctx.fillText("head", 0, 0);
    ctx.restore();
  }

  function under(event) {
    const box = canvas.getBoundingClientRect();
    const layer = Math.floor((event.clientX - box.left - MARGIN.left) / cell.width);
    const head = Math.floor((event.clientY - box.top - MARGIN.top) / cell.height);
    return layer >= 0 && layer < LAYERS && head >= 0 && head < HEADS ? { layer, head } : null;
  }

  canvas.addEventListener("pointermove", (event) => {
    const at = under(event);
    tip(at && text(at.layer, at.head), event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerleave", () => tip(null));
  canvas.addEventListener("click", (event) => {
    const at = under(event);
    if (at) (choose ?? set)(at);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    set({ layer: state.layer + step[0], head: state.head + step[1] });
    say(text(state.layer, state.head));
  });
  // Where a cell lies, for those who drive the page from outside.
  canvas.place = (layer, head) => ({ x: MARGIN.left + (layer + 0.5) * cell.width, y: MARGIN.top + (head + 0.5) * cell.height });
  return draw;
}
