"""TensorRT: graphs and engines, and whether they compute what they should."""
