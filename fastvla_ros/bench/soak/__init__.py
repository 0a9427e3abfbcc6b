"""Hours of work, faults on purpose, messages that are wrong: what a robot cell must survive."""
