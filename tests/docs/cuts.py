"""What is changed of a page's line before it is run, and why: the only changes there are."""

import re

FEW = {
    # Language models: 2 short windows show that a line runs; its numbers are not looked at.
    "calibration": "2",
    "calibration-seq": "32",
    "windows": "2",
    "context": "64",
    "sequences": "8",
    "seq": "64",
    "held-out": "2",
    "seeds": "3",
    "rounds": "3",
    "samples": "2",
    "population": "4",
    "generations": "1",
    "iterations": "4",
    "limit": "8",
    "groups": "4",
    "items": "4",
    "keep": "32",
    "settling": "2",
    "greedy": "1",
    "greedy-seq": "32",
    "streams": "2",
    "growth": "128 256",
    "repeats": "2",
    "prompt-tokens": "16",
    # The toy: it trains for a moment.
    "steps": "40",
    "larger-seeds": "2",
    "larger-steps": "20",
    "trained": "3",
    "inputs": "50",
    "agreement": "10",
    "cases": "20",
    "random": "20",
    "adversarial": "10",
    "checkpoints": "2",
    "starts": "5",
    "scales": "3",
    "frames": "3",
    "most-literal": "1",
    "most-torch": "1",
    "minutes": "0",
    # Products of matrices that fit a cache.
    "shapes": "64x128",  # torch's four-bit product takes no smaller one
    "pool": "1",
}
"""Option -> what it is set to, given or not, wherever a command has it."""

FEW_OF = {
    "perplexity": {"stride": "32", "tokens": "256"},  # a stride is at most the context
    "decode": {"prompt": "16", "tokens": "4"},
    "experiment reconstruction": {
        "tokens": "16 32",
        "select": "*",
        "few": "layers.1.*",  # the tiny model has six blocks
        "group": "16",
        "rank": "4",
    },
    "experiment moment": {"errors": "layers.1.*"},
    "compress": {"calibration": "32"},  # every rank wants a batch
    "toy certify": {"width": "1e-6"},  # a smaller box is proved sooner
    "toy train": {"sequences": "64"},
    "toy sweep": {"sequences": "64", "batch": "8", "lanes": "8"},
    "toy speed": {"seeds": "1 2", "growth": "2 4", "steps": "2", "batch": "4"},
    "toy larger": {"sequences": "64", "batch": "4"},
    "experiment frontier": {"sequences": "200"},
    "experiment scan": {"seq": "128", "blocks": "1"},
    "oats": {"timed": "1", "select": "layers.1.*"},
    "plan": {"calibration": "32"},  # nothing is read; ranks want batches
    "experiment planted": {"sequences": "4", "steps": "200"},
    "experiment sparse-sinks": {"rounds": "1"},
    "search": {"group": "7", "length": "32", "rounds": "1"},
    "sparsify": {"rounds": "1"},
    "sweep": {"jobs": "1"},
}
"""The same for one command, in place of the above."""

WORDS = (
    (r"layers\.\d+\.", "layers.1.", "the tiny model has six blocks"),
    (r"--preset[ =](?:laptop|paper)", "--preset smallest", "the same code with smaller numbers"),
    (r"\brandom-1\.1b\b", "smollm2", "made of 1.1 billion numbers: minutes"),
    (r"--ranks 4$|--ranks 4(?= )", "--ranks 2", "two cores"),
    (r"raylets.py --runs 60", "raylets.py --runs 8", "minutes"),
    (r"--runs 1250 2500 5000", "--runs 10 20 40", "minutes"),
    (r"--side 4096", "--side 64", "a matrix as large takes minutes"),
    (r"\bMODEL\b", "smollm2", "the reader's own"),
    (r"\bOUT\b", "models/out", "the reader's own"),
    (r"--summaries FILE", "--summaries summaries.jsonl", "the reader's own"),
    (r"\bFILE\b", "wiki.txt", "the reader's own"),
    (r"\bTEXT\b", "'w1 w2 w3 w4 w5 w6'", "the reader's own"),
    (r"\bNAME\b", "low-rank-figure-2", "the reader's own"),
    (r"\bCOMMAND\b", "probe", "the reader's own"),
    (r"compare A B", "compare 12 15", "the reader's own"),
    (r"\b(compare|report) 1 2\b", r"\1 12 15", "numbers of two runs of one experiment"),
    (r"(--limit) N\b", r"\1 2", "the reader's own"),
    (r"(--seed) S\b", r"\1 1", "the reader's own"),
    (r"--tasks \.\.\.", "--tasks labels", "the reader's own"),
    (r" \((?:and|the)\b.*$", "", "a remark"),
    (r"^\.venv/bin/", "", "the environment that runs this"),
)
"""Pattern, what stands for it, why."""

PREPARED = (
    (r"recipes/50", "recipes/50", "ctr sparsify smollm2 recipes/50 --sparsity 0.5"),
    (r"out/recipe", "out/recipe", "ctr sparsify smollm2 out/recipe --sparsity 0.5"),
    (r"plans/60/", "plans/60", "ctr search smollm2 --text wiki.txt --sparsity 0.6 --save plans/60"),
    (
        r"plans/60-ev",
        "plans/60-evolution",
        "ctr search smollm2 --text wiki.txt --method evolution --save plans/60-evolution",
    ),
    (r"verify models/oats", "models/oats", "ctr compress smollm2 models/oats --form packed"),
    (
        r"out/corlay",
        "out/corlay",
        "ctr experiment secondary-sinks --preset smallest --out out/corlay",
    ),
    (
        r"out/experiment-low-rank-figure-2",
        "out/experiment-low-rank-figure-2",
        "ctr experiment low-rank-figure-2 --preset smallest",
    ),
    (r"(?:compare|report|runs|rerun) 12", "out/twelve", "twelve"),
    (r"--check certificate|check certificate", "certificate.json", "ctr toy certify"),
    (r"p60\.json", "p60.json", "plans"),
)
"""What a line takes for granted: pattern, the file that is missing, the line that makes it."""

EXPECTED = {"ctr": 2}
"""Exit codes other than 0: without a command `ctr` lists all, and says so to scripts."""

NO_SINKS = (
    r"no head of these layers keeps a first-token sink|no head has a later sink on this text"
    r"|has no later sinks (?:at --epsilon|on the text that aims)"
)
"""What a random model is answered where a question is about heads that have sinks."""

HOURS, CHECKOUT = "hours", "changes the checkout or the environment"
SKIPPED = (
    (r"^make (?:test|check|bench|notebooks|docs|demo|setup)|^(?:\w+=\S+ )*make ", CHECKOUT),
    (
        r"^(?:sh )?scripts/setup|^\. \.venv|^pip |^git |^python -m build|^pytest |-m pytest",
        CHECKOUT,
    ),
    (r"^sh scripts/setup", CHECKOUT),
    (r"pytest tests/", "a test; CI runs it"),
    (r"sh scripts/bench full|tests/soak\.py|fuzz\.py --all", HOURS),
    (
        r"^ctr toy laws|^ctr experiment ranks",
        "trains until the mechanism is found; tests/toy/laws has its parts",
    ),
    (r"ondisk/larger\.py", "needs sizes at which memory ends: a quarter of an hour"),
    (r"tests/interop/others\.sh", "needs the network"),
    (r"against\.py", "times runs: needs a quiet machine, half an hour"),
    (r"tests/bridge/killed\.py", "a test; CI runs it"),
    (r"tests/faults/messages\.py|ctr ledger --(?:write|add)", CHECKOUT),
    (r"--nnodes 2", "needs two machines"),
    (r"--device cuda", "needs a GPU"),
    (r"^ctr compress --method$", "a sentence names an option"),
    (r"ctr rerun low-rank-figure-2", "the ledger's run: the demo model on WikiText-2, minutes"),
    (r"--method (?:row-magnitude|squared)|add-a|my\.module", "a module of the reader's own"),
    (r"…|\.\.\.", "no whole line: the page leaves words out"),
)
"""Pattern, why its lines are not run."""


def skipped(line: str) -> str:
    """Why a line is not run; nothing where it is."""
    return next((why for pattern, why in SKIPPED if re.search(pattern, line)), "")
