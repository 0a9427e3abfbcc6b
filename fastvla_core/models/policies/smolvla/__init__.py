"""SmolVLA: a SmolVLM prefix and an expert that cross-attends to it in every second layer."""
