"""Claims of Catch, tag, release."""

from experiments.ledger.claim import Claim

CLAIMS = (
    Claim(
        "catch/figure-2/catch",
        "In heads with sinks, tokens give most of their attention to the sinks.",
        "catch-figure-2",
    ),
    Claim(
        "catch/figure-2/tag",
        "What a head writes groups the tokens by the sink that caught them.",
        "catch-figure-2",
    ),
    Claim(
        "catch/figure-2/release",
        "The groups are seen again in the stream of later blocks.",
        "catch-figure-2",
    ),
    Claim(
        "catch/figure-3/few",
        "A few dimensions of the stream, and only a few, are large at nearly all tokens.",
        "catch-figures-3-to-5",
    ),
    Claim(
        "catch/figures-4-and-5/large",
        "The largest dimensions are larger at sinks than at other tokens.",
        "catch-figures-3-to-5",
    ),
    Claim(
        "catch/figures-4-and-5/same",
        "The largest dimension is the same from sink to sink.",
        "catch-figures-3-to-5",
    ),
    Claim(
        "catch/figure-6/after",
        "The attention of tokens after [SEP] to it converges to one as e^-s.",
        "catch-figure-6",
    ),
    Claim(
        "catch/figure-6/sep",
        "The attention of [SEP] to itself converges to one as e^-s.",
        "catch-figure-6",
    ),
    Claim(
        "catch/figure-6/readout",
        "The last token's attention converges to the mean over the tokens after [SEP].",
        "catch-figure-6",
    ),
    Claim(
        "catch/theorem-7-1/sufficient",
        "Catch, tag, release suffice to average a segment, to any accuracy as the tag grows.",
        "catch-figure-6",
    ),
    Claim(
        "catch/figures-7-to-11/catch",
        "The sinks catch the tokens of reasoning, inference and multiple-choice prompts too.",
        "catch-figures-7-to-11",
    ),
    Claim(
        "catch/figures-7-to-11/tag",
        "On such prompts, too, what the heads write groups the tokens by their sink.",
        "catch-figures-7-to-11",
    ),
    Claim(
        "catch/v2-variance/typical",
        "One or two tags explain 20 to 40% of the variance of a typical head's output.",
        "catch-variance",
    ),
    Claim(
        "catch/v2-variance/most",
        "In some heads one or two tags explain 70% of the variance.",
        "catch-variance",
    ),
    Claim(
        "catch/v2-variance/tags",
        "Tags explain more of a head's output than the values of other tokens do.",
        "catch-variance",
    ),
    Claim(
        "catch/v2-models/reasoning",
        "Models distilled for reasoning have more sinks than their base.",
        "catch-models",
        "a model distilled for reasoning, and its base",
    ),
    Claim(
        "catch/v2-models/qk-norm",
        "Models with norms on queries and keys have as many sinks as models without.",
        "catch-models",
        "a trained model with norms on queries and keys, and one without",
    ),
    Claim(
        "catch/v2-figure-7/found",
        "Gradient descent on the averaging task finds the mechanism.",
        "catch-training",
    ),
    Claim(
        "catch/v2-figure-7/at-best",
        "It finds the mechanism in about 4 of 10 runs.",
        "catch-training",
    ),
    Claim(
        "catch/v2-table-1/tag",
        "A linear probe on the tag alone reads the truth of statements with 92% and more.",
        "catch-truth",
    ),
    Claim(
        "catch/v2-table-1/rest",
        "Without the tag the truth of statements is read about as badly as by chance.",
        "catch-truth",
    ),
    Claim(
        "catch/v2-table-1/more",
        "The truth of statements is read better in the tag than in what is left without it.",
        "catch-truth",
    ),
    Claim(
        "catch/v2-table-7/tag",
        "A linear probe on the tag alone reads the mood of sentences with 86% and more.",
        "catch-truth",
    ),
    Claim(
        "catch/v2-table-7/rest",
        "Without the tag the mood of sentences is read about as badly as by chance.",
        "catch-truth",
    ),
    Claim(
        "catch/v2-table-7/more",
        "The mood of sentences is read better in the tag than in what is left without it.",
        "catch-truth",
    ),
)
