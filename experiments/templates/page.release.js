// Who reads the pinned token's tag: what changed when the tag was taken away.
const wholeLayer = (index) => arrays.tag_head[index] < 0;
const tagName = (index) => `${arrays.tag_layer[index]}.${wholeLayer(index) ? "all" : arrays.tag_head[index]}`;
const tagWhere = (index) => `layer ${arrays.tag_layer[index]}, ${wholeLayer(index) ? "all heads" : `head ${arrays.tag_head[index]}`}`;
const cell = (name) => (index, layer, head) => arrays[name][(index * LAYERS + layer) * HEADS + head];
const changed = cell("tag_changed");
const control = cell("tag_control");
const beyond = (index, layer, head) => Math.max(0, changed(index, layer, head) - control(index, layer, head));

// The tags of the pinned token that were taken away, the strongest first.
const tagsOf = (token) => range(shapes.tag_layer[0]).filter((index) => arrays.tag_token[index] === token);

// The one that the address names; else the selected head's; else the strongest.
function chosenTag() {
  const there = tagsOf(state.token);
  const named = (name) => there.find((index) => tagName(index) === name);
  return named(state.tag) ?? named(`${state.layer}.${state.head}`) ?? there[0];
}

const tenths = (value) => `${(100 * value).toFixed(1)}%`;

// The largest of one tag's later heads; the scale of its colours.
const top = (index) => Math.max(0.01, ...range(LAYERS * HEADS).map((at) => beyond(index, Math.floor(at / HEADS), at % HEADS)));

const readerText = (index, layer, head) =>
  layer <= arrays.tag_layer[index]
    ? "not after the tag"
    : `changes by ${tenths(changed(index, layer, head))} (random direction: ${tenths(control(index, layer, head))})`;

let scale = 1;
const readers = grid("readers", {
  title: () => "Change of the later heads without the tag, beyond that of a random direction",
  colour: (layer, head) => ramps.orange[Math.round((255 * beyond(chosenTag(), layer, head)) / scale)],
  text: (layer, head) => `layer ${layer}, head ${head}\n${readerText(chosenTag(), layer, head)}`,
});

function drawRelease() {
  const index = state.token === null ? undefined : chosenTag();
  const none = index === undefined;
  $("tag-label").hidden = $("readers-box").hidden = $("readers-list").hidden = none;
  $("readers-note").textContent = none ? noTag() : releaseNote(index);
  if (none) return;
  $("tag").replaceChildren(...tagsOf(state.token).map((tag) => {
    const option = element("option", tagWhere(tag));
    option.value = tagName(tag);
    return option;
  }));
  $("tag").value = tagName(index);
  scale = top(index);
  readers();
  const heads = range(LAYERS).flatMap((layer) => range(HEADS).map((head) => ({ layer, head })));
  const size = ({ layer, head }) => beyond(index, layer, head);
  const first = heads.filter((at) => size(at) >= 0.005).sort((a, b) => size(b) - size(a)).slice(0, 5);
  $("readers-list").replaceChildren(...first.map((at) => {
    const item = element("li", "");
    const link = element("button", `layer ${at.layer}, head ${at.head}`);
    link.type = "button";
    link.addEventListener("click", () => set({ ...at, tag: tagName(index) }));
    item.append(link, ` ${readerText(index, at.layer, at.head)}`);
    return item;
  }));
}

function noTag() {
  const n = shapes.tag_layer[0];
  if (state.token === null) return "Pin a token to see who reads what it writes as a sink.";
  if (n === 0) return "No tag was taken away: there is no sink below the last layer on this prompt.";
  const pinned = [...new Set(arrays.tag_token)].map(quoted).join(", ");
  return `${quoted(state.token)} wrote none of the ${n} tags that were taken away. Tokens that did: ${pinned}.`;
}

function releaseNote(index) {
  return `What the queries after ${quoted(state.token)} get from it in ${tagWhere(index)}, attention times value, was taken away in one pass, ` +
    "and every later head's output compared: ‖change‖ / ‖output‖ over those queries. Colour and list: that change less the change that a random " +
    "vector of the same norm makes when it is taken away instead, one draw; the strongest colour is " + `${tenths(top(index))}. Measured on this prompt alone.`;
}
