"""Training in two phases; independent of MLflow and Ray, and runs where neither is installed."""
