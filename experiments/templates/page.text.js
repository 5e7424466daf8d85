// The prompt as text, each token on a colour.
function buildText() {
  const box = $("text");
  for (const token of range(TOKENS)) {
    const span = document.createElement("span");
    span.className = "token";
    span.id = `token-${token}`;
    span.setAttribute("role", "option");
    span.textContent = plain(data.tokens[token]) || "∅";
    span.addEventListener("click", () => set({ token, active: token }));
    span.addEventListener("pointermove", (event) => tip(textTip(token), event.clientX, event.clientY));
    span.addEventListener("pointerleave", () => tip(null));
    box.append(span);
    if (data.tokens[token].includes("\n")) box.append(document.createElement("br"));
    else box.append(document.createElement("wbr"));
  }
  box.addEventListener("keydown", (event) => {
    const at = state.active ?? state.token ?? 0;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10 }[event.key];
    if (event.key === "Enter" || event.key === " ") set({ token: at });
    else if (event.key === "Escape") set({ token: null });
    else if (step) set({ active: clamp(at + step, TOKENS) });
    else return;
    event.preventDefault();
    if (step) {
      $(`token-${state.active}`).scrollIntoView({ block: "nearest" });
      say(textTip(state.active));
    }
  });
  box.addEventListener("blur", () => { if (state.active !== null) set({ active: null }); });
}

function textTip(token) {
  const { layer, head } = state;
  const caught = caughtBy(layer, head, token);
  const lines = [
    quoted(token),
    `receives α = ${digits(alpha(layer, head, token))} (uniform attention: ${digits(uniform(layer, token))})${isSink(layer, head, token) ? ", a sink" : ""}`,
  ];
  if (caught) lines.push(`rests on ${quoted(caught.sink)} with ${shareDigits(caught.weight, token, caught.sink)}`);
  return lines.join("\n");
}

// Half way to white, so that black letters can be read on every colour.
const pastel = (colour) => mix(colour, [255, 255, 255], 0.5);
const stored = (name, index) => Array.from(arrays[name].slice(3 * index, 3 * index + 3));

const COLOURS = {
  sink(token) {
    const caught = caughtBy(state.layer, state.head, token);
    // Upon white in both themes: the letters are black there.
    return caught && mix([255, 255, 255], sinkColour(caught.sink), 0.15 + 0.65 * caught.weight);
  },
  received: (token) => mix([255, 255, 255], hex("#2f7fbf"), 0.85 * Math.sqrt(alpha(state.layer, state.head, token))),
  writes: (token) => pastel(stored("head_colour", (state.layer * HEADS + state.head) * TOKENS + token)),
  stream: (token) => pastel(stored("stream_colour", (state.layer + 1) * TOKENS + token)),
};

function drawText() {
  for (const token of range(TOKENS)) {
    const span = $(`token-${token}`);
    const colour = COLOURS[state.colour](token);
    span.style.background = colour ? rgb(colour) : "";
    span.classList.toggle("inked", Boolean(colour));
    span.classList.toggle("sink", Boolean(isSink(state.layer, state.head, token)));
    span.classList.toggle("pinned", token === state.token);
    span.classList.toggle("active", token === state.active && token !== state.token);
    span.setAttribute("aria-selected", token === state.token);
  }
  $("text").setAttribute("aria-activedescendant", `token-${state.active ?? state.token ?? 0}`);
  $("text-note").textContent = textNote();
}

function textNote() {
  const { layer, head } = state;
  const found = sinksOf(layer, head);
  const grey = "Min-max colours always fill the range. Grey: the first token, and tokens with an entry above 100 and above 100 medians, which would take all the contrast.";
  return {
    sink: found.length > 0
      ? `Sinks of this head (underlined): ${found.map(quoted).join(", ")}. A token has the colour of the sink it rests most on, the stronger the more.`
      : `This head has no sink above ${data.epsilon} on this prompt.`,
    received: "The darker, the larger the sink score α: the mean attention of the queries that can see the token.",
    writes: `Three principal components of the output of layer ${layer}, head ${head}, as red, green and blue: ${percent(arrays.head_share[layer * HEADS + head])} of its variance. ${grey}`,
    stream: `Three principal components of the stream after layer ${layer}, as red, green and blue: ${percent(arrays.stream_share[layer + 1])} of its variance. ${grey}`,
  }[state.colour];
}
