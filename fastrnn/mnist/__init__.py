"""The MNIST experiment: handwritten digits read row by row, the static path against the dynamic one."""
