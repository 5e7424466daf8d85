"""Every figure and table of the papers, as an experiment: its module and what it asks."""

from experiments.command import Command

_ASKS = {
    "few-shot": "Which tasks does a model learn from examples, and what does pruning leave of it?",
    "low-rank-figure-2": "How many sinks does each pruning method leave? (Low-rank, figure 2)",
    "low-rank-figure-3": "Is OATS closer to the weights than sparse pruning? (Low-rank, figure 3)",
    "low-rank-table-1": "Which term of sparse plus low rank has the sinks? (Low-rank, table 1)",
    "low-rank-figure-4": "Do heads segment a text by its sinks after pruning? (Low-rank, figure 4)",
    "low-rank-figure-1": "What do heads do with one term of OATS alone? (Low-rank, figure 1)",
    "low-rank-figure-5": "How much do k examples help a pruned model? (Low-rank, figure 5)",
    "catch-figure-2": "Do the tokens that one sink caught lie together? (Catch, figure 2)",
    "r-sparse-table-3": "Channels alone, low rank alone, or both? (R-Sparse, table 3)",
    "r-sparse-figure-1-and-3": "Which channels and singular components matter? (R-Sparse, 1 and 3)",
    "secondary-sinks": "Who makes secondary sinks, and what does their norm set?",
    "catch-figures-7-to-11": "Are sinks and tags there on other prompts? (Catch, figures 7 to 11)",
    "r-sparse-figure-2": "Do constants stand for the inputs that are left out? (R-Sparse, 2)",
    "a3-table": "Does A3 predict better than an SVD of every matrix, at one budget? (A3)",
    "corlay": "How much accuracy do sink heads keep that read k columns? (Corlay)",
    "catch-figures-3-to-5": "Are few dimensions large, most at sinks? (Catch, figures 3 to 5)",
    "r-sparse-stable-rank": "Are the biases of left-out inputs of low rank? (R-Sparse, section 3)",
    "qera-table": "Which low-rank term mends quantised weights best? (QERA, perplexity)",
    "r-sparse-figures-8-and-9": "Are contributions the same over domains? (R-Sparse, figures 8, 9)",
    "catch-figure-6": "How fast do the theorem's attention weights converge? (Catch, figure 6)",
    "r-sparse-table-1": "Is R-Sparse better than CATS, GRIFFIN and ReLU? (R-Sparse, table 1)",
    "r-sparse-figure-5": "What do accuracy and perplexity do over sparsities? (R-Sparse, figure 5)",
    "r-sparse-figure-7": "Is R-Sparse better than GRIFFIN after a prompt? (R-Sparse, figure 7)",
    "chain": "Does low rank act through outliers, sinks and tags, down to few-shot accuracy?",
    "qera-init": "Which low-rank term is the best start of an adapter? (QERA, fine-tuning)",
    "catch-variance": "How much of what a head writes is one or two tags? (Catch, version 2)",
    "r-sparse-table-2": "Does R-Sparse go with INT4 weights? (R-Sparse, table 2)",
    "r-sparse-table-4": "Is a searched recipe better than a uniform one? (R-Sparse, table 4)",
    "r-sparse-figure-6": "Is decoding that reads half of the bytes faster? (R-Sparse, figure 6)",
    "catch-models": "Has a model more sinks than another? (Catch, version 2, figure 5)",
    "catch-training": "Does training find the mechanism? (Catch, version 2, figure 7)",
    "catch-truth": "Can truth and mood be read in tags alone? (Catch, version 2, tables 1, 7)",
}
PAPERS = {
    f"experiment {name}": Command(
        f"experiments.papers.{name.replace('-', '_')}",
        asks,
        f"ctr experiment {name} --preset laptop",
    )
    for name, asks in _ASKS.items()
}
