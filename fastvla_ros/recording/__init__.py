"""Which topics belong to a robot, and how they are recorded without being decoded."""
