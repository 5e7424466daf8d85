"""One file a figure or table of a paper, of at most 100 lines: Config, presets, run, sections."""
