"""One folder per policy family: config, model, processor, and how its checkpoints are laid out."""
