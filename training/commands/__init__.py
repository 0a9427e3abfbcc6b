"""The sub-commands of `fastvla` that work offline, one module each."""
