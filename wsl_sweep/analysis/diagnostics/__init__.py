"""Why distillation works, or does not: pure functions of logits, labels, masks and rows that sweeps left behind.

``soft_labels`` and ``calibration`` are of a teacher, ``bias_variance`` and ``resemblance`` of students (and a teacher),
``regularization``, ``early_stopping`` and ``sensitivity`` of trials. What they are given is checked: ValueError says
what does not fit.
"""
