"""Recipes: one module per architecture; the file name is the recipe's name."""
