"""The averaging task in an ordinary transformer: several heads, an MLP, layer norms."""
