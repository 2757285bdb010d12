"""The main job: plan, search, final test, report, registration."""
