"""What is broken, duplicated, leaking or odd in a data set, found before anything is trained on it."""
