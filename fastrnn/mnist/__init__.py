"""The MNIST experiment: handwritten digits read row by row, on the static and on the dynamic path."""
