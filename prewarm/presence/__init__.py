"""What is on each node? Evidence of images per node, and what still has to be pulled."""
