"""Training: the loop, a student's step, a stage's phases, evaluation."""
