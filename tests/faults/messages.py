"""Every message of the library: collected from the source, and the page that explains them.

    python tests/faults/messages.py        writes docs/errors.md

A message is what is given to an error class of ours where it is raised, with … for what it fills
in. `GROUPS` says where each belongs; one that belongs nowhere fails the test of this page.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
PACKAGES = ("toy", "mech", "bridge", "kernels", "experiments")
OURS = {
    "BadInput", "BadOption", "OutputRefused", "UnreadableText", "Refused", "Rejected", "NotProved",
    "Refuted", "NoSegment", "NonPositiveQuery", "NotCausal", "ScaleTooSmall", "NotFinite",
    "NoMagnitude", "Unsupported",
}  # fmt: skip


class Message(NamedTuple):
    """A template, and the file that raises it, from the checkout's root."""

    file: str
    text: str


class Group(NamedTuple):
    """What a reader looks for: messages of files (as regular expressions), and what to do."""

    title: str
    why: str
    cure: str
    files: tuple[str, ...]


@cache
def messages() -> list[Message]:
    """Of all packages, each once, in the order of files."""
    found: dict[Message, None] = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for text in _of_file(ast.parse(file.read_text(encoding="utf-8"))):
                found[Message(file.relative_to(ROOT).as_posix(), text)] = None
    return list(found)


def _of_file(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        made = node.exc if isinstance(node, ast.Raise) else None
        if not isinstance(made, ast.Call) or _name(made.func) not in OURS:
            continue
        text = " ".join(_template(made.args[0]).split()) if made.args else ""
        if text.strip("… ():"):
            yield text


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left) + _template(node.right)
    if isinstance(node, ast.IfExp):
        return _template(node.body)
    return "…"


GROUPS = (
    Group("A model's folder, file or name",
          "The name is no folder, `.gguf` or hub id that can be had here; a file of the folder is "
          "missing, cut or changed; or the weights do not fit `config.json`.",
          "Give the folder that `save_pretrained` wrote, whole: `config.json`, tokenizer files and "
          "`*.safetensors`. A file that is damaged or changed is fetched or converted again: "
          "nothing mends it here. A pickle (`.bin`, `.pt`) is converted to safetensors where you "
          "trust it. Off line, download the model elsewhere and give its folder.",
          (r"mech/(source|load|shards|gguf|sealed|ondisk|parts|disk|memory)\.py",)),
    Group("Text, tokens and prompts",
          "There is too little text, a file is not UTF-8, the tokenizer has no BOS token, or a "
          "token id is not the model's.",
          "Give a longer UTF-8 file with `--text`, or ask for fewer or shorter windows; "
          "`--bos auto` takes a tokenizer as it is; an id outside the vocabulary means that the "
          "tokenizer is another model's.",
          (r"mech/tokens\.py", r"experiments/text\.py", r"experiments/probing/prompts\.py",
           r"experiments/catching\.py")),
    Group("Attention that cannot be read or edited",
          "The model attends in a way that is not one interval of keys a query, twice in a block, "
          "or through code of its own; or the call has gradients, padding inside, or more tokens "
          "than positions.",
          "Call the model in evaluation mode under `torch.no_grad()`, with padding at one end; for "
          "a family that is not known, probe one of [those that are](capture.md).",
          (r"mech/(capture|standing|masks|attention|blocks|heads|edits|reach|isometry|causal)\.py",
           r"mech/planted/.*", r"mech/probes/.*")),
    Group("Numbers that are not finite",
          "A weight, a statistic, an output or a loss is NaN or infinite; mostly float16 ran over.",
          "Load in bfloat16 or float32. If it stays, the block that is named holds a damaged "
          "weight: fetch the file again.",
          (r"bridge/replace\.py", r"bridge/stream\.py", r"bridge/moments\.py",
           r"bridge/reconstruct\.py", r"bridge/carried\.py", r"bridge/halv.*\.py")),
    Group("Which matrices are compressed",
          "A glob or a name matches no linear, head or operator; or what stands there is not what "
          "was meant.",
          "Names are like `layers.3.self_attn.q_proj`; the message gives the nearest. `ctr "
          "compress MODEL --select 'layers.0.*'` takes a block.",
          (r"bridge/(sites|component|heads|toggle|fused|fold|opened|edit|watch|sink_tokens|"
           r"protected|compress|work|walk|blockwise)\.py",
           r"experiments/(blockwise|where|variants|toggles|tags_kept)\.py")),
    Group("A method's own options",
          "A value lies outside what the method is defined for, or the method cannot do what is "
          "asked of it.",
          "Take a value of the range in the message; [compression.md](compression.md) and "
          "[baselines.md](baselines.md) say what each option means.",
          (r"bridge/methods/.*", r"bridge/(budget|equal|patterns|quantizers|quantized|bitplanes|"
           r"sliced|planned|fingerprint|reconstruct)\.py", r"bridge/allocate/.*",
           r"bridge/splitting/.*",
           r"experiments/(roster|moment|pruning|components?|compress)\.py")),
    Group("Saving and loading what was compressed",
          "The folder is taken, the form does not suit the method, or what lies there is not what "
          "was saved.",
          "Choose a new folder. What is damaged is saved again from the model, or fetched again; a "
          "packed model is loaded on one device after `import bridge`.",
          (r"bridge/(checkpoint|manifest|adapter|packed|quantizer|serial|written|card|"
           r"assembled|block_files|dressed)\.py", r"experiments/saving\.py")),
    Group("Runs that go on where they were",
          "A folder of shards, a journal or a state belongs to another run, is in use, or is "
          "damaged.",
          "Give the command that began it, word for word; or choose another folder. Remove the "
          "folder only to start anew.",
          (r"bridge/(shards|rank_shards|spill|ondisk.*)\.py", r"bridge/search/.*",
           r"toy/sweep_.*\.py", r"experiments/remembered\.py")),
    Group("Several processes, several machines",
          "A rank, a worker or an engine ended early, there is less work than processes, or they "
          "have not the same files and libraries.",
          "Read the line of the process that ended first; run again: what is done is kept. Ask for "
          "no more ranks than calibration batches. Install the same everywhere.",
          (r"bridge/ranks\.py", r"experiments/(ranks|sweeping)/.*", r"experiments/__main__\.py")),
    Group("Memory, disk and time beforehand",
          "What is asked for is larger than what is there, or cannot be planned.",
          "`ctr plan MODEL` says what each way takes; `--on-disk` and smaller batches take less.",
          (r"experiments/planning/.*",)),
    Group("Decoding with a plan or recipe",
          "A plan or recipe is of other weights, is damaged, or asks for what a linear cannot do.",
          "Write it again for this model (`ctr sparsify`, `ctr search`); [decode.md](decode.md).",
          (r"bridge/decode/.*", r"experiments/decoding/.*", r"experiments/perplexity\.py")),
    Group("Evaluation, tasks and summaries",
          "A task's files are not there or not of their form, there are too few items, or a prompt "
          "is longer than the model.",
          "Give the folder with `--folder` or `CTR_DATA`; ask for fewer items or examples.",
          (r"bridge/evaluate\.py", r"experiments/fewshot/.*", r"experiments/parts/.*",
           r"experiments/evaluate\.py")),
    Group("Runs, the store and the ledger",
          "There is no such run, its file was changed, or it has no claims.",
          "`ctr runs` lists what is stored; a run's folder is the one with `result.json`. What is "
          "damaged is run again: `ctr rerun`.",
          (r"experiments/(stored|rerun|restored|runs|compare|gather|store)\.py",
           r"experiments/ledger/.*")),
    Group("Folders for an answer",
          "The place for a run's folder is taken, shut, in use, or full.",
          "Choose another `--out`, pass `--replace`, or free some space: nothing was kept.",
          (r"experiments/(output|cli)\.py",)),
    Group("Options of a command",
          "An option's value cannot be used, or two do not go together.",
          "The message names the option and what it takes; `ctr COMMAND --help` lists all.",
          (r"experiments/(settings|presets|everything|bench.*|scan.*|tags|toy_.*|output|doctor|planted|"
           r"release.*|speed.*|terms.*|worlds.*|recovery.*|demo|film|roofline.*)\.py",
           r"experiments/(figures|papers|probing)/.*")),
    Group("The theorem, the toy and its files",
          "An input lies outside what is proved or defined, or a training's file is damaged.",
          "Stay within the hypotheses that the message names ([theory.md](theory.md)); a damaged "
          "training is trained anew.",
          (r"toy/(?!certify/).*",)),
    Group("Certificates",
          "The file is no certificate, was changed, or claims more than is so.",
          "Make it again with `ctr toy certify`; one that is rejected proves nothing.",
          (r"toy/certify/.*",)),
    Group("Kernels",
          "The kernel does not cover this shape, dtype or device.",
          "Nothing: the definition runs in its place, and the row says so. It is an error only "
          "where a kernel is asked for by name.",
          (r"kernels/.*",)),
)  # fmt: skip

HEAD = """# Every error message, its cause and its cure

`ctr` answers bad input with one line, `ctr: error: ...`, and exit code 2; nothing is left half
written. In Python the same line is the message of `mech.errors.BadInput`,
`experiments.settings.BadOption`, or another class of the package; all are `ValueError`s. What the
system says of files and disks comes as `OSError`. Anything else is a fault of ours:
`CTR_TRACEBACK=1 ctr ...` prints where.

Search this page for the words of your message; … stands for what it fills in. It is made from the
source by `python tests/faults/messages.py`, and a test fails where a message is missing.
"""


def grouped() -> dict[str, list[Message]]:
    """By title, in the groups' order; "" holds what belongs nowhere."""
    found: dict[str, list[Message]] = {group.title: [] for group in GROUPS} | {"": []}
    for message in messages():
        titles = [g.title for g in GROUPS if any(re.fullmatch(f, message.file) for f in g.files)]
        found[titles[0] if titles else ""].append(message)
    return found


def page() -> str:
    """docs/errors.md."""
    parts, every = [HEAD], grouped()
    for group in GROUPS:
        texts = sorted({message.text for message in every[group.title]}, key=str.lower)
        if texts:
            parts.append(f"## {group.title}\n\nCause: {group.why}\n\nCure: {group.cure}\n\n")
            parts[-1] += "".join(f"- `{text.replace('`', chr(39))}`\n" for text in texts)
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {len({m.text for m in messages()})} messages\n")
    for lost in grouped()[""]:
        sys.stdout.write(f"no group: {lost.file}: {lost.text}\n")
