"""MLflow's own scoring app, wrapped for exposure, with a page for people beside it."""
