"""The experiments: one module, one architecture. The file name is the recipe's name; found by looking."""
