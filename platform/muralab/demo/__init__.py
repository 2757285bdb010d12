"""The synthetic radiographs of the demo data set. Only numpy and OpenCV are needed."""
