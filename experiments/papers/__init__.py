"""One file a figure or table of a paper: Config, presets, run, sections, findings."""
