"""Vision-language models as Transformers builds them, behind one interface."""
