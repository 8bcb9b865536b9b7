"""Which layer of a deep model a layer of a shallow one stands for: one rule for starts and for matched layers."""

from __future__ import annotations


def end_of_block(j: int, student_layers: int, teacher_layers: int) -> int:
    """Return the last teacher layer of the block that student layer ``j`` stands for: j * N / k, halves rounded up.

    For k dividing N these are the multiples of b = N / k of the papers, (4, 8, 12) for 12 -> 3. For other k no paper of
    the suite says anything; this rule keeps the blocks as equal as whole layers allow and the last layer in.

    Args:
        j: from 0 (the embedding output) to k.
        student_layers: k.
        teacher_layers: N.
    """
    return (2 * j * teacher_layers + student_layers) // (2 * student_layers)
