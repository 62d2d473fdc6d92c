"""Places in the image that the cells of a tensor look at, behind each TensorFlow operation."""
