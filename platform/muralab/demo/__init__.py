"""The synthetic radiographs of the demo data set."""
