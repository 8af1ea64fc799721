"""The scores of tasks: sums over images, and the records made of them."""
