"""Laws of training: loss frontier, growth of the tag, lengths, ranks, compression."""
