"""Whether policies compute what their reference implementations computed on stored cases."""
