"""Every command: where its question lives, what it asks, and a line to try."""

from experiments.command import Command
from experiments.papers.roster import PAPERS

_MODELS = {
    "demo": Command(
        "experiments.demo",
        "From the theorem to a real language model, on one page.",
        "ctr demo --out out/demo",
    ),
    "probe": Command(
        "experiments.probe",
        "Where are a model's attention sinks, outliers and segments?",
        'ctr probe smollm2 --prompt "I laughed. I wept." --out out/probe',
    ),
    "compress": Command(
        "experiments.compress",
        "What does one compression method do to a model?",
        "ctr compress smollm2 models/oats --method oats --sparsity 0.5 --form packed",
    ),
    "terms": Command(
        "experiments.terms",
        "Which term of sparse plus low rank carries the sinks? With controls.",
        "ctr terms smollm2 --out out/terms",
    ),
    "oats": Command(
        "experiments.oats",
        "Does the fast OATS reach the error of its definition, and at what cost?",
        'ctr oats smollm2 --select "layers.14.*" --out out/oats-both',
    ),
    "sparsify": Command(
        "experiments.decoding.sparsify",
        "A recipe for decoding that reads less: what does it cost? It is saved for others.",
        "ctr sparsify smollm2 recipes/60 --sparsity 0.6 --alpha 0.95 --factors moment",
    ),
    "decode": Command(
        "experiments.decoding.speed",
        "Is decoding that reads less faster end to end, and what does it predict?",
        "ctr decode smollm2 --text wiki.txt --sparsity 0.5 --rows weights int8",
    ),
    "bench": Command(
        "experiments.bench",
        "Are the sparse products faster than the best dense one, by as much as they read less?",
        "ctr bench --shapes 4096x4096 --dtypes float32 bfloat16 --threads 1 2",
    ),
    "search": Command(
        "experiments.decoding.search",
        "Which linear should read how much? Plans of one budget, judged on held-out text.",
        "ctr search smollm2 --text wiki.txt --sparsity 0.6 --save plans/60",
    ),
    "perplexity": Command(
        "experiments.perplexity",
        "How well does a model predict a text?",
        "ctr perplexity smollm2 --text wiki.txt --context 512 --stride 256",
    ),
    "evaluate": Command(
        "experiments.evaluate",
        "How many questions does a model answer, with examples before them and without?",
        "ctr evaluate smollm2 --tasks labels segment-copy --shots 0 5",
    ),
}
_PROBES = {
    "experiment tags": Command(
        "experiments.tags",
        "Who is caught, what tag is written, is it released, and what does it cause?",
        "ctr experiment tags smollm2 --text wiki.txt",
    ),
    "experiment prompts": Command(
        "experiments.figures.prompts",
        "Where do the sinks of chain of thought, inference, multiple choice lie?",
        "ctr experiment prompts smollm2 --prompts zero-shot nli",
    ),
    "experiment worlds": Command(
        "experiments.worlds",
        "Toy beside language model, by the same probes: mass, tag, ranks of sink heads.",
        "ctr experiment worlds smollm2 --out out/worlds",
    ),
    "experiment reconstruction": Command(
        "experiments.reconstruction",
        "Quantised weights mended by GPTQ, QERA and others: which leaves the least error?",
        "ctr experiment reconstruction smollm2 --text wiki.txt",
    ),
    "experiment planted": Command(
        "experiments.planted",
        "Do the probes find planted sinks and tags, all of them and nothing else?",
        "ctr experiment planted --seeds 24",
    ),
    "experiment pruning": Command(
        "experiments.pruning",
        "What do five methods keep at one budget: perplexity, sinks, tags, weights? Resumable.",
        "ctr experiment pruning smollm2 --text wiki.txt --sparsities 0.5 0.6 0.7",
    ),
    "experiment moment": Command(
        "experiments.moment",
        "What does the whole second moment buy OATS, at equal budget, on two texts?",
        "ctr experiment moment smollm2 --text c4.txt --other wiki.txt",
    ),
    "experiment protect": Command(
        "experiments.protect",
        "Does compression that knows the sinks keep more of them at equal budget?",
        "ctr experiment protect smollm2 --text wiki.txt --sparsities 0.6 0.7",
    ),
    "experiment roofline": Command(
        "experiments.roofline",
        "What could the sparse products gain on GPUs that are not here? A model from counts.",
        "ctr experiment roofline --gpus A100 --dtypes float16 int8",
    ),
    "experiment activation": Command(
        "experiments.decoding.activation",
        "How well does a model predict that reads 30 to 60% of its weights? All methods.",
        "ctr experiment activation smollm2 --text wiki.txt --sparsities 0.5 0.7",
    ),
    "experiment sparse-sinks": Command(
        "experiments.decoding.sinks",
        "What do R-Sparse and TEAL do to sinks, and what is knowing them worth? Resumable.",
        "ctr experiment sparse-sinks smollm2 --text wiki.txt --sparsities 0.5 0.7",
    ),
    "experiment toggles": Command(
        "experiments.toggles",
        "Where does which term carry the sinks: by layer, projection, head?",
        "ctr experiment toggles smollm2 --by projection --select '*.self_attn.*'",
    ),
    "experiment scan": Command(
        "experiments.scan",
        "What does it cost to read every sink, beside eager attention and no reading?",
        "ctr experiment scan smollm2 --out out/scan",
    ),
    "experiment components": Command(
        "experiments.components",
        "What do heads lose that A3 narrows or whose sinks read few columns? With controls.",
        "ctr experiment components smollm2 --out out/components",
    ),
}
_TOY = {
    "toy verify": Command(
        "experiments.toy_verify",
        "Does the theorem hold, to the last digit?",
        "ctr toy verify --out out/verify",
    ),
    "toy audit": Command(
        "experiments.toy_audit",
        "Where does a float say “exact” while the true error is large?",
        "ctr toy audit --d 1e6 --out out/audit",
    ),
    "toy certify": Command(
        "experiments.toy_certify",
        "Is the bound proved on a whole box of inputs and parameters?",
        "ctr toy certify --T 6 --t 3 --X 1 --s 12 --width 1e-3",
    ),
    "toy train": Command(
        "experiments.toy_train",
        "Does training find the mechanism?",
        "ctr toy train --preset default-init --seeds 32",
    ),
    "toy sweep": Command(
        "experiments.toy_sweep",
        "Which start, optimiser and data tail lead to the mechanism? Resumable.",
        "ctr toy sweep --optimizers adam muon --seeds 256 --out out/sweep",
    ),
    "toy speed": Command(
        "experiments.toy_speed",
        "How fast is the vmapped training, beside a PyTorch loop over seeds?",
        "ctr toy speed --out out/speed",
    ),
    "toy larger": Command(
        "experiments.toy_larger",
        "Does an ordinary transformer learn catch, tag, release, and by which route?",
        "ctr toy larger --out out/larger",
    ),
    "toy laws": Command(
        "experiments.toy_laws",
        "Which laws does training follow: loss frontier, growth, lengths, ranks, compression?",
        "ctr toy laws --out out/laws",
    ),
}
# One picture of a paper or of the theory each, from live numbers: `ctr experiment NAME`.
_PICTURES = {
    f"experiment {name}": Command(f"experiments.figures.{name}", asks, f"ctr experiment {name}")
    for name, asks in {
        "mechanism": "What do both layers do to one sequence? (Catch, tag, release: figure 1)",
        "limits": "How fast do layer 1's attention weights converge? (figure 6)",
        "bound": "How far are the error bounds from the worst error that a search finds?",
        "frontier": "What loss can an embedding scale reach, by data tail?",
        "ranks": "When does low rank form, and in which matrix?",
        "atlas": "Which initial signs lead to the mechanism?",
        "animation": "Catch, tag and release as the embedding scale of [SEP] grows.",
    }.items()
}
_RUNS = {
    "compare": Command(
        "experiments.compare",
        "What differs between two stored runs on the same inputs? In pairs, unit by unit.",
        "ctr compare 12 15 --only '*nats*' --out out/compare",
    ),
    "report": Command(
        "experiments.gather",
        "One page of any stored runs: claims of all, then each run's tables and pictures.",
        "ctr report 12 15 out/corlay --out out/page",
    ),
}
_ALL = {
    "experiment all": Command(
        "experiments.everything",
        "Every figure and table of the papers, with verdicts. Resumable.",
        "ctr experiment all --preset laptop --text wiki.test.raw",
    ),
}
_SWEEP = {
    "sweep": Command(
        "experiments.sweeping.command",
        "Any experiment over a grid of its options, here or on a cluster. Resumable.",
        'ctr sweep low-rank-figure-2 --grid "sparsities=0.5,0.6 windows=8,16" --jobs 2',
    ),
}
_TOOLS = {
    "plan": Command(
        "experiments.planning.command",
        "How much memory, disk and time will a compression take? From config.json alone.",
        "ctr plan smollm2 --method oats gptq --measure",
    ),
    "doctor": Command(
        "experiments.doctor",
        "What is installed, which kernels run here, what would fail.",
        "ctr doctor",
    ),
    "verify": Command(
        "experiments.verify",
        "Is a saved model, byte for byte and count for count, what was saved?",
        "ctr verify models/oats",
    ),
    "runs": Command(
        "experiments.runs",
        "The stored runs: listed, shown whole by number, or exported as CSV or JSON.",
        "ctr runs --about corlay --export runs.csv",
    ),
    "rerun": Command(
        "experiments.rerun",
        "A stored run asked again from its Config: is every number the same, bit for bit?",
        "ctr rerun out/experiment-low-rank-figure-2",
    ),
    "ledger": Command(
        "experiments.ledger.command",
        "Every claim of every paper: shown, not shown, contradicted or untested here.",
        "ctr ledger --verdict contradicted",
    ),
}
TOOLS = _TOOLS | _ALL | _SWEEP
COMMANDS = _MODELS | _PROBES | PAPERS | _TOY | _PICTURES | _RUNS
LISTED = {
    "Language models": _MODELS,
    "Experiments on language models": _PROBES,
    "Figures and tables of the papers (--preset smallest, laptop, paper)": PAPERS | _ALL,
    "The theorem and its training": _TOY,
    "Pictures of the theory": _PICTURES,
    "Stored runs, and many runs": _RUNS | _SWEEP,
    "Tools": _TOOLS,
}
"""Everything, as `ctr --help` lists it."""
