// Wiring: every input changes the state, and the state draws everything.
const MEASURES = {
  first: (layer, head) => alpha(layer, head, 0),
  later: (layer, head) => Math.max(0, ...laterSinks(layer, head).map((token) => alpha(layer, head, token))),
  count: (layer, head) => laterSinks(layer, head).length,
  share: (layer, head) => laterSinks(layer, head).reduce((sum, token) => sum + keyShare(layer, head, token), 0),
};
const most = Math.max(1, ...range(LAYERS).flatMap((layer) => range(HEADS).map((head) => MEASURES.count(layer, head))));
const NOTES = {
  first: `Sink score α of the first token; uniform attention would give ${digits(uniform(0, 0))} in the first layer.`,
  later: `Largest sink score α among later sinks (above ${data.epsilon}, the last ${data.tail} tokens left out).`,
  count: `Number of later sinks (above ${data.epsilon}, the last ${data.tail} tokens left out); the strongest colour: ${most}.`,
  share: "Share of what the head writes into the stream that comes from its later sinks: the sum of ⟨A v W_O, z W_O⟩ over that of ⟨z W_O, z W_O⟩.",
};
const UNITS = { first: (v) => `α = ${digits(v)}`, later: (v) => `α = ${digits(v)}`, count: (v) => `later sinks: ${v}`, share: percent };

const overview = grid("overview", {
  title: () => "Heads of all layers",
  colour: (layer, head) => {
    const value = MEASURES[state.map](layer, head);
    return state.map === "count" ? ramps.blue[Math.round((255 * value) / most)] : shade("blue", value);
  },
  text: (layer, head) => `layer ${layer}, head ${head}\n${UNITS[state.map](MEASURES[state.map](layer, head))}`,
});

function render() {
  for (const name of ["layer", "head"]) {
    $(name).value = state[name];
    $(`${name}-value`).textContent = state[name];
  }
  $("colour").value = state.colour;
  $("map-kind").value = state.map;
  $("overview-note").textContent = `${NOTES[state.map]} Click a cell to see that head.`;
  drawText();
  drawMap();
  overview();
  drawToken();
  drawRelease();
}

function repaint() {
  readTheme();
  const ctx = $("scale").getContext("2d");
  for (const i of range(256)) {
    ctx.fillStyle = rgb(shade("blue", i / 255));
    ctx.fillRect(i, 0, 1, 1);
  }
  render();
}

function start() {
  document.title = `Sinks of ${data.model} on one prompt`;
  $("about").textContent =
    `${plain(data.model)} · ${TOKENS} tokens · ${several(LAYERS, "layer")} × ${several(HEADS, "head")} · sink: α > ${data.epsilon}`;
  $("remark").textContent = plain(data.note);
  $("layer").max = LAYERS - 1;
  $("head").max = HEADS - 1;
  for (const name of ["layer", "head"]) $(name).addEventListener("input", () => set({ [name]: Number($(name).value) }));
  $("colour").addEventListener("change", () => set({ colour: $("colour").value }));
  $("map-kind").addEventListener("change", () => set({ map: $("map-kind").value }));
  $("tag").addEventListener("change", () => set({ tag: $("tag").value }));
  $("unpin").addEventListener("click", () => set({ token: null }));
  $("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    repaint();
  });
  addEventListener("hashchange", () => { fromAddress(); render(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  addEventListener("scroll", () => tip(null), { passive: true });
  buildText();
  listenToMap();
  fromAddress();
  repaint();
  new ResizeObserver(render).observe(document.querySelector("main"));
  document.body.dataset.ready = "yes";
}

$("footer").replaceChildren(
  element("p", "One prompt is an illustration and no evidence: what holds on text is counted over many sequences, with intervals."),
  element("p", "Sink score α of a token: the mean attention that the queries at and after it pay to it (equation 1 of Gu et al. 2025, arXiv:2410.10781). Uniform attention gives the first token " +
    `${digits(uniform(0, 0))} on ${TOKENS} tokens: on a short prompt that alone may pass the threshold.`),
  element("p", "Shares of attention are stored to a relative error of 0.0085%; those below 0.0000153 are shown as such. Massive activation: above 100 and above 1,000 times the median of the stream at that depth (Sun et al. 2024, arXiv:2402.17762)."),
);
start();
