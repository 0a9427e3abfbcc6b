"""Running a policy against the clock: inference beside the control loop, chunks into commands."""
