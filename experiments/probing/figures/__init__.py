"""Pictures of what the probes found, one kind a file, as functions of arrays."""
