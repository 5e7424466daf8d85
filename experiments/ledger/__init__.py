"""Every claim of every paper, with what was found here."""
