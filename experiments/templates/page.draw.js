// Colours, canvases and the one tooltip.
const $ = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const hex = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
const rgb = ([r, g, b]) => `rgb(${r},${g},${b})`;
const mix = (a, b, t) => a.map((v, i) => Math.round(v + (b[i] - v) * t));

// Okabe and Ito, told apart by colour-blind readers; the first token's colour is the first.
const SINK_COLOURS = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#f0e442"].map(hex);
const OTHER = hex("#999999");

// Tokens that are a sink of any head, those of most heads first, the first token before all.
const sinkRank = (() => {
  const times = range(TOKENS).map((token) => {
    let n = 0;
    for (let i = token; i < arrays.sinks.length; i += TOKENS) n += arrays.sinks[i];
    return n;
  });
  const order = range(TOKENS).filter((t) => times[t] > 0).sort((a, b) => (a === 0 ? -1 : b === 0 ? 1 : times[b] - times[a]));
  return new Map(order.map((token, rank) => [token, rank]));
})();
const sinkColour = (token) => SINK_COLOURS[sinkRank.get(token)] ?? OTHER;

let ramps = {};
function readTheme() {
  const ramp = (name) => {
    const stops = range(4).map((i) => hex(css(`--${name}-${i}`)));
    return range(256).map((i) => {
      const at = (i / 255) * 3;
      const low = Math.min(2, Math.floor(at));
      return mix(stops[low], stops[low + 1], at - low);
    });
  };
  ramps = { blue: ramp("blue"), orange: ramp("orange"), card: hex(css("--card")), ink: css("--ink"), soft: css("--soft"),
            line: css("--line"), mark: css("--mark"), accent: css("--accent") };
}
// A share in [0, 1]; the square root keeps small ones visible.
const shade = (name, value) => ramps[name][Math.round(255 * Math.sqrt(Math.max(0, Math.min(1, value))))];

// A canvas of this many CSS pixels, sharp on every screen; its context, cleared.
function context(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const ctx = canvas.getContext("2d");
  ctx.setTransform(scale, 0, 0, scale, 0, 0);
  ctx.direction = "ltr";
  return ctx;
}
const FONT = 'system-ui, "Segoe UI", Helvetica, Arial, "Liberation Sans", sans-serif';

// As much of a text as has room, whole letters only.
const letters = typeof Intl.Segmenter === "function" ? new Intl.Segmenter() : null;
function fitted(ctx, text, room) {
  if (ctx.measureText(text).width <= room) return text;
  const parts = letters ? [...letters.segment(text)].map((s) => s.segment) : Array.from(text);
  while (parts.length > 0 && ctx.measureText(`${parts.join("")}…`).width > room) parts.pop();
  return `${parts.join("")}…`;
}

function tip(text, x, y) {
  const box = $("tip");
  box.hidden = text === null;
  if (text === null) return;
  box.textContent = text;
  const { width, height } = box.getBoundingClientRect();
  const left = x + 14 + width > innerWidth ? x - 14 - width : x + 14;
  const top = y + 14 + height > innerHeight ? y - 14 - height : y + 14;
  box.style.left = `${Math.max(4, Math.min(left, innerWidth - width - 4))}px`;
  box.style.top = `${Math.max(4, top)}px`;
}
const say = (text) => { $("status").textContent = text; };
