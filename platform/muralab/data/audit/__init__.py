"""The audit of a data set: broken, duplicated, leaking, contradictory or unusual images, found before training."""
