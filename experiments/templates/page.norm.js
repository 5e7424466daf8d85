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
