"""What the experiments on papers are made of: models, windows, interventions, pages."""
