"""Why distillation works, or does not: pure functions of logits, labels, masks and rows that sweeps left behind."""
