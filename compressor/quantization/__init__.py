"""Quantization in torch: fake quantization, ranges, folding, and what a network computes where."""
