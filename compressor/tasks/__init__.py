"""What is learned. The only place that knows images; `base` is the seam that everything else sees."""
